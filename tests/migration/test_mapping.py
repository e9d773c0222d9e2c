import json
import subprocess
import sys
import time
from copy import deepcopy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration.mapping import (
    ActorOverride,
    CategoryOverride,
    JoinAttributes,
    Mapping,
    MappingError,
    Role,
    canonical,
    digest,
    digest_of_new,
    parse,
)
from migration.mapping_json import json_problem, json_text, same_json

SAMPLE = """
{"class_roles": {"contact": ["Crm::Person", "Contact"], "company": ["Crm::Company"], "deal": ["Crm::Deal"], "task": ["Crm::Task"],
                 "ticket": ["Crm::Ticket"], "note": ["Crm::Note"],
                 "deal_contact_join": [{"class": "Crm::DealPerson", "deal": "crm_deal_id", "contact": "crm_person_id"}],
                 "deal_company_join": [{"class": "Crm::DealCompany", "deal": "crm_deal_id", "company": "crm_company_id"}]},
 "status_attributes": {"deal": "crm_stage_id", "task": "crm_task_status_id", "ticket": "ticket_status_id"},
 "name_attributes": {"deal": "name", "company": "name"},
 "id_sets": {"won": [4, 5, 10, 11, 16, 17], "done": [3, 4], "resolved": [3, 7, 11]},
 "account_id_sets": {"2": {"done": [3, 4]}},
 "secrets": ["encrypted_password", "*_token"],
 "category_overrides": [{"account": null, "class": "Crm::Note", "action": "update", "attribute": "is_pinned", "to": true,
                         "category": "note/pinned", "priority": 10}],
 "actor_overrides": [{"account": null, "crm_user_id": 24, "label": null, "kind": "user", "actor_id": "usm_x", "actor_name": "…"}]}
"""
NOTE = {"account": None, "class": "Crm::Note", "action": "update", "attribute": "is_pinned", "category": "note/pinned", "priority": 10}
USER = {"crm_user_id": 24, "kind": "user", "actor_id": "usm_x", "actor_name": "A name"}
SURROGATE = "\ud83d"
UNSTORABLE = "holds a character that PostgreSQL cannot store (U+0000 or half a surrogate pair)."


def sample(**changed: Any) -> dict[str, Any]:
    """The document of SPEC section 8, with some of its top-level keys changed."""
    document: dict[str, Any] = json.loads(SAMPLE)
    return document | changed


def problems(document: object) -> list[str]:
    with pytest.raises(MappingError) as caught:
        parse(document)
    assert str(caught.value).split("\n") == list(caught.value.problems)
    return list(caught.value.problems)


def everything(mapping: Mapping) -> dict[str, Any]:
    return {name: getattr(mapping, name) for name in Mapping.__slots__}


class TestParse:
    def test_the_sample(self) -> None:
        mapping = parse(sample())
        assert mapping.role_of == {
            "Crm::Person": Role.CONTACT,
            "Contact": Role.CONTACT,
            "Crm::Company": Role.COMPANY,
            "Crm::Deal": Role.DEAL,
            "Crm::Task": Role.TASK,
            "Crm::Ticket": Role.TICKET,
            "Crm::Note": Role.NOTE,
            "Crm::DealPerson": Role.DEAL_CONTACT_JOIN,
            "Crm::DealCompany": Role.DEAL_COMPANY_JOIN,
        }
        assert mapping.classes(Role.CONTACT) == ("Contact", "Crm::Person")
        assert mapping.joins == {
            "Crm::DealPerson": JoinAttributes("crm_deal_id", contact="crm_person_id"),
            "Crm::DealCompany": JoinAttributes("crm_deal_id", company="crm_company_id"),
        }
        assert mapping.status_attributes == {"deal": "crm_stage_id", "task": "crm_task_status_id", "ticket": "ticket_status_id"}
        assert mapping.name_attributes[Role.COMPANY] == "name"
        assert mapping.category_overrides == (
            CategoryOverride(None, "Crm::Note", "update", "is_pinned", has_value=True, to=True, category="note/pinned", priority=10),
        )
        assert mapping.actor_override(1, 24, None) == ActorOverride(None, "24", None, "user", "usm_x", "…")  # type: ignore[arg-type]
        assert mapping.digest == digest(sample())

    def test_the_least_document(self) -> None:
        mapping = parse({"class_roles": {"contact": ["Contact"]}})
        assert mapping.role_of == {"Contact": Role.CONTACT}
        assert mapping.id_set("won", 1) == frozenset()
        assert mapping.classes(Role.DEAL) == ()
        assert not mapping.is_secret("encrypted_password")
        assert not mapping.may_hold_secret(b'{"encrypted_password": 1}')
        assert mapping.actor_override(1, 24, "x") is None

    def test_needs_neither_django_nor_a_database(self) -> None:
        code = "import sys, migration.mapping, migration.pipeline.categories; sys.exit('django' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


