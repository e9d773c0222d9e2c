"""Withdrawing a run, and removing stale rows: exactly what the preview says, nothing of others, whatever happens in between."""

import json
import os
import signal
import threading
import time
from collections import Counter
from contextlib import closing
from datetime import timedelta
from io import StringIO

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from gates import milestones
from migration import attempts, chunks, control, figures, ledger, quarantine, receipts, runs, stale, steps, tasks, withdrawal, worlds
from migration.admin import overview
from migration.cdp import Cdp
from migration.doors import Misconfigured, Outage
from migration.models import Account, Chunk, Event, LinkIndex, Run, StaleRow, Summary
from migration.pipeline.load import load
from migration.pipeline.problems import Fenced
from migration.runs import Busy, Refused
from migration.states import ChunkState, RunMode, RunReason, RunState, Verb
from tests import factories
from tests.conftest import ROLES, rows
from tests.migration.against_oracle import assert_as_expected
from tests.migration.conftest import OWNER, now, run_account
from tests.migration.hard_rows import FIRST, NOTE, ORGANISATION, insert, new_contact
from tests.migration.test_boundary import MARK, live, tickets
from tests.migration.test_hard_links import DEAL
from tests.migration.test_restart import PATIENCE, process, wait_until
from tests.migration.test_restored_source import LINK
from tests.migration.test_splitting import target_of

DELETE = f"GRANT DELETE ON contact_activity_logs TO {ROLES['cdp']}"


@pytest.fixture
def may_delete(console):
    console.change_cdp(DELETE)
    return console


def command(run: Run, *options: str) -> dict:
    out = StringIO()
    call_command("withdraw_run", run.pk, *options, "--json", stdout=out, stderr=StringIO())
    run.refresh_from_db()
    return json.loads(out.getvalue())


def by_category(activities: list[tuple]) -> dict[str, int]:
    return dict(sorted(Counter(row[3] for row in activities).items()))


def of_run(console, run: Run) -> list[tuple]:
    return console.activities(f"run_id = '{run.uuid}'")


def of_others(console, run: Run) -> list[tuple]:
    return console.activities(f"run_id IS DISTINCT FROM '{run.uuid}'")


def test_the_preview_is_what_goes_and_nothing_else_does(may_delete):
    other, run = run_account(2), run_account(1)
    theirs, others = of_run(may_delete, run), of_others(may_delete, run)
    strange = [next(row for row in others if row[10] == "live")[0], of_run(may_delete, other)[0][0]]
    may_delete.change_cdp(f"UPDATE contact_activity_logs SET run_id = '{run.uuid}' WHERE id IN ('{strange[0]}', '{strange[1]}')")
    wanted = {"rows": len(theirs), "categories": by_category(theirs), "earlier": {}}
    shown = command(run)
    assert shown == {"run": run.pk, "state": run.state, **wanted, "warnings": []}
    assert [row for row in of_run(may_delete, run) if row[0] not in strange] == theirs
    assert command(run, "--yes") == {"run": run.pk, "state": "withdrawn", **wanted, "removed": by_category(theirs)}
    left = [row[:-1] for row in may_delete.activities()]
    assert left == [row[:-1] for row in others], "a live row that names the run stays, and one of another account"
    assert of_run(may_delete, other)
    assert (run.state, run.reason_code, run.reason) == (RunState.WITHDRAWN, RunReason.ASKED, f"{len(theirs):,} rows are removed.")
    assert list(Event.objects.filter(run=run, kind__startswith="run withdr").order_by("id").values_list("kind", flat=True)) == [
        "run withdrawing",
        "run withdrawn",
    ]
    again = run_account(1)
    assert_as_expected(may_delete, again)


