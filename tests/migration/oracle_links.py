"""Which contacts an audit concerns (SPEC section 2, rules 1 to 5): a replay of all audits in the order of their ids."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.migration.oracle_sample import Audit


@dataclass
class Contacts:
    """CRM persons by rule; for an update of a deal-contact join row also what it moved."""

    by_rule: dict[int, set[int]] = field(default_factory=dict)
    moved_from: int | None = None
    moved_to: int | None = None
    deal_changed: bool = False

    def by_rules(self, rules: Iterable[int]) -> set[int]:
        return set().union(*(self.by_rule.get(rule, set()) for rule in rules))


def concerned_contacts(audits: list[Audit], mapping: dict[str, Any]) -> Iterator[tuple[Audit, Contacts]]:
    """Every audit, by id, with the contacts it concerns."""
    replay = Replay(mapping)
    for audit in sorted(audits, key=lambda one: one.id):
        yield audit, replay.contacts(audit)


class Replay:
    """The links as the audits so far tell them."""

    def __init__(self, mapping: dict[str, Any]) -> None:
        self.role_of = roles(mapping)
        joins = mapping["class_roles"]["deal_contact_join"] + mapping["class_roles"]["deal_company_join"]
        self.attributes: dict[str, dict[str, str]] = {join["class"]: join for join in joins}
        self.links: dict[tuple[str, int], dict[str, int | None]] = {}  # join row -> its deal and its contact

    def contacts(self, audit: Audit) -> Contacts:
        """The contacts of the next audit, which then becomes part of the past."""
        role = self.role_of.get(audit.auditable_type)
        if role == "contact":
            return Contacts({1: {audit.auditable_id}})
        if role in ("note", "task", "ticket") and self.role_of.get(audit.associated_type or "") == "contact":
            return Contacts({2: present([audit.associated_id])})
        if role == "deal":
            return Contacts({4: self.linked({audit.auditable_id})})
        if role == "deal_contact_join":
            return self.of_contact_join(audit)
        if role == "deal_company_join":
            return self.of_company_join(audit)
        return Contacts()

    def linked(self, deals: set[int | None]) -> set[int]:
        known = present(deals)
        return present(link["contact"] for link in self.links.values() if "contact" in link and link.get("deal") in known)

    def of_contact_join(self, audit: Audit) -> Contacts:
        before, after = self.apply(audit)
        changed = {before.get("contact"), after.get("contact")} if audit.action == "update" else {after.get("contact")}
        moved = audit.action == "update" and before.get("deal") != after.get("deal")
        return Contacts({3: present(changed)}, before.get("contact"), after.get("contact"), moved)

    def of_company_join(self, audit: Audit) -> Contacts:
        before = self.links.get((audit.auditable_type, audit.auditable_id), {})
        named = ids(audit, self.attributes[audit.auditable_type]["deal"])
        contacts = self.linked(set(named or [before.get("deal")]))
        self.apply(audit)
        return Contacts({5: contacts})

    def apply(self, audit: Audit) -> tuple[dict[str, int | None], dict[str, int | None]]:
        """Bring the join row up to date; its ends before and after, where an update that changes an end names both.

        Of a row whose beginning was not audited, `associated` tells the deal.
        """
        key = (audit.auditable_type, audit.auditable_id)
        associated = {"deal": audit.associated_id} if self.role_of.get(audit.associated_type or "") == "deal" else {}
        before, after = dict(associated) | self.links.get(key, {}), dict(associated) | self.links.get(key, {})
        for end in {"deal", "contact"} & self.attributes[audit.auditable_type].keys():
            if named := ids(audit, self.attributes[audit.auditable_type][end]):
                before[end], after[end] = named[0], named[-1]
        if audit.action == "destroy":
            self.links.pop(key, None)
        else:
            self.links[key] = after
        return before, after


def roles(mapping: dict[str, Any]) -> dict[str, str]:
    """Class name -> role."""
    listed = {role: [c["class"] if isinstance(c, dict) else c for c in classes] for role, classes in mapping["class_roles"].items()}
    return {name: role for role, classes in listed.items() for name in classes}


def sides(audit: Audit, attribute: str) -> list[Any]:
    """The values an audit tells of an attribute: one, or old and new; none where it does not name it.

    In an update a value that is no pair comes from a create that `max_audits` merged in.
    """
    if not isinstance(audit.changes, dict) or attribute not in audit.changes:
        return []
    value = audit.changes[attribute]
    return value if audit.action == "update" and isinstance(value, list) and len(value) == 2 else [value]


def ids(audit: Audit, attribute: str) -> list[int | None]:
    return [None if value is None else int(value) for value in sides(audit, attribute)]


def present(found: Iterable[int | None]) -> set[int]:
    return {one for one in found if one is not None}
