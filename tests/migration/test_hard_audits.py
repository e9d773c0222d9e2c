"""Production of rows that the sample does not hold: who acted, what it is called, comments, renamed classes, and other column types."""

from dataclasses import replace

import pytest

from migration import revisions
from tests.conftest import rows
from tests.migration.against_oracle import sample
from tests.migration.conftest import mapping_document, now
from tests.migration.hard_rows import FIRST, NOTE, ORGANISATION, activity, few_contacts, insert, moved, new_contact
from tests.migration.oracle import expected
from tests.migration.oracle_sample import Audit

TASK = NOTE | {"auditable_type": "Crm::Task"}
TICKET = NOTE | {"auditable_type": "Crm::Ticket"}
ANDI = ("user", "usm_a5bf5c5c38d0", "Andi Nasution")  # CRM user 7
WEIRD = 'tab\t newline\n return\r back\\slash \\N \\. \\t quote" \' 😀 {"a": 1} \x07 end\\'


# --- who ------------------------------------------------------------------------------------------------------------


def add_user(console, user_id: int, email: str | None, name: str | None) -> None:
    columns = "id, email, full_name, created_at, updated_at"
    console.change_crm(f"INSERT INTO users ({columns}) VALUES ({user_id}, {literal(email)}, {literal(name)}, now(), now())")


def literal(text: str | None) -> str:
    return "NULL" if text is None else "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def test_every_kind_of_actor(console):
    add_user(console, 901, "ANDI.nasution363@SAMPLE.example", "Andi again")
    add_user(console, 902, None, "No E-mail")
    add_user(console, 903, "", None)
    add_user(console, 904, "nobody@sample.example", WEIRD)
    add_user(console, 906, "nobody@sample.example", "")
    add_user(console, 907, None, " \t")
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
        ({"user_id": 906, "user_type": "User"}, ("unknown_user", None, None)),
        ({"user_id": 906, "user_type": None}, ("unknown_user", None, None)),
        ({"user_id": 907, "user_type": "User"}, ("unknown_user", None, None)),
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


def test_comments_come_over_as_they_are(console):
    comments = (
        WEIRD,
        "",
        " ",
        "\\N",
        "\\",
        "\\.",
        "\n",
        "x" * 50_000,
        '"}',
        "null",
        "\nThis audit is the result of multiple audits being combined.",
    )
    audits = insert(console, ({"comment": comment} for comment in comments))
    assert moved(console).rows == [activity(audit, "contact/update") for audit in audits]


# --- what it is called ----------------------------------------------------------------------------------------------

