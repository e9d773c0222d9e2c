"""Redis may be asked fifty times, forget everything, die or freeze: the chunk table is the queue of record, and ticks alone see a run through."""

import signal
import time
from datetime import timedelta
from functools import partial

import pytest
import redis
from django.urls import reverse

from migration import chunks, runs, steps, ticks
from migration.states import ChunkState, RunReason, RunState, Verb
from migration.tasks import tick_of_beat, work
from tests import factories
from tests.faults.processes import (
    assert_undisturbed,
    at_chunk,
    finish_by_ticks,
    is_over,
    process,
    said,
    start,
    tick,
    until,
    worker,
)
from tests.migration.conftest import now
from tests.migration.test_admin_work import sent_to

pytestmark = [pytest.mark.slow, pytest.mark.fault]
SMALL = 16  # audits to a chunk: some thirty chunks
SLOW = {"FAULT_SLOW_READ": "0.2", "TURN_SECONDS": "1"}
CELERYS_TRIES = 100  # unless it is told otherwise
AT_MOST = 2.0  # seconds for an admin action


def test_the_same_nudge_fifty_times_on_four_workers(console, settings, broker):
    run = start(SMALL)
    with sent_to(broker.url()):
        for _ in range(50):
            work.apply_async(kwargs={"run_id": run.pk})
    with worker(settings, REDIS_URL=broker.url()), worker(settings, REDIS_URL=broker.url()):
        until(partial(is_over, run))
    assert_undisturbed(console)


def test_a_tick_does_not_wait_behind_the_nudges_of_many_runs(console, settings, broker):
    """A worker with one process has half a minute of work queued; the tick is done before that is over."""
    run = start(SMALL)
    steps.step(run, owner="tester")
    with sent_to(broker.url()):
        for _ in range(30):
            work.apply_async(kwargs={"run_id": run.pk})
        tick_of_beat.apply_async()
        with worker(settings, 1, REDIS_URL=broker.url(), FAULT_SLOW_READ="1", TURN_SECONDS="1"):
            until(ticks.last)
    assert run.chunks.filter(state=ChunkState.PENDING).exists()


def test_the_queue_is_flushed_again_and_again(console, settings, broker):
    run = start(SMALL)
    with worker(settings, REDIS_URL=broker.url(), **SLOW):
        tick(settings, REDIS_URL=broker.url())
        for number in (3, 9, 15, 21):
            until(partial(at_chunk, number))
            broker.empty()
        finish_by_ticks(settings, run, REDIS_URL=broker.url())
    assert_undisturbed(console)


def test_redis_is_killed_and_comes_back_empty(console, settings, broker):
    run = start(SMALL)
    with worker(settings, REDIS_URL=broker.url(), **SLOW):
        tick(settings, REDIS_URL=broker.url())
        until(partial(at_chunk, 5))
        broker.end(signal.SIGKILL)
        tick(settings, REDIS_URL=broker.url())  # it has nobody to tell, and says so instead of failing
        broker.start()
        finish_by_ticks(settings, run, REDIS_URL=broker.url())
    assert_undisturbed(console)


def test_a_worker_outlives_a_redis_that_is_away_for_more_tries_than_celery_makes_by_itself(console, settings, broker):
    with worker(settings, 1, REDIS_URL=broker.url(), FAULT_BROKER_WAIT="0.01") as child:
        until(broker.is_waited_at)
        broker.end(signal.SIGKILL)
        until(lambda: said(child).count("Cannot connect to") > CELERYS_TRIES + 10 or child.poll() is not None)
        assert child.poll() is None, "it gave up"
        broker.start()
        run = start(SMALL)
        finish_by_ticks(settings, run, REDIS_URL=broker.url())
    assert_undisturbed(console)


REFUSING = {  # a failover has made it a replica; a setting stands for a full disk, after which it refuses in the same way
    "read-only": (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    "no writes": (("CONFIG", "SET", "min-replicas-to-write", "1"), ("CONFIG", "SET", "min-replicas-to-write", "0")),
}


@pytest.mark.parametrize("how", REFUSING)
def test_workers_and_beat_outlive_a_redis_that_refuses_writes(console, settings, broker, tmp_path, how):
    """It answers, and so is not away; to take a message from a queue is to write. Both go on by themselves once it takes writes again."""
    refuse, allow = REFUSING[how]
    beat = ("-m", "celery", "-A", "calm_console", "beat", "--max-interval", "1", "--loglevel", "WARNING")
    given = {"REDIS_URL": broker.url(), "BEAT_SCHEDULE_FILE": str(tmp_path / "schedule")}
    with worker(settings, 1, **given) as child, process(settings, *beat, **given) as beating, redis.Redis.from_url(broker.url()) as client:
        until(broker.is_waited_at)
        client.execute_command(*refuse)
        try:
            until(lambda: said(child).count("Connection to broker lost") > 1 or child.poll() is not None)
            time.sleep(3)
        finally:
            client.execute_command(*allow)
        assert (child.poll(), beating.poll()) == (None, None), "nothing starts one that gave up"
        run = start(SMALL)
        finish_by_ticks(settings, run, REDIS_URL=broker.url())
    assert_undisturbed(console)


def test_redis_is_frozen_in_the_middle(console, settings, broker):
    """Chunks in hand are ended meanwhile, a tick comes to its end; thawed, ticks see to the rest."""
    run = start(SMALL)
    with worker(settings, REDIS_URL=broker.url(), **SLOW):
        tick(settings, REDIS_URL=broker.url())
        until(partial(at_chunk, 5))
        with broker.frozen():
            tick(settings, REDIS_URL=broker.url())
            until(lambda: not run.chunks.filter(state=ChunkState.LEASED).exists())
        finish_by_ticks(settings, run, REDIS_URL=broker.url())
    assert_undisturbed(console)


REACHED = {
    Verb.PAUSE: RunState.PAUSING,
    Verb.RESUME: RunState.RUNNING,
    Verb.CANCEL: RunState.CANCELLING,
    Verb.RETRY: RunState.RUNNING,
    Verb.FORCE: RunState.PAUSED,
}


@pytest.mark.parametrize("verb", REACHED)
def test_an_admin_action_answers_within_two_seconds_though_redis_is_frozen(console, settings, broker, client, verb):
    """With a chunk in a worker's hands, so that workers are told."""
    run = start(SMALL)
    steps.step(run, owner="tester")
    chunk = chunks.claim(run, owner="tester")
    if verb == Verb.RETRY:
        chunks.fail(chunk, "for the test")
        runs.end(run, RunState.FAILED, code=RunReason.CHUNK_FAILED, reason="", by="tester", now=now())
    if verb in (Verb.RESUME, Verb.FORCE):
        runs.pause(run, by="tester", now=now() - timedelta(minutes=5))
    client.force_login(factories.superuser())
    page = reverse(f"admin:migration_run_{verb}", args=[run.pk])
    assert client.get(page).status_code == 200  # as a person does; and the process's first request reads all the code it needs
    with sent_to(broker.url()), broker.frozen():
        began = time.monotonic()
        answer = client.post(page)
        seconds = time.monotonic() - began
    assert answer.status_code == 302, answer.content.decode()
    assert seconds < AT_MOST
    run.refresh_from_db()
    assert run.state == REACHED[verb]
