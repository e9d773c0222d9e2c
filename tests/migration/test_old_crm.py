"""What a CRM of ten years holds here and there, and the CDP beside it: odd rows that once ended a run, or changed what was right."""

import json
from typing import Any

import pytest
from psycopg import sql

from migration import effects, ledger, revisions, runs, steps
from migration.crm import Crm
from migration.models import Account, MappingRevision
from migration.states import FINISHED, RunMode, RunState
from tests.conftest import rows, run_sql, serve_usman
from tests.migration.conftest import OWNER, mapping_document, now, run_account
from tests.migration.hard_rows import ACCOUNT, AS_JSON, FIRST, ORGANISATION, activity, insert, moved, new_contact
from tests.migration.oracle_sample import DATA
from tests.migration.test_hard_links import DEAL, JOIN

ENDED_WELL = (RunState.SUCCEEDED, RunState.PARTIAL)
COMBINED = "E'\\nThis audit is the result of multiple audits being combined.'"
DEEP = "[" * 5000 + "]" * 5000  # JSON allows it; Python's reader does not


def test_an_audit_that_was_combined_with_older_ones_never_corrects_the_finer_row(console):
    insert(console, [{"audited_changes": '{"phone": ["1", "2"]}'}, *[{"audited_changes": '{"email": ["a", "b"]}'}] * 2])
    console.change_crm(f"UPDATE audits SET comment = {COMBINED} WHERE id = {FIRST + 2}")
    run_account(ORGANISATION)
    before = console.activities(f"source_audit_id = {FIRST + 1}")
    console.change_crm(
        f"DELETE FROM audits WHERE id = {FIRST}",
        f"""UPDATE audits SET audited_changes = '{{"phone": ["1", "2"], "email": ["a", "b"]}}', comment = {COMBINED} WHERE id >= {FIRST + 1}""",
    )
    run = run_account(ORGANISATION)
    assert run.state in ENDED_WELL
    assert console.activities(f"source_audit_id = {FIRST + 1}") == before
    [corrected] = console.activities(f"source_audit_id = {FIRST + 2}")
    assert corrected[8] == '{"email": ["a", "b"], "phone": ["1", "2"]}', "its row was a combined one from the first"
    assert list(run.stale_rows.values_list("audit_id", flat=True)) == [FIRST]


def test_what_a_finer_row_tells_stays_though_the_combined_audit_would_be_another_category_and_its_contact_is_corrected(console):
    task = {"auditable_type": "Crm::Task", "auditable_id": 7001, "associated_type": "Crm::Person", "associated_id": 900_001}
    contact = new_contact(console, 900_001)
    insert(console, [task | {"audited_changes": '{"title": ["a", "b"]}'}])
    run_account(ORGANISATION)
    told = "SELECT category, changes, context, contact_id::text FROM contact_activity_logs WHERE source_audit_id = %s"
    [before] = rows(console.cdp, told, (FIRST,))
    assert (before[0], before[3]) == ("task/update", contact)
    console.change_cdp(f"DELETE FROM contacts WHERE id = '{contact}'")
    other = new_contact(console, 900_001)
    console.change_crm(
        f"""UPDATE audits SET audited_changes = '{{"title": ["a", "b"], "crm_task_status_id": [1, 3]}}', comment = {COMBINED} WHERE id = {FIRST}"""
    )
    run = run_account(ORGANISATION)
    assert run.state in ENDED_WELL, run.reason
    assert rows(console.cdp, told, (FIRST,)) == [(*before[:3], other)]


def test_what_is_secret_by_now_goes_from_a_finer_row_too(console):
    insert(
        console,
        [
            {"audited_changes": '{"phone": ["1", "2"]}'},
            {"audited_changes": '{"pin_code": ["1234", "9999"], "price": ["0.50", 0.50]}'},
        ],
    )
    run_account(ORGANISATION)
    console.change_crm(
        f"DELETE FROM audits WHERE id = {FIRST}",
        f"""UPDATE audits SET audited_changes = audited_changes || '{{"phone": ["1", "2"]}}', comment = {COMBINED} WHERE id = {FIRST + 1}""",
    )
    document = mapping_document()
    document["secrets"].append("pin_*")
    revisions.publish(document, by="tester", note="", now=now())
    told = f"SELECT changes::text FROM contact_activity_logs WHERE source_audit_id = {FIRST + 1}"
    dry = run_account(ORGANISATION, RunMode.DRY_RUN)
    run = run_account(ORGANISATION)
    assert rows(console.cdp, told) == [('{"price": ["0.50", 0.50]}',)]
    assert run.state in ENDED_WELL and ledger.of(dry).corrected == ledger.of(run).corrected > 0
    assert ledger.of(run_account(ORGANISATION)).corrected == 0


