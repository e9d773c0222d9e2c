"""AuditExtractor: one chunk's candidates from the replica, streamed by COPY, in one snapshot. Only this step reads the CRM."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

import psycopg
from psycopg import sql

from migration import copytext
from migration.crm import TEXTS, Shape
from migration.mapping import ENTITY_OF_ROLE, Mapping, Role
from migration.pipeline import changes, ruby_yaml
from migration.pipeline.problems import NOTHING_CHANGED, Problem, Unreadable
from migration.pipeline.records import Candidate
from migration.states import Reason

_EMPTY_OBJECT = re.compile(rb"\s*\{\s*\}\s*")
Reader = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Selection:
    """Which candidates to read: those of these contacts, for a heavy contact within a range of audit ids (from inclusive, to exclusive)."""

    persons: list[int]
    audit_from: int | None = None
    audit_to: int | None = None
    pairs: list[tuple[int, int]] | None = None  # a sample: (person, audit), each fetched by the audit's own key

    def holds(self, audit: int) -> bool:
        """Whether an audit id is in the range."""
        return (self.audit_from is None or audit >= self.audit_from) and (self.audit_to is None or audit < self.audit_to)


@dataclass(frozen=True)
class Links:
    """What deal-contact links tell of a chunk's contacts; looked up beforehand in the LinkIndex."""

    by_deal: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)  # deal -> (person, from audit, to audit), both exclusive
    by_audit: dict[int, list[tuple[int, str]]] = field(default_factory=dict)  # join row's audit -> (person, how its link moved)


def extract(
    connection: psycopg.Connection, shape: Shape, mapping: Mapping, selection: Selection, links: Links, watermark: dict[str, datetime]
) -> Iterator[Candidate]:
    """Candidates of the selection by all five contact rules; audits beyond the watermark are flagged so.

    Every audit is read once, however many of the chunk's contacts it concerns.
    """
    reader = changes_reader(shape)

    def read(source: sql.Composed) -> Iterator[Candidate]:
        with connection.cursor().copy(query(shape, mapping, source, watermark)) as copy:
            for row in copy:
                yield candidate(bytes(row[:-1]).split(b"\t"), mapping, reader)

    if selection.pairs is not None:
        for found in read(sampled(selection.pairs)) if selection.pairs else ():
            found.moved = dict(links.by_audit.get(found.audit_id, ())).get(found.person_id, "")
            yield found
        return
    if selection.persons:
        yield from read(by_contact(shape, mapping, selection))
    if audits := [audit for audit in links.by_audit if selection.holds(audit)]:
        for found in read(by_audit(audits)):
            yield from for_each(found, links.by_audit[found.audit_id])
    if links.by_deal and mapping.classes(Role.DEAL):
        for found in read(by_deal(shape, mapping, sorted(links.by_deal), selection)):
            spans = links.by_deal[found.person_id]  # the query's first column: here the deal
            yield from for_each(found, [(person, "") for person, start, end in spans if start < found.audit_id < end])


def for_each(found: Candidate, persons: list[tuple[int, str]]) -> Iterator[Candidate]:
    """One audit as it concerns each of several contacts."""
    for person, moved in persons:
        yield replace(found, person_id=person, moved=moved)


def candidate(fields: list[bytes], mapping: Mapping, reader: Reader) -> Candidate:
    """One row of `query` as a Candidate, with what the row alone decides: skipped, time_missing, changes_unreadable, changes_unstorable."""
    person, audit, class_name, record, user_type, user_id, username, action, occurred, beyond, comment, raw = fields
    name = class_name.decode()
    found = Candidate(
        int(person), int(audit), mapping.role_of[name], name, record, user_type, user_id, username, action, occurred, beyond == b"t", comment, raw
    )
    try:
        found.changes = reader(raw)
        if action == b"update" and not found.beyond and _EMPTY_OBJECT.fullmatch(found.changes):
            found.skipped = NOTHING_CHANGED
            return found
    except Unreadable as error:
        found.problem = Problem(Reason.CHANGES_UNREADABLE, str(error))
    except UnstorableText as error:
        found.problem = Problem(Reason.CHANGES_UNSTORABLE, str(error))
    if occurred == copytext.NULL:
        found.problem = Problem(Reason.TIME_MISSING)
    return found


class UnstorableText(ValueError):
    """JSON that jsonb would refuse."""