class TestIdSets:
    MAPPING = parse(sample(id_sets={"won": [4, "5"], "done": ["done", 3]}, account_id_sets={"2": {"won": [9], "resolved": []}}))

    @pytest.mark.parametrize(
        ("name", "account", "ids"),
        [
            ("won", 1, {"4", "5"}),
            ("won", None, {"4", "5"}),
            ("won", 2, {"9"}),
            ("done", 1, {"done", "3"}),
            ("done", 2, {"done", "3"}),
            ("resolved", 1, set()),
            ("resolved", 2, set()),
        ],
    )
    def test_an_accounts_set_replaces_the_global_one(self, name: str, account: int | None, ids: set[str]) -> None:
        assert self.MAPPING.id_set(name, account) == ids

    def test_an_empty_set_of_an_account_replaces_too(self) -> None:
        assert parse(sample(account_id_sets={"2": {"won": []}})).id_set("won", 2) == frozenset()


class TestActorOverrides:
    MAPPING = parse(
        sample(
            actor_overrides=[
                USER | {"actor_name": "for all"},
                USER | {"account": 2, "actor_name": "for 2"},
                {"account": 3, "label": "24", "kind": "system"},
                {"label": "system\n", "kind": "label", "actor_name": "The system"},
                {"crm_user_id": "0a4f-uuid", "kind": "user"},
            ]
        )
    )

    @pytest.mark.parametrize(
        ("account", "user", "label", "name"),
        [
            (1, 24, None, "for all"),
            (1, "24", None, "for all"),
            (2, 24, None, "for 2"),
            (None, 24, None, "for all"),
            (1, 24, "system\n", "for all"),  # as_user has no label beside a user; the user leads
            (1, 25, "system\n", None),
            (1, None, "system\n", "The system"),
        ],
    )
    def test_the_accounts_one_comes_first(self, account: int | None, user: int | str | None, label: str | None, name: str | None) -> None:
        found = self.MAPPING.actor_override(account, user, label)
        assert (found and found.actor_name) == name

    @pytest.mark.parametrize(
        ("account", "user", "label", "kind"),
        [(3, None, "24", "system"), (3, 24, None, "user"), (1, None, "24", None), (1, "0a4f-uuid", None, "user"), (1, None, "", None)],
    )
    def test_a_label_is_no_user_id(self, account: int, user: int | str | None, label: str | None, kind: str | None) -> None:
        found = self.MAPPING.actor_override(account, user, label)
        assert (found and found.kind) == kind

    def test_neither(self) -> None:
        assert self.MAPPING.actor_override(1, None, None) is None


