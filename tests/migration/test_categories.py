import gzip
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration import copytext
from migration.mapping import ACTIONS, ENTITY_OF_ROLE, Mapping, Role, parse
from migration.pipeline.categories import CategoryMapper, Moved, UnknownAction, UnknownClass
from tests.migration.test_mapping import NOTE, copied, sample

SIGNED, UNSIGNED = frozenset({"D", "E", "F"}), frozenset({"D", "F"})
CLASSES = {
    Role.CONTACT: "Crm::Person",
    Role.DEAL: "Crm::Deal",
    Role.TASK: "Crm::Task",
    Role.TICKET: "Crm::Ticket",
    Role.NOTE: "Crm::Note",
    Role.DEAL_CONTACT_JOIN: "Crm::DealPerson",
    Role.DEAL_COMPANY_JOIN: "Crm::DealCompany",
}
MAPPING = parse(sample(category_overrides=[]))
MOVES = (*get_args(Moved), None)


def mapper(mapping: Mapping = MAPPING, account: int | None = 1, capabilities: frozenset[str] = SIGNED) -> CategoryMapper:
    return CategoryMapper(mapping, account, capabilities)


def overridden(*rows: dict[str, Any], **changed: Any) -> Mapping:
    return parse(sample(category_overrides=[NOTE | row for row in rows], **changed))


def category(changes: dict[str, Any], role: Role = Role.DEAL, action: str = "update", **made_of: Any) -> str:
    return mapper(**made_of).category(role, CLASSES[role], action, lambda: changes)[0]


def never() -> dict[str, Any]:
    raise LookupError("the changes were read")


class TestTheTable:
    """SPEC section 3, row by row: what it is with gate E signed, and without."""

    @pytest.mark.parametrize(
        ("role", "action", "expected"),
        [
            (role, action, f"{entity}/{verb}")
            for role, entity in {
                Role.CONTACT: "contact",
                Role.NOTE: "note",
                Role.TASK: "task",
                Role.TICKET: "ticket",
                Role.DEAL: "deal",
            }.items()
            for action, verb in {"create": "create", "update": "update", "destroy": "delete"}.items()
        ],
    )
    @pytest.mark.parametrize("capabilities", [SIGNED, UNSIGNED])
    def test_records(self, role: Role, action: str, expected: str, capabilities: frozenset[str]) -> None:
        changes = {"name": ["a", "b"]} if action == "update" else {"name": "a"}
        assert mapper(capabilities=capabilities).category(role, CLASSES[role], action, lambda: changes) == (expected, None)

    @pytest.mark.parametrize(
        ("role", "changes", "signed", "unsigned"),
        [
            (Role.DEAL, {"crm_stage_id": [1, 4]}, "deal/won", "deal/update"),
            (Role.TASK, {"crm_task_status_id": [1, 3]}, "task/done", "task/update"),
            (Role.TICKET, {"ticket_status_id": [2, 7]}, "ticket/resolved", "ticket/update"),
        ],
    )
    def test_transitions(self, role: Role, changes: dict[str, Any], signed: str, unsigned: str) -> None:
        read: Callable[[], dict[str, Any]] = lambda: changes  # noqa: E731
        assert mapper().category(role, CLASSES[role], "update", read) == (signed, None)
        assert mapper(capabilities=UNSIGNED).category(role, CLASSES[role], "update", read) == (unsigned, "gate_e")

    @pytest.mark.parametrize(
        ("role", "action", "moved", "signed", "fallthrough"),
        [
            (Role.DEAL_CONTACT_JOIN, "create", None, "deal/contact_linked", "gate_e"),
            (Role.DEAL_CONTACT_JOIN, "destroy", None, "deal/contact_unlinked", "gate_e"),
            (Role.DEAL_CONTACT_JOIN, "update", "contact_old", "deal/contact_unlinked", "gate_e"),
            (Role.DEAL_CONTACT_JOIN, "update", "contact_new", "deal/contact_linked", "gate_e"),
            (Role.DEAL_CONTACT_JOIN, "update", "deal", "deal/contact_moved", "gate_e"),
            (Role.DEAL_CONTACT_JOIN, "update", None, "deal/update", None),
            (Role.DEAL_COMPANY_JOIN, "create", None, "deal/company_linked", "gate_e"),
            (Role.DEAL_COMPANY_JOIN, "destroy", None, "deal/company_unlinked", "gate_e"),
            (Role.DEAL_COMPANY_JOIN, "update", None, "deal/update", None),
            (Role.DEAL_COMPANY_JOIN, "update", "deal", "deal/update", None),
        ],
    )
    def test_joins(self, role: Role, action: str, moved: Moved | None, signed: str, fallthrough: str | None) -> None:
        assert mapper().category(role, CLASSES[role], action, never, moved) == (signed, None)
        assert mapper(capabilities=UNSIGNED).category(role, CLASSES[role], action, never, moved) == ("deal/update", fallthrough)

    def test_an_old_class_name_has_the_same_role(self) -> None:
        assert mapper().category(Role.CONTACT, "Contact", "destroy", never) == ("contact/delete", None)