def test_rows_that_an_earlier_run_first_wrote_are_named_and_go_too(may_delete):
    """The run is the last writer of what it corrected; what it only found right stays, since it is another's."""
    first = run_account(1)
    ours = of_run(may_delete, first)
    may_delete.change_cdp(
        f"UPDATE contact_activity_logs SET category = 'x/y' WHERE id IN ('{ours[0][0]}', '{ours[1][0]}')",
        f"DELETE FROM contact_activity_logs WHERE id = '{ours[2][0]}'",
    )
    second = run_account(1)
    theirs = of_run(may_delete, second)
    assert {row[0] for row in theirs} == {ours[0][0], ours[1][0], ours[2][0]}
    shown = command(second)
    assert (shown["rows"], shown["categories"], shown["earlier"]) == (3, by_category(theirs), {str(first): 2})
    shown = command(first)
    assert shown["earlier"] == {}
    assert shown["warnings"] == [
        f"{second} came after it: what it found right and left in place goes too, so run the account again afterwards."
    ]
    command(second, "--yes")
    assert [row[0] for row in of_run(may_delete, first)] == [row[0] for row in ours[3:]]
    found = ledger.of(second)
    assert (found.written, found.corrected, found.withdrawn) == (1, 2, 3)
    factories.run(RunState.CANCELLED, account=first.account)
    assert command(first)["warnings"] == [], "nothing is lost with a later run that was withdrawn or cancelled"


def test_a_later_run_that_found_everything_right_is_complete_no_more(may_delete):
    first, second = run_account(1), run_account(1)
    assert overview.accounts()["moved"] == 1
    command(first, "--yes")
    second.refresh_from_db()
    assert not may_delete.activities(f"account_id = '{first.account.cdp_id}' AND origin = 'crm_migration'")
    assert second.warnings[-1:] == [
        f"{first} was withdrawn afterwards: what this run had found right and left in place went with it. Run the account again."
    ]
    assert Summary.objects.get(pk=first.account_id).run is None
    assert overview.accounts()["moved"] == 0
    assert milestones.newest_complete() == [(None, None)] * Account.objects.filter(gone=False).count()
    third = run_account(1)
    assert_as_expected(may_delete, third)
    assert overview.accounts()["moved"] == 1 and Summary.objects.get(pk=first.account_id).run == third


def test_it_is_done_in_bounded_steps_and_a_turn_that_ends_goes_on_where_it_stopped(may_delete, monkeypatch):
    run = run_account(1)
    total = len(of_run(may_delete, run))
    monkeypatch.setattr(withdrawal, "KEYS_AT_ONCE", 100)
    withdrawal.begin(run, by="ana", now=now())
    assert run.reason == f"ana withdraws it: {total:,} rows are to be removed."
    withdrawal.proceed(run, by=OWNER, now=now(), pulse=lambda: False)
    assert sum(run.withdrawal["removed"].values()) == 100 and len(of_run(may_delete, run)) == total - 100
    seen = []
    withdrawal.proceed(run, by=OWNER, now=now(), pulse=lambda: bool(seen.append(len(of_run(may_delete, run))) or True))
    assert seen == [*range(total - 200, 0, -100), 0]
    assert run.state == RunState.WITHDRAWN and sum(run.withdrawal["removed"].values()) == total


def test_a_withdrawal_that_is_killed_is_gone_on_with_and_its_count_is_exact(may_delete, settings):
    """Killed with a step half done in the CDP; then a worker takes it up."""
    run = run_account(1)
    theirs, others = of_run(may_delete, run), of_others(may_delete, run)
    slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.001); RETURN OLD; END $$"
    may_delete.change_cdp(slow, "CREATE TRIGGER slow BEFORE DELETE ON contact_activity_logs FOR EACH ROW EXECUTE FUNCTION slow()")
    code = """
import sys
from django.conf import settings
import os; os.environ.setdefault("DJANGO_SETTINGS_MODULE", "calm_console.settings")
import django; django.setup()
from migration import withdrawal
withdrawal.KEYS_AT_ONCE = 50
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "withdraw_run", sys.argv[1], "--yes"])
"""
    with process(settings, "-c", code, str(run.pk)) as child:
        wait_until(lambda: len(of_run(may_delete, run)) <= len(theirs) - 100, child)
        os.kill(child.pid, signal.SIGKILL)
        child.wait(PATIENCE)
    run.refresh_from_db()
    assert run.state == RunState.WITHDRAWING and 0 < len(of_run(may_delete, run)) < len(theirs)
    with pytest.raises(Busy, match="is withdrawing and would have to end first"):
        runs.start(runs.Wish(run.account, RunMode.DRY_RUN, None), by="ben", now=now())
    Run.objects.filter(pk=run.pk).update(lease_owner="", lease_expires_at=None)  # instead of waiting for it
    assert steps.step(run, owner=OWNER) == steps.Step.WORKED
    run.refresh_from_db()
    assert (run.state, run.withdrawal["removed"]) == (RunState.WITHDRAWN, by_category(theirs))
    assert of_run(may_delete, run) == [] and of_others(may_delete, run) == others


