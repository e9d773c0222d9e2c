"""The sample whose changes are Ruby YAML, end to end: every row's changes as Ruby itself read them, and the same from json and jsonb."""

import gzip
import json
from collections import Counter
from typing import Any
from uuid import UUID

import psycopg
import pytest

from migration import accounts, ledger, reports, revisions
from migration.models import Run
from migration.pipeline.ruby_yaml import to_json
from migration.states import RunMode, RunState
from tests.conftest import Systems, rows
from tests.migration.conftest import mapping_document, now, run_account
from tests.migration.oracle_sample import DATA, read_json
from tests.migration.test_ruby_yaml import agrees_specially

pytestmark = pytest.mark.parametrize("systems", ["crm_sample_yaml"], indirect=True)
ORGANISATIONS = (1, 2)
SECRETS = {"encrypted_password"}  # of the demo's list, those that the sample holds
CDP = """
    TRUNCATE accounts, contacts, contact_activity_logs;
    INSERT INTO accounts SELECT gen_random_uuid(), n, 'Organisation ' || n FROM unnest(%s::int[]) n"""
CONTACT = """
    INSERT INTO contacts (id, account_id, source, source_id, name)
    SELECT gen_random_uuid(), id, 'crm', %s, %s FROM accounts WHERE crm_organization_id = %s"""


@pytest.fixture
def truth() -> dict[str, Any]:
    return read_json(gzip.decompress((DATA / "crm_sample_yaml.truth.json.gz").read_bytes()).decode())


@pytest.fixture
def console(systems, settings) -> Systems:
    """Both organisations as accounts, with a contact for each person that the CRM has today; the live sync has not begun."""
    settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"
    people = rows(systems.crm, "SELECT id, first_name, organization_id FROM crm_people ORDER BY id")
    with psycopg.connect(systems.cdp) as connection:
        for statement in CDP.split(";"):
            connection.execute(statement, (list(ORGANISATIONS),) if "%s" in statement else None)
        connection.cursor().executemany(CONTACT, people)
    accounts.sync(now=now())
    revisions.publish(mapping_document(), by="tester", note="", now=now())
    return systems


def ours(systems: Systems) -> dict[tuple[int, int], tuple]:
    """(audit id, CRM person id) -> whole row."""
    return {(row[11], UUID(row[0]).int >> 80): row for row in systems.activities("origin = 'crm_migration'")}


def produce(organisation: int) -> Run:
    run = run_account(organisation)
    assert run.state == RunState.SUCCEEDED, run.reason
    assert ledger.of(run).balances and run.verification["agrees"]
    return run


def same(found: Any, told: Any) -> bool:
    """A value of ours against what Ruby read; keys in any order, for jsonb forgets it."""
    if isinstance(told, dict) and any(key.startswith("$") for key in told):
        return agrees_specially(found, {key: str(value) for key, value in told.items()})
    if isinstance(told, dict):
        return isinstance(found, dict) and found.keys() == told.keys() and all(same(found[key], told[key]) for key in told)
    if isinstance(told, list):
        return isinstance(found, list) and len(found) == len(told) and all(map(same, found, told))
    return type(found) is type(told) and found == told


def concerned(truth: dict[str, Any], systems: Systems) -> set[tuple[int, int]]:
    """Every (audit id, CRM person id) of SPEC's five rules, as Ruby knows it, of people that the CRM has today."""
    people = {row[0] for row in rows(systems.crm, "SELECT id FROM crm_people")}
    found = set()
    for audit, name in rows(systems.crm, "SELECT id, auditable_type FROM audits"):
        told = truth["concerns"].get(str(audit), {})
        linked = (
            [person for deal in told.get("deals", []) for person in deal["before"]] if name in ("Crm::Deal", "Crm::DealCompany") else []
        )
        direct = told.get("direct", []) + told.get("link", []) + told.get("assoc", [])
        if name == "Crm::DealPerson":
            direct += moved_away(truth, audit)
        found |= {(audit, int(person)) for person in (*direct, *linked) if person in people}
    return found


def moved_away(truth: dict[str, Any], audit: int) -> list[int]:
    events = [event for each in truth["organisations"].values() for event in each["events"]["person_move"]]
    return [event["from_person_id"] for event in events if event["audit_id"] == audit]


# --- what is written ------------------------------------------------------------------------------------------------


def test_every_row_s_changes_are_what_ruby_read(console, truth):
    foreseen = {number: run_account(number, RunMode.DRY_RUN) for number in ORGANISATIONS}
    assert ours(console) == {}
    found = {number: produce(number) for number in ORGANISATIONS}
    assert all(reports.as_json(found[number])["prediction"]["run"] == foreseen[number].pk for number in ORGANISATIONS)
    assert all(reports.as_json(run)["prediction"]["agrees"] for run in found.values())

    written = ours(console)
    nothing = {int(audit) for audit, changes in truth["decoded_changes"].items() if changes == {}}
    assert written.keys() == {key for key in concerned(truth, console) if key[0] not in nothing}
    assert len(written) > 350
    for (audit, _), row in written.items():
        told = {key: value for key, value in truth["decoded_changes"][str(audit)].items() if key not in SECRETS}
        assert same(read_json(row[8]), told), audit
    assert sum(run.quarantined.count() for run in found.values()) == 0
    skipped = Counter(key[0] for key in concerned(truth, console) if key[0] in nothing)
    assert sum((ledger.of(run).skipped for run in found.values()), Counter()) == {"nothing_changed": skipped.total()}


