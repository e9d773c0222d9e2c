"""Tables as other companies have them: more columns. Rows come out as ever, whole ones."""

import pytest

from migration import ledger
from tests.migration.against_oracle import assert_as_expected, written
from tests.migration.conftest import run_account

LOGS = "ALTER TABLE contact_activity_logs"
NAMES_OF_OURS = [  # of columns and tables in the console's own statements
    f"{LOGS} ADD low text DEFAULT 'x', ADD high text DEFAULT 'x', ADD contact text DEFAULT 'x', ADD person text DEFAULT 'x', ADD claim integer",
    f"{LOGS} ADD digest text DEFAULT 'x', ADD outcome text DEFAULT 'live', ADD former uuid, ADD live_category text, ADD ours boolean DEFAULT true",
]


def assert_moved_and_found_again(systems) -> None:
    """The first production run writes the rows it should, its verification compares them, and the second finds each as it is."""
    first = run_account(1)
    assert_as_expected(systems, first)
    there, again = written(systems, first), run_account(1)
    assert written(systems, again) == there
    assert (again.state, again.verification["agrees"], ledger.of(again).written) == (first.state, True, 0)


@pytest.mark.parametrize("statements", [NAMES_OF_OURS], ids=["names of ours"])
def test_rows_come_out_as_ever_in_a_cdp_with_more_columns(console, statements):
    console.change_cdp(*statements)
    assert_moved_and_found_again(console)


def test_audits_may_have_any_other_column(console):
    names = ("person", "p", "at", "class", "near", "nothing", "before", "deal", "stop", "audit", "found", "l", "a")
    console.change_crm(f"ALTER TABLE audits {', '.join(f'ADD {name} text' for name in names)}", f"UPDATE audits SET {names[0]} = '7'")
    assert_moved_and_found_again(console)