def test_no_worker_of_the_run_can_write_any_more(may_delete):
    run = run_account(1)
    command(run, "--yes")
    with closing(Cdp()) as cdp:
        cdp.connection.execute("CREATE TEMP TABLE calm_staging (id uuid)")
        for late in run.chunks.all():
            late.token += 10
            with pytest.raises(Fenced):
                load(cdp, target_of(late), factories.receipt())
    kept = rows(may_delete.cdp, f"SELECT receipt -> 'withdrawn' FROM calm.receipts WHERE run_id = '{run.uuid}' AND chunk <> run_id")
    assert kept == [(True,)] * run.chunks.count()


def test_a_run_that_was_cancelled_half_way_is_withdrawn_like_any(may_delete):
    run = runs.start(runs.Wish(Account.objects.get(crm_organization_id=1), RunMode.PRODUCTION, 100), by="tester", now=now())
    steps.step(run, owner=OWNER)
    with worlds.opened(run) as world:
        attempts.process(chunks.claim(run, owner=OWNER), world, owner=OWNER)
    chunks.claim(run, owner="gone:1")
    Chunk.objects.filter(lease_owner="gone:1").update(lease_expires_at="2020-01-01T00:00Z")
    control.cancel(run, by="ana", now=now())
    runs.settle(run, by=OWNER, now=now())
    assert run.state == RunState.CANCELLED and run.chunks.filter(state=ChunkState.DONE).count() == 1
    assert of_run(may_delete, run)
    command(run, "--yes")
    assert run.state == RunState.WITHDRAWN and not of_run(may_delete, run)


@pytest.mark.parametrize("meanwhile", [RunState.WITHDRAWING, RunState.RUNNING])
def test_asked_twice_while_its_rows_are_still_counted(may_delete, monkeypatch, meanwhile):
    run = run_account(1)
    Run.objects.filter(pk=run.pk).update(state=RunState.PARTIAL)
    real = withdrawal.preview

    def counted(asked: Run):
        found = real(asked)
        runs.move(Run.objects.get(pk=run.pk), meanwhile, by="ben", now=now(), reason="ben was faster")
        return found

    monkeypatch.setattr(withdrawal, "preview", counted)
    if meanwhile == RunState.RUNNING:
        with pytest.raises(Busy, match=r"is no longer partial: another process was faster\. Look at it again\."):
            withdrawal.begin(run, by="ana", now=now())
    else:
        assert withdrawal.begin(run, by="ana", now=now()).reason == "ben was faster"


# --- refusals -------------------------------------------------------------------------------------------------------


def test_what_may_not_be_withdrawn_is_refused_in_a_sentence(console):
    dry = run_account(1, RunMode.DRY_RUN)
    with pytest.raises(Refused, match="wrote nothing: only a production run is withdrawn"):
        withdrawal.begin(dry, by="ana", now=now())
    run = run_account(1)
    console.change_cdp(DELETE.replace("GRANT", "REVOKE").replace(" TO ", " FROM "))
    with pytest.raises(Misconfigured, match=rf"GRANT DELETE ON contact_activity_logs TO {ROLES['cdp']}"):
        withdrawal.begin(run, by="ana", now=now())
    console.change_cdp(DELETE)
    other = factories.run(RunState.PLANNED, RunMode.DRY_RUN, account=run.account)
    with pytest.raises(Busy, match=r"Another run of .* is active: wait for it, or cancel it"):
        withdrawal.begin(run, by="ana", now=now())
    Run.objects.filter(pk=other.pk).delete()
    Run.objects.filter(pk=run.pk).update(systems="1" * 64)
    with pytest.raises(Misconfigured, match="names another database here"):
        withdrawal.begin(run, by="ana", now=now())
    Run.objects.filter(pk=run.pk).update(state=RunState.RUNNING)
    with pytest.raises(CommandError, match=r"is running: withdraw is for a run that is succeeded or .* Possible now: pause, cancel\.$"):
        call_command("withdraw_run", run.pk)
    assert of_run(console, run)


# --- what keeps it from going on --------------------------------------------------------------------------------------


def withdrawing() -> Run:
    run = run_account(1)
    return withdrawal.begin(run, by="ana", now=now())


