"""Production of rows that the sample does not hold: who acted, what it is called, comments, renamed classes, and other column types."""

import pytest
from tests.conftest import rows
from tests.migration.hard_rows import CHANGES, FIRST, activity, few_contacts, insert, moved, text_of
from tests.migration.oracle_sample import read_sample

NOTE = {"auditable_type": "Crm::Note", "auditable_id": 7001, "associated_type": "Crm::Person", "associated_id": 1}
TASK = NOTE | {"auditable_type": "Crm::Task"}
TICKET = NOTE | {"auditable_type": "Crm::Ticket"}
ANDI = ("user", "usm_a5bf5c5c38d0", "Andi Nasution")  # CRM user 7
WEIRD = 'tab\t newline\n return\r back\\slash \\N \\. \\t quote" \' 😀 {"a": 1} \x07 end\\'


# --- who ------------------------------------------------------------------------------------------------------------


def add_user(console, user_id: int, email: str | None, name: str | None) -> None:
    columns = "id, email, full_name, created_at, updated_at"
    rows_of = f"SELECT id FROM users WHERE id = {user_id}"
    console.change_crm(f"INSERT INTO users ({columns}) VALUES ({user_id}, {literal(email)}, {literal(name)}, now(), now())")
    assert rows(console.crm, rows_of)


def literal(text: str | None) -> str:
    return "NULL" if text is None else "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def test_every_kind_of_actor(console):
    add_user(console, 901, "ANDI.nasution363@SAMPLE.example", "Andi again")
    add_user(console, 902, None, "No E-mail")
    add_user(console, 903, "", None)
    add_user(console, 904, "nobody@sample.example", WEIRD)
    add_user(console, 905, "ünknown😀\\@\n", "Odd")
    named = (
        ({"user_id": 7, "user_type": "User"}, ANDI),
        ({"user_id": 901, "user_type": "User"}, ANDI),
        ({"user_id": 7, "user_type": "User", "username": "console"}, ANDI),
        ({"user_id": 3, "user_type": "User"}, ("deactivated_user", "usm_25fed936c24d", "Nur Aini Putri")),
        ({"user_id": 902, "user_type": "User"}, ("unknown_user", None, "No E-mail")),
        ({"user_id": 903, "user_type": "User"}, ("unknown_user", None, None)),
        ({"user_id": 904, "user_type": "User"}, ("unknown_user", None, WEIRD)),
        ({"user_id": 905, "user_type": "User"}, ("unknown_user", None, "Odd")),
        ({"user_id": 999_999, "user_type": "User"}, ("unknown_user", None, None)),
        ({"user_id": 999_999, "user_type": None}, ("unknown_user", None, None)),
        ({"user_id": 7, "user_type": "Integration"}, ("integration", None, "Integration #7")),
        ({"user_id": 7, "user_type": "user"}, ("integration", None, "user #7")),
        ({"user_id": 0, "user_type": "Crm::Bot 😀"}, ("integration", None, "Crm::Bot 😀 #0")),
        ({"user_id": 7, "user_type": "Integration", "username": "bot"}, ("integration", None, "Integration #7")),
        ({"username": "42"}, ("label", None, "42")),
        ({"username": " "}, ("label", None, " ")),
        ({"username": "\t\n"}, ("label", None, "\t\n")),
        ({"username": WEIRD}, ("label", None, WEIRD)),
        ({"username": "\\N"}, ("label", None, "\\N")),
        ({"username": "Andi.Nasution363@sample.example"}, ("label", None, "Andi.Nasution363@sample.example")),
        ({"username": "bot", "user_type": "User"}, ("label", None, "bot")),
        ({"username": ""}, ("system", None, None)),
        ({"username": "", "user_type": "Integration"}, ("system", None, None)),
        ({"user_type": "User"}, ("system", None, None)),
    )
    audits = insert(console, (who for who, _ in named))
    assert moved(console).rows == [activity(audit, "contact/update", actor=actor) for audit, (_, actor) in zip(audits, named, strict=True)]


