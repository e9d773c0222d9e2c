"""Verifying an account again by command: what it finds, what its exit code says, and that it heeds the read budget."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from migration import budget, quarantine
from migration.states import RunState
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


def test_what_a_link_brings_that_committed_after_the_run_is_missing(console):
    """The LinkIndex that the run was made by does not know it yet."""
    run = run_account(1)
    link = JOIN | {"auditable_id": 7001, "audited_changes": f'{{"crm_deal_id": 9001, "crm_person_id": {PERSON}}}'}
    insert(console, [link, DEAL])
    code, found = verified()
    assert (code, found["candidates"], found["missing"], found["agrees"]) == (1, run.candidates + 2, 2, False)
    without = {f"audit {audit} of CRM person {PERSON} has no row and no other outcome" for audit in (FIRST, FIRST + 1)}
    assert without < set(found["examples"])


def test_nothing_is_verified_while_reading_is_stopped(console):
    run_account(1)
    budget.stop(by="ana", note="month end", now=now())
    with pytest.raises(CommandError, match=r"^Reading from the CRM is stopped by ana since .*: month end\.$") as refused:
        call_command("verify_account", 1)
    assert refused.value.returncode == 1