class TestTransitions:
    @pytest.mark.parametrize(
        ("change", "won"),
        [
            ([1, 4], True),
            ([None, 4], True),
            (["1", "4"], True),
            ([1, "4"], True),
            ([4, 5], False),  # won -> won
            (["4", 5], False),
            ([4, 4], False),
            ([4, 1], False),
            ([4, None], False),
            ([None, None], False),
            ([1, 2], False),
            ([1, True], False),
            ([1, 4.0], False),
            ([1, Decimal("4.0")], False),
            ([1, Decimal(4)], False),
            ([False, 4], True),
            ([1, [4]], False),
            ([1, {}], False),
            ([1, "4 "], False),
            ([1, "[REDACTED]"], False),
            (["[REDACTED]", "[REDACTED]"], False),
            (4, False),  # combined by max_audits with a create: no transition
            ("4", False),
            (None, False),
            ([4], False),
            ([1, 2, 4], False),
            ([], False),
            ({"0": 1, "1": 4}, False),
            ("14", False),
        ],
    )
    def test_of_a_stage(self, change: Any, won: bool) -> None:
        assert category({"name": ["a", "b"], "crm_stage_id": change}) == ("deal/won" if won else "deal/update")

    def test_created_or_destroyed_as_won(self) -> None:
        assert category({"crm_stage_id": 4}, action="create") == "deal/create"
        assert category({"crm_stage_id": [1, 4]}, action="create") == "deal/create"
        assert category({"crm_stage_id": 4}, action="destroy") == "deal/delete"

    def test_the_status_is_looked_for_beside_others_and_nowhere_else(self) -> None:
        assert category({"stage_id": [1, 4]}) == "deal/update"
        assert category({"custom": {"crm_stage_id": [1, 4]}}) == "deal/update"
        assert category({"crm_stage_id": [1, 4]}, role=Role.TASK) == "task/update"
        assert category({}) == "deal/update"

    def test_the_accounts_own_ids(self) -> None:
        mapping = parse(sample(category_overrides=[], account_id_sets={"2": {"won": [9]}, "3": {"won": []}}))
        won = {account: [stage for stage in range(12) if self.wins(mapping, account, stage)] for account in (1, 2, 3, None)}
        assert won == {1: [4, 5, 10, 11], 2: [9], 3: [], None: [4, 5, 10, 11]}

    def wins(self, mapping: Mapping, account: int | None, stage: int) -> bool:
        return category({"crm_stage_id": [None, stage]}, mapping=mapping, account=account) == "deal/won"

    def test_enum_names(self) -> None:
        mapping = parse(sample(id_sets={"done": ["done", 3]}))
        changes = {"open -> done": ["open", "done"], "0 -> 3": [0, 3], "done -> 3": ["done", 3], "0 -> Done": [0, "Done"]}
        found = {name: category({"crm_task_status_id": pair}, Role.TASK, mapping=mapping) for name, pair in changes.items()}
        assert found == {"open -> done": "task/done", "0 -> 3": "task/done", "done -> 3": "task/update", "0 -> Done": "task/update"}

    def test_an_enum_named_true_is_no_boolean(self) -> None:
        mapping = parse(sample(id_sets={"done": ["True", "true"]}))
        assert category({"crm_task_status_id": [0, True]}, Role.TASK, mapping=mapping) == "task/update"

    def test_without_ids_or_attribute_nothing_is_won(self) -> None:
        assert category({"crm_stage_id": [1, 4]}, mapping=parse(sample(id_sets={}))) == "deal/update"
        assert category({"crm_stage_id": [1, 4]}, mapping=parse(sample(status_attributes={}))) == "deal/update"


