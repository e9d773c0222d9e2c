"""The main job on the sample: every ledger balances, and doing it again changes nothing."""

import pytest

from migration import ledger
from migration.states import RunMode, RunState
from tests.migration.conftest import run_account


@pytest.mark.parametrize("organisation", [1, 2, 3])
def test_production_balances_verifies_and_a_second_run_changes_nothing(console, organisation):
    first = run_account(organisation)
    assert first.state in (RunState.SUCCEEDED, RunState.PARTIAL), first.reason
    written = ledger.of(first)
    assert written.balances and written.written > 200
    rows = console.activities("origin = 'crm_migration'")
    assert len(rows) == written.written

    second = ledger.of(run_account(organisation))
    assert (second.written, second.corrected, second.unchanged) == (0, 0, written.written)
    assert console.activities("origin = 'crm_migration'") == rows


def test_a_dry_run_foresees_what_production_does_and_writes_nothing(console):
    before = console.activities()
    dry = ledger.of(run_account(1, RunMode.DRY_RUN))
    assert console.activities() == before
    assert dry == ledger.of(run_account(1))
