"""How far a run is, and what is left of it at the pace so far."""

from datetime import timedelta

import pytest

from migration import progress
from migration.models import Run
from migration.states import ChunkState, RunState
from tests import factories
from tests.factories import NOON

SECOND = timedelta(seconds=1)


def begun(*moves: tuple[float, RunState], now: RunState = RunState.RUNNING) -> Run:
    """A run that started at NOON + 1 s and met these moves, by seconds since; half of its audits are done."""
    run = factories.run(now)
    factories.event(run, kind="run planned", at=NOON)
    for seconds, state in moves:
        factories.event(run, kind=f"run {state}", at=run.started_at + seconds * SECOND)
    factories.chunk(run, expected=600)
    factories.chunk(run, ChunkState.PENDING, expected=600)
    return run


def of(run: Run, seconds: float) -> progress.Progress:
    return progress.of(run, now=run.started_at + seconds * SECOND)


@pytest.mark.parametrize("rest", [RunState.PAUSED, RunState.INTERRUPTED, RunState.FAILED])
def test_what_is_left_is_told_from_the_pace_at_work_and_not_while_it_rested(db, rest):
    """A window that closes for the day would make the rest of a run, and all that follows it in its batch, many times as long."""
    run = begun((30, RunState.RUNNING), (60, RunState.PAUSING), (60, rest), (60 + 16 * 3600, RunState.RUNNING))
    found = of(run, 60 + 16 * 3600 + 60)
    assert (found.rate, found.eta) == (5.0, 120 * SECOND)


def test_a_run_that_rests_keeps_its_pace(db):
    run = begun((60, RunState.PAUSED), now=RunState.PAUSED)
    assert {of(run, seconds).eta for seconds in (60, 61, 10_000)} == {60 * SECOND}


def test_rest_before_its_start_is_no_part_of_it(db):
    run = begun((-900, RunState.PAUSED), (-10, RunState.PLANNED))
    assert of(run, 60).rate == 10.0


def test_a_run_that_ended_and_was_tried_again(db):
    run = begun(
        (60, RunState.FAILED), (7200, RunState.RUNNING), (7260, RunState.PARTIAL), (9000, RunState.SUCCEEDED), now=RunState.SUCCEEDED
    )
    run.finished_at = run.started_at + 7260 * SECOND
    assert of(run, 100_000).rate == 5.0