class TestRefusals:
    """One wrong thing, one problem, with its place."""

    @pytest.mark.parametrize(
        ("changed", "problem"),
        [
            ({"class_role": {}}, "the document: has the unknown key class_role; known are class_roles, "),
            ({"class_roles": []}, "class_roles: must be an object, but is a list."),
            ({"class_roles": {}}, "class_roles.contact: needs at least one class, since contacts lead."),
            ({"class_roles": {"contact": []}}, "class_roles.contact: needs at least one class, since contacts lead."),
            (
                {"class_roles": {"contact": ["A"], "deals": []}},
                "class_roles: has the unknown key deals; known are contact, company, deal, ",
            ),
            ({"class_roles": {"contact": "A"}}, "class_roles.contact: must be a list, but is text."),
            ({"class_roles": {"contact": ["A", 7]}}, "class_roles.contact[1]: must be text, but is a whole number."),
            ({"class_roles": {"contact": [""]}}, "class_roles.contact[0]: must not be empty."),
            ({"class_roles": {"contact": ["A "]}}, "class_roles.contact[0]: has white space around it."),
            ({"class_roles": {"contact": ["A\0"]}}, f"class_roles.contact[0]: {UNSTORABLE}"),
            ({"class_roles": {"contact": ["A" + SURROGATE]}}, f"class_roles.contact[0]: {UNSTORABLE}"),
            (
                {"class_roles": {"contact": ["A"], "deal": ["B", "A"]}},
                "class_roles.deal[1]: class A is already in class_roles.contact[0], and a class has one role.",
            ),
            (
                {"class_roles": {"contact": ["A", "A"]}},
                "class_roles.contact[1]: class A is already in class_roles.contact[0], and a class has one role.",
            ),
            (
                {"class_roles": {"contact": ["A"], "deal_contact_join": [{"class": "A", "deal": "d", "contact": "c"}]}},
                "class_roles.deal_contact_join[0]: class A is already in class_roles.contact[0], and a class has one role.",
            ),
            (
                {"class_roles": {"contact": ["A"], "deal_contact_join": ["B"]}},
                "class_roles.deal_contact_join[0]: must be an object, but is text.",
            ),
            (
                {"class_roles": {"contact": ["A"], "deal_contact_join": [{"class": "B", "deal": "d"}]}},
                "class_roles.deal_contact_join[0].contact: must be text, but is missing.",
            ),
            (
                {"class_roles": {"contact": ["A"], "deal_company_join": [{"class": "B", "deal": "d", "company": "c", "contact": "x"}]}},
                "class_roles.deal_company_join[0]: has the unknown key contact; known are class, deal, company.",
            ),
            (
                {"class_roles": {"contact": ["A"], "deal_contact_join": [{"class": "B", "deal": "d", "contact": "d"}]}},
                "class_roles.deal_contact_join[0]: deal and contact must be two different attributes.",
            ),
            ({"status_attributes": {"note": "x"}}, "status_attributes: has the unknown key note; known are deal, task, ticket."),
            ({"status_attributes": {"deal": None}}, "status_attributes.deal: must be text, but is null."),
            ({"name_attributes": {"task": "x"}}, "name_attributes: has the unknown key task; known are deal, company."),
            ({"name_attributes": None}, "name_attributes: must be an object, but is null."),
            ({"id_sets": {"lost": []}}, "id_sets: has the unknown key lost; known are won, done, resolved."),
            ({"id_sets": {"won": 4}}, "id_sets.won: must be a list, but is a whole number."),
            ({"id_sets": {"won": [True]}}, "id_sets.won[0]: must be a whole number or text, but is a boolean."),
            ({"id_sets": {"won": [4, 4.0]}}, "id_sets.won[1]: must be a whole number or text, but is a decimal number."),
            ({"id_sets": {"won": [Decimal(4)]}}, "id_sets.won[0]: must be a whole number or text, but is a decimal number."),
            ({"id_sets": {"won": [None]}}, "id_sets.won[0]: must be a whole number or text, but is null."),
            ({"id_sets": {"won": [-1]}}, "id_sets.won[0]: must be from 0 to 9223372036854775807."),
            ({"id_sets": {"won": [2**63]}}, "id_sets.won[0]: must be from 0 to 9223372036854775807."),
            ({"id_sets": {"won": ["-1"]}}, "id_sets.won[0]: must not be below 0."),
            ({"id_sets": {"won": [""]}}, "id_sets.won[0]: must not be empty."),
            ({"account_id_sets": {"x": {}}}, "account_id_sets.x: the key must be a CRM organisation id, a whole number above 0."),
            ({"account_id_sets": {"02": {}}}, "account_id_sets.02: the key must be a CRM organisation id, a whole number above 0."),
            ({"account_id_sets": {"0": {}}}, "account_id_sets.0: the key must be a CRM organisation id, a whole number above 0."),
            (
                {"account_id_sets": {"9" * 19: {}}},
                f"account_id_sets.{'9' * 19}: the key must be a CRM organisation id, a whole number above 0.",
            ),
            ({"account_id_sets": {"٣": {}}}, "account_id_sets.٣: the key must be a CRM organisation id, a whole number above 0."),
            (
                {"account_id_sets": {2: {}}},
                "account_id_sets.a whole number: the key must be a CRM organisation id, a whole number above 0.",
            ),
            ({"account_id_sets": {"2": []}}, "account_id_sets.2: must be an object, but is a list."),
            (
                {"account_id_sets": {"2": {"done": [3, False]}}},
                "account_id_sets.2.done[1]: must be a whole number or text, but is a boolean.",
            ),
            ({"account_id_sets": []}, "account_id_sets: must be an object, but is a list."),
            ({"secrets": "encrypted_password"}, "secrets: must be a list, but is text."),
            ({"secrets": ["a", {}]}, "secrets[1]: must be text, but is an object."),
            ({"secrets": [" "]}, "secrets[0]: has white space around it."),
            ({"category_overrides": {}}, "category_overrides: must be a list, but is an object."),
            ({"category_overrides": [7]}, "category_overrides[0]: must be an object, but is a whole number."),
            (
                {"category_overrides": [NOTE | {"klass": "x"}]},
                "category_overrides[0]: has the unknown key klass; known are account, class, ",
            ),
            ({"category_overrides": [NOTE | {"class": None}]}, "category_overrides[0].class: must be text, but is null."),
            ({"category_overrides": [NOTE | {"account": "2"}]}, "category_overrides[0].account: must be a whole number, but is text."),
            ({"category_overrides": [NOTE | {"account": 0}]}, "category_overrides[0].account: must be from 1 to 9223372036854775807."),
            (
                {"category_overrides": [NOTE | {"action": "delete"}]},
                "category_overrides[0].action: delete is not one of create, update, destroy.",
            ),
            ({"category_overrides": [NOTE | {"attribute": ""}]}, "category_overrides[0].attribute: must not be empty."),
            (
                {"category_overrides": [NOTE | {"priority": 1.5}]},
                "category_overrides[0].priority: must be a whole number, but is a decimal number.",
            ),
            (
                {"category_overrides": [NOTE | {"priority": True}]},
                "category_overrides[0].priority: must be a whole number, but is a boolean.",
            ),
            (
                {"category_overrides": [NOTE | {"priority": 2**31}]},
                "category_overrides[0].priority: must be from -2147483648 to 2147483647.",
            ),
            (
                {"category_overrides": [NOTE | {"category": "company/won"}]},
                "category_overrides[0].category: company/won is not of the form ",
            ),
            (
                {"category_overrides": [NOTE | {"attribute": None, "to": 1}]},
                "category_overrides[0].to: a value needs the attribute that takes it.",
            ),
            ({"category_overrides": [NOTE | {"to": {"a": ["x\0"]}}]}, f"category_overrides[0].to: {UNSTORABLE}"),
            ({"category_overrides": [NOTE | {"to": float("nan")}]}, "category_overrides[0].to: is not a finite number."),
            ({"category_overrides": [NOTE | {"to": {7}}]}, "category_overrides[0].to: is not a JSON value."),
            (
                {"actor_overrides": [USER | {"user": 1}]},
                "actor_overrides[0]: has the unknown key user; known are account, crm_user_id, label, ",
            ),
            ({"actor_overrides": [USER | {"label": "x"}]}, "actor_overrides[0]: needs exactly one of crm_user_id and label."),
            ({"actor_overrides": [{"kind": "system"}]}, "actor_overrides[0]: needs exactly one of crm_user_id and label."),
            ({"actor_overrides": [{"label": "", "kind": "system"}]}, "actor_overrides[0].label: must not be empty."),
            ({"actor_overrides": [USER | {"kind": "robot"}]}, "actor_overrides[0].kind: robot is not one of user, deactivated_user, "),
            ({"actor_overrides": [{"label": "x"}]}, "actor_overrides[0].kind: must be text, but is missing."),
            (
                {"actor_overrides": [USER | {"crm_user_id": True}]},
                "actor_overrides[0].crm_user_id: must be a whole number or text, but is a boolean.",
            ),
            ({"actor_overrides": [USER | {"actor_id": 7}]}, "actor_overrides[0].actor_id: must be text, but is a whole number."),
        ],
    )
    def test_the_place_is_named(self, changed: dict[str, Any], problem: str) -> None:
        document = sample(category_overrides=[], actor_overrides=[]) | changed
        (found,) = problems(document)
        assert found.startswith(problem)
        assert found.endswith(".")

    @pytest.mark.parametrize("several", ["3, 4", "3,4", "4 5 10", "4;5", "4,", "3\u00a04", "[4, 5]", "won, 3, 4"])
    def test_several_ids_in_one_are_refused_before_they_are_published(self, several: str) -> None:
        for place, changed in (
            ("id_sets.won[1]", {"id_sets": {"won": [4, several]}}),
            ("account_id_sets.2.done[0]", {"account_id_sets": {"2": {"done": [several]}}}),
        ):
            with pytest.raises(MappingError) as caught:
                digest_of_new(sample(**changed))
            assert caught.value.problems == (
                f"{place}: {several!r} is no id: write one id to a line, without commas (in a file, one to an entry).",
            )
            assert parse(sample(**changed)).digest, "a revision that was published with it stays readable"

    @pytest.mark.parametrize("name", ["closed won", "Won 4", "stage 4, stage 5", "4th of 5", "a,b", "04", "+4", "x4,5", "-", ","])
    def test_a_name_with_blanks_is_no_list_of_ids(self, name: str) -> None:
        document = sample(id_sets={"won": [name]})
        assert digest_of_new(document) == digest(document)

    @pytest.mark.parametrize("document", [None, True, 7, 1.5, "text", []])
    def test_no_object(self, document: object) -> None:
        (problem,) = problems(document)
        assert problem.startswith("the document: must be an object, but is ")

    def test_all_problems_are_found_at_once(self) -> None:
        document = sample(
            class_roles={"contact": ["A", "A"], "note": [""]},
            id_sets={"won": [1.5]},
            secret=[],
            category_overrides=[{"class": "", "to": 1}],
            actor_overrides=[{}],
        )
        places = [problem.split(": ")[0] for problem in problems(document)]
        assert places == [
            "the document",
            "class_roles.contact[1]",
            "class_roles.note[0]",
            "id_sets.won[0]",
            "category_overrides[0].class",
            "category_overrides[0].action",
            "category_overrides[0].category",
            "category_overrides[0].priority",
            "category_overrides[0].to",
            "actor_overrides[0]",
            "actor_overrides[0].kind",
        ]

    def test_class_roles_are_required(self) -> None:
        assert problems({}) == ["class_roles: must be an object, but is missing."]

    @pytest.mark.parametrize("category", ["note/pinned", "contact/a", "deal/contact_moved", "task/v2_done", "ticket/re_opened"])
    def test_categories(self, category: str) -> None:
        assert parse(sample(category_overrides=[NOTE | {"category": category}]))

    @pytest.mark.parametrize(
        "category",
        [
            "",
            "note",
            "note/",
            "/won",
            "note/Pinned",
            "note/pinned ",
            "note/a b",
            "note/_a",
            "note/a_",
            "note/a__b",
            "note/a/b",
            "note/1",
            "note/a\n",
        ],
    )
    def test_no_categories(self, category: str) -> None:
        (problem,) = problems(sample(category_overrides=[NOTE | {"category": category}]))
        assert problem.startswith("category_overrides[0].category: ")

    def test_a_hostile_key_is_escaped_and_cut(self) -> None:
        (problem,) = problems(sample(**{"<b>\n" * 1000: 1}))
        assert "\n" not in problem
        assert len(problem) < 300

    @pytest.mark.parametrize(("depth", "fine"), [(20, True), (21, False), (500, False)])
    def test_a_deep_value(self, depth: int, fine: bool) -> None:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        assert (json_problem(value) is None) == fine