@pytest.mark.parametrize("kind", ["varchar", "uuid"])
def test_a_request_s_id_may_be_of_either_type(console, settings, kind):
    """A deal's name that the same request tells only after the link."""
    settings.GATE_POLICY = "tests.migration.policies.with_f"
    new_contact(console, 900_001)
    console.change_crm(
        "UPDATE audits SET request_uuid = gen_random_uuid()",
        f"ALTER TABLE audits ALTER request_uuid TYPE {kind} USING request_uuid::{kind}",
    )
    request = {"request_uuid": "b0a3c1de-0000-4000-8000-000000000001"}
    link = JOIN | {"auditable_id": 8001, "audited_changes": '{"crm_deal_id": 9001, "crm_person_id": 900001}'}
    insert(console, [link | request, DEAL | {"action": "create", "audited_changes": '{"name": "Big deal"}'} | request])
    run_account(ORGANISATION)
    name = f"SELECT context ->> 'deal_name' FROM contact_activity_logs WHERE source_audit_id = {FIRST}"
    assert rows(console.cdp, name) == [("Big deal",)]


@pytest.mark.parametrize("change", ["SELECT 1", AS_JSON], ids=["jsonb", "json"])
def test_servers_may_read_a_backslash_as_they_did_before_9_1(console, change):
    """As psycopg and Rails have it, so has every session of ours, whatever the database's own setting."""
    old = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET standard_conforming_strings = off', current_database()); END $$"
    console.change_crm(change, old)
    console.change_cdp(old)
    insert(console, [{"audited_changes": " { } "}])
    found = moved(console)
    assert (found.rows, found.quarantined, ledger.of(found.run).skipped["nothing_changed"]) == ([], {}, 2)


def test_an_empty_text_is_no_users_id(console):
    console.change_crm("ALTER TABLE audits ALTER user_id TYPE varchar USING user_id::varchar")
    insert(console, [{"user_id": "", "user_type": "", "username": "nightly job"}, {"user_id": "", "user_type": "Integration"}])
    run_account(ORGANISATION)
    actors = f"SELECT actor_kind, actor_name FROM contact_activity_logs WHERE source_audit_id >= {FIRST} ORDER BY source_audit_id"
    assert rows(console.cdp, actors) == [("label", "nightly job"), ("system", None)]


@pytest.mark.parametrize("odd", ["1e200000", "9" * 140_000, "[" * 900 + "]" * 900])
def test_why_an_audit_is_put_aside_does_not_depend_on_its_neighbours(console, odd):
    """What jsonb refuses comes before whose contact it is, also where nothing of the chunk that is to be staged is refused."""
    console.change_crm(AS_JSON)
    new_contact(console, 900_001)
    alone = [
        {"auditable_id": 900_001, "action": "create", "audited_changes": '{"organization_id": 2}'},
        {"auditable_id": 900_001, "audited_changes": f'{{"n": [1, {odd}]}}'},
    ]
    insert(console, alone)
    reasons = dict(run_account(ORGANISATION, RunMode.DRY_RUN).quarantined.values_list("audit_id", "reason"))
    insert(console, [{"id": FIRST + 2, "audited_changes": '{"n": [1, 1e200000]}'}])
    beside = dict(run_account(ORGANISATION, RunMode.DRY_RUN).quarantined.values_list("audit_id", "reason"))
    refused = "tenant_mismatch" if odd.startswith("[") else "changes_unstorable"
    assert reasons[FIRST + 1] == beside[FIRST + 1] == refused
    assert beside[FIRST] == "tenant_mismatch" and beside[FIRST + 2] == "changes_unstorable"


def test_what_jsonb_refuses_of_a_secret_alone_is_loaded_whatever_its_neighbours(console):
    """The secret stays behind, and so what is wrong with it; the column's number may be one that the CDP's jsonb refuses."""
    console.change_crm(AS_JSON)
    audits = insert(console, [{"audited_changes": '{"name": ["a", "b"], "reset_token": [1, 1e200000]}'}])
    wanted = [activity(audits[0], "contact/update", changes='{"name": ["a", "b"]}')]
    assert moved(console).rows == wanted
    insert(console, [{"audited_changes": '{"n": [1, 1e200000]}'}], after=audits)
    found = moved(console)
    assert (found.rows, found.quarantined) == (wanted, {FIRST + 1: "changes_unstorable"})
    assert ledger.of(found.run).unchanged == ledger.of(found.run).loaded


def test_a_contact_that_appears_between_two_heavy_ones_has_its_chunk(console):
    insert(console, [{"auditable_id": person} for person in (900_010,) * 30 + (900_050,) * 30 + (900_030,)])
    for person in (900_010, 900_050):
        new_contact(console, person)
    run = runs.start(runs.Wish(Account.objects.get(crm_organization_id=ORGANISATION), RunMode.PRODUCTION, 20), by="tester", now=now())
    steps.step(run, owner=OWNER)
    new_contact(console, 900_030)
    while run.state not in FINISHED:
        steps.step(run, owner=OWNER)
        run.refresh_from_db()
    assert run.state in ENDED_WELL
    assert rows(console.cdp, f"SELECT count(*) FROM contact_activity_logs WHERE source_audit_id = {FIRST + 60}") == [(1,)]


