"""What a CDP refuses for a while, whatever the data: writes, as it failed over to a standby or its disk is full; what ended in a deadlock."""

from datetime import timedelta

import pytest

from migration import attempts, runs, steps, tasks
from migration.doors import Outage
from migration.models import Account, Run
from migration.pipeline import flow
from migration.states import COMPLETE, FINISHED, ChunkState, RunMode, RunState
from tests.migration.conftest import OWNER, now, run_account
from tests.migration.test_meanwhile import ours

CURE = "CDP_DATABASE_URL: the server takes no writes"


def planned(chunk_size: int) -> Run:
    run = runs.start(runs.Wish(Account.objects.get(crm_organization_id=1), RunMode.PRODUCTION, chunk_size), by="tester", now=now())
    steps.step(run, owner=OWNER)
    return run


def finished(run: Run) -> Run:
    while run.state not in FINISHED:
        tasks.turn(run)
        run.refresh_from_db()
    return run


@pytest.mark.parametrize("lanes", [True, False], ids=["two lanes", "one lane"])
def test_what_is_not_taken_is_no_attempt_and_the_run_goes_on_once_writes_are_taken(console, settings, monkeypatch, lanes):
    """In sessions that are open already, as a reloaded setting has it."""
    settings.READ_AHEAD = lanes
    monkeypatch.setattr(attempts, "OUTAGE_WAIT", timedelta(seconds=1))
    load, calls = flow.load, iter(range(100))

    def then_without_writes(cdp, *rest):
        cdp.connection.execute(f"SET default_transaction_read_only = {'on' if next(calls) in (2, 3) else 'off'}")
        return load(cdp, *rest)

    monkeypatch.setattr(flow, "load", then_without_writes)
    run = planned(chunk_size=50)
    with pytest.raises(Outage, match=CURE):
        steps.step(run, owner=OWNER)
    assert 2 <= run.chunks.filter(state=ChunkState.DONE).count() < run.chunks.count()
    assert finished(run).state == RunState.PARTIAL
    assert set(run.chunks.values_list("state", "attempts")) == {(ChunkState.DONE, 1)}
    loaded = ours(console)
    console.change_cdp("DELETE FROM contact_activity_logs WHERE origin = 'crm_migration'")
    assert run_account(1).state in COMPLETE
    assert loaded == ours(console)


def test_a_deadlock_is_no_attempt(console):
    console.change_cdp(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'deadlock detected' USING ERRCODE = 'deadlock_detected'; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON contact_activity_logs EXECUTE FUNCTION refuse()",
    )
    run = planned(chunk_size=100)
    for _ in range(4):  # one more than a chunk's attempts
        with pytest.raises(Outage, match="CDP_DATABASE_URL: deadlock detected"):
            steps.step(run, owner=OWNER)
        run.chunks.update(not_before=None)
    console.change_cdp("DROP TRIGGER refuse ON contact_activity_logs")
    assert finished(run).state == RunState.PARTIAL
    assert set(run.chunks.values_list("state", "attempts")) == {(ChunkState.DONE, 1)}


@pytest.mark.parametrize("mode", list(RunMode))
def test_a_run_says_what_it_waits_for(console, mode):
    """A new session finds the database so; a dry run needs temporary tables, which such a server makes none of either."""
    name = console.cdp.rpartition("/")[2]
    console.change_cdp(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    run = runs.start(runs.Wish(Account.objects.get(crm_organization_id=1), mode), by="tester", now=now())
    for _ in range(3):
        tasks.turn(run)
        run.refresh_from_db()
    assert run.state in (RunState.PLANNED, RunState.RUNNING)
    assert run.reason.startswith(CURE), run.reason
