"""Every row that production writes from the sample, against the oracle; and the oracle itself against what Ruby knew at generation time."""

from collections import Counter

import pytest

from migration import ledger
from migration.models import Run
from migration.states import RunState
from tests.migration.conftest import run_account
from tests.migration.hard_rows import few_contacts
from tests.migration.oracle import RULES, Expected, differences, expected
from tests.migration.oracle_links import concerned_contacts
from tests.migration.oracle_sample import Audit, Sample, read_sample

ORGANISATIONS = (1, 2, 3)


@pytest.fixture(scope="module")
def sample() -> Sample:
    return read_sample()


def without_run(rows: list[tuple]) -> list[tuple]:
    return [row[:-1] for row in rows]


# --- production against the oracle ----------------------------------------------------------------------------------


@pytest.mark.parametrize("organisation", ORGANISATIONS)
def test_every_row_outcome_and_number_is_the_oracles(console, sample, organisation):
    live = console.activities("origin = 'live'")
    run = run_account(organisation)
    wanted = expected(sample, organisation)
    written = without_run(console.activities("origin = 'crm_migration'"))

    assert differences(written, wanted.rows()) == []
    assert Counter(written) == Counter(wanted.rows())
    assert set(run.quarantined.values_list("audit_id", "person_id", "reason")) == wanted.quarantined()
    assert numbers(run) == numbers_of(wanted)
    assert run.state == (RunState.PARTIAL if wanted.quarantined() else RunState.SUCCEEDED)
    assert console.activities("origin = 'live'") == live


def numbers(run: Run) -> dict[str, object]:
    """The run's ledger, and what it counts beside it."""
    found = ledger.of(run)
    counters = ("skipped", "quarantined", "waived", "categories", "actor_kinds", "beyond")
    plain = {name: getattr(found, name) for name in ("candidates", "written", "corrected", "unchanged", "already_live", "balances")}
    return plain | {name: dict(getattr(found, name)) for name in counters}


def numbers_of(wanted: Expected) -> dict[str, object]:
    return {
        "candidates": len(wanted.candidates),
        "written": len(wanted.rows()),
        "corrected": 0,
        "unchanged": 0,
        "already_live": sum(wanted.count("already_live").values()),
        "balances": True,
        "skipped": wanted.count("skipped"),
        "quarantined": wanted.count("quarantined"),
        "waived": {},
        "categories": wanted.column("category"),
        "actor_kinds": wanted.column("actor_kind"),
        "beyond": dict(wanted.beyond),
    }


def test_all_accounts_beside_each_other_lie_in_one_table(console, sample):
    for organisation in ORGANISATIONS:
        run_account(organisation)
    wanted = sorted(row for organisation in ORGANISATIONS for row in expected(sample, organisation).rows())
    assert differences(without_run(console.activities("origin = 'crm_migration'")), wanted) == []


@pytest.mark.slow
@pytest.mark.parametrize(("organisation", "size"), [(1, 7), (2, 1), (3, 7)])
def test_small_chunks_and_one_chunk_of_all_give_the_same_rows(console, organisation, size):
    wanted = expected(few_contacts(console, last=60), organisation)
    small = run_account(organisation, chunk_size=size)
    rows = without_run(console.activities("origin = 'crm_migration'"))
    assert differences(rows, wanted.rows()) == []
    assert small.chunks.count() > len(wanted.rows()) / size / 2

    console.change_cdp("DELETE FROM contact_activity_logs WHERE origin = 'crm_migration'", "DROP SCHEMA calm CASCADE")
    big = run_account(organisation, chunk_size=1_000_000)
    assert big.chunks.count() == 1
    assert without_run(console.activities("origin = 'crm_migration'")) == rows
    assert numbers(big) == numbers(small) == numbers_of(wanted)


# --- the oracle against Ruby ----------------------------------------------------------------------------------------


def test_the_oracle_finds_the_contacts_that_ruby_found(sample):
    nobody = {rule: set() for rule in RULES}
    for audit, contacts in concerned_contacts(sample.audits, sample.mapping):
        wanted = nobody | by_ruby(audit, sample.truth["concerns"].get(str(audit.id), {}))
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
def test_the_oracle_names_the_events_that_ruby_saw(sample, organisation, category):
    events = sample.truth["organisations"][str(organisation)]["events"]
    seen = {about for name in EVENTS[category] for event in events[name] if (about := audit_and_person(category, name, event))}
    written = {key: outcome.row for key, outcome in expected(sample, organisation).candidates.items() if outcome.kind == "written"}
    whoever = {(audit, None) for audit, _ in written}
    named = {key for key, row in written.items() if row[3] == category}
    if not category.startswith("deal/contact_"):
        named = {(audit, None) for audit, _ in named}
    assert named == seen & (written.keys() | whoever)


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
def test_no_row_of_the_oracle_is_of_another_organisation(sample, organisation):
    mine = set(sample.truth["organisations"][str(organisation)]["audit_ids"])
    candidates = expected(sample, organisation).candidates
    assert {audit for (audit, _), outcome in candidates.items() if outcome.kind == "written"} <= mine
