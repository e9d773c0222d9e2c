"""A run in one worker's hands: counting, verifying and withdrawing are work of the run itself, under a lease of its own, as chunks have theirs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from migration import budget, chunks, leases, runs, ticks
from migration.crm import Crm
from migration.models import Run
from migration.states import RunReason


@contextmanager
def leased(run: Run, owner: str, *, reads: bool = False) -> Iterator[bool]:
    """Hold the run, and renew the lease meanwhile.

    Yields False where another worker holds it, or where it is for reading and the read budget has no room, which is said on it.
    """
    mine = taken_to_read(run, owner) if reads else taken(run, owner)
    if not mine:
        yield False
        return
    run.refresh_from_db()
    try:
        # A question to a slow CRM may take longer than a lease lasts.
        with chunks.renewing(partial(renew, run), name=f"heartbeat-run-{run.pk}"):
            yield True
    finally:
        Run.objects.filter(pk=run.pk, token=run.token).update(lease_owner="", lease_expires_at=None)


def taken(run: Run, owner: str) -> bool:
    free = Q(lease_expires_at__isnull=True) | Q(lease_expires_at__lt=Now())
    mine = Run.objects.filter(free, pk=run.pk, state=run.state)
    return bool(mine.update(lease_owner=owner, lease_expires_at=Now() + chunks.lease(), token=F("token") + 1))


def taken_to_read(run: Run, owner: str) -> bool:
    budget.look()
    with transaction.atomic():  # of two workers that want the last room, one sees that the other has it
        waits = budget.reason_to_wait(budget.locked(), leases.reading())
        mine = not waits and taken(run, owner)
    if waits and not leases.is_held(run):
        runs.note(run, waits, now=ticks.now(), code=RunReason.READ_BUDGET)
    elif mine:
        runs.goes_on(run)
    return mine


def renew(run: Run) -> None:
    """Renew the lease; raises LeaseLost where it is another's."""
    if not Run.objects.filter(pk=run.pk, token=run.token).exclude(lease_owner="").update(lease_expires_at=Now() + chunks.lease()):
        raise chunks.LeaseLost(f"{run} is held by another worker")


def pulse(run: Run, crm: Crm) -> None:
    """Between two pieces of reading: renew the lease, and rest while nothing may be read; what was read so far is kept meanwhile.

    Raises LeaseLost, also where somebody asks for something else than to go on.
    """
    renew(run)
    budget.look(crm)
    rests = False
    while waits := budget.reason_to_stop(budget.current()):
        rests = True
        runs.note(run, waits, now=ticks.now(), code=RunReason.READ_BUDGET)
        time.sleep(1.0)
        renew(run)
        budget.look(crm)
    if rests:
        runs.goes_on(run)