def test_without_a_type_a_user_id_names_no_user_for_certain(console):
    """`Integration` #7 is not user 7, and a row without user_type does not say which it means: never ACTIVE's id."""
    [audit] = insert(console, [{"user_id": 7, "user_type": None}])
    [row] = moved(console).rows
    assert row in [activity(audit, "contact/update", actor=("unknown_user", None, name)) for name in (None, "Andi Nasution")]


# --- texts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("comment", [WEIRD, "", " ", "\\N", "\\", "\\.", "\n", "x" * 50_000, '"}', "null"])
def test_comments_and_class_names_come_over_as_they_are(console, comment):
    [audit] = insert(console, [{"comment": comment, "username": "bot"}])
    assert moved(console, few_contacts(console)).rows == [activity(audit, "contact/update", actor=("label", None, "bot"))]


# --- what it is called ----------------------------------------------------------------------------------------------

TRANSITIONS = (
    (TASK, '{"crm_task_status_id": [1, 3]}', "task/done"),
    (TASK, '{"crm_task_status_id": [null, 4], "name": ["a", "b"]}', "task/done"),
    (TASK, '{"crm_task_status_id": ["2", "3"]}', "task/done"),
    (TASK, '{"crm_task_status_id": [3, 4]}', "task/update"),
    (TASK, '{"crm_task_status_id": ["3", 4]}', "task/update"),
    (TASK, '{"crm_task_status_id": [3, 1]}', "task/update"),
    (TASK, '{"crm_task_status_id": [3, null]}', "task/update"),
    (TASK, '{"crm_task_status_id": [1, 33]}', "task/update"),
    (TASK, '{"crm_task_status_id": 3, "name": "x"}', "task/update"),
    (TASK, '{"crm_task_status_id": 3, "name": ["a", "b"], "crm_deal_id": null}', "task/update"),
    (TASK, '{"ticket_status_id": [1, 3], "crm_stage_id": [1, 4]}', "task/update"),
    (TASK, '{"custom_fields": {"crm_task_status_id": [1, 3]}}', "task/update"),
    (TASK, '{"name": ["\\"crm_task_status_id\\": [1, 3]", "b"]}', "task/update"),
    (TICKET, '{"ticket_status_id": [1, 7]}', "ticket/resolved"),
    (TICKET, '{"ticket_status_id": [null, "11"], "resolved_at": [null, "2023-05-01T12:00:00.000Z"]}', "ticket/resolved"),
    (TICKET, '{"ticket_status_id": [3, 7]}', "ticket/update"),
    (TICKET, '{"ticket_status_id": [7, 8]}', "ticket/update"),
    (TICKET, '{"ticket_status_id": 7, "priority": ["low", "urgent"]}', "ticket/update"),
    (TICKET, '{"crm_task_status_id": [1, 3]}', "ticket/update"),
    (NOTE, '{"ticket_status_id": [1, 7], "crm_task_status_id": [1, 3], "crm_stage_id": [1, 4]}', "note/update"),
    ({}, '{"ticket_status_id": [1, 7], "crm_task_status_id": [1, 3], "crm_stage_id": [1, 4]}', "contact/update"),
)


def test_status_transitions(console):
    audits = insert(console, (record | {"audited_changes": text} for record, text, _ in TRANSITIONS))
    source = rows(console.crm, f"SELECT audited_changes::text FROM audits WHERE id >= {FIRST} ORDER BY id")
    wanted = [
        activity(audit, category, changes=text) for audit, (text,), (*_, category) in zip(audits, source, TRANSITIONS, strict=True)
    ]
    assert moved(console).rows == wanted


def test_only_an_update_is_a_transition(console):
    text = '{"crm_task_status_id": [1, 3]}'
    audits = insert(console, [TASK | {"action": action, "audited_changes": text} for action in ("create", "destroy")])
    assert moved(console).rows == [activity(audits[0], "task/create"), activity(audits[1], "task/delete")]


