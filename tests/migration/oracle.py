"""What the rows must be: SPEC sections 2 to 4 once more, in plain Python over whole tables, sharing no code with the pipeline.

`expected(sample, organisation)` gives every candidate of an account with its outcome and, where it is to be written, the whole
row as `Systems.activities` shows it, without `run_id`. It knows no overrides and not the enricher.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, NamedTuple
from uuid import UUID

from tests.migration.oracle_links import Contacts, concerned_contacts, roles, sides
from tests.migration.oracle_sample import Audit, Sample

RULES = frozenset({1, 2, 3, 4, 5})  # the contact rules of SPEC section 2 that production knows
SEAM = timedelta(seconds=10)
ENTITIES = ("contact", "deal", "task", "ticket", "note")
VERBS = {"create": "create", "update": "update", "destroy": "delete"}
COLUMNS = (
    "id", "account_id", "contact_id", "category", "actor_kind", "actor_id",
    "actor_name", "occurred_at", "changes", "context", "origin", "source_audit_id",
)  # fmt: skip


class Outcome(NamedTuple):
    """`kind` is skipped, quarantined, already_live or written, `reason` the rule or reason of the first two."""

    kind: str
    reason: str = ""
    row: tuple[object, ...] = ()


@dataclass
class Expected:
    """`candidates` by (audit id, CRM person id); `beyond` counts by category what lies at or beyond the watermark."""

    candidates: dict[tuple[int, int], Outcome] = field(default_factory=dict)
    beyond: Counter[str] = field(default_factory=Counter)

    def rows(self) -> list[tuple[object, ...]]:
        """The rows to be written, by id."""
        return sorted(outcome.row for outcome in self.candidates.values() if outcome.kind == "written")

    def count(self, kind: str) -> dict[str, int]:
        """How many candidates have the outcome, by rule or reason."""
        return dict(Counter(outcome.reason for outcome in self.candidates.values() if outcome.kind == kind))

    def column(self, name: str) -> dict[object, int]:
        """How many written rows have each value of a column."""
        return dict(Counter(row[COLUMNS.index(name)] for row in self.rows()))

    def quarantined(self) -> set[tuple[int, int, str]]:
        return {(*key, outcome.reason) for key, outcome in self.candidates.items() if outcome.kind == "quarantined"}


def expected(sample: Sample, organisation: int, rules: frozenset[int] = RULES, capabilities: frozenset[str] = frozenset("DE")) -> Expected:
    """Every candidate of an account under the first mapping revision, and what becomes of it."""
    account = Account(sample, organisation, capabilities)
    found = Expected()
    for audit, contacts in concerned_contacts(sample.audits, sample.mapping):
        for person in contacts.by_rules(rules) & account.persons.keys():
            if account.is_beyond(audit):
                found.beyond[account.category(audit, person, contacts)[0]] += 1
            else:
                found.candidates[audit.id, person] = account.outcome(audit, person, contacts)
    return found


class Account:
    """One account's view of the sample."""

    def __init__(self, sample: Sample, organisation: int, capabilities: frozenset[str]) -> None:
        self.sample, self.organisation, self.capabilities = sample, organisation, capabilities
        self.id = sample.accounts[organisation]
        self.role_of = roles(sample.mapping)
        self.secrets = [glob.lower() for glob in sample.mapping["secrets"]]
        self.claims = claims(sample)
        self.persons = {person: by[self.id] for person, by in self.claims.items() if self.id in by}
        self.organisations = self.organisations_of_persons()
        self.live = [row for row in sample.live if row["account_id"] == self.id and row["origin"] == "live"]
        self.watermark = self.watermarks()

    def watermarks(self) -> dict[str, datetime]:
        """Of entities without live rows: the end of time, for the samples end years before now less the safety lag."""
        never = datetime.max.replace(tzinfo=UTC)
        times = {e: [row["occurred_at"] for row in self.live if row["category"].startswith(e + "/")] for e in ENTITIES}
        return {entity: min(moments, default=never) for entity, moments in times.items()}

    def organisations_of_persons(self) -> dict[int, set[str]]:
        """CRM person -> every organisation that the person's own audits name."""
        found: dict[int, set[str]] = {}
        for audit in self.sample.audits:
            if self.role_of.get(audit.auditable_type) == "contact" and isinstance(audit.changes, dict):
                named = sides(audit, "organization_id")
                found.setdefault(audit.auditable_id, set()).update(str(value) for value in named if value is not None)
        return found

    def entity(self, audit: Audit) -> str:
        return self.role_of[audit.auditable_type].split("_")[0]

    def is_beyond(self, audit: Audit) -> bool:
        return audit.created_at is not None and audit.created_at >= self.watermark[self.entity(audit)]

    def outcome(self, audit: Audit, person: int, contacts: Contacts) -> Outcome:
        if audit.action == "update" and audit.changes == {}:
            return Outcome("skipped", "nothing_changed")
        if audit.created_at is None:
            return Outcome("quarantined", "time_missing")
        if not isinstance(audit.changes, dict):
            return Outcome("quarantined", "changes_unreadable")
        if self.is_ruled_out(person, self.organisation):
            return Outcome("quarantined", "tenant_mismatch")
        if self.rival_claims(person):
            return Outcome("quarantined", "contact_ambiguous")
        return self.live_outcome(audit, person, contacts) or Outcome("written", row=self.row(audit, person, contacts))

    def is_ruled_out(self, person: int, organisation: int) -> bool:
        named = self.organisations.get(person, set())
        return bool(named) and str(organisation) not in named

    def rival_claims(self, person: int) -> bool:
        """Whether two contacts claim the person, leaving out the claims of accounts that the person's audits rule out."""
        organisation_of = {account: organisation for organisation, account in self.sample.accounts.items()}
        by = self.claims[person].items()
        return sum(len(contacts) for account, contacts in by if not self.is_ruled_out(person, organisation_of[account])) > 1

    def live_outcome(self, audit: Audit, person: int, contacts: Contacts) -> Outcome | None:
        assert audit.created_at is not None
        mine = [row for row in self.live if row["contact_id"] == self.persons[person][0]]
        if any(row["source_audit_id"] == audit.id for row in mine):
            return Outcome("already_live")
        if audit.action not in VERBS:
            return Outcome("quarantined", "processing_failed")
        category, _ = self.category(audit, person, contacts)
        nameless = [row["occurred_at"] for row in mine if row["source_audit_id"] is None and row["category"] == category]
        if any(audit.created_at <= moment <= audit.created_at + SEAM for moment in nameless):
            return Outcome("quarantined", "probable_overlap")
        return None

    def row(self, audit: Audit, person: int, contacts: Contacts) -> tuple[object, ...]:
        category, fallthrough = self.category(audit, person, contacts)
        changes = {key: value for key, value in audit.changes.items() if not self.is_secret(key)}
        names = ("action", "auditable_type", "auditable_id", "user_type", "user_id", "comment")
        context = {name: getattr(audit, name) for name in names} | {"mapping_revision": 1} | fallthrough
        return (
            row_id(person, audit.id), self.id, self.persons[person][0], category, *self.actor(audit), audit.created_at,
            jsonb(changes), jsonb(context), "crm_migration", audit.id,
        )  # fmt: skip

    def is_secret(self, key: str) -> bool:
        return any(fnmatchcase(key.lower(), glob) for glob in self.secrets)

    def category(self, audit: Audit, person: int, contacts: Contacts) -> tuple[str, dict[str, str]]:
        """The category, and what the context says of one that gate E keeps back."""
        is_join = self.role_of[audit.auditable_type].endswith("_join")
        generic = "deal/update" if is_join else f"{self.entity(audit)}/{VERBS.get(audit.action, '?')}"
        special = self.link_category(audit, person, contacts) if is_join else self.reached(audit)
        if special == generic or not special:
            return generic, {}
        return (special, {}) if "E" in self.capabilities else (generic, {"fallthrough": "gate_e"})

    def reached(self, audit: Audit) -> str | None:
        """The category of an update that moves the status from outside the entity's id-set into it."""
        entity, mapping = self.entity(audit), self.sample.mapping
        verb = {"deal": "won", "task": "done", "ticket": "resolved"}.get(entity)
        value = audit.changes.get(mapping["status_attributes"][entity]) if verb and isinstance(audit.changes, dict) else None
        if verb is None or audit.action != "update" or not isinstance(value, list) or len(value) != 2:
            return None
        sets = mapping["id_sets"] | mapping["account_id_sets"].get(str(self.organisation), {})
        old, new = (str(one) in map(str, sets[verb]) for one in value)
        return f"{entity}/{verb}" if new and not old else None

    def link_category(self, audit: Audit, person: int, contacts: Contacts) -> str:
        end = "contact" if self.role_of[audit.auditable_type] == "deal_contact_join" else "company"
        if audit.action == "create":
            return f"deal/{end}_linked"
        if audit.action == "destroy":
            return f"deal/{end}_unlinked"
        if end == "contact" and contacts.moved_from != contacts.moved_to:
            return "deal/contact_linked" if person == contacts.moved_to else "deal/contact_unlinked"
        return "deal/contact_moved" if end == "contact" and contacts.deal_changed else "deal/update"

    def actor(self, audit: Audit) -> tuple[str, str | None, str | None]:
        if audit.user_id is not None:
            return self.user(audit.user_id, audit.user_type)
        return ("label", None, audit.username) if audit.username else ("system", None, None)

    def user(self, user_id: int, user_type: str | None) -> tuple[str, str | None, str | None]:
        if user_type not in ("User", None):
            return "integration", None, f"{user_type} #{user_id}"
        user = self.sample.users.get(user_id) if user_type else None
        email = ((user or {}).get("email") or "").lower()
        known = [one for one in self.sample.usman if one["email"].lower() == email]
        if user is None or len(known) != 1 or (known[0]["status"] == "DEACTIVATED" and "D" not in self.capabilities):
            return "unknown_user", None, user["full_name"] if user else None
        kind = {"ACTIVE": "user", "DEACTIVATED": "deactivated_user"}[known[0]["status"]]
        return kind, known[0]["id"], known[0]["name"]


def row_id(person: int, audit_id: int) -> str:
    """RFC 9562's version 8: 48 bits, the version, 12 bits, the variant, 62 bits."""
    return str(UUID(int=person << 80 | 8 << 76 | 2 << 62 | audit_id))


def claims(sample: Sample) -> dict[int, dict[str, list[str]]]:
    """CRM person -> account -> its contacts that claim the person."""
    found: dict[int, dict[str, list[str]]] = {}
    for row in sample.contacts:
        if row["source"] == "crm" and row["source_id"] is not None:
            found.setdefault(int(row["source_id"]), {}).setdefault(str(row["account_id"]), []).append(str(row["id"]))
    return found


def jsonb(value: Any) -> str:
    """The text that PostgreSQL shows for a jsonb value: keys by length, then by bytes; numbers without exponents."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {jsonb(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(jsonb, value)) + "]"
    if isinstance(value, Decimal):
        return format(value if value else abs(value), "f")
    return json.dumps(value, ensure_ascii=False)
