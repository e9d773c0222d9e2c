"""What the account's rows of ours are found by: never by reading the rows of the accounts whose people lie between its own."""

import json
from contextlib import closing
from itertools import pairwise

import pytest

from migration import ours
from migration.cdp import Cdp
from migration.models import Account, Run
from migration.pipeline.staging import FILL_SPANS, IN_SPANS, SPANS
from tests.conftest import rows
from tests.migration.conftest import run_account


def passed_over(plan: dict) -> int:
    """Rows that a plan's nodes read and threw away."""
    return plan.get("Rows Removed by Filter", 0) * plan.get("Actual Loops", 1) + sum(map(passed_over, plan.get("Plans", [])))


def explained(cdp: Cdp, query: str, parameters: tuple = ()) -> dict:
    plan = cdp.rows(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", parameters)[0][0][0]["Plan"]
    assert json.dumps(plan).count('"contact_activity_logs_pkey"') == 1
    return plan


@pytest.fixture
def two_accounts(console) -> Account:
    """Account 1 and 2, moved, whose people lie between each other's."""
    for number in (1, 2):
        run_account(number)
    people = "SELECT account_id, source_id FROM contacts WHERE source = 'crm' AND source_id IS NOT NULL ORDER BY source_id"
    whose = [account for account, _ in rows(console.cdp, people)]
    assert sum(one != other for one, other in pairwise(whose)) > 50
    return Account.objects.get(crm_organization_id=1)


def test_rows_of_accounts_between_are_not_read(console, two_accounts):
    account = two_accounts.cdp_id
    with closing(Cdp()) as cdp:
        found = ours.keys(cdp, account, cdp.persons(account))
        there = f"account_id = '{account}' AND origin = 'crm_migration'"
        assert found == {(int(row[0][:8] + row[0][9:13], 16), row[11]) for row in console.activities(there)}
        persons = [*cdp.persons(account), 1 << 48]  # the last is more than a row id can carry, so it has no row
        assert ours.keys(cdp, account, persons) == found
        lows, highs = [ours.row_id(p, 0) for p in persons[:-1]], [ours.row_id(p, ours.HIGHEST_AUDIT) for p in persons[:-1]]
        assert passed_over(explained(cdp, ours.OF_PERSONS, (lows, highs, account))) < 20  # live rows have other ids
        cdp.connection.execute(f"{SPANS}; CREATE TEMP TABLE calm_staging AS SELECT id FROM contact_activity_logs WHERE {there}")
        cdp.connection.execute(FILL_SPANS)
        assert explained(cdp, f"SELECT t.id FROM {IN_SPANS}")["Actual Rows"] == len(found)


def test_rows_whose_people_left_are_found_by_the_account_s_runs(console, two_accounts):
    with closing(Cdp()) as cdp:
        assert ours.strays(cdp, two_accounts) == []
        left = cdp.persons(two_accounts.cdp_id)[3]
        theirs = sorted(ours.keys(cdp, two_accounts.cdp_id, [left]))
        console.change_cdp(f"DELETE FROM contacts WHERE account_id = '{two_accounts.cdp_id}' AND source_id = {left}")
        assert ours.strays(cdp, two_accounts) == theirs != []
        Run.objects.filter(account=two_accounts).update(account=Account.objects.get(crm_organization_id=2))
        assert ours.strays(cdp, two_accounts) == theirs  # a console that does not know its runs has the CDP's receipts