def turned(run: Run) -> Run:
    """After a turn of a worker's, which never ends in an error."""
    tasks.turn(run)
    run.refresh_from_db()
    return run


def test_a_right_that_is_taken_back_is_said_until_it_is_given_again(may_delete, monkeypatch):
    run = withdrawing()
    may_delete.change_cdp(DELETE.replace("GRANT", "REVOKE").replace(" TO ", " FROM "))
    assert turned(run).reason.startswith("CDP_DATABASE_URL: permission denied for table contact_activity_logs")
    assert (run.state, run.reason_code) == (RunState.WITHDRAWING, RunReason.STOPPED)
    assert {each.name: each.samples[0].value for each in figures.runs_by_state()}["calm_runs_kept_from_end"] == 1
    may_delete.change_cdp(DELETE)
    monkeypatch.setattr(withdrawal, "KEYS_AT_ONCE", 100)
    with monkeypatch.context() as short:
        short.setattr("django.conf.settings.TURN_SECONDS", 0.0)
        assert (turned(run).state, run.reason_code, run.reason) == (RunState.WITHDRAWING, "", "")
    assert turned(run).state == RunState.WITHDRAWN


def test_an_error_of_the_data_is_said_and_the_command_ends_with_it(may_delete):
    run = withdrawing()
    may_delete.change_cdp(
        "CREATE TABLE other (id uuid REFERENCES contact_activity_logs)",
        f"INSERT INTO other SELECT id FROM contact_activity_logs WHERE run_id = '{run.uuid}' LIMIT 1",
    )
    said = "ForeignKeyViolation while the run was withdrawing; the log has the details."
    assert (turned(run).state, run.reason_code, run.reason) == (RunState.WITHDRAWING, RunReason.STOPPED, said)
    with pytest.raises(CommandError, match=said):
        command(run, "--yes")
    may_delete.change_cdp("DROP TABLE other")
    assert command(run, "--yes")["state"] == RunState.WITHDRAWN


def test_a_withdrawal_that_cannot_go_on_is_abandoned_and_done_later(may_delete, settings, monkeypatch):
    """The CDP's host was renamed: no process reaches it under the name that the run was planned with."""
    run = withdrawing()
    total = len(of_run(may_delete, run))
    monkeypatch.setattr(withdrawal, "KEYS_AT_ONCE", 100)
    withdrawal.proceed(run, by=OWNER, now=now(), pulse=lambda: False)
    url, settings.CDP_DATABASE_URL = settings.CDP_DATABASE_URL, settings.CDP_DATABASE_URL.replace("127.0.0.1", "localhost")
    assert "names another database here" in turned(run).reason
    with pytest.raises(Busy, match=r"is withdrawing and would have to end first: wait for it, or abandon its withdrawal\."):
        runs.start(runs.Wish(run.account, RunMode.DRY_RUN, None), by="ben", now=now())
    control.act(Verb.ABANDON, run, by="ana", now=now())
    assert (run.state, run.reason_code, run.removed) == (RunState.FAILED, RunReason.ASKED, 100)
    assert run.reason == "ana gave its withdrawal up: the rows that were not removed yet are still in the CDP."
    assert Summary.objects.get(pk=run.account_id).waiting_since is None
    factories.chunk(run, ChunkState.FAILED)
    with pytest.raises(Refused, match="were withdrawn, and nobody writes for it any more"):
        control.retry(run, by="ana", now=now())
    settings.CDP_DATABASE_URL = url
    assert command(run, "--yes")["state"] == RunState.WITHDRAWN
    assert run.removed == total and not of_run(may_delete, run)


def test_no_step_begins_once_a_withdrawal_is_abandoned(may_delete, monkeypatch):
    """Whatever a worker had claimed before: the CDP itself keeps it out, also where it had counted nothing yet."""
    run = withdrawing()
    total = len(of_run(may_delete, run))
    real = withdrawal.remove

    def removed(*arguments):
        control.abandon(Run.objects.get(pk=run.pk), by="ana", now=now())
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(withdrawal, "remove", removed)
        steps.step(run, owner=OWNER)
    run.refresh_from_db()
    assert (run.state, run.withdrawal["removed"], len(of_run(may_delete, run))) == (RunState.FAILED, {}, total)
    assert command(run, "--yes")["state"] == RunState.WITHDRAWN
    assert run.removed == total and not of_run(may_delete, run)