class TestOverlaps:
    def overlap(self, *rows: dict[str, Any]) -> list[str]:
        try:
            parse(sample(category_overrides=[NOTE | row for row in rows]))
        except MappingError as error:
            return list(error.problems)
        return []

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ({}, {}),
            ({"to": True}, {"to": True}),
            ({"to": True}, {}),
            ({}, {"to": True}),
            ({"to": None}, {"to": None}),
            ({"attribute": None}, {"to": True}),
            ({"to": True}, {"attribute": None}),
            ({"attribute": None}, {"attribute": None}),
            ({"attribute": "body", "to": 1}, {"to": True}),  # one update can change both
            ({"to": {"a": 1, "b": 2}}, {"to": {"b": 2, "a": 1}}),
            ({"to": 0.5}, {"to": Decimal("0.5")}),
            ({"account": 2, "to": 1}, {"account": 2, "to": 1}),
            ({"category": "note/a"}, {"category": "note/b"}),
        ],
    )
    def test_overlapping(self, first: dict[str, Any], second: dict[str, Any]) -> None:
        assert self.overlap(first, second) == [
            "category_overrides[1]: overlaps category_overrides[0] with equal priority 10; give one of them another priority."
        ]

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ({}, {"priority": 11}),
            ({}, {"class": "Crm::Deal"}),
            ({}, {"action": "create"}),
            ({}, {"account": 2}),  # the account's one wins
            ({"account": 1}, {"account": 2}),
            ({"to": True}, {"to": False}),
            ({"to": None}, {"to": False}),
            ({"to": 1}, {"to": True}),
            ({"to": 3}, {"to": "3"}),
        ],
    )
    def test_apart(self, first: dict[str, Any], second: dict[str, Any]) -> None:
        assert self.overlap(first, second) == []

    def test_each_overlapping_row_is_named(self) -> None:
        rows = [{"to": 1}, {"to": 2}, {"to": 2}, {"to": 3}, {}, {"priority": 9}]
        assert [problem.split(" with")[0] for problem in self.overlap(*rows)] == [
            "category_overrides[2]: overlaps category_overrides[1]",
            "category_overrides[4]: overlaps category_overrides[0]",
        ]

    def test_a_row_that_is_wrong_by_itself_overlaps_nothing(self) -> None:
        assert [problem.split(":")[0] for problem in self.overlap({}, {"action": "x"}, {"action": "x"})] == [
            "category_overrides[1].action",
            "category_overrides[2].action",
        ]

    def test_thousands_of_values_of_one_attribute(self) -> None:
        started = time.monotonic()
        assert self.overlap(*({"to": value} for value in range(5000))) == []
        assert time.monotonic() - started < 5

    @pytest.mark.parametrize(
        ("second", "overlapping"),
        [
            ({}, True),
            ({"crm_user_id": "24"}, True),
            ({"kind": "system"}, True),
            ({"crm_user_id": 25}, False),
            ({"account": 2}, False),
            ({"crm_user_id": None, "label": "24"}, False),
        ],
    )
    def test_actors(self, second: dict[str, Any], overlapping: bool) -> None:
        document = sample(actor_overrides=[USER, {"label": "x", "kind": "label"}, USER | second])
        if not overlapping:
            assert parse(document)
            return
        assert problems(document) == [
            "actor_overrides[2]: overlaps actor_overrides[0], "
            "which names the same CRM user or label for the same account; remove one of them."
        ]


