"""Production of rows that the sample does not hold: times, the seam, the tenant guard, and what breaks the code."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from migration import ledger
from migration.models import QuarantinedCandidate
from migration.states import RunState
from tests.conftest import ROLES, rows, run_sql
from tests.migration.against_oracle import sample
from tests.migration.conftest import run_account
from tests.migration.hard_rows import (
    ACCOUNT,
    AS_JSON,
    AT,
    CHANGES,
    FIRST,
    NOTE,
    ORGANISATION,
    PERSON,
    activity,
    few_contacts,
    insert,
    moved,
    new_contact,
)
from tests.migration.oracle import row_id
from tests.migration.test_hard_links import DEAL, JOIN

# --- times ----------------------------------------------------------------------------------------------------------


def test_an_audit_without_a_time_is_put_aside(console):
    audits = insert(console, [{"created_at": None}, NOTE | {"created_at": None}, {}])
    found = moved(console)
    assert found.quarantined == {audit["id"]: "time_missing" for audit in audits[:2]}
    assert found.rows == [activity(audits[2], "contact/update")]


TIMES = ("-infinity", "0001-01-01 00:00:00 BC", "0044-03-15 12:00:00.5 BC", "0001-01-01 00:00:00", "1969-12-31 23:59:59.999999")


def test_times_that_python_cannot_hold_come_over_and_the_end_of_time_is_beyond_every_watermark(console):
    audits = insert(console, [*({"created_at": at} for at in TIMES), {"created_at": "infinity"}, NOTE | {"created_at": "infinity"}])
    run = run_account(ORGANISATION)
    assert run.verification and run.verification["agrees"] and run.state == RunState.PARTIAL, run.reason
    columns = "source_audit_id, category, (occurred_at AT TIME ZONE 'UTC')::text, changes::text"
    written = rows(console.cdp, f"SELECT {columns} FROM contact_activity_logs WHERE source_audit_id >= {FIRST} ORDER BY id")
    source = rows(console.crm, f"SELECT id, created_at::text FROM audits WHERE id >= {FIRST} AND created_at <> 'infinity' ORDER BY id")
    assert written == [(audit, "contact/update", at, CHANGES) for audit, at in source]
    assert [audit for audit, _ in source] == [audit["id"] for audit in audits[: len(TIMES)]]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_microseconds_and_utc_survive_whatever_type_and_zone(console, zone):
    """A timestamptz column is the same moments; the servers' own time zones and date styles must not matter."""
    for system, url in (("crm", console.crm), ("cdp", console.cdp)):
        of_role = f"ALTER ROLE {ROLES[system]} IN DATABASE {psycopg.conninfo.conninfo_to_dict(url)['dbname']} SET"
        run_sql(url, f"{of_role} timezone = '{zone}'", f"{of_role} datestyle = 'German, DMY'")
    console.change_crm("ALTER TABLE audits ALTER created_at TYPE timestamptz USING created_at AT TIME ZONE 'UTC'")
    times = (
        "2023-05-01 12:00:00.5",
        "2023-05-01 12:00:00.120000",
        "2023-05-01 12:00:00",
        "2023-03-12 02:30:00.000001",
        "2023-11-05 01:30:00",
    )
    audits = insert(console, ({"created_at": at + "+00"} for at in times))
    assert moved(console).rows == [activity(audit, "contact/update", at=datetime.fromisoformat(audit["created_at"])) for audit in audits]


def test_the_watermark_is_exclusive_to_the_microsecond(console):
    mark = min(row["occurred_at"] for row in sample().live if row["account_id"] == ACCOUNT and row["category"].startswith("contact/"))
    audits = insert(console, [{"created_at": text_at(mark, -1)}, {"created_at": text_at(mark)}, NOTE | {"created_at": text_at(mark)}])
    found = moved(console)
    assert found.rows == [activity(audits[0], "contact/update"), activity(audits[2], "note/update")]
    assert found.quarantined == {}


# --- the seam with the live sync ------------------------------------------------------------------------------------