def test_the_command_says_by_its_exit_code_that_somebody_abandoned_what_it_does(may_delete, monkeypatch):
    run, real = run_account(1), withdrawal.remove

    def removed(*arguments):
        control.abandon(Run.objects.get(pk=run.pk), by="ana", now=now())
        return real(*arguments)

    monkeypatch.setattr(withdrawal, "remove", removed)
    out = StringIO()
    with pytest.raises(CommandError) as ended:
        call_command("withdraw_run", run.pk, "--yes", "--json", stdout=out, stderr=StringIO())
    run.refresh_from_db()
    assert (ended.value.returncode, str(ended.value)) == (1, f"{run} is failed: {run.reason}")
    assert run.reason.startswith("ana gave its withdrawal up") and json.loads(out.getvalue())["state"] == RunState.FAILED


def test_abandoning_waits_for_the_step_that_is_under_way_and_tells_the_customer_what_it_took(may_delete, monkeypatch):
    """A step that waits for a row that another session holds; the run after it had found all its rows right."""
    first, later = run_account(1), run_account(1)
    withdrawal.begin(first, by="ana", now=now())
    total = len(of_run(may_delete, first))
    later.refresh_from_db()
    assert later.warnings == [
        f"{first} is being withdrawn: what this run had found right and left in place goes with it. Run the account again afterwards."
    ]
    monkeypatch.setattr(withdrawal, "KEYS_AT_ONCE", total)
    worker = threading.Thread(target=worked_on, args=(first,))
    with psycopg.connect(may_delete.cdp) as holder:
        holder.execute("SELECT FROM contact_activity_logs WHERE run_id = %s LIMIT 1 FOR UPDATE", (first.uuid,))
        worker.start()
        until = time.monotonic() + 8
        while not rows(may_delete.cdp, WAITS_FOR_ROW)[0][0] and time.monotonic() < until:
            time.sleep(0.02)
        with pytest.raises(Busy, match=r"A worker is removing rows of .* at this moment: try again once that step has ended"):
            impatient(control.abandon, first)
        assert Run.objects.get(pk=first.pk).state == RunState.WITHDRAWING
    worker.join()
    first.refresh_from_db()
    control.abandon(first, by="ana", now=now()) if first.state == RunState.WITHDRAWING else None
    later.refresh_from_db()
    assert (sum(first.withdrawal["removed"].values()), of_run(may_delete, first)) == (total, [])
    assert not Run.objects.standing().filter(pk=later.pk).exists()
    assert len(later.warnings) == 1 and "Run the account again." in later.warnings[0]


@pytest.mark.parametrize("steps_done", [0, 1])
def test_what_an_abandoned_withdrawal_removed_is_told_and_nothing_more(may_delete, monkeypatch, client, steps_done):
    first, later = run_account(1), run_account(1)
    monkeypatch.setattr(withdrawal, "KEYS_AT_ONCE", 100)
    withdrawal.begin(first, by="ana", now=now())
    if steps_done:
        real = withdrawal.runs.record
        monkeypatch.setattr(withdrawal.runs, "record", killed)  # between the CDP's commit and the console's count
        with pytest.raises(KeyboardInterrupt):
            withdrawal.proceed(first, by=OWNER, now=now(), pulse=lambda: True)
        monkeypatch.setattr(withdrawal.runs, "record", real)
    control.abandon(first, by="ana", now=now())
    later.refresh_from_db()
    assert (first.state, sum(first.withdrawal["removed"].values())) == (RunState.FAILED, 100 * steps_done)
    gone = f"{first} was being withdrawn afterwards until that was given up: 100 rows that this run may have found right are gone. Run the account again."
    assert later.warnings == [gone] * steps_done
    assert Run.objects.standing().filter(pk=later.pk).exists() == (not steps_done)
    assert Verb.RETRY not in runs.fitting(first) and Verb.WITHDRAW in runs.fitting(first)
    with closing(Cdp()) as cdp:
        assert list(receipts.differences(cdp)) == []


WAITS_FOR_ROW = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def killed(*given: object, **named: object) -> None:
    raise KeyboardInterrupt


def worked_on(run: Run) -> None:
    try:
        withdrawal.proceed(run, by=OWNER, now=now(), pulse=lambda: False)
    finally:
        connection.close()


