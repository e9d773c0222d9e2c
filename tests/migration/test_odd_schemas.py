"""Tables as other companies have them: other types, more columns, row security. What can be moved comes out as ever, whole rows; else one sentence."""

import json

import pytest

from migration import ledger
from migration.cdp import Cdp
from migration.doors import Misconfigured
from migration.states import RunState
from tests.conftest import ROLES
from tests.migration.against_oracle import assert_as_expected, written
from tests.migration.conftest import run_account
from tests.migration.test_bad_input import refusal

LOGS = "ALTER TABLE contact_activity_logs"
VARCHARS = [
    f"{LOGS} ALTER {name} TYPE {kind}"
    for name, kind in (
        ("category", "varchar(64)"), ("actor_kind", "varchar(30)"), ("actor_id", "varchar"), ("actor_name", "varchar(255)"), ("origin", "varchar"),
    )
]  # fmt: skip
DOMAINS = [
    "CREATE DOMAIN short AS text CHECK (length(value) < 1000)",
    "CREATE DOMAIN object AS jsonb",
    f"{LOGS} ALTER actor_name TYPE short, ALTER category TYPE short, ALTER changes TYPE object, ALTER context TYPE object",
]
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


@pytest.mark.parametrize("statements", [VARCHARS, DOMAINS, NAMES_OF_OURS], ids=["varchar", "domains", "names of ours"])
def test_rows_come_out_as_ever_in_a_cdp_with_other_texts_and_more_columns(console, statements):
    console.change_cdp(*statements)
    assert_moved_and_found_again(console)


def test_audits_may_have_any_other_column(console):
    names = ("person", "p", "at", "class", "near", "nothing", "before", "deal", "stop", "audit", "found", "l", "a")
    console.change_crm(f"ALTER TABLE audits {', '.join(f'ADD {name} text' for name in names)}", f"UPDATE audits SET {names[0]} = '7'")
    assert_moved_and_found_again(console)


def test_ids_of_users_in_columns_of_a_fixed_length_name_the_same_users(console):
    """`character` in a cast is one letter, and what COPY writes of such a column is filled up with blanks."""
    console.change_crm(
        "ALTER TABLE users ALTER id DROP DEFAULT, ALTER id TYPE character(36)", "ALTER TABLE audits ALTER user_id TYPE character(36)"
    )
    run = run_account(1)
    assert run.state == RunState.PARTIAL
    told = console.activities("origin = 'crm_migration'")
    kinds = {kind: sum(row[4] == kind for row in told) for kind in {row[4] for row in told}}
    assert kinds == {"deactivated_user": 164, "user": 154, "unknown_user": 123, "system": 13, "integration": 11, "label": 6}
    assert {type(json.loads(row[9])["user_id"]) for row in told} == {str, type(None)}
    assert not [row for row in told if " " in (json.loads(row[9])["user_id"] or "")]


@pytest.mark.parametrize("table", ["accounts", "contacts", "contact_activity_logs"])
def test_a_cdp_whose_policies_hide_rows_is_refused_until_one_shows_them_all(console, table):
    """A contact that nobody sees has no history to move, and none to miss: the run would have been complete."""
    console.change_cdp(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY", f"CREATE POLICY tenant ON {table} USING (id::text < '8')")
    cure = f"CREATE POLICY calm_console ON public.{table} TO {ROLES['cdp']} USING (true)"
    assert f"CDP_DATABASE_URL: table public.{table} is under row security, which may hide rows" in (told := refusal())
    assert told.endswith(f"and so history: {cure}.")
    console.change_cdp(cure)
    assert_moved_and_found_again(console)
    console.change_cdp(f"CREATE POLICY never ON {table} AS RESTRICTIVE USING (id::text > '8')")
    with pytest.raises(Misconfigured, match="is under row security"):
        Cdp()