class TestDigest:
    def test_is_a_sha256_in_hex(self) -> None:
        assert len(digest(sample())) == 64
        assert int(digest(sample()), 16)

    def test_canonical_text_is_a_document_of_the_same_meaning(self) -> None:
        text = canonical(sample())
        assert canonical(json.loads(text)) == text
        assert everything(parse(json.loads(text))) == everything(parse(sample()))

    @pytest.mark.parametrize(
        "same",
        [
            {"id_sets": {"resolved": [11, 7, 3, "3"], "done": ["4", 3], "won": [17, 16, 11, 10, 5, 4]}},
            {"secrets": ["*_TOKEN", "**_token", "Encrypted_Password"]},
            {"account_id_sets": {"2": {"done": [4, 3]}, "3": {}}},
            {"class_roles": sample()["class_roles"] | {"contact": ["Contact", "Crm::Person"]}},
            {"category_overrides": [{key: value for key, value in NOTE.items() if key != "account"} | {"to": True}]},
            {"actor_overrides": [{"crm_user_id": "24", "kind": "user", "actor_id": "usm_x", "actor_name": "…"}]},
        ],
    )
    def test_equal_in_meaning(self, same: dict[str, Any]) -> None:
        assert digest(sample(**same)) == digest(sample())

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ({"id_sets": {}}, {"id_sets": {"won": [], "done": []}}),
            ({"category_overrides": [NOTE, NOTE | {"account": 2}]}, {"category_overrides": [NOTE | {"account": 2}, NOTE]}),
            ({"category_overrides": [NOTE | {"to": 1e22}]}, {"category_overrides": [NOTE | {"to": 10**22}]}),  # as jsonb prints it
        ],
    )
    def test_also_equal(self, first: dict[str, Any], second: dict[str, Any]) -> None:
        assert digest(sample(**first)) == digest(sample(**second))

    def test_a_missing_key_is_its_default(self) -> None:
        roles = {"contact": ["A"]}
        whole = {
            "class_roles": {role.value: [] for role in Role} | roles,
            "status_attributes": {},
            "name_attributes": {},
            "id_sets": {"won": [], "done": [], "resolved": []},
            "account_id_sets": {},
            "secrets": [],
            "category_overrides": [],
            "actor_overrides": [],
        }
        assert digest({"class_roles": roles}) == digest(whole)

    @pytest.mark.parametrize(
        "other",
        [
            {"id_sets": {"won": [4]}},
            {"account_id_sets": {}},
            {"account_id_sets": {"2": {"done": []}}},
            {"secrets": ["encrypted_password"]},
            {"status_attributes": {}},
            {"category_overrides": [NOTE]},
            {"category_overrides": [NOTE | {"to": None}]},
            {"category_overrides": [NOTE | {"to": 1}]},
            {"actor_overrides": [USER]},
        ],
    )
    def test_other_meaning_other_digest(self, other: dict[str, Any]) -> None:
        assert digest(sample(**other)) != digest(sample())

    def test_refuses_what_parse_refuses(self) -> None:
        for function in (canonical, digest):
            with pytest.raises(MappingError):
                function({})

    def test_the_document_is_left_as_it_was(self) -> None:
        document = sample()
        parse(document)
        assert document == sample()

    @given(st.randoms(use_true_random=False))
    @settings(max_examples=40)
    def test_order_has_no_meaning(self, random: Any) -> None:
        document = sample(category_overrides=[NOTE | {"to": value} for value in (True, False, None, "x", 3)])
        shuffled = shuffle(deepcopy(document), random)
        assert canonical(shuffled) == canonical(document)
        assert everything(parse(shuffled)) == everything(parse(document))


