"""Production of rows that the sample does not hold: texts, numbers, JSON that jsonb would not hold, and secrets."""

import psycopg
import pytest

from migration import ledger
from tests.conftest import rows
from tests.migration.hard_rows import AS_JSON, CHANGES, FIRST, NOTE, PERSON, activity, as_jsonb, insert, moved, new_contact, text_of
from tests.migration.test_hard_links import DEAL, JOIN

# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["SELECT 1", AS_JSON], ids=["jsonb", "json"])
def test_a_text_of_400_kilobytes_comes_over_character_by_character(console, change):
    console.change_crm(change)
    content = 'Grüße 😀 \u2028 back\\slash \\n \\\\. tab\t line\r\n quote" \x01\x1f\x7f </script> \\N \\u0000 ' * 6000
    assert len(content.encode()) > 400_000
    [audit] = insert(console, [NOTE | {"action": "create", "audited_changes": text_of({"content": content, "is_pinned": False})}])
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
    '{"name": ["a\\\\u0000b", "\\\\ud800"]}',
    '{"name": ["\\ud83d\\ude00", "\\u003cb\\u003e \\u2028 \\/"]}',
    '{"score": [1e131000, 1e-16000]}',
    '{"name": ["first", "x"], "phone": ["1", "2"], "name": ["second", "y"]}',
    ' \t\n {  "name" : [ "a" ,\r\n "b" ] } \n ',
    '{"\\u006eame": ["escaped", "key"]}',
    '{"\\u0072eset_token": ["a", "b"], "name": ["a", "b"], "name": ["c", "d"]}',
    '{"reset_token": ["\\u0000", "y"], "name": ["c", "d"]}',
    '{"name": ["c", "d"], "reset_token": ["\\ud800", 1e400000], "\\u0000_token": [1, 2]}',
)
UNSTORABLE, WITH_SECRETS = 7, 3  # of these the first are unstorable; of the last, secrets stay behind, whatever they hold


def test_of_json_what_jsonb_refuses_is_unstorable_and_the_rest_loads(console):
    console.change_crm(AS_JSON)
    audits = insert(console, ({"audited_changes": text} for text in JSON_TEXTS))
    refused = {audit["id"]: "changes_unstorable" for audit in audits[:UNSTORABLE]}
    for text in JSON_TEXTS[:UNSTORABLE]:
        with pytest.raises(psycopg.DataError):
            as_jsonb(console, text)
    texts = [as_jsonb(console, text) for text in JSON_TEXTS[UNSTORABLE:-WITH_SECRETS]] + ['{"name": ["c", "d"]}'] * WITH_SECRETS
    wanted = [activity(audit, "contact/update", changes=text) for audit, text in zip(audits[UNSTORABLE:], texts, strict=True)]
    found = moved(console)
    assert found.quarantined == refused
    assert found.rows == wanted


BEYOND = "2090-01-01 12:00:00"  # every watermark


def test_beyond_the_watermark_what_jsonb_refuses_is_counted_by_its_category_as_any_other(console):
    """Nothing of it is stored, and it can be read."""
    console.change_crm(AS_JSON)
    before = dict(ledger.of(moved(console).run).beyond)
    texts = (*JSON_TEXTS[:UNSTORABLE], '{"score": [1, 1e9999999999999999999]}')
    insert(console, ({"audited_changes": text, "created_at": BEYOND} for text in texts))
    after = dict(ledger.of(moved(console).run).beyond)
    assert after == before | {"contact/update": before.get("contact/update", 0) + len(texts)}


def test_a_number_that_nobody_can_hold_is_unstorable_and_what_stands_beside_it_is_read(console):
    """The category, the deal's link, the organisation: Python's decimals refuse an exponent of twenty digits."""
    console.change_crm(AS_JSON)
    number = '"score": 1e9999999999999999999'
    stranger = 5001
    new_contact(console, stranger)
    audits = insert(console, [
        {"auditable_type": "Crm::Task", "associated_type": "Crm::Person", "associated_id": PERSON,
         "audited_changes": f'{{"crm_task_status_id": [1, 3], {number}}}'},
        JOIN | {"auditable_id": 8001, "audited_changes": f'{{"crm_deal_id": 9001, "crm_person_id": {PERSON}, {number}}}'},
        DEAL,
        {"auditable_id": stranger, "action": "create", "audited_changes": f'{{"organization_id": 2, {number}}}'},
        {"auditable_id": stranger},
    ])  # fmt: skip
    found = moved(console)
    assert found.quarantined == {
        audits[0]["id"]: "changes_unstorable",
        audits[1]["id"]: "changes_unstorable",
        audits[3]["id"]: "changes_unstorable",
        audits[4]["id"]: "tenant_mismatch",
    }
    assert found.rows == [activity(audits[2], "deal/update")]


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
        ("update", {"encrypted_passwords": [1, 2], "xencrypted_password": [1, 2], "reset_token ": [1, 2], "a_token_hint": ["a", "b"]}),
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
