"""The mapping document (SPEC section 8, "The file that publish_mapping reads"): checked whole, then put into one normal form.

Documents equal in meaning have the same normal form, so that a digest of it is a digest of what they mean, not of how they are written.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from migration.mapping_checks import BIGINT, MISSING, Checker, MappingError, kind, shown
from migration.mapping_json import json_problem, json_text


class Role(StrEnum):
    """What the audits of a class are about."""

    CONTACT = "contact"
    COMPANY = "company"
    DEAL = "deal"
    TASK = "task"
    TICKET = "ticket"
    NOTE = "note"
    DEAL_CONTACT_JOIN = "deal_contact_join"
    DEAL_COMPANY_JOIN = "deal_company_join"


class ActorKind(StrEnum):
    """The six kinds of SPEC section 3."""

    USER = "user"
    DEACTIVATED_USER = "deactivated_user"
    UNKNOWN_USER = "unknown_user"
    INTEGRATION = "integration"
    LABEL = "label"
    SYSTEM = "system"


ACTIONS = ("create", "update", "destroy")
ID_SET_OF_ROLE = {Role.DEAL: "won", Role.TASK: "done", Role.TICKET: "resolved"}
OTHER_END = {Role.DEAL_CONTACT_JOIN: "contact", Role.DEAL_COMPANY_JOIN: "company"}

_TOP_KEYS = (
    "class_roles",
    "status_attributes",
    "name_attributes",
    "id_sets",
    "account_id_sets",
    "secrets",
    "category_overrides",
    "actor_overrides",
)
_CATEGORY_KEYS = ("account", "class", "action", "attribute", "to", "category", "priority")
_ACTOR_KEYS = ("account", "crm_user_id", "label", "kind", "actor_id", "actor_name")
_Group = dict[str | None, tuple[str, str | None]]  # overrides of one rank, by the JSON text of their value: place and attribute
_ACCOUNT = re.compile(r"[1-9][0-9]{0,18}")


def normalise(document: object, *, is_new: bool = False) -> dict[str, Any]:
    """The document with its defaults filled in, ids as text, and sorted wherever order has no meaning; or MappingError.

    Category overrides *overlap* when one audit could match two of them that have equal priority, class, action and account (or are both
    global), unless both look for different values of one attribute. Two different attributes overlap, since one audit can hold both. An
    account's override and a global one do not: with equal priority the account's wins.

    More is asked of one that `is_new`, see Checker.
    """
    checker = Checker(is_new=is_new)
    top = checker.record(document, "the document", _TOP_KEYS)
    if top is None:
        raise MappingError(checker.problems)
    normal = {
        "class_roles": _class_roles(top.get("class_roles", MISSING), checker),
        "status_attributes": _attributes(top.get("status_attributes", {}), "status_attributes", tuple(ID_SET_OF_ROLE), checker),
        "name_attributes": _attributes(top.get("name_attributes", {}), "name_attributes", (Role.DEAL, Role.COMPANY), checker),
        "id_sets": {name: [] for name in ID_SET_OF_ROLE.values()} | _id_sets(top.get("id_sets", {}), "id_sets", checker),
        "account_id_sets": _account_id_sets(top.get("account_id_sets", {}), checker),
        "secrets": _secrets(top.get("secrets", []), checker),
        "category_overrides": _category_overrides(top.get("category_overrides", []), checker),
        "actor_overrides": _actor_overrides(top.get("actor_overrides", []), checker),
    }
    if checker.problems:
        raise MappingError(checker.problems)
    return normal


def _class_roles(value: Any, checker: Checker) -> dict[str, list[Any]]:
    roles = checker.record(value, "class_roles", tuple(Role))
    if roles is None:
        return {}
    if roles.get(Role.CONTACT, []) == []:
        checker.refuse("class_roles.contact", "needs at least one class, since contacts lead")
    homes: dict[str, str] = {}
    return {role.value: _classes(roles.get(role, []), role, homes, checker) for role in Role}


def _classes(value: Any, role: Role, homes: dict[str, str], checker: Checker) -> list[Any]:
    """The classes of one role: names, or joins. `homes` keeps the place that first named each class."""
    found: list[Any] = []
    for place, row in checker.rows(value, f"class_roles.{role}"):
        entry = _join(row, place, OTHER_END[role], checker) if role in OTHER_END else checker.name(row, place)
        name = entry["class"] if isinstance(entry, dict) else entry
        if name in homes:
            checker.refuse(place, f"class {shown(name)} is already in {homes[name]}, and a class has one role")
        elif name:
            homes[name] = place
            found.append(entry)
    return sorted(found, key=json_text)


def _join(row: Any, place: str, other: str, checker: Checker) -> dict[str, str]:
    fields = checker.record(row, place, ("class", "deal", other))
    if fields is None:
        return {"class": ""}
    join = {key: checker.name(fields.get(key, MISSING), f"{place}.{key}") for key in ("class", "deal", other)}
    if join["deal"] and join["deal"] == join[other]:
        checker.refuse(place, f"deal and {other} must be two different attributes")
    return join


def _attributes(value: Any, place: str, roles: tuple[Role, ...], checker: Checker) -> dict[str, str]:
    fields = checker.record(value, place, roles) or {}
    return {role.value: checker.name(fields[role], f"{place}.{role}") for role in roles if role in fields}


def _id_sets(value: Any, place: str, checker: Checker) -> dict[str, list[str]]:
    names = tuple(ID_SET_OF_ROLE.values())
    sets = checker.record(value, place, names) or {}
    return {
        name: sorted({checker.id_of_set(row, row_place) for row_place, row in checker.rows(sets[name], f"{place}.{name}")})
        for name in names
        if name in sets
    }


def _account_id_sets(value: Any, checker: Checker) -> dict[str, dict[str, list[str]]]:
    """Sets that replace the global ones; an account that replaces none is left out."""
    if not isinstance(value, dict):
        checker.refuse("account_id_sets", f"must be an object, but is {kind(value)}")
        return {}
    found = {}
    for account, sets in value.items():
        place = f"account_id_sets.{shown(account)}"
        if not isinstance(account, str) or not _ACCOUNT.fullmatch(account) or int(account) > BIGINT:
            checker.refuse(place, "the key must be a CRM organisation id, a whole number above 0")
        found[account] = _id_sets(sets, place, checker)
    return {account: sets for account, sets in found.items() if sets}


def _secrets(value: Any, checker: Checker) -> list[str]:
    """Globs of attribute names. Their ASCII letters are without case, so those are lowered; two stars say what one does."""
    globs = {checker.name(row, place) for place, row in checker.rows(value, "secrets")}
    return sorted({re.sub("[A-Z]+", lambda letters: letters[0].lower(), re.sub(r"\*+", "*", glob)) for glob in globs})


def _category_overrides(value: Any, checker: Checker) -> list[dict[str, Any]]:
    groups: dict[tuple[Any, ...], _Group] = {}
    overrides = _sound_rows(value, "category_overrides", _category_override, checker)
    for place, override in overrides.items():
        group = groups.setdefault(tuple(override[key] for key in ("account", "class", "action", "priority")), {})
        to = json_text(override["to"]) if "to" in override else None
        if rival := _rival(group, override["attribute"], to):
            checker.refuse(place, f"overlaps {rival} with equal priority {override['priority']}; give one of them another priority")
        else:
            group[to] = (place, override["attribute"])
    return sorted(overrides.values(), key=json_text)


def _rival(group: _Group, attribute: str | None, to: str | None) -> str | None:
    """The place of the override in a group that one for this attribute and value overlaps, or None.

    Those in a group do not overlap: it is one override, or several for different values of one attribute.
    """
    if not group:
        return None
    place, its_attribute = next(iter(group.values()))
    if its_attribute != attribute or to is None or None in group:
        return place
    return group[to][0] if to in group else None


def _category_override(row: Any, place: str, checker: Checker) -> dict[str, Any]:
    fields = checker.record(row, place, _CATEGORY_KEYS)
    if fields is None:
        return {}
    override = {
        "account": checker.account(fields.get("account"), f"{place}.account"),
        "class": checker.name(fields.get("class", MISSING), f"{place}.class"),
        "action": checker.choice(fields.get("action", MISSING), f"{place}.action", ACTIONS),
        "attribute": checker.optional(checker.name, fields.get("attribute"), f"{place}.attribute"),
        "category": checker.category(fields.get("category", MISSING), f"{place}.category"),
        "priority": checker.whole(fields.get("priority", MISSING), f"{place}.priority", -(2**31), 2**31 - 1),
    }
    if "to" not in fields:
        return override
    if override["attribute"] is None:
        checker.refuse(f"{place}.to", "a value needs the attribute that takes it")
    if problem := json_problem(fields["to"]):
        checker.refuse(f"{place}.to", problem)
    return override | {"to": fields["to"]}


def _actor_overrides(value: Any, checker: Checker) -> list[dict[str, Any]]:
    homes: dict[tuple[Any, ...], str] = {}
    overrides = _sound_rows(value, "actor_overrides", _actor_override, checker)
    for place, override in overrides.items():
        home = homes.setdefault(tuple(override[key] for key in ("account", "crm_user_id", "label")), place)
        if home != place:
            checker.refuse(place, f"overlaps {home}, which names the same CRM user or label for the same account; remove one of them")
    return sorted(overrides.values(), key=json_text)


def _actor_override(row: Any, place: str, checker: Checker) -> dict[str, Any]:
    fields = checker.record(row, place, _ACTOR_KEYS)
    if fields is None:
        return {}
    user, label = fields.get("crm_user_id"), fields.get("label")
    if (user is None) == (label is None):
        checker.refuse(place, "needs exactly one of crm_user_id and label")
    return {
        "account": checker.account(fields.get("account"), f"{place}.account"),
        "crm_user_id": checker.optional(checker.id, user, f"{place}.crm_user_id"),
        "label": checker.optional(checker.text, label, f"{place}.label"),
        "kind": checker.choice(fields.get("kind", MISSING), f"{place}.kind", tuple(ActorKind)),
        "actor_id": checker.optional(checker.text, fields.get("actor_id"), f"{place}.actor_id"),
        "actor_name": checker.optional(checker.text, fields.get("actor_name"), f"{place}.actor_name"),
    }


def _sound_rows(value: Any, place: str, read: Callable[[Any, str, Checker], dict[str, Any]], checker: Checker) -> dict[str, dict[str, Any]]:
    """The rows that are right by themselves, by their places."""
    sound = {}
    for row_place, row in checker.rows(value, place):
        before = len(checker.problems)
        override = read(row, row_place, checker)
        if len(checker.problems) == before:
            sound[row_place] = override
    return sound