EVENTS = {
    "deal/won": ("deal_won",),
    "task/done": ("task_done",),
    "ticket/resolved": ("ticket_resolved",),
    "deal/contact_moved": ("person_move",),
    "deal/company_linked": ("company_link",),
    "deal/company_unlinked": ("company_unlink",),
    "deal/contact_linked": ("person_link",),
    "deal/contact_unlinked": ("person_unlink",),
}


def test_categories_and_times_are_ruby_s(console, truth):
    for number in ORGANISATIONS:
        produce(number)
    written = ours(console)
    seen = {audit for audit, _ in written}
    merged = {event["audit_id"] for event in events(truth, "person_move") if event["from_person_id"] != event["to_person_id"]}
    for category, kinds in EVENTS.items():
        told = {event["audit_id"] for kind in kinds for event in events(truth, kind)} & seen
        told = told - merged if category == "deal/contact_moved" else told
        named = {audit for (audit, _), row in written.items() if row[3] == category} - merged
        assert named == told, category
    assert {category for category in EVENTS if any(row[3] == category for row in written.values())} >= {
        "deal/won",
        "task/done",
        "ticket/resolved",
    }
    times = dict(rows(console.crm, "SELECT id, created_at AT TIME ZONE 'UTC' FROM audits"))
    assert all(row[7] == times[audit] for (audit, _), row in written.items())


def events(truth: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [event for told in truth["organisations"].values() for event in told["events"][kind]]


def test_a_secret_never_leaves_the_crm(console):
    """The sample's own are of users, who are no contacts: here a contact's row has them, as an old gem wrote it."""
    secret = '--- \\nname: x\\nencrypted_password: "\\x24"\\nreset_token: :t\\nnotes: \\"encrypted_password: kept\\"\\n'
    console.change_crm(
        f"""INSERT INTO audits (id, auditable_type, auditable_id, action, audited_changes, version, created_at)
            SELECT 900001, 'Crm::Person', min(id), 'create', E'{secret}', 1, '2024-01-01' FROM crm_people WHERE organization_id = 1"""
    )
    produce(1)
    [row] = [row for (audit, _), row in ours(console).items() if audit == 900_001]
    assert json.loads(row[8]) == {"name": "x", "notes": "encrypted_password: kept"}


# --- again, and from the other column types -------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["tests.migration.policies.with_d_and_e", "tests.migration.policies.with_f"])
def test_a_second_run_and_json_and_jsonb_of_the_same_find_nothing_to_correct(console, settings, policy):
    """What Ruby YAML means is told apart from how the column keeps it: after each ALTER the rows are still right."""
    settings.GATE_POLICY = policy
    for number in ORGANISATIONS:
        produce(number)
    first = ours(console)
    assert any("deal_name" in row[9] for row in first.values()) == policy.endswith("with_f")
    for change in (lambda systems: None, to_a_json_column, to_a_jsonb_column):
        change(console)
        for number in ORGANISATIONS:
            again = ledger.of(produce(number))
            assert (again.written, again.corrected) == (0, 0)
        assert ours(console) == first


def to_a_json_column(systems: Systems) -> None:
    """Every change as the JSON that the gem would have written."""
    texts = rows(systems.crm, "SELECT id, audited_changes FROM audits")
    with psycopg.connect(systems.crm) as connection:
        connection.cursor().executemany(
            "UPDATE audits SET audited_changes = %s WHERE id = %s", [(to_json(text), key) for key, text in texts]
        )
        connection.execute("ALTER TABLE audits ALTER audited_changes TYPE json USING audited_changes::json")


def to_a_jsonb_column(systems: Systems) -> None:
    systems.change_crm("ALTER TABLE audits ALTER audited_changes TYPE jsonb USING audited_changes::jsonb")


def test_changes_that_make_no_sense_are_put_aside_and_the_rest_is_moved(console):
    """Not YAML, a tag of an unknown class, a scalar, and NULL."""
    texts = ["'a: [1'", "E'--- !ruby/object:Strange\\n a: 1\\n'", "'--- 5'", "NULL", "E'--- \\nname: \"\\\\u0000\"\\n'"]
    console.change_crm(
        *(
            f"""INSERT INTO audits (id, auditable_type, auditable_id, action, audited_changes, version, created_at)
                SELECT {900_001 + at}, 'Crm::Person', min(id), 'create', {text}, 1, '2024-01-01' FROM crm_people WHERE organization_id = 1"""
            for at, text in enumerate(texts)
        )
    )
    run = run_account(1)
    assert (run.state, ledger.of(run).balances, run.verification["agrees"]) == (RunState.PARTIAL, True, True)
    reasons = dict(run.quarantined.values_list("audit_id", "reason"))
    assert reasons == {900_001 + at: "changes_unstorable" if at == 4 else "changes_unreadable" for at in range(5)}
