"""Verifying an account again by command: what its exit code says."""

from io import StringIO

import pytest
from django.core.management import call_command

from migration import quarantine
from migration.states import RunState
from tests.migration.conftest import now, run_account


def exit_code() -> object:
    with pytest.raises(SystemExit) as ended:
        call_command("verify_account", 1, "--json", stdout=StringIO(), stderr=StringIO())
    return ended.value.code


def test_what_is_waived_is_no_longer_partial(console):
    run = run_account(1)
    assert (run.state, exit_code()) == (RunState.PARTIAL, 3)
    quarantine.waive(run.quarantined.all(), by="ana", note="lost", now=now())
    run.refresh_from_db()
    assert (run.state, exit_code()) == (RunState.SUCCEEDED, 0)
