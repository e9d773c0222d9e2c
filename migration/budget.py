"""The read budget: how much all workers together may ask of the CRM. The only writer of ReadBudget.

A reader is a worker at a chunk, or one that counts or verifies a run. Three things lower what they may: staff, who may stop reading or allow
fewer readers; the replica's lag; and slow chunks, which are made smaller.
"""

from contextlib import closing, nullcontext
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from migration import events
from migration.crm import Crm
from migration.doors import Outage
from migration.models import ReadBudget

LOOK_EVERY = timedelta(seconds=5)  # all workers together
SMOOTH = 0.3  # the weight of the last chunk
LEAST_AUDITS = 500


def current() -> ReadBudget:
    return ReadBudget.objects.get_or_create(pk=1)[0]


def look(crm: Crm | None = None) -> None:
    """Have the replica's lag measured, by a session of its own where none is given, unless somebody did a moment ago. Raises Outage."""
    if is_due():
        with nullcontext(crm) if crm else closing(Crm()) as asked:
            ReadBudget.objects.update(lag_seconds=asked.lag(), looked_at=Now())


def is_due() -> bool:
    """By the database's clock: a worker whose own is an hour ahead would keep all others from looking for an hour."""
    current()
    return ReadBudget.objects.filter(Q(looked_at__isnull=True) | Q(looked_at__lte=Now() - LOOK_EVERY)).exists()


def readers(budget: ReadBudget) -> int:
    """How many may read at once now: as staff allow, fewer the further the replica is behind, none beyond the limit."""
    most = budget.most_readers or settings.READ_AT_ONCE
    if budget.stopped_at:
        return 0
    share = 1 - (budget.lag_seconds or 0) / settings.READ_LAG_LIMIT_SECONDS
    return max(1, round(most * share)) if share > 0 else 0


def reason_to_stop(budget: ReadBudget) -> str:
    """Why nothing may be read now, by nobody, in words; "" where something may."""
    if budget.stopped_at:
        note = f": {budget.note}" if budget.note else ""
        return f"Reading from the CRM is stopped by {budget.stopped_by} since {budget.stopped_at:%Y-%m-%d %H:%M} UTC{note}."
    if not readers(budget):
        return f"The CRM's replica is {budget.lag_seconds:.0f} s behind; nothing is read from {settings.READ_LAG_LIMIT_SECONDS} s on."
    return ""


def check_may_read(crm: Crm) -> None:
    """Raise Outage where nothing may be read now: for who takes no reader's place, and asks again rather than rest."""
    look(crm)
    if stop := reason_to_stop(current()):
        raise Outage(stop)


def reason_to_wait(budget: ReadBudget, reading: int) -> str:
    """Why no further worker may read while `reading` do, in words; "" where one may."""
    stop, most = reason_to_stop(budget), readers(budget)
    if stop or reading < most:
        return stop
    behind = f", as the replica is {budget.lag_seconds:.0f} s behind" if budget.lag_seconds and budget.lag_seconds >= 1 else ""
    are = "worker is" if reading == 1 else "workers are"
    return f"{reading} {are} reading from the CRM, and no more than {most} may at once{behind}."


def most_audits() -> float:
    """From which number of audits on a chunk is made smaller."""
    wanted = current().chunk_audits
    return 1.5 * wanted if wanted else float("inf")


def adapt(audits: int, seconds: float) -> None:
    """Learn from a chunk that was read: chunks shall take about READ_CHUNK_SECONDS, and change their size smoothly."""
    if audits < LEAST_AUDITS:
        return  # mostly round trips: it says nothing of the pace
    with transaction.atomic():
        budget = locked()
        paces = [seconds / audits * 1000, *([budget.seconds_per_1000] if budget.seconds_per_1000 is not None else [])]
        pace = paces[0] if len(paces) == 1 else SMOOTH * paces[0] + (1 - SMOOTH) * paces[1]
        wanted = max(LEAST_AUDITS, int(settings.READ_CHUNK_SECONDS / pace * 1000)) if pace else settings.CHUNK_SIZE
        size = budget.chunk_audits or settings.CHUNK_SIZE
        smooth = min(int(SMOOTH * wanted + (1 - SMOOTH) * size), 2 * size)
        budget.seconds_per_1000 = pace
        budget.chunk_audits = None if smooth >= settings.CHUNK_SIZE else max(LEAST_AUDITS, smooth)
        budget.save(update_fields=["seconds_per_1000", "chunk_audits"])


def shrink(audits: int) -> None:
    """The replica broke off a chunk of this size: the next ones are half of it at most."""
    with transaction.atomic():
        budget = locked()
        budget.chunk_audits = max(LEAST_AUDITS, min(audits, budget.chunk_audits or settings.CHUNK_SIZE) // 2)
        budget.save(update_fields=["chunk_audits"])


def stop(*, by: str, note: str, now: datetime) -> None:
    """Let no worker read from the CRM any more once its chunk in hand is done. Where it is stopped already the note is the new one."""
    with transaction.atomic():
        budget = locked()
        if budget.stopped_at is None:
            budget.stopped_at, budget.stopped_by = now, by
        elif note in ("", budget.note):
            return  # a button that was pressed twice
        budget.note = note
        budget.save(update_fields=["stopped_at", "stopped_by", "note"])
        events.record("reading stopped", note or "no reason given", now=now, by=by)


def allow(*, by: str, most_readers: int | None, note: str, now: datetime) -> None:
    """Let workers read, no more than so many chunks at once (None: READ_AT_ONCE)."""
    with transaction.atomic():
        budget = locked()
        budget.stopped_at, budget.stopped_by, budget.note, budget.most_readers = None, "", note, most_readers
        budget.save(update_fields=["stopped_at", "stopped_by", "note", "most_readers"])
        limit = f"{most_readers or settings.READ_AT_ONCE} chunks at once"
        events.record("reading allowed", f"{limit}: {note}" if note else limit, now=now, by=by)


def locked() -> ReadBudget:
    """The row, for this transaction alone."""
    current()
    return ReadBudget.objects.select_for_update(no_key=True).get(pk=1)
