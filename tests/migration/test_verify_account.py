"""Verifying an account again by command: what it finds, what its exit code says, and that it heeds the read budget."""

import json
import re
from io import StringIO

import pytest
from django.core.management import BaseCommand, CommandError, call_command

from migration import budget, ledger, quarantine
from migration.management.output import Output
from migration.models import QuarantinedCandidate
from migration.pipeline.rows import row_id
from migration.states import RunState
from migration.unseen import for_terminal, unseen
from tests import factories
from tests.migration.conftest import now, run_account
from tests.migration.hard_rows import FIRST, PERSON, insert
from tests.migration.test_hard_links import DEAL, JOIN


def verified() -> tuple[object, dict]:
    """The exit code, and what verification found."""
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("verify_account", 1, "--json", stdout=out, stderr=StringIO())
    return ended.value.code, json.loads(out.getvalue())["verification"]


def test_what_is_waived_is_no_longer_partial(console):
    run = run_account(1)
    assert (run.state, verified()[0]) == (RunState.PARTIAL, 3)
    quarantine.waive(run.quarantined.all(), by="ana", note="lost", now=now())
    run.refresh_from_db()
    assert (run.state, verified()[0]) == (RunState.SUCCEEDED, 0)


def test_a_row_that_was_lost_is_missing_though_its_audit_was_waived_before_it_was_mended(console):
    insert(console, [{"created_at": None}, {"created_at": None}])
    run = run_account(1)
    quarantine.waive(run.quarantined.all(), by="ana", note="lost", now=now())
    console.change_crm(f"UPDATE audits SET created_at = '2023-05-01 12:00:00' WHERE id = {FIRST}")
    run = run_account(1)
    assert (run.state, verified()[0], QuarantinedCandidate.objects.filter(run=run).count()) == (RunState.SUCCEEDED, 0, 0)
    console.change_cdp(f"DELETE FROM contact_activity_logs WHERE source_audit_id = {FIRST}")
    code, found = verified()
    assert (code, found["missing"], found["agrees"]) == (1, 1, False)
    waived = sum(ledger.of(run).waived.values())
    assert found["examples"] == [f"{waived + 1} candidates that were waived once have no row, of which this run waived {waived}"]
    assert run_account(1).state == RunState.SUCCEEDED and verified()[0] == 0


@pytest.mark.parametrize("systems", ["crm_sample_yaml"], indirect=True)
def test_an_audit_that_was_waived_and_changes_nothing_by_now_is_not_missing(console):
    insert(console, [{"audited_changes": "--- [1"}])
    run = run_account(1)
    quarantine.waive(run.quarantined.all(), by="ana", note="torn", now=now())
    console.change_crm(f"UPDATE audits SET audited_changes = '{{}}' WHERE id = {FIRST}")
    run = run_account(1)
    assert (run.state, ledger.of(run).waived["changes_unreadable"], verified()[0]) == (RunState.SUCCEEDED, 0, 0)


def test_what_a_link_brings_that_committed_after_the_run_is_missing(console):
    """The LinkIndex that the run was made by does not know it yet."""
    run = run_account(1)
    gone = [row[11] for row in console.activities(f"origin = 'crm_migration' AND id::text LIKE '{row_id(PERSON, 0)[:13]}%'")[:2]]
    console.change_crm(f"DELETE FROM audits WHERE id IN ({gone[0]}, {gone[1]})")  # so that there are as many as before
    link = JOIN | {"auditable_id": 7001, "audited_changes": f'{{"crm_deal_id": 9001, "crm_person_id": {PERSON}}}'}
    insert(console, [link, DEAL])
    code, found = verified()
    assert (code, found["candidates"], found["missing"], found["agrees"]) == (1, run.candidates, 2, False)
    without = {f"audit {audit} of CRM person {PERSON} has no row and no other outcome" for audit in (FIRST, FIRST + 1)}
    assert without < set(found["examples"])


def test_nothing_is_verified_while_reading_is_stopped(console):
    run_account(1)
    budget.stop(by="ana", note="month end", now=now())
    with pytest.raises(CommandError, match=r"^Reading from the CRM is stopped by ana since .*: month end\.$") as refused:
        call_command("verify_account", 1)
    assert refused.value.returncode == 1


@pytest.mark.parametrize("name", ["\x1b[2JA\x9b31m", "A\u202eB\U000e0041"])
def test_a_name_does_not_command_the_terminal_it_is_told_on(db, name):
    account = factories.account(name=name)
    shown = f"{for_terminal(name)} (organisation {account.crm_organization_id})"
    with pytest.raises(CommandError, match=re.escape(f"{shown} has no finished production run to verify")):
        call_command("verify_account", account.crm_organization_id)
    out = StringIO()
    Output(BaseCommand(stdout=out), as_json=True).json({"name": name})
    Output(BaseCommand(stdout=out), as_json=False).line(name)
    told, line = out.getvalue().rsplit("\n", 2)[:2]
    assert (json.loads(told), line) == ({"name": name}, for_terminal(name))
    assert not any(unseen(each) for each in (told + line).replace("\n", "")) and "⟨U+" in line