class TestOverrides:
    @pytest.mark.parametrize(
        ("to", "value", "fits"),
        [
            (True, True, True),
            (True, 1, False),
            (True, "true", False),
            (None, None, True),
            (3, 3, True),
            (3, "3", False),
            ("3", 3, False),
            (3, Decimal("3.0"), False),
            (0.5, Decimal("0.5"), True),
            (0.5, Decimal("0.50"), False),
            ({"a": [1, None]}, {"a": [1, None]}, True),
            ({"a": [1, None]}, {"a": [True, None]}, False),
        ],
    )
    def test_the_new_value(self, to: Any, value: Any, fits: bool) -> None:
        expected = "note/pinned" if fits else "note/update"
        mapping = overridden({"to": to})
        assert category({"is_pinned": ["other", value]}, Role.NOTE, mapping=mapping) == expected
        assert category({"is_pinned": value}, Role.NOTE, mapping=mapping) == expected  # combined by max_audits
        assert category({"is_pinned": [value, "other"]}, Role.NOTE, mapping=mapping) == "note/update"

    def test_a_pair_is_a_value_where_it_was_created_or_destroyed(self) -> None:
        for action, generic in {"create": "note/create", "destroy": "note/delete"}.items():
            mapping = overridden({"action": action, "to": ["hot", "cold"]})
            assert category({"is_pinned": ["hot", "cold"]}, Role.NOTE, action, mapping=mapping) == "note/pinned"
            assert category({"is_pinned": "cold"}, Role.NOTE, action, mapping=mapping) == generic

    def test_any_value(self) -> None:
        mapping = overridden({})
        assert category({"is_pinned": [True, None]}, Role.NOTE, mapping=mapping) == "note/pinned"
        assert category({"is_pinned": None}, Role.NOTE, mapping=mapping) == "note/pinned"
        assert category({"body": ["a", "b"]}, Role.NOTE, mapping=mapping) == "note/update"

    def test_only_its_class_and_action(self) -> None:
        mapping = parse(sample(category_overrides=[NOTE | {"class": "Contact", "attribute": None, "category": "contact/old"}]))
        assert mapper(mapping).category(Role.CONTACT, "Contact", "update", never) == ("contact/old", None)
        assert mapper(mapping).category(Role.CONTACT, "Contact", "create", never) == ("contact/create", None)
        assert mapper(mapping).category(Role.CONTACT, "Crm::Person", "update", never) == ("contact/update", None)

    @pytest.mark.parametrize(
        ("rows", "account", "expected"),
        [
            ([{"category": "note/low"}, {"priority": 11, "category": "note/high"}], 1, "note/high"),
            ([{"priority": -5, "category": "note/low"}, {"priority": -4, "category": "note/high"}], 1, "note/high"),
            ([{"category": "note/global"}, {"account": 1, "category": "note/own"}], 1, "note/own"),
            ([{"category": "note/global"}, {"account": 1, "category": "note/own"}], 2, "note/global"),
            ([{"category": "note/global"}, {"account": 1, "category": "note/own"}], None, "note/global"),
            ([{"priority": 11, "category": "note/global"}, {"account": 1, "category": "note/own"}], 1, "note/global"),
            ([{"priority": 11, "to": False, "category": "note/unpinned"}, {"category": "note/any"}], 1, "note/any"),
            ([{"to": False, "category": "note/unpinned"}, {"to": True, "category": "note/pinned"}], 1, "note/pinned"),
            (
                [{"attribute": None, "category": "note/all"}, {"priority": 11, "attribute": "body", "category": "note/edited"}],
                1,
                "note/all",
            ),
        ],
    )
    def test_rank(self, rows: list[dict[str, Any]], account: int | None, expected: str) -> None:
        for order in (rows, rows[::-1]):
            assert category({"is_pinned": [False, True]}, Role.NOTE, mapping=overridden(*order), account=account) == expected

    def test_they_come_before_the_table_and_do_not_fall_through(self) -> None:
        rows: list[dict[str, Any]] = [
            {"class": "Crm::Deal", "attribute": "crm_stage_id", "to": 5, "category": "deal/signed"},
            {"class": "Crm::DealPerson", "attribute": "crm_person_id", "to": 90, "category": "deal/merged"},
            {"class": "Crm::DealPerson", "action": "create", "attribute": None, "category": "deal/joined"},
        ]
        for capabilities in (SIGNED, UNSIGNED):
            found = mapper(overridden(*rows), capabilities=capabilities)
            assert found.category(Role.DEAL, "Crm::Deal", "update", lambda: {"crm_stage_id": [1, 5]}) == ("deal/signed", None)
            merged = found.category(Role.DEAL_CONTACT_JOIN, "Crm::DealPerson", "update", lambda: {"crm_person_id": [91, 90]}, "contact_old")
            assert merged == ("deal/merged", None)
            assert found.category(Role.DEAL_CONTACT_JOIN, "Crm::DealPerson", "create", never) == ("deal/joined", None)
        assert category({"crm_stage_id": [1, 4]}, mapping=overridden(*rows)) == "deal/won"


