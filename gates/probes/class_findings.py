"""What gate E's census means, in sentences: roles, join attributes, id-sets, and what the mapping does not name."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from gates.probes import Finding
from gates.probes.census import MOST_CLASSES, Seen
from migration.mapping import ID_SET_OF_ROLE, Mapping, Role
from migration.mapping_document import OTHER_END

MOST_TOLD, LONGEST_TOLD = 20, 100  # names in one sentence, and characters of each
PUBLISH = "and publish it"


@dataclass
class Census:
    """All that was read of the CRM: rows counted by class (and whether all were), what was looked at by class, and which classes occur."""

    rows: dict[str, tuple[int, bool]] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)

    def occurs(self, name: str) -> bool:
        return self.rows[name][0] > 0

    def looked(self, mapping: Mapping, role: Role) -> list[Seen]:
        return [self.seen[name] for name in mapping.classes(role) if name in self.seen]

    def ids(self, mapping: Mapping, role: Role) -> Counter[str]:
        return sum((seen.ids for seen in self.looked(mapping, role)), Counter[str]())


def findings(mapping: Mapping, found: Census) -> Iterator[Finding]:
    for role in Role:
        yield of_role(mapping, found, role)
    for role in OTHER_END:
        yield from of_joins(mapping, found, role)
    for role in ID_SET_OF_ROLE:
        yield from of_sets(mapping, found, role)
    for role in ID_SET_OF_ROLE:
        yield from of_unnamed(mapping, found, role)
    yield from of_unroled(mapping, found)


def of_role(mapping: Mapping, found: Census, role: Role) -> Finding:
    classes = mapping.classes(role)
    if not classes:
        return Finding(None, f"Role {role} has no class in the mapping: no audit counts as one.")
    if any(found.occurs(name) for name in classes):
        return Finding(True, f"Role {role}: {told(f'{name} ({rows_of(found, name)})' for name in classes)}.")
    cure = f"correct class_roles.{role} in the mapping, or take out what this CRM does not have, {PUBLISH}"
    return Finding(False, f"Role {role}: no audit is of {told(classes)}: {cure}.")


def of_joins(mapping: Mapping, found: Census, role: Role) -> Iterator[Finding]:
    """A join class's attributes: where none of a role's audits holds one end, no link can be found."""
    looked = sum(seen.audits for seen in found.looked(mapping, role))
    if not looked:
        return
    for end in ("deal", OTHER_END[role]):
        held = {(name, getattr(mapping.joins[name], end)): 0 for name in mapping.classes(role) if name in found.seen}
        held = {(name, attribute): found.seen[name].attributes[attribute] for name, attribute in held}
        if any(held.values()):
            shown = told(f"{attribute} of {name} in {number(rows, 'audit')}" for (name, attribute), rows in held.items())
            yield Finding(True, f"Role {role}, the {end}'s id: {shown}, of {looked:,} looked at.")
        else:
            names = told(f"{attribute} of {name}" for name, attribute in held)
            cure = f"no link could be found, so correct class_roles.{role} in the mapping, {PUBLISH}"
            yield Finding(False, f"Role {role}, the {end}'s id: none of {number(looked, 'audit')} looked at holds {names}: {cure}.")


def of_sets(mapping: Mapping, found: Census, role: Role) -> Iterator[Finding]:
    """The global set of a role, and the accounts' own; of many only those that fail are told one by one."""
    name, held = ID_SET_OF_ROLE[role], found.ids(mapping, role)
    where = among(mapping, found, role)
    yield of_set(f"Id-set {name}", mapping.id_sets[None, name], held, where)
    own = {account: ids for (account, its_name), ids in mapping.id_sets.items() if its_name == name and account is not None}
    good = [str(account) for account, ids in own.items() if ids & held.keys()]
    bad = {account: ids for account, ids in own.items() if not ids & held.keys()}
    if good:
        yield Finding(True, f"Id-set {name} of organisation {told(good)}: ids of it occur {where}.")
    for account, ids in list(bad.items())[:MOST_TOLD]:
        yield of_set(f"Id-set {name} of organisation {account}", ids, held, where)
    if len(bad) > MOST_TOLD:
        yield Finding(False, f"Id-set {name}: the same of {len(bad) - MOST_TOLD:,} more organisations.")


