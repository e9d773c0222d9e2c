"""Measuring from a page: in the background, waited for as long as a web server lets a request take."""

import threading
from datetime import datetime

from django.contrib import messages
from django.db import connection, connections

from gates import evidence
from gates.catalogue import Gate as Rule
from migration.doors import Outage
from migration.models import Account

PATIENCE = 20.0  # seconds; below the 30 after which gunicorn ends a request's process


def measure(rule: Rule, account: Account | None, *, by: str, now: datetime) -> tuple[str, int]:
    """Have the gate probed; a sentence and its level. A probe that takes longer goes on by itself and stores what it finds."""
    said: list[tuple[str, int]] = []
    thread = threading.Thread(target=lambda: said.append(probed(rule, account, by, now)), name="probe", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if said:
        return said[0]
    if thread.is_alive():
        return (
            f"{rule} is still being measured after {PATIENCE:.0f} seconds. What is found appears here by itself: look again.",
            messages.INFO,
        )
    return f"{rule} could not be measured: the error is in the console's log.", messages.ERROR


def probed(rule: Rule, account: Account | None, by: str, now: datetime) -> tuple[str, int]:
    """The measuring, on database connections of its own; one at a time for each gate and account, as some cost the CRM."""
    try:
        if not is_alone(f"{rule.letter} {account.pk if account else ''}"):
            return f"{rule} is being measured at this moment: look again in a minute.", messages.WARNING
        found = evidence.probe(rule, account, by=by, now=now)
    except Outage as error:
        return f"Nothing was measured: {error}", messages.ERROR
    finally:
        connections.close_all()
    if found.passes:
        return f"Evidence {found.pk} is stored, and it passes.", messages.SUCCESS
    return f"Evidence {found.pk} is stored, and it fails: {evidence.reason_why_not(found)}.", messages.WARNING


def is_alone(what: str) -> bool:
    """Whether this session is the only one that measures it; held until the session ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtext('gates'), hashtext(%s))", [what])
        return bool(cursor.fetchone()[0])
