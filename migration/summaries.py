"""What an account's customer is told of its migration: the one writer of the summary that the status endpoint reads.

Only production runs count. The customer sees the latest of them, but for this: what stands complete stays so while a later run corrects it,
until that run ends. A run that tries its quarantined candidates again stays partial meanwhile. A run whose rows are being removed, be it an
earlier one, hides all others: rows of theirs may go too.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import F, Min
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Coalesce, Greatest, Least

from migration import ledger
from migration.models import Account, Chunk, Run, Summary
from migration.pipeline.records import Receipt
from migration.states import ACTIVE, COMPLETE, RunMode, RunReason, RunState

UNDECIDED = {*ACTIVE, RunState.CANCELLED}  # such a run says nothing yet of what an earlier one achieved
AT_CHUNKS = (RunState.RUNNING, RunState.PAUSING, RunState.CANCELLING)
GOING_ON = (RunState.PLANNED, RunState.RUNNING, RunState.VERIFYING)
STUCK = (RunState.INTERRUPTED, RunState.FAILED, RunState.PAUSED)
TOLD = ("run", "run_state", "done", "total", "history_from", "started_at", "finished_at")


def refresh(account: Account, *, now: datetime) -> None:
    """Bring the account's summary up to date with its runs; in the transaction of whatever moved one.

    It reads the receipts of the run that is shown, so it is for moves of a run's state; a chunk that is done calls `progress`.
    """
    with transaction.atomic():
        Summary.objects.get_or_create(account=account, defaults={"updated_at": now})
        # Before the receipts are read: a chunk that finishes meanwhile then adds itself after this, and not to figures that are replaced.
        before = Summary.objects.select_for_update(no_key=True, of=("self",)).select_related("run").get(pk=account.pk)
        run, state = shown(account, before)
        facts = facts_of(run, state, before, now) if run else nothing()
        if any(getattr(before, name) != facts[name] for name in TOLD):
            facts["updated_at"] = now
        Summary.objects.filter(pk=account.pk).update(**facts)


def progress(chunk: Chunk, receipt: Receipt, *, now: datetime) -> None:
    """Count a chunk that is done: one update, whatever the account's size; in the transaction that finishes the chunk."""
    counted = receipt.written + receipt.corrected + receipt.unchanged + receipt.already_live
    fields: dict[str, Any] = {
        "done": F("done") + counted + receipt.skipped.total() + receipt.waived.total(),
        # Greatest: clocks of two hosts differ.
        "worked": F("worked") + (Greatest(Coalesce("waiting_since", now), F("progress_at")) - F("progress_at")),
        "progress_at": Greatest(F("progress_at"), now),
        "waiting_since": None,
        "updated_at": now,
    }
    if first := moment(receipt.first):
        fields["history_from"] = Least(F("history_from"), first)  # PostgreSQL's LEAST passes over NULL
    Summary.objects.filter(pk=chunk.run.account_id, run=chunk.run_id, run_state__in=AT_CHUNKS).update(**fields)


def waits(run: Run, *, now: datetime) -> None:
    """The run would go on, but something it needs is away."""
    Summary.objects.filter(pk=run.account_id, run=run, run_state__in=GOING_ON, waiting_since__isnull=True).update(waiting_since=now)


def goes_on(run: Run) -> None:
    """What it waited for is there. While it is at chunks the next one that is done says so, and that the waiting was no work."""
    Summary.objects.filter(pk=run.account_id, run=run, run_state__in=(RunState.PLANNED, RunState.VERIFYING)).update(waiting_since=None)


def announce(account: Account, start: datetime | None, end: datetime | None, *, now: datetime) -> None:
    """Set the window that the customer is told, or with None twice take it back."""
    announce_all([(account, start, end)], now=now)


def announce_all(told: Sequence[tuple[Account, datetime | None, datetime | None]], *, now: datetime) -> None:
    """`announce` for many accounts, by sets."""
    Summary.objects.bulk_create(
        (Summary(account=account, window_from=start, window_to=end, updated_at=now) for account, start, end in told),
        batch_size=2000,
        update_conflicts=True,
        unique_fields=["account"],
        update_fields=["window_from", "window_to", "updated_at"],
    )


def shown(account: Account, before: Summary) -> tuple[Run | None, str]:
    """The production run that the customer sees, and the state in which; (None, "") where nothing was moved, or all of it withdrawn."""
    runs = Run.objects.filter(account=account, mode=RunMode.PRODUCTION).order_by("-id")
    begun = [run for run in runs if run.state != RunState.CANCELLED or run.started_at]
    if not begun:
        return None, ""
    if withdrawing := next((run for run in begun if run.state == RunState.WITHDRAWING), None):
        return withdrawing, withdrawing.state
    latest, *older = begun
    if latest.state not in UNDECIDED:
        return achieved(begun)
    if before.run_id == latest.pk and before.run_state == RunState.PARTIAL:
        return latest, RunState.PARTIAL
    run, state = achieved(older)
    return (run, state) if state in COMPLETE else (latest, latest.state)


def achieved(runs: list[Run]) -> tuple[Run | None, str]:
    """What these runs, the newest first, have come to, leaving aside those that say nothing yet of it."""
    decided = [run for run in runs if run.state not in UNDECIDED]
    standing = set(Run.objects.standing().filter(pk__in=[run.pk for run in decided]).values_list("pk", flat=True))
    # Nothing to show of a run whose rows were removed, be it with those of an earlier one.
    left = [run for run in decided if run.pk in standing or run.state == RunState.FAILED]
    if not left:
        return None, ""
    if left[0] == decided[0]:
        return left[0], left[0].state
    # What was withdrawn since took along the rows that it had corrected.
    return (left[0], RunState.PARTIAL) if left[0].state in COMPLETE else (None, "")


def nothing() -> dict[str, Any]:
    """The facts of an account without a run to show."""
    blank = Summary()
    return {name: getattr(blank, name) for name in (*TOLD, "progress_at", "worked", "waiting_since")}


def facts_of(run: Run, state: str, before: Summary, now: datetime) -> dict[str, Any]:
    found = ledger.of(run)
    done = found.outcomes - found.quarantined.total()
    same = before.run_id == run.pk
    worked = before.worked if same else nothing()["worked"]
    if same and before.run_state == RunState.RUNNING and before.progress_at:
        worked += max(before.waiting_since or now, before.progress_at) - before.progress_at
    return {
        "run": run,
        "run_state": state,
        "done": done if run.candidates is None else min(done, run.candidates),
        "total": run.candidates,
        "history_from": first_of(run),
        "started_at": run.started_at,
        # One that tries its quarantined candidates again is told of as partial meanwhile, as it was.
        "finished_at": (run.finished_at or before.finished_at) if state in COMPLETE else None,
        "progress_at": now,
        "worked": worked,
        "waiting_since": (before.waiting_since if same else None) or now if stuck(run) else None,
    }


def stuck(run: Run) -> bool:
    """Whether it stands still without anybody having asked for that."""
    return run.state in STUCK and run.reason_code not in (RunReason.ASKED, RunReason.BATCH)


def first_of(run: Run) -> datetime | None:
    """When the earliest activity happened that the run's receipts tell of."""
    first = run.chunks.filter(receipt__isnull=False).aggregate(first=Min(KeyTextTransform("first", "receipt")))["first"]
    return moment(first)


def moment(text: str | None) -> datetime | None:
    """PostgreSQL's text of a timestamptz in UTC; None for what Python's calendar does not hold (BC, infinity)."""
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
