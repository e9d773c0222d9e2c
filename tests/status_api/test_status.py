"""The pure part: what a summary comes to at a moment."""

import ast
import gettext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from migration.models import Summary
from migration.states import RunState
from status_api import status as module
from status_api.status import MESSAGES, POLL_AFTER, WAITING, State, Status, Window, status

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
INSTANT = timedelta(microseconds=1)
LOCALE = Path(module.__file__).parent / "locale"


def summary(run_state: str = "", **fields) -> Summary:
    """A summary of 420 candidates of 1,000, done in seven minutes; the last of them at noon."""
    given = (
        {"done": 420, "total": 1000, "worked": timedelta(minutes=7), "progress_at": NOON, "started_at": NOON - HOUR} if run_state else {}
    )
    return Summary(**{"run_state": run_state, "updated_at": NOON} | given | fields)


def told(known: Summary | None, *, now: datetime = NOON, **options) -> Status:
    return status(known, **{"visible": True, "now": now} | options)


WINDOW = {"window_from": NOON - HOUR, "window_to": NOON + HOUR}

CASES = [
    (None, State.NOT_STARTED),
    (summary(), State.NOT_STARTED),
    (summary(**WINDOW), State.SCHEDULED),
    (summary(window_from=NOON, window_to=NOON), State.SCHEDULED),
    (summary(window_from=NOON - HOUR, window_to=NOON - INSTANT), State.DELAYED),
    (summary(RunState.PLANNED), State.IN_PROGRESS),
    (summary(RunState.RUNNING), State.IN_PROGRESS),
    (summary(RunState.PAUSING), State.IN_PROGRESS),
    (summary(RunState.VERIFYING), State.IN_PROGRESS),
    (summary(RunState.PAUSED), State.PAUSED),
    (summary(RunState.INTERRUPTED, waiting_since=NOON), State.PAUSED),
    (summary(RunState.FAILED, waiting_since=NOON), State.PAUSED),
    (summary(RunState.CANCELLING), State.PAUSED),
    (summary(RunState.CANCELLED), State.PAUSED),
    (summary(RunState.WITHDRAWING), State.PAUSED),
    (summary(RunState.PARTIAL), State.PARTIAL),
    (summary(RunState.SUCCEEDED), State.COMPLETED),
    # behind its window
    (summary(RunState.RUNNING, **WINDOW), State.IN_PROGRESS),
    (summary(RunState.RUNNING, window_from=NOON - HOUR, window_to=NOON - INSTANT), State.DELAYED),
    (summary(RunState.PAUSED, window_from=NOON - HOUR, window_to=NOON - INSTANT), State.DELAYED),
    (summary(RunState.PARTIAL, window_from=NOON - HOUR, window_to=NOON - INSTANT), State.PARTIAL),
    (summary(RunState.SUCCEEDED, window_from=NOON - HOUR, window_to=NOON - INSTANT), State.COMPLETED),
    # waiting for longer than an hour
    (summary(RunState.RUNNING, waiting_since=NOON - HOUR), State.IN_PROGRESS),
    (summary(RunState.RUNNING, waiting_since=NOON - HOUR - INSTANT), State.DELAYED),
    (summary(RunState.INTERRUPTED, waiting_since=NOON - HOUR - INSTANT), State.DELAYED),
    (summary(RunState.FAILED, waiting_since=NOON - HOUR - INSTANT), State.DELAYED),
    # no worker takes it up; verifying says nothing for long; a pause that somebody asked for is no waiting
    (summary(RunState.RUNNING, progress_at=NOON - HOUR), State.IN_PROGRESS),
    (summary(RunState.RUNNING, progress_at=NOON - HOUR - INSTANT), State.DELAYED),
    (summary(RunState.PLANNED, progress_at=NOON - HOUR - INSTANT), State.DELAYED),
    (summary(RunState.PAUSING, progress_at=NOON - HOUR - INSTANT), State.DELAYED),
    (summary(RunState.VERIFYING, progress_at=NOON - 9 * HOUR), State.IN_PROGRESS),
    (summary(RunState.PAUSED, progress_at=NOON - 9 * HOUR), State.PAUSED),
]


@pytest.mark.parametrize(("known", "state"), CASES)
def test_state(known, state):
    found = told(known)
    waits = known and known.waiting_since and state == State.IN_PROGRESS
    assert (found.state, found.message, found.poll_after) == (state, WAITING if waits else MESSAGES[state], POLL_AFTER[state])


def test_every_run_state_has_a_case():
    """But withdrawn: such a run is never the one that the customer sees."""
    assert {known.run_state for known, _ in CASES if known} == {"", *RunState} - {RunState.WITHDRAWN}


def test_whole_body():
    known = summary(RunState.RUNNING, history_from=NOON - 9000 * HOUR + INSTANT, updated_at=NOON + 7 * INSTANT)
    assert told(known, now=NOON + timedelta(seconds=30)) == Status(
        visible=True,
        state=State.IN_PROGRESS,
        percent=42,
        activities_done=420,
        activities_total=1000,
        history_from=NOON - 9000 * HOUR,
        started_at=NOON - HOUR,
        finished_at=None,
        # Seven minutes for 420: 1,000 and the verification take 18:20, of which 11:20 are left; 0.8 and 1.6 times that, in whole minutes.
        eta=Window(NOON + timedelta(minutes=10), NOON + timedelta(minutes=19)),
        message="Your CRM history is being brought over. Nothing for you to do.",
        updated_at=NOON,
        poll_after=15,
    )


