"""What the customer is told, out of the account's summary, gate G and the time. Pure: it reads no database and no clock."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from django.utils.translation import gettext_noop

from migration.models import Summary
from migration.states import RunState


class State(StrEnum):
    """SPEC section 7."""

    NOT_STARTED = "not_started"
    SCHEDULED = "scheduled"
    IN_PROGRESS = "in_progress"
    PAUSED = "paused"
    PARTIAL = "partial"
    COMPLETED = "completed"
    DELAYED = "delayed"


MESSAGES = {
    State.NOT_STARTED: gettext_noop("Your CRM history has not been brought over yet. Nothing for you to do."),
    State.SCHEDULED: gettext_noop("Your CRM history will be brought over soon. Nothing for you to do."),
    State.IN_PROGRESS: gettext_noop("Your CRM history is being brought over. Nothing for you to do."),
    State.PAUSED: gettext_noop("Bringing over your CRM history is paused and will go on later. Nothing for you to do."),
    State.PARTIAL: gettext_noop("Your CRM history is here, but for a few entries that we are still looking at. Nothing for you to do."),
    State.COMPLETED: gettext_noop("Your CRM history is complete."),
    State.DELAYED: gettext_noop("Bringing over your CRM history takes longer than planned. We are on it. Nothing for you to do."),
}
WAITING = gettext_noop(
    "Bringing over your CRM history waits for a system that is busy or does not answer, and goes on by itself. Nothing for you to do."
)
POLL_AFTER = {  # seconds
    State.NOT_STARTED: 600,
    State.SCHEDULED: 300,
    State.IN_PROGRESS: 15,
    State.PAUSED: 60,
    State.PARTIAL: 600,
    State.COMPLETED: 3600,
    State.DELAYED: 60,
}
WORKING = (RunState.PLANNED, RunState.RUNNING, RunState.PAUSING, RunState.VERIFYING)
PATIENCE = timedelta(hours=1)
VERIFYING_SHARE = 0.1  # verification takes about a tenth of the loading
SOONER, LATER = 0.8, 1.6  # of the time left at the rate so far: chunks differ
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Window:
    """When something is to be over."""

    earliest: datetime
    latest: datetime


@dataclass(frozen=True)
class Status:
    """The body of SPEC section 7; `message` is a msgid. Not `visible`: everything else is None, but that it may be stale."""

    visible: bool
    state: State | None = None
    percent: int | None = None
    activities_done: int | None = None
    activities_total: int | None = None
    history_from: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    eta: Window | None = None
    message: str | None = None
    updated_at: datetime | None = None
    poll_after: int | None = None
    stale: bool = False


def status(summary: Summary | None, *, visible: bool, now: datetime, stale: bool = False) -> Status:
    """The status to tell; without a summary, nothing was ever begun."""
    if not visible:
        return Status(visible=False, stale=stale)
    known = summary or Summary()
    state = state_of(known, now)
    return Status(
        visible=True,
        state=state,
        percent=percent(known, state),
        activities_done=known.done,
        activities_total=known.total,
        history_from=to_the_second(known.history_from),
        started_at=to_the_second(known.started_at),
        finished_at=to_the_second(known.finished_at),
        eta=eta(known, state, now),
        message=WAITING if state == State.IN_PROGRESS and known.waiting_since else MESSAGES[state],
        updated_at=to_the_second(known.updated_at),
        poll_after=POLL_AFTER[state],
        stale=stale,
    )


def state_of(summary: Summary, now: datetime) -> State:
    if summary.run_state == RunState.SUCCEEDED:
        return State.COMPLETED
    if summary.run_state == RunState.PARTIAL:
        return State.PARTIAL
    if is_late(summary, now):
        return State.DELAYED
    if not summary.run_state:
        return State.SCHEDULED if summary.window_to else State.NOT_STARTED
    return State.IN_PROGRESS if summary.run_state in WORKING else State.PAUSED


def is_late(summary: Summary, now: datetime) -> bool:
    """Behind its announced window, or waiting for longer than an hour: for something that is away, or for a worker that takes it up.

    Verification reports nothing until it is over, so its silence is no waiting. A pause that somebody asked for is none either.
    """
    if summary.window_to and now > summary.window_to:
        return True
    silent = summary.progress_at if summary.run_state in (RunState.PLANNED, RunState.RUNNING, RunState.PAUSING) else None
    since = summary.waiting_since or silent
    return since is not None and now - since > PATIENCE


def percent(summary: Summary, state: State) -> int:
    """Whole percent, rounded down; 100 when it is completed and not before."""
    if state == State.COMPLETED:
        return 100
    return min(99, 100 * summary.done // summary.total) if summary.total else 0


def eta(summary: Summary, state: State, now: datetime) -> Window | None:
    """When it is to be over: the announced window until it has begun, then reckoned from the pace so far; None where nothing can be told.

    In whole minutes and from the last progress, so that the answer changes with the figures and not with every question.
    """
    if state == State.SCHEDULED and summary.window_from and summary.window_to:
        return Window(summary.window_from, summary.window_to)
    moving = summary.run_state in (RunState.RUNNING, RunState.VERIFYING) and not summary.waiting_since
    if not (moving and summary.progress_at and summary.total and summary.done and summary.worked):
        return None
    left = summary.worked * ((1 + VERIFYING_SHARE) * summary.total / summary.done - 1)
    soonest = to_the_minute(max(summary.progress_at + SOONER * left, now))
    latest = to_the_minute(summary.progress_at + LATER * left)
    return Window(soonest, max(latest, soonest + MINUTE)) if latest > now else None


def to_the_minute(moment: datetime) -> datetime:
    """Rounded up."""
    whole = moment.replace(second=0, microsecond=0)
    return whole if whole == moment else whole + MINUTE


def to_the_second(moment: datetime | None) -> datetime | None:
    return moment.replace(microsecond=0) if moment else None
