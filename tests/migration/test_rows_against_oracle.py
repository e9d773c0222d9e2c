"""Every row that production writes from the sample, against the oracle; and the oracle itself against what Ruby knew at generation time."""

import pytest

from gates.policies import Decision
from migration import ledger
from migration.models import Account
from migration.states import RunMode
from tests.migration.against_oracle import assert_as_expected, assert_same, sample, written
from tests.migration.conftest import run_account
from tests.migration.hard_rows import few_contacts
from tests.migration.oracle import RULES, expected
from tests.migration.oracle_links import concerned_contacts
from tests.migration.oracle_sample import Audit

ORGANISATIONS = (1, 2, 3)


# --- production against the oracle ----------------------------------------------------------------------------------


def test_every_row_outcome_and_number_is_the_oracles(console):
    """Of the three accounts, one after another in one table."""
    live = console.activities("origin = 'live'")
    for organisation in ORGANISATIONS:
        assert_as_expected(console, run_account(organisation))
    assert console.activities("origin = 'live'") == live
    assert len(console.activities("origin = 'crm_migration'")) == sum(len(expected(sample(), one).rows()) for one in ORGANISATIONS)


def without_capabilities(account: Account, mode: RunMode, **how: object) -> Decision:
    """What gates D and E allow before they are signed."""
    return Decision(frozenset())


def test_gates_signed_later_correct_exactly_the_rows_that_fell_through(console, settings):
    decided, settings.GATE_POLICY = settings.GATE_POLICY, f"{__name__}.{without_capabilities.__name__}"
    poorer = run_account(1)
    assert_as_expected(console, poorer)
    before = set(written(console, poorer))

    settings.GATE_POLICY = decided
    richer = run_account(1)
    wanted = expected(sample(), 1).rows()
    assert_same(written(console, richer), wanted)
    found = ledger.of(richer)
    assert (found.written, found.corrected, found.unchanged) == (0, len(set(wanted) - before), len(set(wanted) & before))
    assert found.corrected > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("organisation", "size"), [(1, 7), pytest.param(2, 1, marks=pytest.mark.fault), pytest.param(3, 7, marks=pytest.mark.fault)]
)
def test_small_chunks_and_one_chunk_of_all_give_the_same_rows(console, organisation, size):
    known = few_contacts(console, last=40)
    small = run_account(organisation, chunk_size=size)
    assert_as_expected(console, small, known)
    assert small.chunks.count() > len(written(console, small)) / size / 2
    rows = written(console, small)

    console.change_cdp("DELETE FROM contact_activity_logs WHERE origin = 'crm_migration'", "DELETE FROM calm.receipts")
    big = run_account(organisation, chunk_size=1_000_000)
    assert_as_expected(console, big, known)
    assert big.chunks.count() == 1
    assert written(console, big) == rows


# --- the oracle against Ruby ----------------------------------------------------------------------------------------


def test_the_oracle_finds_the_contacts_that_ruby_found():
    nobody: dict[int, set[int]] = {rule: set() for rule in RULES}
    for audit, contacts in concerned_contacts(sample().audits, sample().mapping):
        wanted = nobody | by_ruby(audit, sample().truth["concerns"].get(str(audit.id), {}))
        assert nobody | contacts.by_rule == wanted, audit


def by_ruby(audit: Audit, concern: dict) -> dict[int, set[int]]:
    """Ruby's knowledge of one audit, by the rules of SPEC section 2."""
    deals = concern.get("deals", [])
    before = {via: {person for deal in deals if deal["via"] == via for person in deal["before"]} for via in ("auditable", "associated")}
    found = {1: set(concern.get("direct", [])), 2: set(concern.get("assoc", []))}
    if audit.auditable_type == "Crm::DealPerson":
        return found | {3: set(concern.get("link", []))}
    if audit.auditable_type == "Crm::DealCompany":
        return found | {5: before["associated"]}
    return found | {4: before["auditable"]}


EVENTS = {
    "deal/won": {"deal_won"},
    "task/done": {"task_done"},
    "ticket/resolved": {"ticket_resolved"},
    "deal/contact_linked": {"person_link", "person_move"},
    "deal/contact_unlinked": {"person_unlink", "person_move"},
    "deal/contact_moved": {"person_move"},
    "deal/company_linked": {"company_link"},
    "deal/company_unlinked": {"company_unlink"},
}


@pytest.mark.parametrize("category", EVENTS)
@pytest.mark.parametrize("organisation", ORGANISATIONS)
def test_the_oracle_names_the_events_that_ruby_saw(organisation, category):
    events = sample().truth["organisations"][str(organisation)]["events"]
    seen = {about for name in EVENTS[category] for event in events[name] if (about := audit_and_person(category, name, event))}
    rows = {key: outcome.row for key, outcome in expected(sample(), organisation).candidates.items() if outcome.kind == "written"}
    named = {key for key, row in rows.items() if row[3] == category}
    if category.startswith("deal/contact_"):
        assert named == seen & rows.keys()
    else:
        assert {(audit, None) for audit, _ in named} == seen & {(audit, None) for audit, _ in rows}


def audit_and_person(category: str, name: str, event: dict) -> tuple[int, int | None] | None:
    """Whom the event is about, where it is about one person; None for a move that is another category's."""
    if not name.startswith("person"):
        return event["audit_id"], None
    if name != "person_move":
        return event["audit_id"], event["person_id"]
    changes_contact = event["from_person_id"] != event["to_person_id"]
    if changes_contact == (category == "deal/contact_moved"):
        return None
    return event["audit_id"], event["from_person_id" if category == "deal/contact_unlinked" else "to_person_id"]


@pytest.mark.parametrize("organisation", ORGANISATIONS)
def test_no_row_of_the_oracle_is_of_another_organisation(organisation):
    mine = set(sample().truth["organisations"][str(organisation)]["audit_ids"])
    candidates = expected(sample(), organisation).candidates
    assert {audit for (audit, _), outcome in candidates.items() if outcome.kind == "written"} <= mine
