"""Production of rows that the sample does not hold: values, texts, secrets, times, and what must be put aside."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from migration.models import QuarantinedCandidate
from tests.conftest import rows, run_sql
from tests.migration.hard_rows import AT, CHANGES, FIRST, ORGANISATION, activity, as_jsonb, few_contacts, insert, moved, text_of
from tests.migration.oracle import row_id

AS_JSON = "ALTER TABLE audits ALTER audited_changes TYPE json USING audited_changes::text::json"
NOTE = {"auditable_type": "Crm::Note", "auditable_id": 7001, "associated_type": "Crm::Person", "associated_id": 1, "action": "create"}


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["SELECT 1", AS_JSON], ids=["jsonb", "json"])
def test_a_text_of_400_kilobytes_comes_over_character_by_character(console, change):
    console.change_crm(change)
    content = 'Grüße 😀 \u2028 back\\slash \\n \\\\. tab\t line\r\n quote" \x01\x1f\x7f </script> \\N \\u0000 ' * 6000
    assert len(content.encode()) > 400_000
    [audit] = insert(console, [NOTE | {"audited_changes": text_of({"content": content, "is_pinned": False})}])
    assert moved(console).rows == [activity(audit, "note/create", changes=as_jsonb(console, audit["audited_changes"]))]


NUMBERS = (
    '{"views": [9007199254740992, 9007199254740993]}',
    '{"price": ["0.50", 0.50], "score": [1.0, 1]}',
    '{"score": [1e-7, 0.00000010]}',
    '{"score": [-0.0, 0], "other": [-0, 1E+3]}',
    '{"big": [123456789012345678901234567890.123456789012345678901234567890, -18446744073709551617]}',
    '{"wide": [1e300, 1.7976931348623157e308]}',
    '{"tiny": [5e-324, 2.2250738585072014e-308]}',
)


@pytest.mark.parametrize("change", ["SELECT 1", AS_JSON], ids=["jsonb", "json"])
def test_numbers_keep_their_text(console, change):
    console.change_crm(change)
    audits = insert(console, ({"audited_changes": text} for text in NUMBERS))
    source = rows(console.crm, f"SELECT audited_changes::jsonb::text FROM audits WHERE id >= {FIRST} ORDER BY id")
    wanted = [activity(audit, "contact/update", changes=text) for audit, (text,) in zip(audits, source, strict=True)]
    assert moved(console).rows == wanted


def test_numbers_beside_a_secret_keep_their_text(console):
    """Dropping a key means parsing and writing the rest anew: the place where a float would slip in."""
    audits = insert(console, ({"audited_changes": text[:-1] + ', "reset_token": [null, "x"]}'} for text in NUMBERS))
    assert moved(console).rows == [
        activity(audit, "contact/update", changes=as_jsonb(console, text)) for audit, text in zip(audits, NUMBERS, strict=True)
    ]


def test_odd_values_are_carried_as_they_are(console):
    texts = (
        '{"tags": ["old", "new"], "custom_fields": [null, null]}',
        '{"": ["", " "], "a.b": [{"encrypted_password": "inside"}, {}], "x y": [[], [[]]]}',
        '{"name": ["[REDACTED]", "[FILTERED]"]}',
        '{"due": ["2023-11-05T01:30:00.000-04:00", "2023-11-05T01:30:00.000-05:00"]}',
        '{"emoji": ["😀", "👩‍👩‍👧"], "ключ": ["\\\\u0000", "\\\\"]}',
    )
    audits = insert(console, ({"audited_changes": text} for text in texts))
    assert moved(console).rows == [activity(a, "contact/update", changes=as_jsonb(console, a["audited_changes"])) for a in audits]


# --- JSON that jsonb would not hold ---------------------------------------------------------------------------------

JSON_TEXTS = (
    '{"name": ["a\\u0000b", "c"]}',
    '{"na\\u0000me": ["b", "c"]}',
    '{"name": ["\\ud800", "c"]}',
    '{"name": ["\\udc00\\ud800", "c"]}',
    '{"score": [1, 1e400000]}',
    '{"score": [1, 1e131072]}',
    '{"name": ["x\\u0000"], "reset_token": ["\\u0000", "y"]}',
    '{"reset_token": ["\\u0000", "y"], "name": ["a", "b"]}',
    '{"name": ["a\\\\u0000b", "\\\\ud800"]}',
    '{"name": ["\\ud83d\\ude00", "\\u003cb\\u003e \\u2028 \\/"]}',
    '{"score": [1e131000, 1e-16000]}',
    '{"name": ["first", "x"], "phone": ["1", "2"], "name": ["second", "y"]}',
    ' \t\n {  "name" : [ "a" ,\r\n "b" ] } \n ',
    '{"\\u006eame": ["escaped", "key"]}',
    '{"\\u0072eset_token": ["a", "b"], "name": ["a", "b"], "name": ["c", "d"]}',
)
UNSTORABLE = 8  # of these the first


def test_of_json_what_jsonb_refuses_is_unstorable_and_the_rest_loads(console):
    console.change_crm(AS_JSON)
    audits = insert(console, ({"audited_changes": text} for text in JSON_TEXTS))
    refused = {audit["id"]: "changes_unstorable" for audit in audits[:UNSTORABLE]}
    for text in JSON_TEXTS[:UNSTORABLE]:
        with pytest.raises(psycopg.DataError):
            as_jsonb(console, text)
    texts = [as_jsonb(console, text) for text in JSON_TEXTS[UNSTORABLE:-1]] + ['{"name": ["c", "d"]}']
    wanted = [activity(audit, "contact/update", changes=text) for audit, text in zip(audits[UNSTORABLE:], texts, strict=True)]
    found = moved(console)
    assert found.quarantined == refused
    assert found.rows == wanted


@pytest.mark.parametrize("change", ["SELECT 1", AS_JSON], ids=["jsonb", "json"])
def test_changes_that_are_no_object_are_unreadable(console, change):
    console.change_crm(change)
    texts = (None, "null", "[]", '["a", "b"]', '"text"', "12", "true", " [1] ")
    audits = insert(console, ({"audited_changes": text, "action": action} for text in texts for action in ("create", "update")))
    found = moved(console)
    assert found.quarantined == {audit["id"]: "changes_unreadable" for audit in audits}
    assert found.rows == []


@pytest.mark.parametrize("change", ["SELECT 1", AS_JSON], ids=["jsonb", "json"])
def test_only_an_update_without_changes_is_skipped(console, change):
    console.change_crm(change)
    empty = [{"audited_changes": text, "action": action} for text in ("{}", " { } ") for action in ("update", "create", "destroy")]
    audits = insert(console, [*empty, {"audited_changes": "{}", "created_at": None}, {"audited_changes": "{}", "comment": "seen"}])
    found = moved(console)
    kept = [(a, {"create": "contact/create", "destroy": "contact/delete"}[a["action"]]) for a in audits if a["action"] != "update"]
    assert found.rows == [activity(audit, category, changes="{}") for audit, category in kept]
    assert found.quarantined == {}


def test_very_deep_json_is_not_lost_and_stops_nobody(console):
    """PostgreSQL takes 5,000 levels; whether a reader does or not, the candidate has an outcome and the others load."""
    deep = "[" * 5000 + "]" * 5000
    texts = (f'{{"custom_fields": [{deep}, null]}}', f'{{"custom_fields": [{deep}, null], "reset_token": ["a", "b"]}}', CHANGES)
    audits = insert(console, ({"audited_changes": text} for text in texts))
    found = moved(console)
    assert {row[11] for row in found.rows} | found.quarantined.keys() == {audit["id"] for audit in audits}
    assert found.rows[-1] == activity(audits[2], "contact/update")
    assert set(found.quarantined.values()) <= {"processing_failed"}


# --- secrets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["SELECT 1", AS_JSON], ids=["jsonb", "json"])
def test_secrets_of_old_rows_stay_behind_and_nothing_else_does(console, change):
    console.change_crm(change)
    texts = (
        ("create", {"name": "A", "encrypted_password": "$2a$10$x", "reset_token": "t", "password_token_hint": "dog"}),
        ("update", {"encrypted_password": ["$2a$1", "$2a$2"], "name": ["A", "B"]}),
        ("update", {"Encrypted_Password": ["$2a$1", "$2a$2"], "RESET_TOKEN": [None, "t"], "_token": ["a", "b"], "token": ["c", "d"]}),
        (
            "update",
            {"encrypted_passwords": [1, 2], "xencrypted_password": [1, 2], "reset_token ": [1, 2], "password_token_hint": ["a", "b"]},
        ),
        ("update", {"custom_fields": [{"reset_token": "inner"}, {"encrypted_password": "inner"}]}),
        ("update", {"note": ['"reset_token": 1', "encrypted_password"]}),
        ("update", {"encrypted_password": ["a", "b"]}),
        ("destroy", {"reset_token": None, 'odd"_token': "x", "multi\nline_token": "x", "name": "A"}),
    )
    left = (
        {"name": "A", "password_token_hint": "dog"},
        {"name": ["A", "B"]},
        {"token": ["c", "d"]},
        *(changes for _, changes in texts[3:6]),
        {},
        {"name": "A"},
    )
    audits = insert(console, ({"action": action, "audited_changes": text_of(changes)} for action, changes in texts))
    verbs = {"create": "contact/create", "update": "contact/update", "destroy": "contact/delete"}
    assert moved(console).rows == [
        activity(audit, verbs[audit["action"]], changes=as_jsonb(console, text_of(rest))) for audit, rest in zip(audits, left, strict=True)
    ]


# --- times ----------------------------------------------------------------------------------------------------------


def test_an_audit_without_a_time_is_put_aside(console):
    audits = insert(console, [{"created_at": None}, NOTE | {"created_at": None}, {}])
    found = moved(console)
    assert found.quarantined == {audit["id"]: "time_missing" for audit in audits[:2]}
    assert found.rows == [activity(audits[2], "contact/update")]


TIMES = ("-infinity", "0001-01-01 00:00:00 BC", "0044-03-15 12:00:00.5 BC", "0001-01-01 00:00:00", "1969-12-31 23:59:59.999999")


def test_times_that_python_cannot_hold_come_over_and_the_end_of_time_is_beyond_every_watermark(console):
    audits = insert(console, [*({"created_at": at} for at in TIMES), {"created_at": "infinity"}, NOTE | {"created_at": "infinity"}])
    run_to_the_end(console)
    written = rows(
        console.cdp,
        f"SELECT source_audit_id, (occurred_at AT TIME ZONE 'UTC')::text FROM contact_activity_logs WHERE source_audit_id >= {FIRST} ORDER BY 1",
    )
    source = rows(console.crm, f"SELECT id, created_at::text FROM audits WHERE id >= {FIRST} AND created_at <> 'infinity' ORDER BY 1")
    assert written == source
    assert [audit for audit, _ in written] == [audit["id"] for audit in audits[: len(TIMES)]]


def run_to_the_end(console):
    from tests.migration.conftest import run_account

    run = run_account(ORGANISATION)
    assert run.verification["agrees"], run.reason
    return run


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_microseconds_and_utc_survive_whatever_type_and_zone(console, zone):
    """A timestamptz column is the same moments; the server's own time zone must not matter."""
    database = psycopg.conninfo.conninfo_to_dict(console.crm)["dbname"]
    console.change_crm(
        f"ALTER DATABASE {database} SET timezone = '{zone}'",
        "ALTER TABLE audits ALTER created_at TYPE timestamptz USING created_at AT TIME ZONE 'UTC'",
    )
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
    mark = rows(
        console.cdp,
        "SELECT min(occurred_at) FROM contact_activity_logs WHERE account_id::text LIKE 'd5a2acda%' AND category LIKE 'contact/%'",
    )[0][0]
    just_before, just_at = ((mark + timedelta(microseconds=by)).strftime("%Y-%m-%d %H:%M:%S.%f") for by in (-1, 0))
    audits = insert(console, [{"created_at": just_before}, {"created_at": just_at}, NOTE | {"created_at": just_at}])
    found = moved(console)
    assert found.rows == [activity(audits[0], "contact/update"), activity(audits[2], "note/create")]
    assert found.quarantined == {}


