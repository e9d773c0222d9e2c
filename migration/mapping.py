"""What staff publish: which class plays which role, which ids mean won, done or resolved, what is secret, and the overrides.

A Mapping is frozen and says the same to every worker of a run; a digest names what it means. Nothing here reads a database or a clock.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from migration.mapping_checks import MappingError
from migration.mapping_document import ACTIONS, ID_SET_OF_ROLE, OTHER_END, ActorKind, Role, normalise
from migration.mapping_json import json_text, same_json
from migration.mapping_secrets import ESCAPED_KEY, key_pattern, raw_key_pattern, raw_literals

__all__ = [
    "ACTIONS",
    "ENTITY_OF_ROLE",
    "ID_SET_OF_ROLE",
    "ActorKind",
    "ActorOverride",
    "CategoryOverride",
    "JoinAttributes",
    "Mapping",
    "MappingError",
    "Role",
    "canonical",
    "digest",
    "digest_of_new",
    "parse",
]

# A company's own audits concern no contact, so that role has no entity.
ENTITY_OF_ROLE = {
    Role.CONTACT: "contact",
    Role.NOTE: "note",
    Role.TASK: "task",
    Role.TICKET: "ticket",
    Role.DEAL: "deal",
    Role.DEAL_CONTACT_JOIN: "deal",
    Role.DEAL_COMPANY_JOIN: "deal",
}


def parse(document: object) -> "Mapping":
    """The mapping that a document (SPEC section 8) means, or MappingError with every problem found."""
    normal = normalise(document)
    return Mapping(
        digest=_digest(normal),
        role_of=_role_of(normal["class_roles"]),
        joins=_joins(normal["class_roles"]),
        status_attributes=normal["status_attributes"],
        name_attributes=normal["name_attributes"],
        id_sets=_id_sets(normal),
        category_overrides=_category_overrides(normal["category_overrides"]),
        actor_overrides=_actor_overrides(normal["actor_overrides"]),
        secret_key=key_pattern(normal["secrets"]),
        secret_pattern=raw_key_pattern(normal["secrets"]),
        secret_literals=raw_literals(normal["secrets"]),
    )


def canonical(document: object) -> str:
    """The JSON text that all documents of this meaning share, itself a document; or MappingError."""
    return json_text(normalise(document))


def digest(document: object) -> str:
    """The SHA-256 of the canonical text, 64 hex digits; or MappingError."""
    return _digest(normalise(document))


def digest_of_new(document: object) -> str:
    """The same of a document that is to be kept or published; or MappingError, also for what a published revision may hold."""
    return _digest(normalise(document, is_new=True))


@dataclass(frozen=True, slots=True)
class JoinAttributes:
    """The attributes of a join class that hold the ids of its two ends; the end that it does not have is ""."""

    deal: str
    contact: str = ""
    company: str = ""


@dataclass(frozen=True, slots=True)
class CategoryOverride:
    """Staff's category for the audits of one class and action, for one account or (None) for all."""

    account: int | None
    class_name: str
    action: str
    attribute: str | None
    has_value: bool
    to: Any
    category: str
    priority: int

    def takes(self, value: Any) -> bool:
        """Whether this is a new value that the override looks for; without one of its own it takes any."""
        return not self.has_value or same_json(self.to, value)