def shuffle(value: Any, random: Any) -> Any:
    """All keys and all lists of the document in another order; in the sample no list's order has a meaning."""
    if isinstance(value, dict):
        keys = list(value)
        random.shuffle(keys)
        return {key: shuffle(value[key], random) for key in keys}
    if isinstance(value, list):
        random.shuffle(value)
        return [shuffle(item, random) for item in value]
    return value


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8
)
DOCUMENTS = st.fixed_dictionaries({}, optional={key: JSON | st.just(value) for key, value in sample().items()})


def with_one_value_replaced(document: dict[str, Any], path: list[int], value: Any) -> dict[str, Any]:
    """The document with what lies at the path (numbers, taken modulo the size of each level) replaced."""
    node: Any = document
    for last, step in enumerate(path, 1 - len(path)):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = keys[step % len(keys)]
        if last == 0 or not isinstance(node[key], dict | list) or not node[key]:
            node[key] = value
            break
        node = node[key]
    return document


class TestParseIsTotal:
    @given(JSON | DOCUMENTS)
    def test_of_any_json(self, document: object) -> None:
        parses_or_names_problems(document)

    @given(st.lists(st.integers(0, 50), min_size=1, max_size=5), JSON)
    @settings(max_examples=300)
    def test_of_the_sample_with_one_value_replaced(self, path: list[int], value: Any) -> None:
        parses_or_names_problems(with_one_value_replaced(sample(), path, value))