@pytest.mark.parametrize(
    ("column", "audit"),
    [
        ("jsonb", {"created_at": "12023-05-01 12:00:00"}),
        (
            "json",
            JOIN | {"auditable_id": 8001, "audited_changes": '{"crm_deal_id": 9001, "crm_person_id": 1, "x": 1e9999999999999999999999}'},
        ),
        ("jsonb", JOIN | {"auditable_id": 8001, "audited_changes": f'{{"crm_deal_id": 9001, "crm_person_id": 1, "x": {DEEP}}}'}),
    ],
    ids=["year 12023", "a number beyond any", "5,000 levels"],
)
def test_one_odd_audit_ends_no_run(console, column, audit: dict[str, Any]):
    if column == "json":
        console.change_crm(AS_JSON)
    insert(console, [audit])
    assert run_account(ORGANISATION).state in ENDED_WELL


@pytest.mark.parametrize("moment", ["0001-01-01 00:00:00 BC", "infinity", "-infinity"])
def test_a_live_row_at_no_moment_ends_no_run(console, moment):
    console.change_cdp(
        f"""INSERT INTO contact_activity_logs (id, account_id, contact_id, category, actor_kind, occurred_at, changes, origin)
            SELECT gen_random_uuid(), account_id, id, 'note/create', 'system', '{moment}', '{{}}', 'live'
            FROM contacts WHERE account_id = '{ACCOUNT}' LIMIT 1"""
    )
    assert run_account(ORGANISATION).state in ENDED_WELL


def test_white_space_before_and_in_json_is_white_space(console):
    console.change_crm(AS_JSON)
    insert(console, [{"audited_changes": "{\n}"}, {"audited_changes": " " * 20 + '\n{"phone": ["1", "2"]}'}])
    run = run_account(ORGANISATION)
    assert rows(console.cdp, f"SELECT source_audit_id FROM contact_activity_logs WHERE source_audit_id >= {FIRST}") == [(FIRST + 1,)]
    assert not run.quarantined.filter(audit_id__gte=FIRST).exists()


@pytest.mark.parametrize("systems", ["crm_sample_yaml"], indirect=True)
@pytest.mark.parametrize("text", ["{}", "--- &1 {}\n", "--- {} # redacted\n"])
def test_an_empty_update_in_a_text_column_is_one_however_it_is_written(console, text):
    person = rows(console.crm, "SELECT id FROM crm_people WHERE organization_id = 1 ORDER BY id LIMIT 1")[0][0]
    statement = sql.SQL(
        "INSERT INTO audits (id, auditable_type, auditable_id, action, audited_changes, created_at) "
        "VALUES (900001, 'Crm::Person', {}, 'update', {}, '2023-01-01')"
    )
    run_sql(console.crm, statement.format(person, text).as_string())
    run = run_account(1)
    assert run.state in ENDED_WELL, run.reason
    assert run.verification["missing"] == 0


def test_organisations_that_are_no_ids_are_counted_and_not_quoted(console):
    console.change_crm(AS_JSON)
    odd = {"auditable_id": 900_001, "action": "create", "audited_changes": '{"organization_id": "a\\u0000b"}'}
    insert(console, [odd, {"auditable_id": 900_001}])
    new_contact(console, 900_001)
    told = run_account(ORGANISATION).quarantined.filter(audit_id=FIRST + 1).values_list("reason", "detail")
    assert list(told) == [("tenant_mismatch", "the contact's own audits name organisation by no id")]


def test_a_row_that_cannot_be_written_does_not_keep_a_draft_from_being_counted(console):
    insert(console, [{"audited_changes": f'{{"custom_fields": [{DEEP}, null], "reset_token": ["a", "b"]}}'}])
    document = MappingRevision.objects.get().document
    [effect] = effects.count(document, [Account.objects.get(crm_organization_id=ORGANISATION)], now=now(), pulse=lambda: None)
    assert effect.changed == 0


@pytest.mark.parametrize("text", ["--5", "²", "٣", "9" * 30])
def test_what_only_looks_like_a_number_is_no_users_id(systems, text):
    crm = Crm()
    try:
        assert crm.users([text, "7"]).keys() == {"7"}
    finally:
        crm.close()


@pytest.mark.parametrize(
    ("name", "shown"), [("Ana \0Li", "Ana \ufffdLi"), ("Ana \ud83d", "Ana \ufffd"), (7, None), ({"first": "Ana"}, None)]
)
def test_a_name_that_no_column_can_hold_ends_no_run(console, settings, tmp_path, name, shown):
    told = json.loads((DATA / "sample_usman_users.json").read_text())
    for user in told["users"]:
        user["name"] = name
    (tmp_path / "users.json").write_text(json.dumps(told))
    server = serve_usman(tmp_path / "users.json")
    settings.USMAN_URL = next(server)
    run = run_account(ORGANISATION)
    next(server, None)
    assert run.state in ENDED_WELL, run.reason
    assert not run.quarantined.filter(reason="processing_failed").exists()
    names = "SELECT DISTINCT actor_name FROM contact_activity_logs WHERE actor_kind = 'user' AND origin = 'crm_migration'"
    assert rows(console.cdp, names) == [(shown,)]
