"""What people ask of a batch, and every move of its state and of its accounts' states: the only writer of both, but for the planning."""

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction

from migration import batch_limits, control, events, leases, outbox, runs, summaries
from migration.models import Batch, BatchItem, Run
from migration.runs import Refused
from migration.states import (
    BATCH_VERBS,
    OPEN_ITEM,
    VERBS,
    BatchState,
    ItemState,
    Overtaken,
    RunReason,
    RunState,
    Verb,
    check_batch_move,
    check_item_move,
)

log = logging.getLogger(__name__)


def pause(batch: Batch, *, by: str, now: datetime) -> Batch:
    """Start nothing more, and pause the runs under way; asked again, no change. Raises Refused where the state does not allow it."""
    with transaction.atomic():
        batch = Batch.objects.select_for_update(no_key=True).get(pk=batch.pk)
        if batch.state == BatchState.PAUSED:
            return batch
        check_verb(batch, Verb.PAUSE)
        move(batch, BatchState.PAUSED, reason=f"{by} paused it.", by=by, now=now)
        pause_runs(batch, under_way(items_of(batch)), f"{batch} is paused.", now=now)
    return batch


def resume(batch: Batch, *, by: str, now: datetime, again: bool = False) -> Batch:
    """Go on. What stopped a batch counts no more; `again` has accounts tried again that failed, were refused or cancelled.

    Asked again by the same person within moments, no change. Raises Refused where the state does not allow it, or a run of its cannot go on.
    """
    try:
        with transaction.atomic():
            batch = Batch.objects.select_for_update(no_key=True).get(pk=batch.pk)
            if batch.state in (BatchState.RUNNING, BatchState.DONE) and has_just_moved(batch, BatchState.RUNNING, by=by, now=now):
                return batch
            check_verb(batch, Verb.RESUME)
            was_stopped = batch.state == BatchState.STOPPED
            move(batch, BatchState.RUNNING, by=by, now=now)
            others = open_elsewhere(batch)
            for item in items_of(batch) if was_stopped else ():
                accept(item, others.get(item.account_id), again=again, by=by, now=now)
            # A new promise to those who wait: the old one may be over by now.
            for item in batch.items.filter(state=ItemState.WAITING, expected_from__isnull=False).select_related("account"):
                announce(item, None, None, now=now)
    except IntegrityError as error:
        raise Refused("One of the accounts was put into another batch at this moment: look at the batches, and resume again.") from error
    return batch


def has_just_moved(batch: Batch, state: BatchState, *, by: str, now: datetime) -> bool:
    """Whether this very person has moved it there: the second of two clicks finds what the first has done."""
    return batch.events.filter(kind=f"batch {state}", by=by, at__gt=now - control.MOMENTS).exists()


def open_elsewhere(batch: Batch) -> dict[int, BatchItem]:
    """By account: where it waits or is at work in another batch, which but one at a time may have it."""
    found = BatchItem.objects.filter(account__in=batch.items.values("account"), state__in=OPEN_ITEM).exclude(batch=batch)
    return {item.account_id: item for item in found.select_related("batch")}


def accept(item: BatchItem, other: BatchItem | None, *, again: bool, by: str, now: datetime) -> None:
    """Forgive what an account did: it is tried again, or counts no more. A run that cannot go on by itself is resumed.

    `other` is where the account is open in another batch: then it is not tried again in this one, and an Event says so.
    """
    wanted = again and item.state in (ItemState.FAILED, ItemState.REFUSED, ItemState.CANCELLED)
    if wanted and not other:
        move_item(item, ItemState.WAITING, by=by, now=now, is_accepted=False, dry_run=None, production=None)
    elif item.state != ItemState.WAITING and not batch_limits.is_under_way(item):
        tick_off([item])
    if wanted and other:
        sentence = f"{item.account} is {other.state} in {other.batch}, so it is not tried again here."
        events.record("account left out", sentence, now=now, by=by, account=item.account, batch=item.batch)
    if item.state == ItemState.RUNNING and item.run and batch_limits.cannot_go_on(item.run):
        control.resume(item.run, by=by, now=now)


def cancel(batch: Batch, *, by: str, now: datetime, end_runs: bool = False) -> Batch:
    """Start nothing more for good. Runs under way are cancelled too (`end_runs`), or go on to their end outside of any window.

    Asked again by the same person within moments, no change. Raises Refused where the state does not allow it.
    """
    with transaction.atomic():
        batch = Batch.objects.select_for_update(no_key=True).get(pk=batch.pk)
        is_second = batch.state == BatchState.CANCELLED and has_just_moved(batch, BatchState.CANCELLED, by=by, now=now)
        if is_second and not (end_runs and any(item.run and item.run.state in VERBS[Verb.CANCEL] for item in items_of(batch))):
            return batch
        check_verb(batch, Verb.CANCEL)
        move(batch, BatchState.CANCELLED, reason=f"{by} cancelled it.", by=by, now=now)
        for item in items_of(batch):
            if item.state in OPEN_ITEM:
                release(batch, item, end_run=end_runs, by=by, now=now)
    return batch


def release(batch: Batch, item: BatchItem, *, end_run: bool, by: str, now: datetime) -> None:
    run = item.run if item.state == ItemState.RUNNING and item.run and item.run.state in VERBS[Verb.CANCEL] else None
    if run and end_run:
        control.cancel(run, by=by, now=now)
    elif run and (refused := take_up(batch, run, now=now)):
        runs.taken_from_batch(run, by=by, now=now, code=RunReason.GATE_LAPSED, reason=refused)
    move_item(item, ItemState.CANCELLED, reason="The batch was cancelled.", by=by, now=now)


