"""Few wrong passwords for one name from one address, some more from one address in all; then a pause.

A try is counted before the password is looked at, under a lock of the address: many at once get no more tries than one after another. It
stands in the database, which all web processes share. Nobody can lock out people at other addresses.
"""

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from unicodedata import normalize

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils.crypto import salted_hmac

from migration.models import LoginAttempt

WINDOW = timedelta(minutes=15)
MOST_OF_PAIR = 5  # tries that fail, of one name from one address, within the window
MOST_OF_ADDRESS = 50  # the same of all names: one office may share an address
CLEANED_AT_ONCE = 500

log = logging.getLogger(__name__)


class TooMany(Exception):
    """Too many wrong passwords; the text says until when to wait."""


def begin(username: str, address: str, *, now: datetime) -> LoginAttempt:
    """Count a try before its password is looked at. Raises TooMany, and then nothing may be looked at."""
    place, pair = digest(address), digest(address, normalize("NFKC", username).casefold())
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"login {place}"])
        forget(before=now - WINDOW)
        recent = LoginAttempt.objects.filter(address=place, at__gt=now - WINDOW).order_by("-at")
        of_pair = recent.filter(pair=pair).values_list("at", flat=True)[:MOST_OF_PAIR]
        of_address = recent.values_list("at", flat=True)[:MOST_OF_ADDRESS]
        free = max(free_at(of_pair, MOST_OF_PAIR, now), free_at(of_address, MOST_OF_ADDRESS, now))
        if free <= now:
            return LoginAttempt.objects.create(address=place, pair=pair, at=now)
    log.warning("login of %s from %s refused: too many wrong passwords", known(username), address)
    minutes = -(-(free - now) // timedelta(minutes=1))
    wait = f"in {minutes} minute{'s' * (minutes > 1)}"
    raise TooMany(f"Too many wrong passwords from this address: try again after {free:%H:%M:%S} UTC, {wait}.")


def succeeded(attempt: LoginAttempt) -> None:
    """The password was right: what this name got wrong from this address counts no more."""
    LoginAttempt.objects.filter(pair=attempt.pair).delete()


def failed(username: str, address: str) -> None:
    log.warning("login of %s from %s failed", known(username), address)


def address_of(meta: Mapping[str, str], proxies: int) -> str:
    """Who asks, by a request's META. Each of our `proxies` adds the address it saw to X-Forwarded-For; what is left of those anybody can make up.

    Of an IPv6 address its /64, which one customer has whole; "unknown" where there is none.
    """
    hops = [hop.strip() for hop in meta.get("HTTP_X_FORWARDED_FOR", "").split(",") if hop.strip()] + [meta.get("REMOTE_ADDR", "")]
    try:
        found = ip_address(hops[max(0, len(hops) - 1 - proxies)])
    except ValueError:
        return "unknown"
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or ip_network((found, 64), strict=False))
    return str(found)


def free_at(times: Iterable[datetime], most: int, now: datetime) -> datetime:
    """When the next try is free; `times` are the newest ones, the newest first."""
    newest = list(times)
    return newest[-1] + WINDOW if len(newest) >= most else now


def forget(*, before: datetime) -> None:
    """Remove what counts no more, a few at a time; whoever else removes them is not waited for."""
    old = LoginAttempt.objects.filter(at__lte=before).order_by("pk").select_for_update(skip_locked=True)
    LoginAttempt.objects.filter(pk__in=[each.pk for each in old[:CLEANED_AT_ONCE]]).delete()


def digest(*texts: str) -> str:
    """Keyed, as people also type passwords where the name belongs."""
    return salted_hmac("migration.logins", "\0".join(texts), algorithm="sha256").hexdigest()


def known(username: str) -> str:
    """A name for the log: only one that exists, for the same reason."""
    return username if User.objects.filter(username=username).exists() else "an unknown name"
