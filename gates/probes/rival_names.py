"""What the audits of deals and companies say of their names, read and compared without the enricher's code."""

from collections import defaultdict
from typing import NamedTuple

import psycopg
from psycopg import sql

from migration.crm import Shape
from migration.mapping import Mapping, Role
from migration.pipeline.lookups import UNSTORABLE
from migration.pipeline.queries import literals
from migration.pipeline.reading import changes_reader, values
from migration.pipeline.records import Links
from migration.planning import keys

MatchKey = tuple[Role, int]


class Telling(NamedTuple):
    """An audit that tells a name; None where it tells that there is none that could be shown."""

    audit_id: int
    class_name: str
    version: int | None
    request: str | None
    name: str | None


def tellings(connection: psycopg.Connection, shape: Shape, mapping: Mapping, links: Links) -> dict[MatchKey, list[Telling]]:
    """Every telling of the deals and companies that these links name, by record, in the order of audit ids."""
    joined = [each for found in links.by_audit.values() for each in found]
    records = {
        Role.DEAL: {*links.by_deal, *(each.deal_id for each in joined if each.deal_id is not None)},
        Role.COMPANY: {each.company_id for each in joined if each.company_id is not None},
    }
    found: dict[MatchKey, list[Telling]] = defaultdict(list)
    for role, wanted in records.items():
        attribute = mapping.name_attributes.get(role)
        if wanted and attribute:
            for record, telling in of_role(connection, shape, mapping.classes(role), sorted(wanted), attribute):
                found[role, record].append(telling)
    return found


def of_role(
    connection: psycopg.Connection, shape: Shape, classes: tuple[str, ...], records: list[int], attribute: str
) -> list[tuple[int, Telling]]:
    statement = sql.SQL(
        """SELECT auditable_id::bigint, id, auditable_type, version, {request}, action, audited_changes::text FROM audits
           WHERE auditable_type IN ({classes}) AND auditable_id = ANY({records}) AND strpos(audited_changes::text, {attribute}) > 0"""
    ).format(
        request=sql.SQL("request_uuid" if shape.has_request else "NULL"),
        classes=literals(classes),
        records=keys(records, shape.record_id),
        attribute=sql.Literal(attribute),
    )
    reader = changes_reader(shape)
    found = []
    for record, audit, class_name, version, request, action, text in sorted(connection.execute(statement), key=lambda row: row[1]):
        changes = values(text, reader) or {}
        if attribute in changes:
            value = changes[attribute]
            newest = (value[1] if len(value) == 2 else None) if action == "update" and isinstance(value, list) else value
            name = newest if isinstance(newest, str) and not UNSTORABLE.search(newest) else None
            found.append((record, Telling(audit, class_name, version, request, name)))
    return found


def standing(told: list[Telling], audit_id: int, request: str | None) -> Telling | None:
    """The telling that stood at an audit: the last one up to it, else the first one after it in its request."""
    before = next((each for each in reversed(told) if each.audit_id <= audit_id), None)
    if before is not None or request is None:
        return before
    return next((each for each in told if each.request == request), None)


def contested(told: list[Telling]) -> dict[tuple[str, int | None], list[str | None]]:
    """Class and version -> the names that its audits give, where they give more than one. No version is nobody's twin."""
    names: dict[tuple[str, int | None], dict[str | None, None]] = defaultdict(dict)
    for each in told:
        if each.version is not None:
            names[each.class_name, each.version][each.name] = None
    return {which: list(several) for which, several in names.items() if len(several) > 1}
