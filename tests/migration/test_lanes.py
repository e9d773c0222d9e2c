"""The two lanes of a worker: one reads while the other loads, a chunk that was tried before goes alone, and both end together."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from django.db import OperationalError, connection

from migration import attempts, chunks, leases, runs, steps
from migration.doors import Outage
from migration.models import Account, Chunk, Run
from migration.states import ChunkState, RunMode, RunState
from tests.migration.conftest import OWNER, now

SIZE = 60


@pytest.fixture
def run(console) -> Run:
    """Account 1's production run with its chunks cut."""
    run = runs.start(runs.Wish(Account.objects.get(crm_organization_id=1), RunMode.PRODUCTION, SIZE), by="tester", now=now())
    steps.step(run, owner=OWNER)
    run.refresh_from_db()
    assert run.state == RunState.RUNNING
    return run


@contextmanager
def locked(url: str) -> Iterator[psycopg.Connection]:
    """Nobody can load: the target is locked until the block ends."""
    with psycopg.connect(url) as lock:
        lock.execute("LOCK TABLE contact_activity_logs IN SHARE ROW EXCLUSIVE MODE")
        yield lock


@contextmanager
def working(run: Run) -> Iterator[None]:
    """A turn of a worker in a thread, which is over with the block."""

    def work() -> None:
        try:
            steps.worked(Run.objects.get(pk=run.pk), owner=OWNER, turn=60.0)
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(30)
        assert not thread.is_alive()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def states(run: Run) -> list[str]:
    return list(run.chunks.order_by("number").values_list("state", flat=True))


def staging(url: str) -> int:
    """Sessions that have staged a chunk's rows, or are about to."""
    with psycopg.connect(url) as cdp:
        row = cdp.execute("SELECT count(DISTINCT relnamespace) FROM pg_class WHERE relname = 'calm_staging'").fetchone()
    return row[0] if row else 0


def test_the_next_chunk_is_read_while_the_last_waits_to_be_loaded(console, run):
    with locked(console.cdp) as lock, working(run):
        until(lambda: staging(console.cdp) == 2)
        assert states(run)[:3] == [ChunkState.LEASED, ChunkState.LEASED, ChunkState.PENDING]
        assert (leases.count(run), leases.workers(run), leases.reading()) == (2, 1, 1)
        time.sleep(0.3)
        assert leases.count(run) == 2  # two lanes: no third chunk is begun
        lock.rollback()
    assert set(states(run)) == {ChunkState.DONE}


def test_without_read_ahead_a_worker_holds_one_chunk(console, settings, run):
    settings.READ_AHEAD = False
    with locked(console.cdp) as lock, working(run):
        until(lambda: staging(console.cdp) == 1)
        time.sleep(0.3)
        assert (leases.count(run), staging(console.cdp)) == (1, 1)
        lock.rollback()
    assert set(states(run)) == {ChunkState.DONE}


def test_a_chunk_that_was_tried_before_goes_alone(console, run, monkeypatch):
    """Before it and after it there are two at a time; while it is worked on there is no other."""
    run.chunks.filter(number=4).update(attempts=1)
    at_work: set[int] = set()
    beside: dict[int, set[int]] = {}
    guard, process = threading.Lock(), attempts.process

    def watched(chunk: Chunk, *arguments: object, **named: object) -> None:
        with guard:
            at_work.add(chunk.number)
            for number in at_work:
                beside.setdefault(number, set()).update(at_work - {number})
        time.sleep(0.05)
        process(chunk, *arguments, **named)  # type: ignore[arg-type]
        with guard:
            at_work.remove(chunk.number)

    monkeypatch.setattr(attempts, "process", watched)
    steps.worked(run, owner=OWNER, turn=60.0)
    assert set(states(run)) == {ChunkState.DONE}
    assert beside[4] == set()
    assert any(beside[number] for number in beside if number < 4) and any(beside[number] for number in beside if number > 4)


@pytest.mark.parametrize("lane", ["MainThread", "second lane"])
def test_what_ends_one_lane_ends_both_and_is_raised_once_both_have(run, monkeypatch, lane):
    process = attempts.process

    def failing(chunk: Chunk, *arguments: object, **named: object) -> None:
        if threading.current_thread().name == lane and chunk.number > 2:
            chunks.hand_back(chunk, "away", outage=True)
            raise Outage("away")
        process(chunk, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(attempts, "process", failing)
    with pytest.raises(Outage, match="away"):
        steps.worked(run, owner=OWNER, turn=60.0)
    assert "second lane" not in {thread.name for thread in threading.enumerate()}
    assert set(states(run)) == {ChunkState.DONE, ChunkState.PENDING}


def test_a_worker_that_is_stopped_hands_back_what_both_lanes_hold(console, run, monkeypatch):
    process = attempts.process

    def stopped(chunk: Chunk, *arguments: object, **named: object) -> None:
        if threading.current_thread() is threading.main_thread() and leases.count(run) == 2:
            raise SystemExit
        process(chunk, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(attempts, "process", stopped)
    with locked(console.cdp) as lock:
        threading.Timer(3.0, lock.rollback).start()
        with pytest.raises(SystemExit):
            steps.worked(run, owner=OWNER, turn=60.0)
        assert leases.count(run) == 0
    until(lambda: "second lane" not in {thread.name for thread in threading.enumerate()})
    assert leases.count(run) == 0
    monkeypatch.undo()
    steps.worked(run, owner=OWNER, turn=60.0)
    assert set(states(run)) == {ChunkState.DONE}


def test_a_role_with_too_few_connections_for_two_lanes_works_with_one(console, run, monkeypatch):
    def refused() -> None:
        raise Outage("too many connections for role")

    monkeypatch.setattr("migration.lanes.Cdp", refused)
    steps.worked(run, owner=OWNER, turn=60.0)
    assert set(states(run)) == {ChunkState.DONE}


@pytest.mark.parametrize("broken", ["migration.runs.goes_on", "migration.budget.most_audits"])
def test_an_outage_right_after_a_claim_leaves_no_chunk_behind_and_counts_no_attempt(run, monkeypatch, broken):
    """Between the claim and the first phase: nobody but the worker's turn itself knows of the chunk."""

    def away(*_: object) -> None:
        raise OperationalError("the connection was cut")

    monkeypatch.setattr(broken, away)
    with pytest.raises(OperationalError):
        steps.worked(run, owner=OWNER, turn=60.0)
    assert set(run.chunks.values_list("state", "attempts", "lease_owner")) == {(ChunkState.PENDING, 0, "")}
    monkeypatch.undo()
    steps.worked(run, owner=OWNER, turn=60.0)
    assert set(run.chunks.values_list("state", "attempts")) == {(ChunkState.DONE, 1)}
