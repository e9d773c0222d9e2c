"""What a chunk must know besides its own audits, read in the same snapshot: whose person it is, and what deals and companies were called."""

from collections.abc import Collection, Iterator
from typing import Any

import psycopg
from psycopg import sql

from migration.crm import Shape
from migration.doors import UNSTORABLE
from migration.mapping import Mapping, Role
from migration.pipeline.queries import array, key, literals
from migration.pipeline.reading import changes_reader, values
from migration.pipeline.records import Links, Naming


def organisations(
    connection: psycopg.Connection,
    shape: Shape,
    mapping: Mapping,
    persons: list[int],
    attribute: str,
    *,
    own: int,
    contested: Collection[int] = (),
) -> dict[int, set[str]]:
    """CRM person id -> organisations that the person's own audits name, as text; persons whose audits name none are absent.

    Values of creates and destroys, and both sides of updates; a null names no organisation. Of a person whose first audit that speaks of one names
    `own` the others are not read, unless others claim the person too (`contested`): what else they name would decide nothing.
    """
    if not persons:
        return {}
    alone = [person for person in persons if person not in contested]
    found = named_by(connection, shape, organisations_query(shape, mapping, alone, attribute, first=True), attribute)
    whole = [person for person in persons if person in contested or (person in found and str(own) not in found[person])]
    if whole:
        found |= named_by(connection, shape, organisations_query(shape, mapping, whole, attribute), attribute)
    return {person: named for person, named in found.items() if named}


def named_by(connection: psycopg.Connection, shape: Shape, query: sql.Composed, attribute: str) -> dict[int, set[str]]:
    """CRM person id -> the organisations named, of every person of whom the query has an audit."""
    reader = changes_reader(shape)
    found: dict[int, set[str]] = {}
    with connection.cursor(name="organisations") as cursor:
        for person, action, text in cursor.execute(query):
            found.setdefault(person, set()).update(organisations_in(values(text, reader), action, attribute))
    return found


def organisations_query(shape: Shape, mapping: Mapping, persons: list[int], attribute: str, *, first: bool = False) -> sql.Composed:
    """(person, action, changes) of the persons' own audits that speak of the attribute; of each person's one alone, by `first`."""
    name = sql.Literal(attribute)
    return sql.SQL(
        """SELECT p.id, a.action, a.audited_changes::text
           FROM unnest({persons}) AS p(id) CROSS JOIN LATERAL (
               SELECT action, {value} AS audited_changes FROM audits
               WHERE auditable_type IN ({contacts}) AND auditable_id = {record_key} AND {carries} {limit}) a"""
    ).format(
        persons=array(persons),
        limit=sql.SQL("LIMIT 1" if first else ""),
        record_key=key(shape.record_id),
        contacts=literals(mapping.classes(Role.CONTACT)),
        value=sql.SQL("jsonb_build_object({0}::text, audited_changes -> {0})" if shape.changes == "jsonb" else "audited_changes").format(
            name
        ),
        # json and YAML are read here, not there: the server's own operators stop at the first \u0000 of a row.
        carries=sql.SQL("audited_changes ? {}" if shape.changes == "jsonb" else "strpos(audited_changes::text, {}) > 0").format(name),
    )


def organisations_in(told: dict[str, Any] | None, action: str, attribute: str) -> set[str]:
    """The values of `attribute` in one audit; an audit that cannot be read names none (it is quarantined itself)."""
    value = (told or {}).get(attribute)
    both = value if action == "update" and isinstance(value, list) else [value]
    return {str(each) for each in both if each is not None}


def namings(connection: psycopg.Connection, shape: Shape, mapping: Mapping, links: Links) -> dict[tuple[Role, int], list[Naming]]:
    """Every audit that tells the name of a deal or company of this chunk, by match key (class role, record id), in id order."""
    found: dict[tuple[Role, int], list[Naming]] = {}
    for role, records in records_to_name(links).items():
        attribute = mapping.name_attributes.get(role)
        if records and attribute and mapping.classes(role):
            for record, naming in named(connection, shape, mapping.classes(role), sorted(records), attribute):
                found.setdefault((role, record), []).append(naming)
    for each in found.values():
        each.sort()
    return found


def records_to_name(links: Links) -> dict[Role, set[int]]:
    """The deals and companies that a chunk's activities speak of."""
    joined = [each for found in links.by_audit.values() for each in found]
    return {
        Role.DEAL: set(links.by_deal) | {each.deal_id for each in joined if each.deal_id is not None},
        Role.COMPANY: {each.company_id for each in joined if each.company_id is not None},
    }


def named(
    connection: psycopg.Connection, shape: Shape, classes: tuple[str, ...], records: list[int], attribute: str
) -> Iterator[tuple[int, Naming]]:
    """(record id, naming audit) of these records."""
    statement = named_query(shape, classes, records, attribute)
    reader = changes_reader(shape)
    with connection.cursor(name="namings") as cursor:
        for record, audit, class_name, version, request, action, text in cursor.execute(statement):
            told, value = name_in(values(text, reader), action, attribute)
            if told:
                yield record, Naming(audit, class_name, version, request, value)


def named_query(shape: Shape, classes: tuple[str, ...], records: list[int], attribute: str) -> sql.Composed:
    """(record, audit, class, version, request, action, changes) of the records' audits that speak of the attribute."""
    name = sql.Literal(attribute)
    # Not `?`: that is also true of the text "name", and of a list that holds it, which are no changes at all.
    carries = "a.audited_changes -> {} IS NOT NULL" if shape.changes == "jsonb" else "strpos(a.audited_changes::text, {}) > 0"
    return sql.SQL(
        """SELECT p.id, a.id, a.auditable_type, a.version, {request}, a.action, {value}::text
           FROM unnest({records}) AS p(id) CROSS JOIN LATERAL (
               SELECT * FROM audits WHERE auditable_type IN ({classes}) AND auditable_id = {record_key}) a
           WHERE {carries}"""
    ).format(
        request=sql.SQL("a.request_uuid::text" if shape.has_request else "NULL"),
        value=sql.SQL(
            "jsonb_build_object({0}::text, a.audited_changes -> {0})" if shape.changes == "jsonb" else "a.audited_changes"
        ).format(name),
        records=array(records),
        classes=literals(classes),
        record_key=key(shape.record_id),
        carries=sql.SQL(carries).format(name),
    )


def name_in(told: dict[str, Any] | None, action: str, attribute: str) -> tuple[bool, str | None]:
    """Whether one audit tells the name, and which: the new one of a pair, or the value itself; None where it is no text that can be shown.

    An unreadable audit tells none.
    """
    if told is None or attribute not in told:
        return False, None
    value = told[attribute]
    if action == "update" and isinstance(value, list):
        value = value[1] if len(value) == 2 else None
    return True, value if isinstance(value, str) and UNSTORABLE.search(value) is None else None