TRANSITIONS: tuple[tuple[dict, str, str], ...] = (
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
    wanted = [activity(audit, category, changes=text) for audit, (text,), (*_, category) in zip(audits, source, TRANSITIONS, strict=True)]
    assert moved(console).rows == wanted


def test_only_an_update_is_a_transition(console):
    text = '{"crm_task_status_id": [1, 3]}'
    audits = insert(console, [TASK | {"action": action, "audited_changes": text} for action in ("create", "destroy")])
    assert moved(console).rows == [activity(audits[0], "task/create"), activity(audits[1], "task/delete")]


def test_the_renamed_class_is_the_same_contact(console):
    """Its versions start again at 1, so nothing but the audit's id may tell two audits apart."""
    old = {"auditable_type": "Contact"}
    audits = insert(
        console, [old | {"action": "create"}, {"action": "create"}, old, NOTE | {"associated_type": "Contact"}, old | {"action": "destroy"}]
    )
    categories = ("contact/create", "contact/create", "contact/update", "note/update", "contact/delete")
    assert moved(console).rows == [activity(audit, category) for audit, category in zip(audits, categories, strict=True)]


def test_a_class_may_have_any_name(console):
    """Also one that COPY writes otherwise than it is."""
    names = ["Crm\\Note", "Crm\tNote", "No\r\nte", "\x08\x0b\x0c\x01", "\\N", "N'o\"te %s {} é😀"]
    document = mapping_document()
    document["class_roles"]["note"] += names
    revisions.publish(document, by="tester", note="", now=now())
    audits = insert(console, [NOTE | {"auditable_type": name} for name in names])
    found = moved(console, shown=lambda context: context | {"mapping_revision": 2})
    assert found.rows == [activity(audit, "note/update", context={"mapping_revision": 2}) for audit in audits]


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
    assert found.run.candidates == len(expected(sample(), ORGANISATION).candidates)


# --- chunks ---------------------------------------------------------------------------------------------------------


def test_contacts_with_more_audits_than_a_chunk_takes(console):
    """Their own audits and their notes', among them some that changed nothing: each in one chunk and none in two."""
    known = few_contacts(console)
    texts: list[dict] = []
    for person, audits in enumerate((9, 10, 11, 20, 21, 57), 5001):
        new_contact(console, person)
        turns: list[dict] = [{"auditable_id": person}, NOTE | {"associated_id": person}, {"auditable_id": person, "audited_changes": "{}"}]
        texts += (turns * audits)[:audits]
    own = insert(console, texts)
    found = moved(console, known, chunk_size=10)
    assert {row[11] for row in found.rows} == {audit["id"] for audit in own if audit["audited_changes"] != "{}"}
    assert len(found.rows) == len({row[0] for row in found.rows})
    split = found.run.chunks.filter(audit_to__isnull=False).values_list("person_from", flat=True)
    assert set(split) >= {5003, 5004, 5005, 5006} and not {5001, 5002} & set(split)


# --- column types ---------------------------------------------------------------------------------------------------


IDS = ("auditable_id", "associated_id", "user_id")


def as_text(value: object) -> str | None:
    return None if value is None else str(value)


@pytest.mark.parametrize("kind", ["bigint", "smallint"])
def test_ids_may_be_other_integers(console, kind):
    console.change_crm(*(f"ALTER TABLE audits ALTER {column} TYPE {kind}" for column in IDS))
    [audit] = insert(console, [{"user_id": 7, "user_type": "User"}])
    assert moved(console).rows == [activity(audit, "contact/update", actor=ANDI)]


@pytest.mark.parametrize("kind", ["varchar", "text"])
def test_ids_may_be_texts_and_then_are_recorded_as_texts(console, kind):
    """Those that are no numbers are other records' ids or nobody's, and stop nobody."""
    console.change_crm(*(f"ALTER TABLE audits ALTER {column} TYPE {kind}" for column in IDS))
    odd = ("abc", "", "1a", " 1", "1.0", "001", "99999999999999999999999999", "-1")
    strangers = ({"user_id": one, "user_type": "User"} for one in ("abc", "7x", "007", "99999999999999999999999", "😀"))
    user = {"user_id": "7", "user_type": "User"}
    own = insert(console, [user, NOTE | user, *strangers])
    insert(console, [*({"auditable_id": one} for one in odd), *(NOTE | {"associated_id": one} for one in odd)], after=own)
    nobody = ("unknown_user", None, None)
    found = moved(console, shown=lambda context: context | {name: as_text(context[name]) for name in ("auditable_id", "user_id")})
    wanted = [(own[0], "contact/update", ANDI), (own[1], "note/update", ANDI), *((one, "contact/update", nobody) for one in own[2:])]
    assert found.rows == [
        activity(audit, category, actor=actor, context={"auditable_id": str(audit["auditable_id"])}) for audit, category, actor in wanted
    ]


@pytest.mark.parametrize("column", ["auditable_id", "associated_id"])
def test_the_two_ids_of_an_audit_may_be_of_different_kinds(console, column):
    console.change_crm(f"ALTER TABLE audits ALTER {column} TYPE varchar")
    texts = ["auditable_id"] if column == "auditable_id" else []
    [audit] = insert(console, [NOTE])
    found = moved(console, shown=lambda context: context | {name: as_text(context[name]) for name in texts})
    assert found.rows == [activity(audit, "note/update", context={name: as_text(audit[name]) for name in texts})]


def test_users_may_have_uuids(console):
    """As where the CRM's generator made `user_id` a uuid: the same people, under longer ids."""
    to_uuid = "('00000000-0000-4000-8000-' || lpad({}::text, 12, '0'))::uuid"
    console.change_crm(
        "UPDATE audits SET user_id = NULL, user_type = NULL WHERE user_type = 'Integration'",
        f"ALTER TABLE audits ALTER user_id TYPE uuid USING {to_uuid.format('user_id')}",
        "ALTER TABLE users ALTER id DROP DEFAULT",
        f"ALTER TABLE users ALTER id TYPE uuid USING {to_uuid.format('id')}",
    )
    known = replace(sample(), audits=[without_integration(audit) for audit in sample().audits])
    longer = "00000000-0000-4000-8000-{:0>12}"
    [audit] = insert(console, [{"user_id": longer.format(7), "user_type": "User"}])
    found = moved(console, known, shown=lambda context: context | {"user_id": context["user_id"] and longer.format(context["user_id"])})
    assert found.rows == [activity(audit, "contact/update", actor=ANDI)]


def without_integration(audit: Audit) -> Audit:
    return replace(audit, user_id=None, user_type=None) if audit.user_type == "Integration" else audit
