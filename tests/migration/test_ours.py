"""What the account's rows of ours are found by: never by reading the rows of the accounts whose people lie between its own."""

import json
from contextlib import closing
from itertools import pairwise

import pytest

from migration import ours
from migration.cdp import Cdp
from migration.models import Account, Run
from migration.pipeline.staging import FILL_SPANS, IN_SPANS, SPANS
from migration.states import RunState
from tests import factories
from tests.conftest import rows
from tests.migration.conftest import run_account


def passed_over(plan: dict) -> int:
    """Rows that a plan's nodes read and threw away."""
    return plan.get("Rows Removed by Filter", 0) * plan.get("Actual Loops", 1) + sum(map(passed_over, plan.get("Plans", [])))


def explained(cdp: Cdp, query: str, parameters: tuple = (), index: str = "contact_activity_logs_pkey") -> dict:
    plan = cdp.rows(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", parameters)[0][0][0]["Plan"]
    assert json.dumps(plan).count(f'"{index}"') == 1
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
        claims = cdp.contacts(account, 0, ours.HIGHEST_PERSON)
        there = f"account_id = '{account}' AND origin = 'crm_migration'"
        wanted = {(int(row[0][:8] + row[0][9:13], 16), row[11]) for row in console.activities(there)}
        assert ours.keys(cdp, account, claims) == wanted
        beyond = claims | {ours.HIGHEST_PERSON + 1: ["00000000-0000-4000-8000-000000000000"]}  # more than a row id can carry: it has no row
        assert ours.keys(cdp, account, beyond) == wanted
        live = {(row[2], row[11]) for row in console.activities(f"account_id = '{account}' AND origin = 'live'")}
        found = ours.of_contacts(cdp, account, claims)
        assert {(claims[person][0], row.audit) for person, each in found.items() for row in each.live} == live != set()
        assert {each.away for each in found.values()} == {0}
        plan = explained(cdp, "SELECT FROM unnest(%s::uuid[]) c CROSS JOIN LATERAL (SELECT FROM contact_activity_logs WHERE contact_id = c OFFSET 0) l",
                         ([c for contacts in claims.values() for c in contacts],), index="contact_activity_logs_timeline")  # fmt: skip
        assert (plan["Actual Rows"], passed_over(plan)) == (len(wanted) + len(live), 0)
        cdp.connection.execute(f"{SPANS}; CREATE TEMP TABLE calm_staging AS SELECT id, contact_id FROM contact_activity_logs WHERE {there}")
        cdp.connection.execute(FILL_SPANS)
        assert explained(cdp, f"SELECT t.id FROM {IN_SPANS}")["Actual Rows"] == len(wanted)


MISFITS = {
    "under another account": "account_id = (SELECT id FROM accounts WHERE crm_organization_id = 2)",
    "without an audit": "source_audit_id = NULL",
    "of another audit": "source_audit_id = source_audit_id + 1000000",
    "of no version": "id = overlay(id::text PLACING '4' FROM 15)::uuid",
}


@pytest.mark.parametrize("change", MISFITS.values(), ids=MISFITS)
def test_rows_that_we_would_not_write_are_told_from_those_of_another_person(console, two_accounts, change):
    """At the contact of another person: one row that is merely there, and one that is changed besides."""
    account = two_accounts.cdp_id
    with closing(Cdp()) as cdp:
        claims = cdp.contacts(account, 0, ours.HIGHEST_PERSON)
        (theirs, others), before = list(claims)[:2], ours.of_contacts(cdp, account, claims)
        first, second = sorted(ours.keys_of(theirs, before[theirs].ids))[:2]
        moved = "UPDATE contact_activity_logs SET contact_id = '{}'{} WHERE id = '{}'"
        console.change_cdp(
            moved.format(claims[others][0], "", ours.row_id(*first)), moved.format(claims[others][0], f", {change}", ours.row_id(*second))
        )
        after = ours.of_contacts(cdp, account, claims)
        assert (before[others].away, after[others].away, after[others].ids) == (0, 2, before[others].ids)
        assert ours.keys_of(theirs, after[theirs].ids) == ours.keys_of(theirs, before[theirs].ids) - {first, second}
        found, nobodys = ours.away(cdp, account, claims[others], others)
        assert found == [first] and len(nobodys) == 1


@pytest.mark.parametrize("audit", [None, -1, ours.HIGHEST_AUDIT + 1])
def test_an_audit_that_no_row_s_id_can_carry_is_nobodys(audit):
    assert ours.told_apart([(ours.row_id(7, 1), 7, audit, True)]) == ([], [ours.row_id(7, 1)])


def test_rows_whose_people_left_are_found_by_the_account_s_runs(console, two_accounts):
    with closing(Cdp()) as cdp:
        assert ours.strays(cdp, two_accounts) == ([], [])
        left = cdp.persons(two_accounts.cdp_id)[3]
        theirs = sorted(ours.keys(cdp, two_accounts.cdp_id, cdp.contacts(two_accounts.cdp_id, left, left)))
        console.change_cdp(f"UPDATE contacts SET source = 'other' WHERE account_id = '{two_accounts.cdp_id}' AND source_id = {left}")
        assert ours.strays(cdp, two_accounts) == (theirs, [])
        console.change_cdp(f"DELETE FROM contacts WHERE account_id = '{two_accounts.cdp_id}' AND source_id = {left}")
        assert ours.strays(cdp, two_accounts) == (theirs, []) and theirs
        Run.objects.filter(account=two_accounts).update(account=Account.objects.get(crm_organization_id=2))
        factories.run(RunState.FAILED, account=two_accounts)
        assert ours.strays(cdp, two_accounts) == (theirs, [])  # a console that does not know its runs has the CDP's receipts
        elsewhere = Account.objects.get(crm_organization_id=2).cdp_id
        console.change_cdp(f"UPDATE contact_activity_logs SET account_id = '{elsewhere}' WHERE id = '{ours.row_id(*theirs[0])}'")
        assert ours.strays(cdp, two_accounts) == (theirs[1:], [])