def parses_or_names_problems(document: object) -> None:
    try:
        mapping = parse(document)
    except MappingError as error:
        assert error.problems
        assert all(problem.endswith(".") and "\n" not in problem for problem in error.problems)
    else:
        assert everything(parse(json.loads(canonical(document)))) == everything(mapping)


class TestJson:
    @pytest.mark.parametrize(
        ("left", "right", "same"),
        [
            (True, 1, False),
            (False, 0, False),
            (None, False, False),
            (None, None, True),
            (3, "3", False),
            (3, 3, True),
            (3, Decimal("3.0"), False),
            (0.5, Decimal("0.5"), True),
            (Decimal("0.50"), Decimal("0.5"), False),
            (1e-07, Decimal("0.0000001"), True),
            (10**22, 1e22, True),
            (Decimal("1e999999999"), Decimal("1e999999999"), True),
            (Decimal("1e999999999"), 1, False),
            (0.5, "0.5", False),
            ("é", "é", True),
            ([1, [2]], [1, [2]], True),
            ([1], [1, 2], False),
            ([], {}, False),
            ({"a": 1, "b": [True]}, {"b": [True], "a": 1}, True),
            ({"a": 1}, {"a": True}, False),
            ({"a": 1}, {"b": 1}, False),
        ],
    )
    def test_equality(self, left: Any, right: Any, same: bool) -> None:
        assert same_json(left, right) is same
        assert same_json(right, left) is same
        assert (json_text(left) == json_text(right)) is same

    @given(JSON)
    def test_text_reads_back_as_the_value(self, value: Any) -> None:
        if json_problem(value) is None:
            assert same_json(json.loads(json_text(value), parse_float=Decimal), value)

    def test_a_great_exponent_is_kept_instead_of_a_gigabyte_of_zeros(self) -> None:
        assert json_text(Decimal("1e99999999")) == "1E+99999999"

    def test_a_deep_value_of_an_audit_is_no_trouble(self) -> None:
        deep: Any = []
        for _ in range(5000):
            deep = [deep]
        assert not same_json([[1]], deep)


SECRETS = parse(sample(secrets=["encrypted_password", "*_token", "api_key*", "otp?", "*secret*", "a*b*c", 'q"uote', "naïf_*_x"]))


