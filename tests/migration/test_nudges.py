"""Nudges: how many a tick sends, how long one lasts, and that one run's trouble keeps nothing from the others."""

from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session

from migration import reaper, runs, steps, tasks, ticks
from migration.doors import Outage
from migration.management import watching
from migration.models import Run
from migration.states import ChunkState, RunState
from tests import factories
from tests.migration.conftest import now

pytestmark = pytest.mark.django_db


@pytest.fixture
def nudged(monkeypatch) -> list[int]:
    """The runs that workers were asked to look at."""
    found: list[int] = []
    monkeypatch.setattr(tasks, "nudge", lambda run_id: found.append(run_id) or True)
    return found


@pytest.mark.parametrize(("leased", "pending", "number"), [(0, 0, 1), (0, 1, 1), (0, 9, 4), (1, 0, 0), (1, 9, 3), (4, 9, 0), (6, 9, 0)])
def test_a_run_is_given_as_many_workers_as_it_may_have_and_no_more_though_each_tick_asks(settings, nudged, leased, pending, number):
    settings.WORKERS_PER_RUN = 4
    run = factories.run(RunState.RUNNING)
    for worker in range(leased):
        factories.chunk(run, ChunkState.LEASED, lease_owner=f"w:{worker}", lease_expires_at=now() + timedelta(minutes=1))
    for _ in range(pending):
        factories.chunk(run, ChunkState.PENDING)
    if leased:  # a worker that loads one chunk while it reads the next is one worker
        factories.chunk(run, ChunkState.LEASED, lease_owner="w:0", lease_expires_at=now() + timedelta(minutes=1))
    assert tasks.nudge_all(run)
    assert nudged == [run.pk] * number


@pytest.mark.parametrize(("age", "works"), [(None, True), (timedelta(seconds=80), True), (timedelta(seconds=100), False)])
def test_a_nudge_that_lay_in_the_queue_for_too_long_is_dropped(monkeypatch, nudged, age, works):
    run, stepped = factories.run(RunState.RUNNING), []
    monkeypatch.setattr(steps, "step", lambda run, owner: stepped.append(run.pk) or steps.Step.WAITING)
    monkeypatch.setattr("django.utils.timezone.now", lambda: now() + timedelta(hours=1))  # which is nobody's measure
    tasks.work(run_id=run.pk, **({"sent": (ticks.now() - age).isoformat()} if age else {}))
    assert stepped == [run.pk] * works


def test_a_run_that_ended_at_this_moment_keeps_no_other_from_its_workers(monkeypatch, nudged):
    """Its gates were looked at meanwhile, and it could not be paused any more."""
    ended, other = factories.run(RunState.RUNNING), factories.run(RunState.RUNNING)

    def refused(run: Run, **_: object) -> bool:
        if run.pk == ended.pk:
            raise runs.Refused("it is succeeded")
        return True

    monkeypatch.setattr(runs, "may_go_on", refused)
    assert tasks.tick()
    assert set(nudged) == {ended.pk, other.pk}
    assert ticks.last() is not None


def test_a_crm_that_is_away_is_found_so_once_in_a_tick(monkeypatch, nudged):
    """Each probe would wait for it."""
    found = [factories.run(RunState.RUNNING) for _ in range(4)]
    asked = []

    def away(run: Run, *, measure: bool, **_: object) -> bool:
        asked.append(measure)
        if measure:
            raise Outage("CRM_DATABASE_URL: no answer within 5 s")
        return run.pk != found[0].pk

    monkeypatch.setattr(runs, "may_go_on", away)
    assert tasks.tick()
    assert asked == [True, False, False, False, False]
    assert set(nudged) == {run.pk for run in found[1:]}


def test_a_tick_removes_the_sessions_that_are_over():
    for key, days in (("over", -1), ("open", 1)):
        Session.objects.create(session_key=key, expire_date=now() + timedelta(days=days))
    tasks.tick()
    assert [each.session_key for each in Session.objects.all()] == ["open"]


