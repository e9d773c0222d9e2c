"""The CRM's replica, a real standby: its replay is paused, and its conflicts with recovery end statements and sessions in the middle."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from calm_console.demo import sample
from migration.crm import Crm
from migration.models import ReadBudget, Run
from migration.states import RunReason, RunState
from tests.conftest import PASSWORD, ROLES, Systems, at, run_sql
from tests.faults.processes import (
    PARTIAL,
    assert_undisturbed,
    at_chunk,
    ended,
    finish_by_ticks,
    process,
    reach,
    run_account,
    start,
    thaw,
    tick,
    until,
    worker,
)
from tests.faults.servers import caught_up

pytestmark = [pytest.mark.slow, pytest.mark.fault]
SMALL = 20
NOISE = "CREATE TABLE IF NOT EXISTS noise AS SELECT generate_series(1, 1000) AS n"
VACUUMED = ("DELETE FROM noise", "VACUUM noise", "INSERT INTO noise SELECT generate_series(1, 1000)")  # in no snapshot of before
LOCKED = ("BEGIN; LOCK TABLE audits IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(0.2); COMMIT",)


@pytest.fixture
def replicated(console, settings, own_postgres, own_standby) -> Systems:
    """The same systems, the CRM's rows on a primary that only the test reaches, the console reading its standby."""
    url = own_postgres.new_database("replicated")
    sample.load_crm(url, dump="crm_sample", reader=ROLES["crm"])
    run_sql(url, NOISE)
    caught_up(own_postgres, own_standby)
    settings.CRM_DATABASE_URL = at(own_standby.url("replicated"), "replicated", ROLES["crm"], PASSWORD)
    return Systems(url, console.cdp, console.usman)


def test_replay_is_paused_and_the_run_waits_and_says_why(replicated, settings, broker, own_postgres, own_standby):
    run = start(SMALL)
    variables = {"REDIS_URL": broker.url(), "READ_LAG_LIMIT_SECONDS": "2", "TURN_SECONDS": "1", "FAULT_SLOW_READ": "0.3"}
    with worker(settings, **variables):
        tick(settings, **variables)
        until(lambda: at_chunk(3))
        run_sql(own_standby.url(), "SELECT pg_wal_replay_pause()")
        run_sql(replicated.crm, "INSERT INTO noise VALUES (0)")
        until(lambda: waits_for_budget(settings, run, variables))
        assert "The CRM's replica is " in run.reason and " s behind; nothing is read from 2 s on." in run.reason
        run_sql(own_standby.url(), "SELECT pg_wal_replay_resume()")
        caught_up(own_postgres, own_standby)
        finish_by_ticks(settings, run, **variables)
    assert set(run.chunks.values_list("attempts", flat=True)) == {1}
    assert_undisturbed(replicated)


def test_a_replica_that_has_lost_its_primary_is_behind_also_once_it_was_started_again(replicated, own_postgres, own_standby):
    """It has replayed no transaction since then, and so cannot tell of when the last one was: that is not to be up to date."""
    own_postgres.end(signal.SIGINT)
    try:
        caught = time.monotonic()
        own_standby.end(signal.SIGINT)
        own_standby.start()
        with closing(Crm()) as crm:
            assert crm.rows("SELECT pg_is_in_recovery(), pg_last_xact_replay_timestamp()") == [(True, None)]
            time.sleep(1)
            assert time.monotonic() - caught - 1 < crm.lag() < time.monotonic() - caught + 10
    finally:
        own_postgres.start()
    with closing(Crm()) as crm:
        until(lambda: crm.lag() == 0, "it does not find its primary again")


def waits_for_budget(settings, run: Run, variables: dict[str, str]) -> bool:
    tick(settings, **variables)
    run.refresh_from_db()
    return run.reason_code == RunReason.READ_BUDGET


@pytest.mark.parametrize("statements", [VACUUMED, LOCKED], ids=["vacuum", "lock"])
def test_a_session_that_stands_in_the_way_of_replay_is_ended(replicated, settings, own_postgres, own_standby, statements):
    """The process is stopped with its snapshot open and comes back to a connection that is gone."""
    with run_account(settings, point="reading", skip=2) as child:
        reach(child)
        for statement in statements:
            run_sql(replicated.crm, statement)
        caught_up(own_postgres, own_standby)
        thaw(child)
        assert ended(child) == 1
    run = Run.objects.get()
    assert (run.state, run.reason_code) == (RunState.INTERRUPTED, RunReason.OUTAGE)
    assert run.reason.startswith("CRM_DATABASE_URL: ")
    assert ReadBudget.objects.get().chunk_audits == 500  # the smallest there is: tried again smaller
    with run_account(settings) as child:
        assert ended(child) == PARTIAL
    assert set(run.chunks.values_list("attempts", flat=True)) == {1}
    assert_undisturbed(replicated)


@pytest.mark.parametrize("statements", [VACUUMED, LOCKED], ids=["vacuum", "lock"])
def test_statements_are_cancelled_by_conflicts_with_recovery(replicated, settings, broker, own_postgres, own_standby, statements):
    """SQLSTATE 40001, again and again while chunks are read; no attempt is counted."""
    run = start(SMALL)
    variables = {"REDIS_URL": broker.url(), "TURN_SECONDS": "1", "FAULT_SLOW_READ": "0.4"}
    reasons: set[str] = set()
    with worker(settings, **variables):
        tick(settings, **variables)
        until(lambda: at_chunk(2))
        with again_and_again(replicated.crm, statements):
            for _ in range(5):
                with process(settings, "manage.py", "tick", **variables) as ticking:
                    until(lambda: reasons.update(run.chunks.values_list("reason", flat=True)) or ticking.poll() is not None)
        finish_by_ticks(settings, run, **variables)
    assert any("conflict with recovery" in reason for reason in reasons), reasons
    assert set(run.chunks.values_list("attempts", flat=True)) == {1}
    assert_undisturbed(replicated)


@contextmanager
def again_and_again(url: str, statements: tuple[str, ...]) -> Iterator[None]:
    """The statements on the primary, twice a second, from a thread of its own."""
    enough = threading.Event()

    def disturb() -> None:
        while not enough.wait(0.5):
            for statement in statements:
                run_sql(url, statement)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()
