"""A batch's beat, called by the tick: what became of its runs, its limits, its window, and the accounts whose turn it is.

Two beats at once, a late one or a dead one change nothing: whoever is at a batch holds an advisory lock until its transaction ends, a start is
one transaction with what is noted of it, and what was seen beforehand is checked again in it.
"""

import logging
from datetime import datetime

from django.db import connection, transaction
from django.db.models import Q, QuerySet

from migration import batch_limits, batches, budget, forecast, runs, windows
from migration.batch_plans import window_of
from migration.batches import items_of, move, move_item, name
from migration.doors import Misconfigured, Outage
from migration.forecast import Terms
from migration.models import Batch, BatchItem, Run
from migration.runs import Busy, Refused
from migration.states import COMPLETE, OPEN_ITEM, AtClose, BatchState, BatchWork, ItemState, Overtaken, RunMode, RunState

log = logging.getLogger(__name__)
LOCKS = 5_317  # the advisory locks of batches: this number and the batch's
# A process that is frozen in the middle of a start keeps the lock no longer than that; measuring the gates may take minutes.
MOST_IDLE = "15min"


def advance(*, now: datetime, of: Run | None = None) -> list[Run]:
    """One beat of every live batch: take up what became of its runs, hold limits and window, start what may start. The runs started.

    Only of the batch that has the run `of` under way, where one is given.
    """
    live = Batch.objects.live() if of is None else Batch.objects.live().filter(pk__in=at_work_with(of))
    started: list[Run] = []
    for pk in live.order_by("pk").values_list("pk", flat=True):
        try:
            started += beat(pk, now=now)
        except Exception:
            log.exception("batch %s was not advanced; the next tick tries again", pk)
    return started


def at_work_with(run: Run) -> QuerySet[BatchItem, int]:
    """The batch that waits for the end of this run, and has not heard of it yet."""
    its = Q(production=run) | Q(production=None, dry_run=run)
    return BatchItem.objects.filter(its, state=ItemState.RUNNING).values_list("batch", flat=True)


def beat(pk: int, *, now: datetime) -> list[Run]:
    started: list[Run] = []
    asked: set[int] = set()  # each account once: one that is busy is not asked over and over
    item: BatchItem | None = None
    try:
        while settled(pk, now=now):
            with transaction.atomic():
                item = next_item(pk, asked) if alone(pk) else None
                if item is None:
                    break
                asked.add(item.pk)
                check_reading_is_allowed()
                started += start(item, now=now)
    except Overtaken as error:
        log.info("batch %s: %s", pk, error)
    except (Outage, Misconfigured) as error:
        log.warning("batch %s: %s", pk, error)
        if item:
            batches.note(item, str(error))
    return started


def alone(pk: int) -> bool:
    """Whether this transaction, until it ends, is the only one that advances the batch."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_try_advisory_xact_lock(%s, %s), set_config('idle_in_transaction_session_timeout', %s, true)", (LOCKS, pk, MOST_IDLE)
        )
        row = cursor.fetchone()
    return bool(row and row[0])


# --- what became of the runs ----------------------------------------------------------------------------------------


def settled(pk: int, *, now: datetime) -> bool:
    """Bring the batch up to date with its runs and its window; whether an account may be started."""
    with transaction.atomic():
        if not alone(pk):
            return False
        batch = Batch.objects.select_for_update(no_key=True).get(pk=pk)
        items = items_of(batch)
        for item in items:
            follow(item, now=now)
        is_open = windows.is_open(window_of(batch), now)
        problem = hold_to_window(batch, items, is_open=is_open, now=now) or batch_limits.reason_to_stop(batch, items)
        batches.tick_off([item for item in items if batch_limits.is_within(batch, item)])
        if batch.state == BatchState.RUNNING and problem:
            move(batch, BatchState.STOPPED, reason=problem, by=name(batch), now=now)
        elif batch.state == BatchState.RUNNING and all(item.state not in OPEN_ITEM for item in items):
            move(batch, BatchState.DONE, reason=batch_limits.in_words(items), by=name(batch), now=now)
        elif batch.state == BatchState.PLANNED and is_open:
            move(batch, BatchState.RUNNING, by=name(batch), now=now)
        tell_customers(batch, items, now=now)
        return batch.state == BatchState.RUNNING and is_open


def follow(item: BatchItem, *, now: datetime) -> None:
    """Take over what became of the item's run."""
    run = item.run
    if run is None or item.state not in (ItemState.RUNNING, ItemState.FAILED):
        return
    if run.state in COMPLETE and (run.writes or item.batch.work == BatchWork.DRY_RUN):
        move_item(item, ItemState.DONE, reason=run.reason, now=now)
    elif item.state == ItemState.RUNNING and run.state == RunState.FAILED:
        move_item(item, ItemState.FAILED, reason=f"{run} failed: {run.reason}", now=now)
    elif item.state == ItemState.RUNNING and run.state in (RunState.CANCELLED, RunState.WITHDRAWING, RunState.WITHDRAWN):
        move_item(item, ItemState.CANCELLED, reason=f"{run} is {run.state}.", now=now)


