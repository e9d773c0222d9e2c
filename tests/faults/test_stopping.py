"""A Celery worker that is asked to stop in the middle of a chunk."""

import signal
import time

import psycopg
import pytest

from migration.models import Chunk, Run
from migration.states import ChunkState
from tests.faults.processes import PARTIAL, assert_undisturbed, ended, process, run_account, until
from tests.migration.test_restart import own_redis

__all__ = ["own_redis"]
pytestmark = [pytest.mark.slow, pytest.mark.fault]


def test_term_hands_the_chunk_back_at_once(console, settings, own_redis):
    """The worker waits for a lock in the CDP, so that it is surely in the middle of its chunk."""
    start = ["manage.py", "run_account", "1", "--mode", "production", "--chunk-size", "60"]
    worker = ["-m", "celery", "-A", "calm_console", "worker", "--concurrency", "1", "--loglevel", "WARNING"]
    with psycopg.connect(console.cdp) as lock, process(settings, *start), process(settings, *worker, LEASE_SECONDS="60") as celery:
        lock.execute("LOCK TABLE contact_activity_logs IN SHARE ROW EXCLUSIVE MODE")
        until(lambda: Chunk.objects.filter(state=ChunkState.LEASED).exists(), "no chunk was claimed")
        time.sleep(1.0)
        asked = time.monotonic()
        celery.send_signal(signal.SIGTERM)
        until(lambda: celery.poll() is not None, "the worker did not stop")
        took = time.monotonic() - asked
        chunk = Chunk.objects.order_by("number").first()
        assert (chunk.state, chunk.attempts, chunk.lease_owner) == (ChunkState.PENDING, 0, "")
        assert took < 10
    with run_account(settings) as child:
        assert ended(child) == PARTIAL
    assert Run.objects.count() == 1
    assert_undisturbed(console)
