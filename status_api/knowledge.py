"""What the console knows of an account: one indexed read, and gate G. Where the database is slow or away, what was known last."""

import logging
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction
from django.utils.module_loading import import_string

from migration.models import Account, Summary
from status_api.breaker import Breaker
from status_api.memory import Memory
from status_api.problems import Away

log = logging.getLogger(__name__)

PATIENCE = "1s"  # for each statement
GATE = "G"


@dataclass(frozen=True)
class Known:
    """`account` is None where no account has the id; `summary` where nothing was ever planned or announced."""

    account: Account | None
    summary: Summary | None
    visible: bool


database = Breaker(failures=3, seconds=5)
last_known: Memory[Known] = Memory(most=10_000)
gate: Memory[bool] = Memory(most=4, seconds=10)


def of(account: UUID, *, now: datetime) -> tuple[Known, bool]:
    """What is known, and whether that is stale. Raises Away where the database does not answer and nothing was known before."""
    if not database.wait():
        try:
            known = fresh(account, now)
        except (OperationalError, InterfaceError) as error:
            database.failed()
            log.warning("DATABASE_URL: the console's database is slow or away (%s)", type(error).__name__)
        else:
            database.succeeded()
            last_known.put(account, known)
            return known, False
    earlier = last_known.get(account)
    if earlier is None:
        raise Away("The figures cannot be read at the moment. Try again shortly.")
    return earlier, True


def fresh(account: UUID, now: datetime) -> Known:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = '{PATIENCE}'")
        found = Account.objects.select_related("summary").filter(cdp_id=account, gone=False).first()
        return Known(found, getattr(found, "summary", None), is_visible(now))


def is_visible(now: datetime) -> bool:
    """Whether gate G is open, asked every ten seconds at most."""
    policy = settings.STATUS_VISIBLE_POLICY
    known = gate.get(policy)
    if known is None:
        known = bool(import_string(policy)(GATE, now=now))
        gate.put(policy, known)
    return known
