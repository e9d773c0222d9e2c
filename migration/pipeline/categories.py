"""CategoryMapper: what an audit is called in the CDP, `entity/verb` (SPEC section 3). Pure: no database, no clock.

Staff's overrides come first. Then the table of the SPEC, in which a category that rests on what gate E confirms (join classes, id-sets)
falls through to the generic one until that gate is signed.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from migration import copytext
from migration.mapping import ACTIONS, ENTITY_OF_ROLE, ID_SET_OF_ROLE, CategoryOverride, Mapping, Role
from migration.pipeline.changes import parse
from migration.pipeline.problems import failure
from migration.pipeline.records import Candidate, Moved

Changes = dict[str, Any]

_VERBS = {"create": "create", "update": "update", "destroy": "delete"}
_OTHER_END = {Role.DEAL_CONTACT_JOIN: "contact", Role.DEAL_COMPANY_JOIN: "company"}
_LINK_VERBS = {"create": "linked", "destroy": "unlinked"}
_MOVES = {
    "contact_old": "deal/contact_unlinked",
    "contact_new": "deal/contact_linked",
    "deal": "deal/contact_moved",
    None: None,
}


class UnknownAction(ValueError):
    """An audit's action that the gem does not write."""


class UnknownClass(ValueError):
    """A class whose audits the mapping makes no activities of."""


class CategoryMapper:
    """One run's categories: made from its mapping, its account (CRM organisation id) and its capabilities ("E": gate E is signed)."""

    def __init__(self, mapping: Mapping, crm_organization_id: int | None, capabilities: frozenset[str]) -> None:
        self._given = (mapping, crm_organization_id, capabilities)
        self._gate_e = "E" in capabilities
        self._unread: dict[tuple[str, bytes], tuple[tuple[bytes, ...], tuple[str, str | None]]] = {}
        self._plans = {
            (role, class_name, action): _plan(mapping, crm_organization_id, role, class_name, action)
            for class_name, role in mapping.role_of.items()
            if role in ENTITY_OF_ROLE
            for action in ACTIONS
        }

    @cached_property
    def confirmed(self) -> "CategoryMapper":
        """The same, were gate E signed: what live sync may call an activity already."""
        mapping, crm_organization_id, capabilities = self._given
        return CategoryMapper(mapping, crm_organization_id, capabilities | {"E"})

    def category(
        self, role: Role, class_name: str, action: str, changes: Callable[[], Changes], moved: Moved | None = None
    ) -> tuple[str, str | None]:
        """The category, and "gate_e" where it is the generic one only because gate E is not signed.

        `changes` gives the top level of audited_changes, whole numbers as int and others as Decimal; it is called at most once, and only
        where needs_changes names something. `moved` says what an update of a deal-contact join is to the contact at hand: it is the old
        contact, the new one, or the link went to another deal. Raises UnknownAction and UnknownClass.
        """
        plan = self._plan_of(role, class_name, action)
        known = changes() if plan.needles else {}
        for override in plan.overrides:
            if _matches(override, known):
                return override.category, None
        special = _special(plan, known, moved)
        if special is None:
            return plan.generic, None
        return (special, None) if self._gate_e else (plan.generic, "gate_e")

    def needs_changes(self, role: Role, class_name: str, action: str) -> tuple[bytes, ...]:
        """What to look for in the raw JSON (or its field in COPY's text format): where none of it occurs, `{}` gives the same category."""
        return self._plan_of(role, class_name, action).needles

    def unread(self, role: Role, class_name: str, action: bytes) -> tuple[tuple[bytes, ...], tuple[str, str | None]]:
        """`needs_changes`, and the category where none of it occurs and no link moved; worked out once for each class and action (a COPY field)."""
        known = self._unread.get((class_name, action))
        if known is None:
            text = copytext.read(action) or ""
            known = self.needs_changes(role, class_name, text), self.category(role, class_name, text, dict)
            self._unread[class_name, action] = known
        return known

    def _plan_of(self, role: Role, class_name: str, action: str) -> "_Plan":
        plan = self._plans.get((role, class_name, action))
        if plan is not None:
            return plan
        if action not in ACTIONS:
            raise UnknownAction(f"The audit's action {action!r} is none of {', '.join(ACTIONS)}.")
        raise UnknownClass(f"The class {class_name!r} has no role that makes activities; give it one in the mapping's class_roles.")