# --- the seam with the live sync ------------------------------------------------------------------------------------


def live_row(contact: str, category: str, at: datetime, audit_id: int | None = None) -> str:
    source = "NULL" if audit_id is None else str(audit_id)
    return (
        "INSERT INTO contact_activity_logs (id, account_id, contact_id, category, actor_kind, occurred_at, changes, origin, source_audit_id) "
        f"SELECT gen_random_uuid(), account_id, id, '{category}', 'system', '{at.isoformat()}', '{{}}', 'live', {source} "
        f"FROM contacts WHERE id = '{contact}'"
    )


def test_the_seam_is_ten_seconds_of_one_contact_and_one_category(console):
    [(me,), (other,)] = rows(
        console.cdp, "SELECT id::text FROM contacts WHERE account_id::text LIKE 'd5a2acda%' AND source_id IN (1, 2) ORDER BY source_id"
    )
    mark = datetime(2023, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
    console.change_cdp(
        live_row(me, "note/create", mark), live_row(other, "note/update", mark), live_row(me, "note/delete", mark, FIRST + 5)
    )
    console.change_cdp("DELETE FROM contact_activity_logs WHERE category LIKE 'note/%' AND occurred_at > '2024-01-01'")
    offsets = (
        (-10_000_000, "create"), (-10_000_001, "create"), (-1, "create"), (-1, "update"), (-9_000_000, "destroy"), (-1, "destroy"), (0, "create"),
    )  # fmt: skip
    audits = insert(
        console,
        (
            NOTE | {"action": action, "created_at": (mark + timedelta(microseconds=by)).strftime("%Y-%m-%d %H:%M:%S.%f")}
            for by, action in offsets
        ),
    )
    run = run_to_the_end(console)
    found = rows(
        console.cdp,
        f"SELECT source_audit_id FROM contact_activity_logs WHERE origin = 'crm_migration' AND source_audit_id >= {FIRST} ORDER BY 1",
    )
    assert [audit for (audit,) in found] == [audits[number]["id"] for number in (1, 3, 4)]
    aside = run.quarantined.filter(audit_id__gte=FIRST).values_list("audit_id", "reason")
    assert dict(aside) == {audits[0]["id"]: "probable_overlap", audits[2]["id"]: "probable_overlap"}


# --- the tenant guard -----------------------------------------------------------------------------------------------


def new_contact(console, person: int) -> str:
    """A contact of account 1 for a CRM person of whom the sample knows nothing; its id."""
    console.change_cdp(
        f"INSERT INTO contacts (id, account_id, source, source_id) SELECT gen_random_uuid(), id, 'crm', {person} FROM accounts WHERE crm_organization_id = 1"
    )
    return rows(console.cdp, f"SELECT id::text FROM contacts WHERE source_id = {person}")[0][0]


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
}


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_a_contact_whose_audits_name_only_others_is_put_aside_whole(console, chunk_size):
    """Also where the audit that names the organisation lies in another chunk than the contact's other audits."""
    known = few_contacts(console)
    texts = []
    for person, (named, _) in NAMED.items():
        new_contact(console, person)
        more = [{"auditable_id": person}, NOTE | {"associated_id": person}] * 2
        texts += more + [{"auditable_id": person, "action": action, "audited_changes": text} for action, text in named] + more
    audits = insert(console, texts)
    aside = [audit["id"] for audit in audits if NAMED[audit["associated_id"] or audit["auditable_id"]][1]]
    found = moved(console, known, chunk_size=chunk_size)
    assert found.quarantined == dict.fromkeys(aside, "tenant_mismatch")
    assert {row[11] for row in found.rows} == {audit["id"] for audit in audits} - set(aside)