class TestTheSample:
    """Rows that the real gem wrote, against the truth that Ruby wrote beside them."""

    DATA = Path(__file__).parents[2] / "calm_console/demo/data"

    def audits(self) -> Iterator[tuple[int, str, str, bytes]]:
        """(id, class, action, audited_changes) from the dump's COPY block, whose fields are in COPY's text format."""
        dump = gzip.decompress((self.DATA / "crm_sample.sql.gz").read_bytes())
        block = dump[dump.index(b"COPY public.audits") :]
        for line in block[: block.index(b"\n\\.\n")].split(b"\n")[1:]:
            fields = line.split(b"\t")
            yield int(fields[0]), fields[2].decode(), fields[8].decode(), fields[9]

    def test_every_transition_and_no_other(self) -> None:
        truth = json.loads(gzip.decompress((self.DATA / "crm_sample.truth.json.gz").read_bytes()))
        kinds = {"deal_won": "deal/won", "task_done": "task/done", "ticket_resolved": "ticket/resolved"}
        events = [(kind, event) for one in truth["organisations"].values() for kind in kinds for event in one["events"].get(kind, [])]
        found = {(name, audit) for audit, name in self.categories() if name in kinds.values()}
        assert found == {(kinds[kind], event["audit_id"]) for kind, event in events}
        assert len(found) > 100

    def categories(self) -> Iterator[tuple[int, str]]:
        categories = mapper()
        for audit, name, action, raw in self.audits():
            role = MAPPING.role_of.get(name, Role.COMPANY)
            if role in ENTITY_OF_ROLE:
                known = any(needle in raw for needle in categories.needs_changes(role, name, action))
                changes = json.loads(copytext.unescape(raw)) if known else {}
                yield audit, categories.category(role, name, action, partial(dict, changes))[0]


class TestUnknown:
    @pytest.mark.parametrize("action", ["delete", "touch", "", "Create", "update "])
    def test_action(self, action: str) -> None:
        with pytest.raises(UnknownAction, match=repr(action)):
            mapper().category(Role.DEAL, "Crm::Deal", action, never)
        with pytest.raises(UnknownAction, match=repr(action)):
            mapper().needs_changes(Role.DEAL, "Crm::Deal", action)

    @pytest.mark.parametrize(
        ("role", "name"),
        [
            (Role.DEAL, "Crm::Invoice"),
            (Role.DEAL, "User"),
            (Role.DEAL, ""),
            (Role.COMPANY, "Crm::Company"),  # its audits concern no contact
            (Role.DEAL, "Crm::Note"),  # not in this role
        ],
    )
    def test_class(self, role: Role, name: str) -> None:
        with pytest.raises(UnknownClass, match=repr(name)):
            mapper().category(role, name, "update", never)


VALUES = st.none() | st.booleans() | st.integers(0, 20) | st.decimals(allow_nan=False, places=1) | st.text(max_size=3)
NESTED = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2), max_leaves=5
)
ATTRIBUTES = st.sampled_from(["crm_stage_id", "crm_task_status_id", "ticket_status_id", "is_pinned", "nâme", "other"])
CHANGES = st.dictionaries(ATTRIBUTES, st.lists(st.integers(0, 12), min_size=2, max_size=2) | NESTED, max_size=4)
ROWS: list[dict[str, Any]] = [
    {"to": True},
    {"class": "Crm::Deal", "attribute": "nâme", "category": "deal/renamed"},
    {"class": "Crm::Deal", "attribute": "is_pinned", "to": 3, "priority": 11, "category": "deal/third"},
    {"class": "Crm::Task", "action": "create", "attribute": None, "category": "task/begun"},
]