@dataclass(frozen=True, slots=True)
class _Status:
    attribute: str
    ids: frozenset[str]
    category: str  # of a move from outside the ids into them


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the audits of one class and action get their category."""

    overrides: tuple[CategoryOverride, ...]
    status: _Status | None
    link: str | None  # the category of a join row's create or destroy
    moves: bool  # whether it is an update of a deal-contact join
    generic: str
    needles: tuple[bytes, ...]


def _plan(mapping: Mapping, crm_organization_id: int | None, role: Role, class_name: str, action: str) -> _Plan:
    overrides = _overrides(mapping, crm_organization_id, class_name, action)
    overridden = bool(overrides) and overrides[-1].attribute is None
    status = _status(mapping, crm_organization_id, role) if action == "update" and not overridden else None
    attributes = {override.attribute for override in overrides if override.attribute is not None}
    if status is not None:
        attributes.add(status.attribute)
    return _Plan(
        overrides=overrides,
        status=status,
        link=f"deal/{_OTHER_END[role]}_{_LINK_VERBS[action]}" if role in _OTHER_END and action in _LINK_VERBS else None,
        moves=role is Role.DEAL_CONTACT_JOIN and action == "update",
        generic="deal/update" if role in _OTHER_END else f"{ENTITY_OF_ROLE[role]}/{_VERBS[action]}",
        needles=_needles(attributes),
    )


def _overrides(mapping: Mapping, crm_organization_id: int | None, class_name: str, action: str) -> tuple[CategoryOverride, ...]:
    """Those for one class and action, the one that wins first, up to the first one that takes every audit."""
    found = []
    for override in mapping.category_overrides_of(crm_organization_id):
        if (override.class_name, override.action) == (class_name, action):
            found.append(override)
            if override.attribute is None:
                break
    return tuple(found)


def _status(mapping: Mapping, crm_organization_id: int | None, role: Role) -> _Status | None:
    if role not in ID_SET_OF_ROLE or role not in mapping.status_attributes:
        return None
    name = ID_SET_OF_ROLE[role]
    ids = mapping.id_set(name, crm_organization_id)
    return _Status(mapping.status_attributes[role], ids, f"{ENTITY_OF_ROLE[role]}/{name}") if ids else None


def _needles(attributes: set[str]) -> tuple[bytes, ...]:
    r"""The attributes as JSON keys, and the escape that a `json` column could hide them behind: `\u` for a plain name, else any."""
    if not attributes:
        return ()
    plain = all(re.fullmatch("[A-Za-z0-9_]+", attribute) for attribute in attributes)
    return (*(json.dumps(attribute, ensure_ascii=False).encode() for attribute in sorted(attributes)), b"\\u" if plain else b"\\")


def _matches(override: CategoryOverride, changes: Changes) -> bool:
    if override.attribute is None:
        return True
    return override.attribute in changes and override.takes(_new_value(override.action, changes[override.attribute]))


def _new_value(action: str, value: Any) -> Any:
    """Updates hold [old, new]; but where max_audits combined them with a create, plain values too."""
    return value[1] if action == "update" and _is_pair(value) else value


def _special(plan: _Plan, changes: Changes, moved: Moved | None) -> str | None:
    """The category that only holds once gate E is signed, or None."""
    if plan.moves:
        return _MOVES[moved]
    if plan.status is not None and _enters(plan.status.ids, changes.get(plan.status.attribute)):
        return plan.status.category
    return plan.link


def _enters(ids: frozenset[str], change: Any) -> bool:
    """Whether an update's change goes from outside the ids, or null, into them. A plain value tells no transition."""
    return _is_pair(change) and _id_text(change[1]) in ids and _id_text(change[0]) not in ids


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _id_text(value: Any) -> str | None:
    """3 and "3" are one id, and an enum's name is an id; a boolean, a decimal number, null, a list are none."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def map_categories(candidates: Iterable[Candidate], categories: CategoryMapper) -> Iterator[Candidate]:
    """Set `category`, `fallthrough` and `live_category`, also of what is beyond the watermark, which is counted by category."""
    for candidate in candidates:
        if not candidate.passed_over:
            try:
                candidate.category, candidate.fallthrough = category_of(candidate, categories)
                if candidate.fallthrough:
                    candidate.live_category, _ = category_of(candidate, categories.confirmed)
            except Exception as error:  # noqa: BLE001 - one poisoned row is put aside, the chunk goes on
                candidate.problem = failure(error)
        yield candidate


def category_of(candidate: Candidate, categories: CategoryMapper) -> tuple[str, str | None]:
    """The category; the changes are parsed only where an attribute that it may rest on occurs in them."""
    needles, unread = categories.unread(candidate.role, candidate.class_name, candidate.action)
    found = False
    for needle in needles:  # any() with a generator takes three times as long, for every row
        if needle in candidate.changes:
            found = True
    if not found and candidate.moved is None:
        return unread
    read = (lambda: parse(copytext.unescape(candidate.changes).decode())) if found else dict
    return categories.category(candidate.role, candidate.class_name, copytext.read(candidate.action) or "", read, candidate.moved)
