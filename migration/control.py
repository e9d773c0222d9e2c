"""What people ask of a run: pause, resume, cancel, retry, force, abandon. A table in states.py says which fits which state."""

from collections.abc import Callable
from datetime import datetime, timedelta

from django.conf import settings
from django.db import IntegrityError, transaction

from migration import chunks, reaper, runs, withdrawal
from migration.models import Account, Run
from migration.pipeline.flow import VERSION
from migration.runs import Busy, Refused
from migration.states import COMPLETE, ChunkState, Overtaken, RunMode, RunReason, RunState, Verb

MOMENTS = timedelta(seconds=10)  # in which a wish that is heard twice is one


def act(verb: Verb, run: Run, *, by: str, now: datetime) -> Run:
    """Do what a person asks. Raises Refused with what would be possible, Busy where somebody was faster, Outage and Misconfigured."""
    acts: dict[Verb, Callable[..., Run]] = {
        Verb.PAUSE: runs.pause,
        Verb.RESUME: resume,
        Verb.CANCEL: cancel,
        Verb.RETRY: retry,
        Verb.FORCE: force,
        Verb.ABANDON: abandon,
    }
    try:
        return acts[verb](run, by=by, now=now)
    except Overtaken as error:
        raise Busy(f"{error} Look at it again.") from error


def resume(run: Run, *, by: str, now: datetime) -> Run:
    """Go on with a run that is paused or interrupted, or take a pause back; asked again within moments, no change.

    Raises Refused where a gate that it needs is closed.
    """
    run.refresh_from_db()
    try:
        runs.check_verb(run, Verb.RESUME)
        check_gates(run, now=now)
        return runs.taken_up(run, by=by, now=now)
    except (Refused, Overtaken):
        run.refresh_from_db()
        if has_just_resumed(run, by=by, now=now):
            return run
        raise


def has_just_resumed(run: Run, *, by: str, now: datetime) -> bool:
    """Whether this very person has set it going: the second of two clicks finds what the first has done, and a short run may have ended by then."""
    if run.state not in (RunState.PLANNED, RunState.RUNNING, RunState.VERIFYING, *COMPLETE):
        return False
    goes_on = [f"run {state}" for state in (RunState.PLANNED, RunState.RUNNING)]
    return run.events.filter(kind__in=goes_on, by=by, at__gt=now - MOMENTS).exists()


def cancel(run: Run, *, by: str, now: datetime, reason: str = "") -> Run:
    """Ask for the end of a run: workers hand their chunks back at the next checkpoint. What is in the CDP stays there; asked again, no change.

    It is cancelled at once where nobody may still write for it; otherwise a worker, the tick or the command sees to it (`runs.settle`).
    """
    run.refresh_from_db()
    if run.state in (RunState.CANCELLING, RunState.CANCELLED):
        return run
    runs.check_verb(run, Verb.CANCEL)
    runs.move(run, RunState.CANCELLING, code=RunReason.ASKED, reason=reason or f"{by} asked for its end.", by=by, now=now)
    begun = run.writes and run.chunks.filter(token__gt=0).exclude(state=ChunkState.DONE).exists()
    return run if begun else runs.settle(run, by=by, now=now)


def retry(run: Run, *, by: str, now: datetime) -> Run:
    """Have the chunks tried again that failed, or that a failed run never came to. Raises Refused, and Busy where another run is active."""
    run.refresh_from_db()
    try:
        with transaction.atomic():
            Account.objects.select_for_update(no_key=True).get(pk=run.account_id)
            check_can_retry(run, now=now)
            number = chunks.revive(run)
            reason = f"{number} failed chunk{' is' if number == 1 else 's are'} tried again." if number else "Its open chunks are done now."
            return runs.move(run, RunState.RUNNING, reason=reason, by=by, now=now, verification=None)
    except IntegrityError as error:
        raise Busy(f"Another run of {run.account} is active: wait for it, or cancel it, before {run} is tried again.") from error


def force(run: Run, *, by: str, now: datetime) -> Run:
    """Bring about a wish that workers do not come to: their leases are taken away, and what they may still try to write for it is refused.

    Raises Refused before the wish is FORCE_AFTER_SECONDS old, Outage where the CDP has to fence them and does not answer.
    """
    run.refresh_from_db()
    runs.check_verb(run, Verb.FORCE)
    check_is_stuck(run, now=now)
    if run.state == RunState.CANCELLING:
        return runs.end(run, RunState.CANCELLED, code=RunReason.ASKED, reason=f"{by} forced its end.", by=by, now=now)
    with transaction.atomic():
        left = runs.seized(run)
        runs.move(run, RunState.PAUSED, code=RunReason(run.reason_code), reason=run.reason, by=by, now=now)
        reaper.end_sessions(left)
    return run


def abandon(run: Run, *, by: str, now: datetime) -> Run:
    """Give a withdrawal up: no step of it begins any more. The rows that are left stay, and can be withdrawn later. Raises Busy while a step is under way."""
    run.refresh_from_db()
    runs.check_verb(run, Verb.ABANDON)
    removed = withdrawal.give_up(run)
    reason = f"{by} gave its withdrawal up: the rows that were not removed yet are still in the CDP."
    known = {} if removed is None else {"withdrawal": (run.withdrawal or {}) | {"removed": removed}}
    with transaction.atomic():
        withdrawal.warn_later_of(run, removed)
        return runs.move(run, RunState.FAILED, code=RunReason.ASKED, reason=reason, by=by, now=now, **known)


def check_gates(run: Run, *, now: datetime) -> None:
    refusals = runs.gate_decision(run.account, RunMode(run.mode), now=now, run=run).refusals
    if refusals:
        raise Refused(" ".join(refusals))


def check_can_retry(run: Run, *, now: datetime) -> None:
    """Raise Refused unless the failed run is the account's newest, was planned by this very pipeline, and has chunks to do."""
    runs.check_verb(run, Verb.RETRY)
    newer = Run.objects.filter(account=run.account, mode=run.mode, pk__gt=run.pk).exclude(state=RunState.CANCELLED).first()
    if newer:
        raise Refused(f"{newer} came after {run}: run the account again instead.")
    if run.withdrawal is not None:
        raise Refused(f"Rows of {run} were withdrawn, and nobody writes for it any more: run the account again instead.")
    if run.pipeline_version != VERSION:
        raise Refused(f"{run} was planned by pipeline version {run.pipeline_version}, this is {VERSION}: run the account again.")
    if not run.chunks.filter(state__in=(ChunkState.FAILED, ChunkState.PENDING, ChunkState.LEASED)).exists():
        raise Refused(f"No chunk of {run} failed: run the account again, which compares everything and writes what is missing.")
    check_gates(run, now=now)


def check_is_stuck(run: Run, *, now: datetime) -> None:
    """Raise Refused before the wish is old enough."""
    asked = run.events.filter(kind=f"run {run.state}").values_list("at", flat=True).first()
    least = timedelta(seconds=settings.FORCE_AFTER_SECONDS)
    if asked is not None and now - asked < least:
        waits = (least - (now - asked)).seconds
        raise Refused(
            f"{run} is {run.state} only since {asked:%H:%M:%S} UTC: workers end what they have in hand; force it in {waits} seconds."
        )