def text_at(moment: datetime, microseconds: int = 0) -> str:
    return (moment + timedelta(microseconds=microseconds)).strftime("%Y-%m-%d %H:%M:%S.%f")


def live_row(person: int, category: str, at: datetime, audit_id: int | None = None) -> dict:
    contact = next(row["id"] for row in sample().contacts if row["source_id"] == str(person))
    return {
        "account_id": ACCOUNT, "contact_id": contact, "category": category, "occurred_at": at, "source_audit_id": audit_id, "origin": "live",
    }  # fmt: skip


def test_the_seam_is_ten_seconds_of_one_contact_and_one_category(console):
    """A live row without its audit makes a candidate doubtful, one with it is the candidate's own; the latter is looked for first."""
    mark = datetime(2023, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
    live = [live_row(1, "note/create", mark), live_row(2, "note/update", mark), live_row(1, "note/delete", mark)]
    live += [live_row(1, "note/delete", mark, FIRST + 5)]
    run_sql(console.cdp, *map(insertion, live))
    seconds_before = (
        (10, 0, "create"),
        (10, 1, "create"),
        (0, 1, "create"),
        (0, 1, "update"),
        (10, 0, "destroy"),
        (0, 1, "destroy"),
        (0, 0, "create"),
    )
    times = ((action, text_at(mark, -seconds * 1_000_000 - more)) for seconds, more, action in seconds_before)
    audits = insert(console, (NOTE | {"action": action, "created_at": at} for action, at in times))
    found = moved(console, replace(sample(), live=sample().live + live))
    assert found.rows == [activity(audits[1], "note/create"), activity(audits[3], "note/update")]
    assert found.quarantined == {audits[number]["id"]: "probable_overlap" for number in (0, 2, 4)}
    assert ledger.of(found.run).already_live == 2


def insertion(live: dict) -> str:
    values = ", ".join("NULL" if value is None else f"'{value}'" for value in live.values())
    return (
        f"INSERT INTO contact_activity_logs (id, actor_kind, changes, {', '.join(live)}) "
        f"VALUES (gen_random_uuid(), 'system', '{{}}', {values})"
    )


# --- the tenant guard -----------------------------------------------------------------------------------------------


NAMED = {
    5001: ([("create", '{"organization_id": 2}')], True),
    5002: ([("create", '{"organization_id": null}')], False),
    5003: ([("create", '{"name": "x"}')], False),
    5004: ([("create", '{"organization_id": 2}'), ("update", '{"organization_id": [2, 1]}')], False),
    5005: ([("update", '{"organization_id": [2, 3]}')], True),
    5006: ([("update", '{"organization_id": [null, 1]}')], False),
    5007: ([("update", '{"organization_id": 2, "name": ["a", "b"]}')], True),
    5008: ([("update", '{"organization_id": 1, "name": ["a", "b"]}')], False),
    5009: ([("create", '{"organization_id": 12}')], True),
    5010: ([("create", '{"organization_id": "1"}')], False),
    5011: ([("create", '{"custom_fields": {"organization_id": 2}}')], False),
    5012: ([("create", '{"organization_id": null}'), ("update", '{"organization_id": [null, 2]}')], True),
    5013: ([("create", '{"organization_id": 1}'), ("update", '{"organization_id": [1, 2]}')], False),
}


@pytest.mark.parametrize("live", ["deal/won", "deal/update"])
@pytest.mark.parametrize("chunk_size", [1, 1000])  # parts of contacts too
def test_the_seam_knows_what_live_sync_may_call_an_activity_before_gate_e_is_signed(console, settings, live, chunk_size):
    few_contacts(console, 1)
    contact = new_contact(console, 900_001)
    insert(
        console,
        [
            JOIN | {"auditable_id": 8001, "audited_changes": '{"crm_deal_id": 9001, "crm_person_id": 900001}', "created_at": "2023-04-01"},
            DEAL | {"audited_changes": '{"crm_stage_id": [1, 4]}'},
        ],
    )
    console.change_cdp(
        "DELETE FROM contact_activity_logs WHERE origin = 'live'",
        f"""INSERT INTO contact_activity_logs (id, account_id, contact_id, category, actor_kind, occurred_at, changes, origin)
            VALUES (gen_random_uuid(), '{ACCOUNT}', '{contact}', '{live}', 'system', timestamptz '{AT} UTC' + interval '2 seconds', '{{}}', 'live')""",
    )
    settings.GATE_POLICY = "tests.migration.policies.with_d"
    first = run_account(ORGANISATION, chunk_size=chunk_size)
    settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"
    again = run_account(ORGANISATION, chunk_size=chunk_size)
    ours = f"SELECT source_audit_id, category FROM contact_activity_logs WHERE contact_id = '{contact}' AND origin = 'crm_migration' ORDER BY 1"
    assert first.quarantined.get(audit_id=FIRST + 1).reason == "probable_overlap"
    if live == "deal/won":
        assert again.quarantined.get(audit_id=FIRST + 1).reason == "probable_overlap"
        assert rows(console.cdp, ours) == [(FIRST, "deal/contact_linked")]
    else:  # what live sync called otherwise follows another audit
        assert rows(console.cdp, ours) == [(FIRST, "deal/contact_linked"), (FIRST + 1, "deal/won")]


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_a_contact_whose_audits_name_only_others_is_put_aside_whole(console, chunk_size):
    """Also where the audit that names the organisation lies in another chunk than the contact's other audits."""
    known = few_contacts(console)
    texts: list[dict] = []
    for person, (named, _) in NAMED.items():
        new_contact(console, person)
        more: list[dict] = [{"auditable_id": person}, NOTE | {"associated_id": person}] * 2
        texts += more + [{"auditable_id": person, "action": action, "audited_changes": text} for action, text in named] + more
    audits = insert(console, texts)
    aside = [audit["id"] for audit in audits if NAMED[audit["associated_id"] or audit["auditable_id"]][1]]
    found = moved(console, known, chunk_size=chunk_size)
    assert found.quarantined == dict.fromkeys(aside, "tenant_mismatch")
    assert {row[11] for row in found.rows} == {audit["id"] for audit in audits} - set(aside)


def test_a_contact_of_another_source_is_no_person_of_the_crm(console):
    """An import's own ids may be the same numbers: of person 1, beside whom one stands, and of 5001, whom no contact from the CRM claims."""
    console.change_cdp(
        "INSERT INTO contacts (id, account_id, source, source_id) SELECT gen_random_uuid(), id, 'import', person"
        f" FROM accounts, (VALUES ({PERSON}), (5001)) AS p (person) WHERE crm_organization_id = 1"
    )
    audits = insert(console, ({"auditable_id": person} for person in (PERSON, 5001)))
    found = moved(console)
    assert found.quarantined == {}
    assert [row[0] for row in found.rows] == [row_id(PERSON, audits[0]["id"])]


def test_another_tenants_person_is_one_however_many_contacts_claim_it(console):
    new_contact(console, 5001)
    new_contact(console, 5001)
    [audit] = insert(console, [{"auditable_id": 5001, "action": "create", "audited_changes": '{"organization_id": 2}'}])
    found = moved(console)
    assert (found.quarantined, found.rows) == ({audit["id"]: "tenant_mismatch"}, [])


def test_a_rival_claim_counts_unless_the_contacts_own_audits_rule_it_out(console):
    """Of 5001 no audit names an organisation; 5002's name the other account, 5003's this one, 5005's both. What has 5004's id there is no contact."""
    for person in (5001, 5002, 5003, 5004, 5005):
        new_contact(console, person)
    console.change_cdp(
        "INSERT INTO contacts (id, account_id, source, source_id) SELECT gen_random_uuid(), id, 'crm', person"
        " FROM accounts, (VALUES (5001), (5002), (5003), (5005)) AS p (person) WHERE crm_organization_id = 2",
        "INSERT INTO contacts (id, account_id, source, source_id) SELECT gen_random_uuid(), id, 'import', 5004 FROM accounts WHERE crm_organization_id = 2",
    )
    named = {5001: '{"name": "x"}', 5002: '{"organization_id": 2}', 5003: '{"organization_id": 1}', 5004: '{"name": "x"}'}
    audits = insert(console, ({"auditable_id": person, "action": "create", "audited_changes": text} for person, text in named.items()))
    of_both = [{"action": "create", "audited_changes": '{"organization_id": 1}'}, {"audited_changes": '{"organization_id": [1, 2]}'}]
    insert(console, ({"auditable_id": 5005} | audit for audit in of_both), audits)
    found = moved(console)
    ambiguous = dict.fromkeys((FIRST, FIRST + 4, FIRST + 5), "contact_ambiguous")
    assert found.quarantined == ambiguous | {audits[1]["id"]: "tenant_mismatch"}
    assert [row[0] for row in found.rows] == [row_id(5003, audits[2]["id"]), row_id(5004, audits[3]["id"])]


# --- what breaks the code -------------------------------------------------------------------------------------------


def test_an_action_that_audited_does_not_know_is_put_aside_by_name(console):
    audits = insert(console, ({"action": action} for action in ("login", None, "", "CREATE", "Update ")))
    found = moved(console)
    assert found.quarantined == {audit["id"]: "processing_failed" for audit in audits}
    classes = QuarantinedCandidate.objects.filter(run=found.run, audit_id__gte=FIRST).values_list("error_class", flat=True)
    assert set(classes) == {"UnknownAction"}
    assert found.rows == []


def test_reasons_are_decided_in_their_order(console):
    """Each audit has every later fault too."""
    console.change_crm(AS_JSON)
    new_contact(console, 5001)
    texts = ((None, "[]"), (AT, "[]"), (AT, '{"name": "\\u0000"}'), (AT, '{"organization_id": 2}'))
    audits = insert(console, ({"auditable_id": 5001, "action": "login", "created_at": at, "audited_changes": text} for at, text in texts))
    reasons = ("time_missing", "changes_unreadable", "changes_unstorable", "tenant_mismatch")
    assert moved(console).quarantined == {audit["id"]: reason for audit, reason in zip(audits, reasons, strict=True)}


@pytest.mark.parametrize("kind", ["integer", "bigint"])
def test_a_contact_of_an_impossible_person_id_disturbs_nobody(console, kind):
    """The CDP's column is bigint, the CRM's may be integer: then no such record has audits. Ids beyond 48 bits fit into no row's id."""
    console.change_crm(f"ALTER TABLE audits ALTER auditable_id TYPE {kind}, ALTER associated_id TYPE {kind}")
    known = few_contacts(console)
    possible, impossible = (0, 2**31 - 1, 2**31, 2**48 - 1), (2**48, 2**62)
    for person in (*possible, *impossible, -1):
        new_contact(console, person)
    persons = [one for one in (*possible, *impossible) if kind == "bigint" or one < 2**31]
    audits = insert(console, [{}, *({"auditable_id": person} for person in persons)])
    found = moved(console, known)
    assert found.rows[0][0] == row_id(0, audits[1]["id"])
    assert {row[11] for row in found.rows} == {audit["id"] for audit in audits if audit["auditable_id"] not in impossible}
    assert found.quarantined == {audit["id"]: "processing_failed" for audit in audits if audit["auditable_id"] in impossible}


def test_the_same_rows_are_a_retrys_rows_and_a_second_run_finds_them_unchanged(console):
    insert(console, [{}, {"created_at": None}, NOTE, {"audited_changes": '{"score": [1e-7, 0.50]}'}])
    first = moved(console)
    run_sql(console.crm, f"UPDATE audits SET created_at = '{AT}' WHERE created_at IS NULL")
    second = moved(console)
    assert len(second.rows) == len(first.rows) + 1
    assert set(first.rows) < set(second.rows)