def test_a_tick_that_takes_longer_than_half_a_minute_leaves_out_no_other():
    ticks.record(by="w:1", now=ticks.now() - timedelta(seconds=25), began=ticks.now() - timedelta(seconds=60))
    before = ticks.last()
    tasks.tick_of_beat()
    assert ticks.last() != before
    assert ticks.last_began() <= ticks.last()


@pytest.mark.parametrize(
    ("ago", "ticks_now"), [(None, True), (timedelta(seconds=20), False), (timedelta(seconds=40), True), (timedelta(hours=-1), True)]
)
def test_of_ticks_that_piled_up_one_is_enough(monkeypatch, ago, ticks_now):
    """By the database's clock: this worker's own is a day ahead."""
    at = ticks.now()
    if ago is not None:
        ticks.record(by="w:1", now=at - ago)
    monkeypatch.setattr("django.utils.timezone.now", lambda: at + timedelta(days=1))
    monkeypatch.setattr(reaper, "reap", lambda: None)
    before = ticks.last()
    tasks.tick_of_beat()
    assert (ticks.last() != before) is ticks_now


# --- run_account, which waits for the workers -----------------------------------------------------------------------


class Watched:
    """A run that is watched, by a clock of the test's own; `said` is what the command said of what may be missing."""

    def __init__(self, monkeypatch, run: Run) -> None:
        self.run, self.clock, self.lines = run, 0.0, []
        monkeypatch.setattr(watching.time, "monotonic", lambda: self.clock)
        monkeypatch.setattr(watching.sys.stderr, "isatty", lambda: False, raising=False)
        self.watch = watching.Watch(run, self)

    def aside(self, text: str) -> None:
        self.lines.append(text)

    def after(self, seconds: float) -> list[str]:
        self.clock += seconds
        self.run.refresh_from_db()
        self.watch.show()
        self.watch.renudge()
        return self.said

    @property
    def said(self) -> list[str]:
        return [line for line in self.lines if not line.startswith(f"Run {self.run.pk} ")]


@pytest.fixture
def watched(monkeypatch) -> Watched:
    run = factories.run(RunState.RUNNING)
    factories.chunk(run)
    factories.chunk(run, ChunkState.PENDING)
    return Watched(monkeypatch, run)


def test_a_run_that_nobody_is_at_is_said_to_lack_a_worker(watched, nudged):
    said = f"No worker is at run {watched.run.pk}: start one with `celery -A calm_console worker`, or use --inline."
    assert (watched.after(1), watched.after(8), watched.after(2), watched.after(5), watched.after(6)) == (
        [],
        [],
        [said],
        [said],
        [said] * 2,
    )
    assert nudged == [watched.run.pk] * 2


def test_a_run_that_gets_on_lacks_no_worker_though_none_holds_a_chunk_at_this_moment(watched, nudged):
    """Between two small chunks nobody does, and each look may meet such a moment."""
    for _ in range(5):
        assert watched.after(9) == []
        factories.chunk(watched.run)
    assert nudged == []


def test_a_run_that_says_what_it_waits_for_is_nudged_and_no_worker_is_missed(watched, nudged):
    runs.note(watched.run, "USMAN_URL: USMAN did not answer 3 attempts", now=now())
    assert (watched.after(0), watched.after(11), nudged) == ([], [], [watched.run.pk])


def test_a_run_that_has_ended_lacks_no_worker(watched, nudged):
    Run.objects.filter(pk=watched.run.pk).update(state=RunState.PARTIAL, finished_at=now())
    assert (watched.after(0), watched.after(60), nudged) == ([], [], [])


def test_a_broker_that_is_away_is_named_and_no_worker(watched, monkeypatch):
    monkeypatch.setattr(tasks, "nudge", lambda run_id: False)
    watched.after(0)
    assert watched.after(11) == [f"The broker at REDIS_URL does not answer: run {watched.run.pk} waits until a worker can be asked for."]