def impatient(act, run: Run) -> None:
    """The act in a session that waits for a lock no longer than a moment."""
    with pytest.MonkeyPatch.context() as patch:
        real = Cdp.__init__

        def opened(cdp: Cdp) -> None:
            real(cdp)
            cdp.connection.execute("SET lock_timeout = '200ms'")

        patch.setattr(Cdp, "__init__", opened)
        act(run, by="ana", now=now())


# --- stale rows -----------------------------------------------------------------------------------------------------


@pytest.fixture
def with_stale(may_delete) -> Run:
    """A run whose verification found two rows stale: their audits are gone from the CRM."""
    first = run_account(1)
    keys = [(int(row[0].replace("-", "")[:12], 16), row[11]) for row in of_run(may_delete, first) if row[3] == "contact/update"][:2]
    may_delete.change_crm(
        f"CREATE TABLE kept AS SELECT * FROM audits WHERE id IN ({keys[0][1]}, {keys[1][1]})",
        "DELETE FROM audits WHERE id IN (SELECT id FROM kept)",
    )
    run = run_account(1)
    assert sorted(run.stale_rows.values_list("person_id", "audit_id")) == sorted(keys) and run.stale == 2
    return run


def test_stale_rows_are_removed_where_they_still_are(may_delete, with_stale):
    one, other = with_stale.stale_rows.all()
    before = may_delete.activities()
    may_delete.change_crm(f"INSERT INTO audits SELECT * FROM kept WHERE id = {one.audit_id}")
    assert command(with_stale, "--stale") == {"run": with_stale.pk, "removed": 0, "no_longer_stale": 0, "left": 2}
    assert may_delete.activities() == before
    assert command(with_stale, "--stale", "--yes") == {"run": with_stale.pk, "removed": 1, "no_longer_stale": 1, "left": 0}
    assert may_delete.activities() == [row for row in before if row[0] != str(other.row_id)]
    assert (with_stale.stale, StaleRow.objects.count()) == (0, 0)
    assert Event.objects.get(kind="stale rows removed").sentence == "1 of 2 rows that were looked at again; 0 are left on the list"


def test_a_live_row_and_a_row_of_another_account_are_never_removed(may_delete, with_stale):
    one, other = with_stale.stale_rows.all()
    may_delete.change_cdp(
        f"UPDATE contact_activity_logs SET origin = 'live' WHERE id = '{one.row_id}'",
        f"UPDATE contact_activity_logs SET account_id = gen_random_uuid() WHERE id = '{other.row_id}'",
    )
    before = may_delete.activities()
    assert stale.remove(with_stale, by="ana", now=now()) == stale.Step(0, 2)
    assert may_delete.activities() == before


def test_a_row_at_a_contact_that_is_another_persons_by_now_is_removed(may_delete):
    """Its own person is claimed again, by two contacts, so that no run corrects it."""
    contact = new_contact(may_delete, 900_002)
    insert(may_delete, [{"auditable_id": 900_002}])
    run_account(ORGANISATION)
    may_delete.change_cdp(f"UPDATE contacts SET source_id = 900003 WHERE id = '{contact}'")
    new_contact(may_delete, 900_002), new_contact(may_delete, 900_002)
    run = run_account(ORGANISATION)
    assert list(run.stale_rows.values_list("person_id", "audit_id")) == [(900_002, FIRST)]
    assert stale.remove(run, by="ana", now=now()) == stale.Step(1, 0)
    assert not [row for row in may_delete.activities() if row[2] == contact]