def test_a_rival_claim_counts_unless_the_contacts_own_audits_rule_it_out(console):
    """Of person 5001 no audit names an organisation; 5002's name the other account, 5003's this one."""
    for person in (5001, 5002, 5003):
        new_contact(console, person)
    console.change_cdp(
        "INSERT INTO contacts (id, account_id, source, source_id) SELECT gen_random_uuid(), id, 'crm', person"
        " FROM accounts, (VALUES (5001), (5002), (5003)) AS p (person) WHERE crm_organization_id = 2"
    )
    named = {5001: '{"name": "x"}', 5002: '{"organization_id": 2}', 5003: '{"organization_id": 1}'}
    audits = insert(console, ({"auditable_id": person, "action": "create", "audited_changes": text} for person, text in named.items()))
    found = moved(console)
    assert found.quarantined == {audits[0]["id"]: "contact_ambiguous", audits[1]["id"]: "tenant_mismatch"}
    assert [row[0] for row in found.rows] == [row_id(5003, audits[2]["id"])]


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


@pytest.mark.parametrize("person", [2**31, 2**47, 2**48, 2**62, 0, -1])
def test_a_contact_of_an_impossible_person_id_disturbs_nobody(console, person):
    """The CDP's column is bigint, the CRM's may be integer: such a contact has no audits."""
    known = few_contacts(console)
    new_contact(console, person)
    [audit] = insert(console, [{}])
    assert moved(console, known).rows == [activity(audit, "contact/update")]


def test_the_same_rows_are_a_retrys_rows_and_a_second_run_finds_them_unchanged(console):
    insert(console, [{}, {"created_at": None}, NOTE, {"audited_changes": NUMBERS[4]}])
    first = moved(console)
    run_sql(console.crm, f"UPDATE audits SET created_at = '{AT}' WHERE created_at IS NULL")
    second = moved(console)
    assert len(second.rows) == len(first.rows) + 1
    assert set(first.rows) < set(second.rows)
