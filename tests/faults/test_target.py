"""The CDP: the answer to a commit is lost on the way, or the commit itself; somebody else holds a lock there."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psycopg
import pytest

from migration.models import Run
from migration.states import RunState
from tests.faults.processes import (
    PARTIAL,
    assert_undisturbed,
    at_chunk,
    ended,
    finish_by_ticks,
    reach,
    run_account,
    start,
    thaw,
    tick,
    until,
    worker,
)
from tests.faults.proxy import proxied
from tests.migration.against_oracle import sample
from tests.migration.oracle import expected

pytestmark = [pytest.mark.slow]
SMALL = 20


@pytest.mark.fault
@pytest.mark.parametrize("answered", [True, False], ids=["answer lost", "commit lost"])
def test_a_commit_is_cut_off(console, settings, answered):
    """Whether it was done, the receipt tells whoever asks next."""
    with proxied(settings.CDP_DATABASE_URL, {2, 4, 7}, answered=answered) as proxy:
        settings.CDP_DATABASE_URL = proxy.url
        for _ in range(3):
            with run_account(settings) as child:
                assert ended(child) == 1
        with run_account(settings) as child:
            assert ended(child) == PARTIAL
        assert proxy.made == 3
        assert set(Run.objects.get().chunks.values_list("attempts", flat=True)) == {1}  # an outage is no attempt
        assert_undisturbed(console)


@pytest.mark.fault
def test_the_target_is_locked_for_longer_than_a_worker_waits(console, settings, broker):
    """No error of the data: it waits, nothing is split, no attempt is counted."""
    run = start(SMALL)
    with worker(settings, REDIS_URL=broker.url(), FAULT_SLOW_READ="0.2"):
        tick(settings, REDIS_URL=broker.url())
        until(partial(at_chunk, 3))
        with locked(console.cdp, "LOCK TABLE contact_activity_logs IN ACCESS EXCLUSIVE MODE"):
            until(lambda: run.refresh_from_db() or run.reason)  # after the ten seconds of lock_timeout
            said = run.reason
        finish_by_ticks(settings, run, REDIS_URL=broker.url())
    assert "CDP_DATABASE_URL" in said and "lock" in said
    assert set(run.chunks.values_list("attempts", flat=True)) == {1}
    assert run.state == RunState.PARTIAL
    assert_undisturbed(console)


@pytest.mark.fault
def test_another_session_holds_the_keys_that_are_to_be_written(console, settings):
    """It has inserted a row of ours and takes its time to take it back."""
    row = expected(sample(), 1, capabilities=frozenset("DE")).rows()[200]
    insert = f"""INSERT INTO contact_activity_logs (id, account_id, contact_id, category, actor_kind, occurred_at, changes, origin)
                 VALUES ('{row[0]}', '{row[1]}', '{row[2]}', 'contact/update', 'system', now(), '{{}}', 'live')"""
    with run_account(settings, point="claimed") as child:
        reach(child)
        with locked(console.cdp, insert):
            thaw(child)
            until(partial(at_chunk, 3))
            time.sleep(3)
        assert ended(child) == PARTIAL
    assert_undisturbed(console)


@contextmanager
def locked(url: str, statement: str) -> Iterator[None]:
    """Another session's transaction, which is taken back at the end."""
    with psycopg.connect(url) as connection:
        connection.execute(statement)
        yield
        connection.rollback()