def test_rows_of_a_contact_that_is_another_tenants_by_now_are_listed_and_removed_unless_it_came_home(may_delete):
    new_contact(may_delete, 900_001), new_contact(may_delete, 900_002)
    audits = insert(may_delete, [{"auditable_id": 900_001}, {"auditable_id": 900_002}, NOTE | {"associated_id": 900_002}])
    run_account(ORGANISATION)
    before = may_delete.activities()
    theirs = {"action": "create", "audited_changes": '{"organization_id": 3}'}
    moves = insert(may_delete, [{"auditable_id": person} | theirs for person in (900_001, 900_002)], audits)
    run = run_account(ORGANISATION)
    keys = [(900_001, FIRST), (900_002, FIRST + 1), (900_002, FIRST + 2)]
    assert (run.state, sorted(run.stale_rows.values_list("person_id", "audit_id")), run.stale) == (RunState.PARTIAL, keys, 3)
    quarantine.waive(run.quarantined.all(), by="ana", note="theirs", now=now())
    run = run_account(ORGANISATION)
    assert (run.state, sorted(run.stale_rows.values_list("person_id", "audit_id"))) == (RunState.SUCCEEDED, keys)
    assert may_delete.activities() == before
    may_delete.change_crm(f"DELETE FROM audits WHERE id = {moves[0]['id']}")
    assert stale.remove(run, by="ana", now=now()) == stale.Step(2, 1)
    assert may_delete.activities() == [row for row in before if row[11] not in (FIRST + 1, FIRST + 2)]
    again = run_account(ORGANISATION)
    assert (again.state, again.stale, ledger.of(again).unchanged) == (RunState.SUCCEEDED, 0, ledger.of(run).unchanged + 1)


def test_of_rows_beyond_a_watermark_that_went_back_only_those_are_removed_that_live_sync_shows(may_delete):
    """A trial row from before the history makes the live sync look older than it is."""
    hour, audits = timedelta(hours=1), range(FIRST, FIRST + 3)
    tickets(may_delete, MARK, MARK + hour, MARK + 2 * hour)
    run_account(ORGANISATION)
    before = may_delete.activities("origin = 'crm_migration'")
    live(may_delete, MARK - hour)
    live(may_delete, MARK + hour + timedelta(seconds=5))
    run = run_account(ORGANISATION)
    assert sorted(run.stale_rows.values_list("person_id", "audit_id")) == [(1, audit) for audit in audits]
    assert stale.remove(run, by="ana", now=now()) == stale.Step(1, 2)
    assert may_delete.activities("origin = 'crm_migration'") == [row for row in before if row[11] != FIRST + 1]


def test_a_row_whose_link_came_back_stays(may_delete, monkeypatch):
    new_contact(may_delete, 900_001)
    insert(may_delete, [LINK, DEAL])
    run_account(ORGANISATION)
    may_delete.change_crm(f"CREATE TABLE kept AS SELECT * FROM audits WHERE id = {FIRST}", f"DELETE FROM audits WHERE id = {FIRST}")
    LinkIndex.objects.update(built=False, cursor=-1, building_to=None, building_at=None)
    run = run_account(ORGANISATION)
    before = may_delete.activities()
    assert run.stale == 2
    may_delete.change_crm("INSERT INTO audits SELECT * FROM kept")
    with monkeypatch.context() as patch:
        patch.setattr(stale, "LINKS_SECONDS", -1.0)
        with pytest.raises(Outage, match=r"The link index is being built anew.*Then remove the rows\."):
            stale.remove(run, by="ana", now=now())
    assert stale.remove(run, by="ana", now=now()) == stale.Step(0, 2)
    assert may_delete.activities() == before


def test_a_step_is_bounded(may_delete, with_stale):
    assert stale.remove(with_stale, by="ana", now=now(), most=1) == stale.Step(1, 0)
    assert (with_stale.stale, with_stale.stale_rows.count()) == (1, 1)


def test_only_the_newest_runs_list_counts(may_delete, with_stale):
    newer = factories.run(RunState.SUCCEEDED, account=with_stale.account)
    with pytest.raises(Refused, match=r"came after .*, whose list may be out of date"):
        stale.remove(with_stale, by="ana", now=now())
    Run.objects.filter(pk=newer.pk).update(state=RunState.CANCELLED)
    active = factories.run(RunState.RUNNING, RunMode.DRY_RUN, account=with_stale.account)
    with pytest.raises(Refused, match="came after"):
        stale.remove(with_stale, by="ana", now=now())
    Run.objects.filter(pk=active.pk).delete()
    dry = factories.run(RunState.SUCCEEDED, RunMode.DRY_RUN, account=with_stale.account)
    with pytest.raises(Refused, match="is a dry run: it lists no rows"):
        stale.check(dry)
    for state in (RunState.CANCELLED, RunState.WITHDRAWN, RunState.RUNNING):
        with pytest.raises(Refused, match=f"is {state}: stale rows are removed once"):
            stale.check(factories.run(state))
    assert StaleRow.objects.count() == 2