@pytest.mark.parametrize("known", [None, summary(RunState.SUCCEEDED), summary(**WINDOW)])
@pytest.mark.parametrize("stale", [False, True])
def test_not_visible_tells_nothing(known, stale):
    found = told(known, visible=False, stale=stale)
    assert {name: value for name, value in vars(found).items() if value is not None} == {"visible": False, "stale": stale}


def test_stale():
    assert told(summary(RunState.RUNNING), stale=True).stale
    assert not told(summary(RunState.RUNNING)).stale


@pytest.mark.parametrize(
    ("done", "total", "run_state", "expected"),
    [
        (0, None, RunState.PLANNED, 0),
        (0, 0, RunState.RUNNING, 0),
        (0, 0, RunState.SUCCEEDED, 100),
        (1, 1000, RunState.RUNNING, 0),
        (999, 1000, RunState.RUNNING, 99),
        (1000, 1000, RunState.RUNNING, 99),
        (1000, 1000, RunState.VERIFYING, 99),
        (2000, 1000, RunState.RUNNING, 99),
        (995, 1000, RunState.PARTIAL, 99),
        (1000, 1000, RunState.PARTIAL, 99),
        (3, 1000, RunState.PARTIAL, 0),
        (1000, 1000, RunState.SUCCEEDED, 100),
        (2**62, 2**62 + 2, RunState.RUNNING, 99),
    ],
)
def test_percent(done, total, run_state, expected):
    assert told(summary(run_state, done=done, total=total)).percent == expected


NO_ETA = [
    summary(),
    summary(RunState.PLANNED, done=0, total=None),
    summary(RunState.RUNNING, done=0),
    summary(RunState.RUNNING, worked=timedelta(0)),
    summary(RunState.RUNNING, waiting_since=NOON - timedelta(minutes=1)),
    summary(RunState.PAUSED),
    summary(RunState.PAUSING),
    summary(RunState.INTERRUPTED, waiting_since=NOON),
    summary(RunState.PARTIAL),
    summary(RunState.SUCCEEDED, done=1000),
]


@pytest.mark.parametrize("known", NO_ETA)
def test_no_eta(known):
    assert told(known).eta is None


def test_the_eta_of_what_is_scheduled_is_its_window():
    assert told(summary(**WINDOW)).eta == Window(NOON - HOUR, NOON + HOUR)
    begun = told(summary(RunState.RUNNING, **WINDOW)).eta
    assert begun == told(summary(RunState.RUNNING)).eta is not None, "once it has begun, by its own pace"
    assert [told(summary(state, **WINDOW)).eta for state in (RunState.PLANNED, RunState.PAUSED, RunState.SUCCEEDED)] == [None] * 3


def test_the_eta_keeps_still_between_two_chunks_and_is_never_past():
    known = summary(RunState.RUNNING)
    moments = [told(known, now=NOON + timedelta(minutes=minute)).eta for minute in (0, 5, 10, 12, 18, 19)]
    first, last = NOON + timedelta(minutes=10), NOON + timedelta(minutes=19)
    assert moments == [Window(first, last)] * 3 + [
        Window(NOON + timedelta(minutes=12), last),
        Window(NOON + timedelta(minutes=18), last),
        None,
    ]


def test_the_eta_is_a_window_of_a_minute_at_least():
    at = NOON + timedelta(minutes=18, seconds=50)
    assert told(summary(RunState.RUNNING), now=at).eta == Window(NOON + timedelta(minutes=19), NOON + timedelta(minutes=20))


def test_verifying_has_an_eta_too():
    known = summary(RunState.VERIFYING, done=1000, worked=timedelta(minutes=100))
    assert told(known).eta == Window(NOON + timedelta(minutes=8), NOON + timedelta(minutes=16))


# --- languages ------------------------------------------------------------------------------------------------------


def test_every_message_is_translated_and_the_compiled_file_is_current():
    compiled = gettext.translation("django", LOCALE, languages=["id"])
    written = texts_of(LOCALE / "id" / "LC_MESSAGES" / "django.po")
    assert set(written) == {*MESSAGES.values(), WAITING}
    assert all(written.values())
    assert {text: compiled.gettext(text) for text in written} == written
    assert len(set(written.values())) == len(State) + 1


def texts_of(catalogue: Path) -> dict[str, str]:
    """msgid -> msgstr of a .po whose texts have a line each, without its head."""
    found, key = {}, ""
    for line in catalogue.read_text().splitlines():
        kind, _, text = line.partition(" ")
        if kind == "msgid":
            key = ast.literal_eval(text)
        elif kind == "msgstr" and key:
            found[key] = ast.literal_eval(text)
    return found


def test_there_is_a_message_for_each_state():
    assert MESSAGES.keys() == POLL_AFTER.keys() == set(State)