def test_the_renamed_class_is_the_same_contact(console):
    """Its versions start again at 1, so nothing but the audit's id may tell two audits apart."""
    old = {"auditable_type": "Contact"}
    audits = insert(console, [old | {"action": "create"}, {"action": "create"}, old, NOTE | {"associated_type": "Contact"}, old | {"action": "destroy"}])
    categories = ("contact/create", "contact/create", "contact/update", "note/update", "contact/delete")
    assert moved(console).rows == [activity(audit, category) for audit, category in zip(audits, categories, strict=True)]


def test_classes_without_a_role_concern_nobody(console):
    """Nor do records whose associated is a deal or a company with the contact's number, nor a contact that the CDP does not hold."""
    insert(
        console,
        [
            {"auditable_type": "Crm::Company"},
            {"auditable_type": "User"},
            {"auditable_type": "crm::person"},
            {"auditable_type": None},
            NOTE | {"associated_type": "Crm::Deal"},
            NOTE | {"associated_type": None},
            NOTE | {"associated_id": None},
            NOTE | {"associated_id": 888_888},
            {"auditable_type": "Crm::Company", "associated_type": "Crm::Person", "associated_id": 1},
        ],
    )
    found = moved(console)
    assert (found.rows, found.quarantined) == ([], {})
    assert found.run.candidates == sum(chunk.expected for chunk in found.run.chunks.all()) - sum(found.beyond.values())


# --- chunks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("audits", [9, 10, 11, 20, 57])
def test_a_contact_with_more_audits_than_a_chunk_takes(console, audits):
    """Its own audits, its notes' and a deal's, mixed: each in one chunk and none in two."""
    known = few_contacts(console)
    texts = [{}, NOTE, {"audited_changes": "{}"}] * audits
    own = insert(console, texts[:audits])
    found = moved(console, known, chunk_size=10)
    kinds = {"Crm::Person": "contact/update", "Crm::Note": "note/update"}
    assert found.rows == [activity(audit, kinds[audit["auditable_type"]]) for audit in own if audit["audited_changes"] != "{}"]
    assert found.run.chunks.filter(person_from=1, person_to=1, audit_to__isnull=False).exists()


# --- column types ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bigint", "varchar", "text", "smallint"])
def test_ids_may_be_of_another_type(console, kind):
    """Texts among the ids that are no numbers are other records, and stop nobody."""
    if kind == "smallint":
        console.change_crm("DELETE FROM audits WHERE greatest(auditable_id, associated_id, user_id) > 32767")
    for column in ("auditable_id", "associated_id", "user_id"):
        console.change_crm(f"ALTER TABLE audits ALTER {column} TYPE {kind}")
    odd = ["abc", "", "1a", " 1", "1.0", "99999999999999999999999999", "-1"] if kind in ("varchar", "text") else []
    user = {"user_id": 7, "user_type": "User"}
    audits = insert(console, [user, NOTE | user, *({"auditable_id": one} for one in odd), *(NOTE | {"associated_id": one} for one in odd)])
    written = {row[11]: row for row in moved(console).rows}
    assert written == {
        audits[0]["id"]: activity(audits[0], "contact/update", actor=ANDI),
        audits[1]["id"]: activity(audits[1], "note/update", actor=ANDI),
    }


@pytest.mark.parametrize("kind", ["varchar", "uuid"])
def test_user_ids_that_are_no_numbers_name_nobody(console, kind):
    """An install with uuid users: the CRM's users have other ids then, and the recorded id stays as it is."""
    console.change_crm("ALTER TABLE audits ALTER user_id TYPE varchar")
    console.change_crm("UPDATE audits SET user_id = NULL, user_type = NULL") if kind == "uuid" else None
    ids = ["6f1c1a52-9c57-4c8e-8f0f-0d5b5a3f0001"] if kind == "uuid" else ["abc", "7x", "007", "99999999999999999999999"]
    insert(console, ({"user_id": one, "user_type": "User"} for one in ids))
    assert read_sample() and text_of({}) and CHANGES