class TestTotal:
    def test_every_class_and_action_of_the_mapping_has_a_category_and_the_others_are_named(self) -> None:
        found, unknown = set(), set()
        for name, role in [*MAPPING.role_of.items(), ("User", Role.CONTACT)]:
            for action in ACTIONS:
                for moved in MOVES:
                    try:
                        found.add(mapper().category(role, name, action, dict, moved)[0])
                    except UnknownClass as error:
                        unknown.add(str(error).split("'")[1])
        assert unknown == {"User", "Crm::Company"}
        assert found == {
            *(f"{entity}/{verb}" for entity in ("contact", "deal", "task", "ticket", "note") for verb in ("create", "update", "delete")),
            *(f"deal/{verb}" for verb in ("contact_linked", "contact_unlinked", "contact_moved", "company_linked", "company_unlinked")),
        }

    @given(st.sampled_from(list(CLASSES)), st.sampled_from(ACTIONS), CHANGES, st.sampled_from(MOVES), st.sampled_from([SIGNED, UNSIGNED]))
    @settings(max_examples=300)
    def test_whatever_the_changes(
        self, role: Role, action: str, changes: dict[str, Any], moved: Moved | None, capabilities: frozenset[str]
    ) -> None:
        calls: list[int] = []

        def read() -> dict[str, Any]:
            calls.append(1)
            return changes

        found = mapper(overridden(*ROWS), capabilities=capabilities)
        name, fallthrough = found.category(role, CLASSES[role], action, read, moved)
        assert name.split("/")[0] == ENTITY_OF_ROLE[role]
        assert fallthrough is None or (fallthrough == "gate_e" and capabilities == UNSIGNED and name.endswith("/update"))
        assert len(calls) == (1 if found.needs_changes(role, CLASSES[role], action) else 0)


class TestNeedsChanges:
    def test_what_is_looked_for(self) -> None:
        found = mapper(overridden({}, {"class": "Crm::Deal", "attribute": "nâme", "action": "create", "category": "deal/named"}))
        needs = {(role, action): found.needs_changes(role, CLASSES[role], action) for role in CLASSES for action in ACTIONS}
        assert {key: needles for key, needles in needs.items() if needles} == {
            (Role.DEAL, "update"): (b'"crm_stage_id"', b"\\u"),
            (Role.TASK, "update"): (b'"crm_task_status_id"', b"\\u"),
            (Role.TICKET, "update"): (b'"ticket_status_id"', b"\\u"),
            (Role.NOTE, "update"): (b'"is_pinned"', b"\\u"),
            (Role.DEAL, "create"): ('"nâme"'.encode(), b"\\"),
        }

    def test_nothing_below_an_override_that_takes_every_audit(self) -> None:
        rows: list[dict[str, Any]] = [
            {"class": "Crm::Deal", "attribute": "source", "priority": 12, "category": "deal/sourced"},
            {"class": "Crm::Deal", "attribute": None, "priority": 11, "category": "deal/touched"},
            {"class": "Crm::Deal", "attribute": "amount", "priority": 10, "category": "deal/priced"},
        ]
        found = mapper(overridden(*rows))
        assert found.needs_changes(Role.DEAL, "Crm::Deal", "update") == (b'"source"', b"\\u")
        assert found.category(Role.DEAL, "Crm::Deal", "update", lambda: {"amount": [1, 2]}) == ("deal/touched", None)
        found = mapper(overridden(*rows[1:]))
        assert found.category(Role.DEAL, "Crm::Deal", "update", never) == ("deal/touched", None)

    @given(st.sampled_from(list(CLASSES)), st.sampled_from(ACTIONS), CHANGES, st.booleans(), st.booleans())
    @settings(max_examples=300)
    def test_where_nothing_occurs_the_changes_do_not_matter(
        self, role: Role, action: str, changes: dict[str, Any], ascii_only: bool, hide: bool
    ) -> None:
        found = mapper(overridden(*ROWS, {"class": "Crm::Note", "priority": 9, "attribute": 'q"\\', "category": "note/odd"}))
        text = json.dumps(changes, ensure_ascii=ascii_only, default=str)
        raw = (text.replace("_id", "\\u005fid") if hide else text).encode()
        needles = found.needs_changes(role, CLASSES[role], action)
        for field in (raw, copied(raw)):
            if not any(needle in field for needle in needles):
                assert found.category(role, CLASSES[role], action, lambda: changes) == found.category(role, CLASSES[role], action, dict)
