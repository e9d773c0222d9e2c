"""The reaper: whose lease ran out is freed, and the database sessions that it left are ended, and no others."""

import time
from contextlib import closing
from datetime import timedelta

import psycopg
import pytest

from migration import chunks, holding, planning, reaper, runs, steps, tasks, worlds
from migration.cdp import Cdp
from migration.crm import Crm
from migration.models import Account, Chunk, Run
from migration.states import ChunkState, RunMode, RunState
from tests import factories
from tests.migration.conftest import OWNER, now


@pytest.fixture
def run(console) -> Run:
    started = runs.start(runs.Wish(Account.objects.get(crm_organization_id=1), RunMode.PRODUCTION, 100), by="tester", now=now())
    steps.step(started, owner=OWNER)
    started.refresh_from_db()
    return started


def expired(run: Run | None = None) -> None:
    Chunk.objects.filter(state=ChunkState.LEASED).update(lease_expires_at="2020-01-01T00:00Z")


def is_alive(door: Crm | Cdp) -> bool:
    try:
        door.connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def test_it_frees_what_ran_out_keeps_the_attempt_counted_and_leaves_the_rest(run):
    lost, held = chunks.claim(run, owner="gone:1"), chunks.claim(run, owner="alive:2")
    assert reaper.reap() == 0
    Chunk.objects.filter(pk=lost.pk).update(lease_expires_at="2020-01-01T00:00Z")
    assert reaper.reap() == 1
    lost.refresh_from_db()
    held.refresh_from_db()
    assert (lost.state, lost.attempts, lost.token, lost.lease_owner, lost.reason) == (
        ChunkState.PENDING,
        1,
        1,
        "",
        "gone:1 did not come back",
    )
    assert (held.state, held.lease_owner) == (ChunkState.LEASED, "alive:2")
    again = chunks.claim(run, owner=OWNER)
    assert (again.pk, again.attempts, again.token) == (lost.pk, 2, 2)


def test_it_can_be_asked_for_one_run(run):
    other = factories.chunk(factories.run(RunState.RUNNING, account=factories.account(crm_organization_id=901)), ChunkState.LEASED)
    chunks.claim(run, owner="gone:1")
    expired()
    assert reaper.reap(run) == 1
    other.refresh_from_db()
    assert other.state == ChunkState.LEASED


def test_the_tick_reaps(run):
    chunks.claim(run, owner="gone:1")
    expired()
    tasks.tick()
    assert not Chunk.objects.filter(state=ChunkState.LEASED).exists()


def test_it_ends_the_sessions_of_the_lost_worker_and_no_others(run):
    with closing(Crm()) as crm, closing(Cdp()) as cdp, closing(Crm()) as other_crm, closing(Cdp()) as other_cdp:
        sessions = {"crm": [crm.rows(reaper.ME)[0]], "cdp": [cdp.rows(reaper.ME)[0]]}
        reused = {"cdp": [(other_cdp.rows(reaper.ME)[0][0], "2020-01-01 00:00:00+00")]}  # the process id of another session by now
        chunks.claim(run, owner="gone:1", sessions=sessions)
        chunks.claim(run, owner="gone:2", sessions=reused)
        expired()
        assert reaper.reap() == 2
        assert [is_alive(door) for door in (crm, cdp, other_crm, other_cdp)] == [False, False, True, True]


def test_sessions_on_another_server_than_this_process_reaches_are_left_alone(run):
    with closing(Cdp()) as cdp:
        chunks.claim(run, owner="gone:1", sessions={"cdp": [cdp.rows(reaper.ME)[0]]})
        expired()
        Run.objects.update(systems="0" * 64)
        assert reaper.reap() == 1
        assert is_alive(cdp)


def test_a_server_that_is_away_keeps_nothing_from_being_freed(run, settings, caplog):
    chunks.claim(run, owner="gone:1", sessions={"cdp": [(1, "2020-01-01 00:00:00+00")]})
    expired()
    settings.CDP_DATABASE_URL = "postgresql://u:p@127.0.0.1:1/x"
    Run.objects.update(systems=worlds.systems())
    assert reaper.reap() == 1
    assert "sessions of a worker that did not come back are not ended: CDP_DATABASE_URL" in caplog.text


def test_a_worker_notes_its_sessions_with_the_chunk(run):
    with worlds.opened(run) as world:
        noted = reaper.sessions_of(world)
        chunk = chunks.claim(run, owner=OWNER, sessions=noted)
        assert chunk.sessions == {system: [list(session) for session in found] for system, found in noted.items()}
        assert noted["cdp"][0][0] == world.cdp.connection.info.backend_pid
        assert noted["crm"][0][0] == world.crm.connection.info.backend_pid


def test_a_lease_is_the_databases_matter(run, monkeypatch):
    """A worker whose clock is off by an hour neither frees nor keeps anything by it."""
    chunks.claim(run, owner="alive:1")
    monkeypatch.setattr("django.utils.timezone.now", lambda: now() + timedelta(hours=1))
    assert reaper.reap() == 0


def test_a_run_is_kept_through_a_question_that_takes_longer_than_its_lease(console, settings, monkeypatch):
    settings.LEASE_SECONDS = 1
    started = runs.start(runs.Wish(Account.objects.get(crm_organization_id=1), RunMode.PRODUCTION, 100), by="tester", now=now())
    counted, taken = planning.count, []

    def slowly(*given):
        time.sleep(2.5)
        taken.append(holding.taken(started, "elsewhere:1"))
        yield from counted(*given)

    monkeypatch.setattr(planning, "count", slowly)
    assert steps.step(started, owner=OWNER) == steps.Step.WORKED
    started.refresh_from_db()
    assert (taken, started.state, started.lease_owner) == ([False], RunState.RUNNING, "")