class TestSecrets:
    @pytest.mark.parametrize(
        ("key", "secret"),
        [
            ("encrypted_password", True),
            ("ENCRYPTED_Password", True),
            ("encrypted_password_", False),
            ("old_encrypted_password", False),
            ("reset_token", True),
            ("_token", True),
            ("token", False),
            ("tokens_of_love", False),
            ("reset_TOKEN\n", False),
            ("api_key", True),
            ("api_keys", True),
            ("my_api_key", False),
            ("otp1", True),
            ("otpé", True),
            ("otp", False),
            ("otp12", False),
            ("clientSecret", True),
            ("secretary", True),
            ("abc", True),
            ("a.b.b.c", True),
            ("acb", False),
            ('q"uote', True),
            ("naïf_1_x", True),
            ("naif_1_x", False),
            ("name", False),
            ("", False),
        ],
    )
    def test_globs(self, key: str, secret: bool) -> None:
        assert SECRETS.is_secret(key) is secret
        assert not secret or found_raw(key)

    def test_only_star_and_question_mark_are_special(self) -> None:
        mapping = parse(sample(secrets=["a.c", "[x]", "(b|c)"]))
        assert [key for key in ("a.c", "abc", "[x]", "x", "b", "(b|c)") if mapping.is_secret(key)] == ["a.c", "[x]", "(b|c)"]

    def test_a_star_alone_is_every_key(self) -> None:
        mapping = parse(sample(secrets=["*"]))
        assert mapping.is_secret("")
        assert mapping.may_hold_secret(b'{"name": 1}')

    @pytest.mark.parametrize(
        "raw",
        [
            b"{}",
            b'{"name": "encrypted_password", "tags": ["reset_token", "x"]}',
            b'{"name": ["a\\nb", "C:\\\\dir"], "body": "\\u003cp\\u003e"}',
            '{"name": "émile", "crm_stage_id": [1, 4]}'.encode(),
        ],
    )
    def test_plain_rows_pass_unparsed(self, raw: bytes) -> None:
        assert not SECRETS.may_hold_secret(raw)

    @pytest.mark.parametrize(
        "raw",
        [
            rb'{"\u0065ncrypted_password": 1}',
            rb'{"encrypted_passwor\u0064": 1}',
            rb'{"encrypted\u005fpassword" : 1}',
            rb'{"client\/Secret": 1}',
            b'{"reset_token"\r\n\t :1}',
            b'{"a": {"reset_token": 1}}',
        ],
    )
    def test_escapes_and_white_space_hide_nothing(self, raw: bytes) -> None:
        assert SECRETS.may_hold_secret(raw)
        assert SECRETS.may_hold_secret(copied(raw))

    @given(
        st.lists(st.text('ab*?é\\"K/', min_size=1, max_size=6).map(str.strip).filter(bool), min_size=1, max_size=3),
        st.text('abABéÉ\\"kK\n/', max_size=8),
        st.booleans(),
        st.booleans(),
        st.sampled_from([":", " :", "\n\t:"]),
    )
    @settings(max_examples=300)
    def test_a_secret_is_never_missed(self, globs: list[str], key: str, ascii_only: bool, slashes: bool, colon: str) -> None:
        mapping = parse(sample(secrets=globs))
        written = json.dumps(key, ensure_ascii=ascii_only).replace("/", "\\/" if slashes else "/")
        raw = ('{"x": "y", ' + written + colon + ' "v"}').encode()
        if mapping.is_secret(key):
            assert mapping.may_hold_secret(raw)
            assert mapping.may_hold_secret(copied(raw))

    @given(st.lists(st.sampled_from("ab*?"), min_size=1, max_size=8).map("".join), st.text("abAB", max_size=8))
    @settings(max_examples=300)
    def test_globs_match_as_by_definition(self, glob: str, key: str) -> None:
        assert parse(sample(secrets=[glob])).is_secret(key) == fits(glob.lower(), key.lower())

    @pytest.mark.parametrize("filler", ["x", "token", "_token", "\\n", '\\"', "secret ", "a b c ", "é", " ", '\\":', '": '])
    def test_long_texts_take_linear_time(self, filler: str) -> None:
        raw = ('{"body": "' + filler * (400_000 // len(filler)) + '"}').encode()
        started = time.monotonic()
        SECRETS.may_hold_secret(raw)
        SECRETS.is_secret(filler * (400_000 // len(filler)))
        assert time.monotonic() - started < 2


def found_raw(key: str) -> bool:
    raw = json.dumps({"x": 1, key: 2}, ensure_ascii=False).encode()
    return SECRETS.may_hold_secret(raw) and SECRETS.may_hold_secret(copied(raw))


def copied(raw: bytes) -> bytes:
    """A field as COPY's text format writes it."""
    return raw.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r").replace(b"\t", b"\\t")


def fits(glob: str, key: str) -> bool:
    """What a glob means, spelt out."""
    if not glob:
        return not key
    if glob[0] == "*":
        return fits(glob[1:], key) or (bool(key) and fits(glob, key[1:]))
    return bool(key) and glob[0] in ("?", key[0]) and fits(glob[1:], key[1:])