def of_set(what: str, ids: frozenset[str], held: Counter[str], where: str) -> Finding:
    if not ids:
        return Finding(None, f"{what} has no ids: no move of a status into it is told.")
    missing = sorted(ids - held.keys(), key=by_number)
    if len(missing) == len(ids):
        return Finding(False, f"{what}: none of {told(missing)} occurs {where}: correct the set in the mapping, {PUBLISH}.")
    without = f"; {told(missing)} does not" if len(missing) == 1 else f"; {told(missing)} do not" if missing else ""
    return Finding(True, f"{what}: {len(ids) - len(missing)} of {len(ids)} ids occur {where}{without}.")


def among(mapping: Mapping, found: Census, role: Role) -> str:
    attribute = mapping.status_attributes.get(role)
    if attribute is None:
        return f"(the mapping names no status attribute for {role})"
    looked = sum(seen.audits for seen in found.looked(mapping, role))
    return (
        f"in {attribute} among {number(looked, 'audit')} of role {role} looked at"
        if looked
        else f"as no audit of role {role} could be looked at"
    )


def of_unnamed(mapping: Mapping, found: Census, role: Role) -> Iterator[Finding]:
    values = unnamed(mapping, found, role)
    if values:
        shown = told(f"{value} ({number(rows, 'audit')})" for value, rows in values)
        name = ID_SET_OF_ROLE[role]
        yield Finding(
            None, f"Statuses {among(mapping, found, role)} that no set {name} names: {shown}. Judge whether one of them means {name}."
        )


def unnamed(mapping: Mapping, found: Census, role: Role) -> list[tuple[str, int]]:
    """(status, audits looked at that hold it) of what neither the global set nor an account's names, the most frequent first."""
    named = named_ids(mapping, role)
    return sorted(
        ((value, rows) for value, rows in found.ids(mapping, role).items() if value not in named), key=lambda each: (-each[1], each[0])
    )


def named_ids(mapping: Mapping, role: Role) -> set[str]:
    """Every id that a set, global or an account's, names for the role's status."""
    return {each for (_, name), ids in mapping.id_sets.items() if name == ID_SET_OF_ROLE.get(role) for each in ids}


def of_unroled(mapping: Mapping, found: Census) -> Iterator[Finding]:
    without = unroled(mapping, found)
    if without:
        shown = told(f"{name} ({rows_of(found, name)})" for name in without)
        yield Finding(None, f"Classes in no role, whose audits no run moves: {shown}. Judge whether one of them concerns contacts.")
    if len(found.classes) > MOST_CLASSES:
        yield Finding(None, f"The audits hold more than {MOST_CLASSES:,} classes; only these, the first ones by name, were listed.")


def unroled(mapping: Mapping, found: Census) -> list[str]:
    return [name for name in found.classes[:MOST_CLASSES] if name not in mapping.role_of]


def expected(mapping: Mapping, name: str) -> list[str]:
    """The attributes that the mapping expects in the audits of a class."""
    ends, role = mapping.joins.get(name), mapping.role_of[name]
    named = [ends.deal, ends.contact, ends.company] if ends else [mapping.status_attributes.get(role), mapping.name_attributes.get(role)]
    return list(dict.fromkeys(each for each in named if each))


def rows_of(found: Census, name: str) -> str:
    rows, counted_all = found.rows[name]
    return number(rows, "audit") if counted_all else f"more than {number(rows, 'audit')}"


def number(rows: int, noun: str) -> str:
    return f"1 {noun}" if rows == 1 else f"{rows:,} {noun}s" if rows else f"no {noun}"


def told(names: Iterable[str]) -> str:
    """As many as a sentence holds."""
    several = list(names)
    more = f" and {len(several) - MOST_TOLD:,} more" if len(several) > MOST_TOLD else ""
    return ", ".join(name[:LONGEST_TOLD] for name in several[:MOST_TOLD]) + more


def by_number(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isascii() and text.isdigit() and len(text) < 20 else (2**63, text)