# --- the runs under way ---------------------------------------------------------------------------------------------


def under_way(items: list[BatchItem]) -> list[Run]:
    return [item.run for item in items if item.state == ItemState.RUNNING and item.run]


def pause_runs(batch: Batch, found: list[Run], reason: str, *, now: datetime) -> None:
    """Pause runs at their next chunk. One that is being counted or verified ends that first, as it would begin it from the start again."""
    for run in found:
        if run.state == RunState.RUNNING or (run.state == RunState.PLANNED and not leases.is_held(run)):
            try:
                only = {RunState(run.state), RunState.RUNNING}  # it may be verified by now
                runs.pause(run, by=name(batch), now=now, code=RunReason.BATCH, reason=reason, only=only)
            except Refused as error:
                log.info("%s", error)  # it ended, or somebody else stopped it, at this moment


def take_up(batch: Batch, run: Run, *, now: datetime) -> str:
    """Resume a run that the batch had paused; why its gates do not let it, if so."""
    if run.reason_code != RunReason.BATCH or run.state not in (RunState.PAUSING, RunState.PAUSED):
        return ""
    try:
        control.check_gates(run, now=now)
        runs.taken_up(run, by=name(batch), now=now)
    except Refused as error:
        return f"{run} cannot go on: {error}"
    except Overtaken as error:
        log.info("%s", error)  # a person was faster
    return ""


def check_verb(batch: Batch, verb: Verb) -> None:
    """Raise Refused, naming what is possible, unless BATCH_VERBS allows the verb now."""
    if batch.state not in BATCH_VERBS[verb]:
        now_possible = ", ".join(possible(batch)) or "nothing"
        raise Refused(
            f"{batch} is {batch.state}: {verb} is for a batch that is {' or '.join(BATCH_VERBS[verb])}. Possible now: {now_possible}."
        )


def possible(batch: Batch) -> list[Verb]:
    """The verbs that fit its state."""
    return [verb for verb, states in BATCH_VERBS.items() if batch.state in states]


# --- the doors of the states ----------------------------------------------------------------------------------------


def move(batch: Batch, new: BatchState, *, by: str, now: datetime, reason: str = "") -> None:
    """The one door for a batch's state, its row being locked: checked against the table, with an Event in the same transaction."""
    old = BatchState(batch.state)
    check_batch_move(old, new)
    batch.state, batch.reason = new, reason
    batch.save(update_fields=["state", "reason"])
    events.record(f"batch {new}", reason or f"{old} to {new}", now=now, by=by, batch=batch)
    outbox.batch_moved(batch, now=now)


def move_item(
    item: BatchItem, new: ItemState, *, now: datetime, by: str = "", reason: str = "", run: Run | None = None, **fields: Any
) -> None:
    """The one door for an item's state; raises Overtaken where it is no longer what it was."""
    old = ItemState(item.state)
    check_item_move(old, new)
    if not BatchItem.objects.filter(pk=item.pk, state=old).update(state=new, reason=reason, **fields):
        raise Overtaken(f"{item} is no longer {old}.")
    item.state, item.reason = new, reason
    about = run or item.run
    sentence = f"{item.account}: {reason or f'{old} to {new}'}{f' (run {about.pk})' if about and not reason else ''}"
    # Before the announcement: whoever else locks both locks the account before its summary.
    events.record(f"account {new}", sentence, now=now, by=by or name(item.batch), run=about, account=item.account, batch=item.batch)
    if new not in OPEN_ITEM and item.expected_from:
        announce(item, None, None, now=now)


def attach(item: BatchItem, run: Run, *, now: datetime) -> None:
    """Note the run that was started for an account, in the transaction of the start."""
    which: dict[str, Any] = {"production" if run.writes else "dry_run": run}
    if item.state == ItemState.WAITING:
        move_item(item, ItemState.RUNNING, now=now, run=run, **which)
    elif not BatchItem.objects.filter(pk=item.pk, state=item.state).update(reason="", **which):
        raise Overtaken(f"{item} was moved meanwhile.")


def tick_off(items: list[BatchItem]) -> None:
    """Count these accounts for no limit any more."""
    BatchItem.objects.filter(pk__in=[item.pk for item in items]).update(is_accepted=True)


def note(item: BatchItem, reason: str) -> None:
    """Say in words what an account waits for; its state stays."""
    BatchItem.objects.filter(pk=item.pk, state=item.state).update(reason=reason)


def name(batch: Batch) -> str:
    """Who the batch is, in events and as the planner of its runs."""
    return f"batch {batch.pk}"


def items_of(batch: Batch) -> list[BatchItem]:
    return list(batch.items.select_related("account", "dry_run__account", "production__account").order_by("position"))


def announce(item: BatchItem, start: datetime | None, end: datetime | None, *, now: datetime) -> None:
    announce_all([(item, start, end)], now=now)


def announce_all(told: Sequence[tuple[BatchItem, datetime | None, datetime | None]], *, now: datetime) -> None:
    """The window of each customer; by sets, since a batch may have thousands."""
    for item, start, end in told:
        item.expected_from, item.expected_to = start, end
    BatchItem.objects.bulk_update([item for item, _, _ in told], ["expected_from", "expected_to"], batch_size=1000)
    summaries.announce_all([(item.account, start, end) for item, start, end in told], now=now)