@dataclass(frozen=True, slots=True)
class ActorOverride:
    """Staff's actor for one CRM user or label, for one account or (None) for all."""

    account: int | None
    crm_user_id: str | None
    label: str | None
    kind: ActorKind
    actor_id: str | None
    actor_name: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Mapping:
    """One mapping revision's content, ready for looking up. Equal digests mean equal content."""

    digest: str
    role_of: dict[str, Role]
    joins: dict[str, JoinAttributes]
    status_attributes: dict[str, str]  # by role: deal, task, ticket
    name_attributes: dict[str, str]  # by role: deal, company
    id_sets: dict[tuple[int | None, str], frozenset[str]]  # by account (None: global) and name
    category_overrides: tuple[CategoryOverride, ...]  # the one that wins first
    actor_overrides: dict[tuple[int | None, str, str], ActorOverride]  # by account, "user" or "label", and its text
    secret_key: re.Pattern[str]
    secret_pattern: re.Pattern[bytes]
    """Finds `"key" :` of every key that may be secret in JSON's bytes, as they are or as a field of COPY's text format. It never misses
    one, but may find one that is_secret then denies: any key that is written with a backslash, a text that looks like a key."""
    secret_literals: tuple[bytes, ...] | None
    """In lower case, what no secret key is without, unless it is written with a backslash; None where nothing can be said."""

    def classes(self, role: Role) -> tuple[str, ...]:
        """The classes of a role, sorted by name."""
        return tuple(name for name, its_role in self.role_of.items() if its_role == role)

    def id_set(self, name: str, crm_organization_id: int | None) -> frozenset[str]:
        """The ids, as text, of `won`, `done` or `resolved`: the account's own set, or else the global one."""
        own = self.id_sets.get((crm_organization_id, name))
        return self.id_sets[None, name] if own is None else own

    def is_secret(self, key: str) -> bool:
        """Whether an attribute is on the secrets list. `A` and `a` are the same there, letters beyond ASCII are themselves."""
        return self.secret_key.fullmatch(key) is not None

    def may_hold_secret(self, raw: bytes) -> bool:
        """Whether secret_pattern finds anything; told by plain searches in most cases, which take a fifth of its time."""
        # Only \\u can hide a letter of a literal; a backslash alone is looked for in a third of the time.
        if self.secret_literals is not None and (b"\\" not in raw or b"\\u" not in raw or not ESCAPED_KEY.search(raw)):
            lower = raw.lower()
            for literal in self.secret_literals:
                if literal in lower:
                    break
            else:
                return False
        return self.secret_pattern.search(raw) is not None

    def category_overrides_of(self, crm_organization_id: int | None) -> tuple[CategoryOverride, ...]:
        """An account's overrides and the global ones, the one that wins first."""
        return tuple(override for override in self.category_overrides if override.account in (None, crm_organization_id))

    def actor_override(self, crm_organization_id: int | None, crm_user_id: int | str | None, label: str | None) -> ActorOverride | None:
        """The override for a CRM user (the caller has seen to `user_type = 'User'`), or where there is none in the audit, for its label."""
        if crm_user_id is None and label is None:
            return None
        named = ("label", str(label)) if crm_user_id is None else ("user", str(crm_user_id))
        return self.actor_overrides.get((crm_organization_id, *named)) or self.actor_overrides.get((None, *named))


def _digest(normal: dict[str, Any]) -> str:
    return hashlib.sha256(json_text(normal).encode()).hexdigest()


def _role_of(class_roles: dict[str, list[Any]]) -> dict[str, Role]:
    return {row["class"] if isinstance(row, dict) else row: Role(role) for role, rows in class_roles.items() for row in rows}


def _joins(class_roles: dict[str, list[Any]]) -> dict[str, JoinAttributes]:
    return {
        row["class"]: JoinAttributes(**{end: attribute for end, attribute in row.items() if end != "class"})
        for role in OTHER_END
        for row in class_roles[role]
    }


def _id_sets(normal: dict[str, Any]) -> dict[tuple[int | None, str], frozenset[str]]:
    by_account = {None: normal["id_sets"]} | {int(account): sets for account, sets in normal["account_id_sets"].items()}
    return {(account, name): frozenset(ids) for account, sets in by_account.items() for name, ids in sets.items()}


def _category_overrides(rows: list[dict[str, Any]]) -> tuple[CategoryOverride, ...]:
    overrides = [
        CategoryOverride(
            account=row["account"],
            class_name=row["class"],
            action=row["action"],
            attribute=row["attribute"],
            has_value="to" in row,
            to=_as_audits_hold_it(row.get("to")),
            category=row["category"],
            priority=row["priority"],
        )
        for row in rows
    ]
    return tuple(sorted(overrides, key=lambda override: (-override.priority, override.account is None)))


def _as_audits_hold_it(value: Any) -> Any:
    """The same value with whole numbers as int and all others as Decimal, however the document was read."""
    return json.loads(json_text(value), parse_float=Decimal)


def _actor_overrides(rows: list[dict[str, Any]]) -> dict[tuple[int | None, str, str], ActorOverride]:
    overrides = [ActorOverride(**row | {"kind": ActorKind(row["kind"])}) for row in rows]
    return {
        (each.account, "label", each.label or "") if each.crm_user_id is None else (each.account, "user", each.crm_user_id): each
        for each in overrides
    }