def changes_reader(shape: Shape) -> Reader:
    """What turns the column's raw field into a JSON object's, by the column's type."""
    return {"jsonb": read_jsonb, "json": read_json, "text": read_yaml}[shape.changes]


def read_jsonb(raw: bytes) -> bytes:
    """jsonb comes as it can be written again; only its outermost shape is looked at."""
    if raw[:1] != b"{":
        raise Unreadable("it is NULL" if raw == copytext.NULL else "it is JSON, but no object")
    return raw


def read_json(raw: bytes) -> bytes:
    """json keeps the text it was given: white space around it, and escapes that jsonb refuses."""
    if raw == copytext.NULL:
        raise Unreadable("it is NULL")
    if not copytext.unescape(raw[:16]).lstrip().startswith(b"{"):
        raise Unreadable("it is JSON, but no object")
    if b"\\\\u" in raw:
        check_escapes(copytext.unescape(raw).decode())
    return raw


def read_yaml(raw: bytes) -> bytes:
    """text holds Ruby YAML."""
    if raw == copytext.NULL:
        raise Unreadable("it is NULL")
    text = ruby_yaml.to_json(copytext.unescape(raw).decode())
    if "\\u" in text:
        check_escapes(text)
    return copytext.write(text)


def check_escapes(text: str) -> None:
    if changes.has_unstorable_escape(text):
        raise UnstorableText("it holds \\u0000 or half of a surrogate pair")


def query(shape: Shape, mapping: Mapping, source: sql.Composed, watermark: dict[str, datetime]) -> sql.Composed:
    """The extraction: audits `a` of a source, with the id `p.id` that led to them first."""
    return sql.SQL(
        """COPY (
        SELECT p.id, a.id, a.auditable_type, a.auditable_id, a.user_type, a.user_id, a.username, a.action, {occurred_at},
               coalesce(a.created_at >= {watermark}, false), coalesce(to_json(a.comment)::text, 'null'), a.audited_changes
        FROM {source} a) TO STDOUT"""
    ).format(
        occurred_at=occurred_at(shape),
        watermark=watermark_of_row(shape, mapping, watermark),
        source=source,
    )


def by_contact(shape: Shape, mapping: Mapping, selection: Selection) -> sql.Composed:
    """Audits of the contacts (rule 1), and of notes, tasks and tickets associated with them (rule 2)."""
    return sql.SQL(
        """unnest({persons}) AS p(id) CROSS JOIN LATERAL (
            SELECT * FROM audits WHERE auditable_type IN ({contacts}) AND auditable_id = {record_key} {bounds}
            UNION ALL
            SELECT * FROM audits WHERE associated_type IN ({contacts}) AND associated_id = {associated_key}
                AND auditable_type IN ({companions}) {bounds})"""
    ).format(
        persons=array(selection.persons),
        record_key=key(shape.record_id),
        associated_key=key(shape.associated_id),
        contacts=literals(mapping.classes(Role.CONTACT)),
        companions=literals(companions(mapping)),
        bounds=bounds(selection),
    )


def by_audit(audits: list[int]) -> sql.Composed:
    """Single audits, by primary key."""
    return sql.SQL("unnest({}) AS p(id) CROSS JOIN LATERAL (SELECT * FROM audits WHERE audits.id = p.id)").format(array(audits))


def by_deal(shape: Shape, mapping: Mapping, deals: list[int], selection: Selection) -> sql.Composed:
    """Audits of deals (rule 4)."""
    return sql.SQL(
        "unnest({deals}) AS p(id) CROSS JOIN LATERAL (SELECT * FROM audits WHERE auditable_type IN ({classes}) AND auditable_id = {record_key} {bounds})"
    ).format(deals=array(deals), classes=literals(mapping.classes(Role.DEAL)), record_key=key(shape.record_id), bounds=bounds(selection))


def sampled(pairs: list[tuple[int, int]]) -> sql.Composed:
    """The audits of the pairs, whatever rule led there."""
    persons, audits = [person for person, _ in pairs], [audit for _, audit in pairs]
    return sql.SQL("unnest({}, {}) AS p(id, audit) CROSS JOIN LATERAL (SELECT * FROM audits WHERE audits.id = p.audit)").format(
        array(persons), array(audits)
    )


def companions(mapping: Mapping) -> tuple[str, ...]:
    """Classes that reach a contact by `associated` (rule 2)."""
    return mapping.classes(Role.NOTE) + mapping.classes(Role.TASK) + mapping.classes(Role.TICKET)