def hold_to_window(batch: Batch, items: list[BatchItem], *, is_open: bool, now: datetime) -> str:
    """Pause the batch's runs where it may not work, resume what it paused where it may; why one cannot go on, if so."""
    under_way = batches.under_way(items)
    if batch.state == BatchState.PAUSED:
        batches.pause_runs(batch, under_way, f"{batch} is paused.", now=now)
    elif is_open:
        return " ".join(filter(None, (batches.take_up(batch, run, now=now) for run in under_way)))
    elif batch.at_close == AtClose.PAUSE:
        opens = windows.next_opening(window_of(batch), now)
        until = f" until {opens.start:%Y-%m-%d %H:%M} UTC" if opens else ""
        batches.pause_runs(batch, under_way, f"The window of {batch} is closed{until}.", now=now)
    return ""


def tell_customers(batch: Batch, items: list[BatchItem], *, now: datetime) -> None:
    """Announce to each customer, once, the window in which its account is expected to be moved, where that can be told."""
    silent = {item.pk for item in items if item.state in OPEN_ITEM and item.expected_from is None}
    if batch.state not in (BatchState.PLANNED, BatchState.RUNNING) or batch.work == BatchWork.DRY_RUN or not silent:
        return
    window = window_of(batch)
    terms = Terms(window, batch.at_once, batch.canary, AtClose(batch.at_close))
    works = forecast.works(items, BatchWork(batch.work), now=now)
    told = [
        (item, *forecast.window_to_tell(window, place.start, place.end))
        for item, place in zip(items, forecast.places(works, terms, now=now), strict=True)
        if item.pk in silent and place.start and place.end
    ]
    batches.announce_all(told, now=now)


# --- starting -------------------------------------------------------------------------------------------------------


def check_reading_is_allowed() -> None:
    """Raise Outage while staff have stopped reading: to start a run measures gates, some by queries as heavy as a run's own.

    Not for the replica's lag: only who reads looks at it, so what is known of it may be old, and nothing would start any more.
    """
    allowed = budget.current()
    if allowed.stopped_at:
        raise Outage(budget.reason_to_stop(allowed))


def next_item(pk: int, asked: set[int]) -> BatchItem | None:
    """The account to start next: one whose production follows its dry run, else the first that waits, if there is room for one."""
    batch = Batch.objects.get(pk=pk)
    items = items_of(batch)
    running = [item for item in items if item.state == ItemState.RUNNING]
    for item in running:
        if item.pk not in asked and item.run and not item.run.writes and item.run.state in COMPLETE:
            return item
    if len(running) >= batch.at_once:
        return None
    balanced = batch_limits.canary_balanced(batch, items)
    waiting = (item for item in items if item.state == ItemState.WAITING and item.pk not in asked)
    return next((item for item in waiting if balanced or item.position <= batch.canary), None)


def start(item: BatchItem, *, now: datetime) -> list[Run]:
    """Start the account's run, or note why it cannot be. Raises Outage and Misconfigured, which the whole batch waits out."""
    batch = item.batch
    try:
        run = runs.start(runs.Wish(item.account, mode_for(item, now=now)), by=name(batch), now=now)
    except Refused as error:
        move_item(item, ItemState.REFUSED, reason=str(error), now=now)
        return []
    except Busy as error:
        batches.note(item, str(error))
        return []
    # Not waited for: a person who is pausing the batch has it, and is right.
    if not Batch.objects.select_for_update(skip_locked=True, no_key=True).filter(pk=batch.pk, state=BatchState.RUNNING).exists():
        raise Overtaken(f"{batch} is no longer running, so nothing was started.")
    batches.attach(item, run, now=now)
    return [run]


def mode_for(item: BatchItem, *, now: datetime) -> RunMode:
    """Which run the account needs now. Raises Busy where another one of its is active, Refused where the account is gone."""
    if item.account.gone:
        raise Refused(f"{item.account} is no longer in the CDP.")
    active = Run.objects.active().filter(account=item.account).first()
    if active:
        raise Busy(f"{active} is {active.state} and not of this batch: it waits until that has ended.")
    rehearsed = item.account_id in forecast.rehearsals([item.account], now=now)
    return forecast.modes_of(BatchWork(item.batch.work), rehearsed)[0]