def literals(names: tuple[str, ...]) -> sql.Composable:
    """Names for IN (...); NULL, which nothing equals, where there are none."""
    return sql.SQL(", ").join(map(sql.Literal, names)) if names else sql.SQL("NULL")


def array(ids: list[int]) -> sql.Composed:
    return sql.SQL("{}::bigint[]").format(sql.Literal("{" + ",".join(map(str, ids)) + "}"))


def key(column_type: str) -> sql.SQL:
    """The contact's id in the column's own kind, so that its index serves."""
    return sql.SQL("p.id::text" if column_type in TEXTS else "p.id")


def bounds(selection: Selection) -> sql.Composable:
    """AND ... for the selection's audit ids, or nothing."""
    parts: list[sql.Composable] = []
    if selection.audit_from is not None:
        parts.append(sql.SQL(" AND id >= {}").format(sql.Literal(selection.audit_from)))
    if selection.audit_to is not None:
        parts.append(sql.SQL(" AND id < {}").format(sql.Literal(selection.audit_to)))
    return sql.SQL("").join(parts)


def occurred_at(shape: Shape) -> sql.SQL:
    """created_at as timestamptz: the gem's plain timestamp is UTC without a mark."""
    return sql.SQL("a.created_at AT TIME ZONE 'UTC'" if shape.created_at == "timestamp without time zone" else "a.created_at")


def watermark_of_row(shape: Shape, mapping: Mapping, watermark: dict[str, datetime]) -> sql.Composed:
    """The watermark of the row's entity, as a CASE over its class, in created_at's own type."""
    kind = "timestamp" if shape.created_at == "timestamp without time zone" else "timestamptz"
    cases = [
        sql.SQL("WHEN a.auditable_type IN ({}) THEN {}::{}").format(
            literals(mapping.classes(role)), sql.Literal(as_written(watermark[entity], kind)), sql.SQL(kind)
        )
        for role, entity in ENTITY_OF_ROLE.items()
        if mapping.classes(role)
    ]
    return sql.SQL("CASE {} END").format(sql.SQL(" ").join(cases))


def as_written(moment: datetime, kind: str) -> str:
    return moment.isoformat() if kind == "timestamptz" else moment.replace(tzinfo=None).isoformat()


def organisations(connection: psycopg.Connection, shape: Shape, mapping: Mapping, persons: list[int], attribute: str) -> dict[int, set[str]]:
    """CRM person id -> the organisations that the person's own audits name, as text; persons whose audits name none are absent.

    Values of creates and destroys, and both sides of updates; a null names no organisation.
    """
    if not persons:
        return {}
    name = sql.Literal(attribute)
    statement = sql.SQL(
        """SELECT p.id, a.action, a.audited_changes::text
           FROM unnest({persons}) AS p(id) CROSS JOIN LATERAL (
               SELECT action, {value} AS audited_changes FROM audits
               WHERE auditable_type IN ({contacts}) AND auditable_id = {record_key} AND {carries}) a"""
    ).format(
        persons=array(persons),
        record_key=key(shape.record_id),
        contacts=literals(mapping.classes(Role.CONTACT)),
        value=sql.SQL("jsonb_build_object({0}::text, audited_changes -> {0})" if shape.changes == "jsonb" else "audited_changes").format(name),
        # json and YAML are read here, not there: the server's own operators stop at the first \u0000 of a row.
        carries=sql.SQL("audited_changes ? {}" if shape.changes == "jsonb" else "strpos(audited_changes::text, {}) > 0").format(name),
    )
    reader = changes_reader(shape)
    found: dict[int, set[str]] = {}
    with connection.cursor(name="organisations") as cursor:
        for person, action, text in cursor.execute(statement):
            named = organisations_in(text, action, attribute, reader)
            if named:
                found.setdefault(person, set()).update(named)
    return found


def organisations_in(text: str, action: str, attribute: str, reader: Reader) -> set[str]:
    """The values of `attribute` in one audit; an audit that cannot be read names none (it is quarantined itself)."""
    try:
        value = changes.parse(copytext.unescape(reader(copytext.write(text))).decode()).get(attribute)
    except (Unreadable, UnstorableText):
        return set()
    values = value if action == "update" and isinstance(value, list) else [value]
    return {str(each) for each in values if each is not None}
