"""The extractor's SQL: which audits `a` concern which contact, through the gem's own indexes. Composed, never formatted."""

from dataclasses import dataclass
from datetime import datetime

from psycopg import sql

from migration.crm import TEXTS, Shape
from migration.mapping import ENTITY_OF_ROLE, Mapping, Role


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


def query(shape: Shape, mapping: Mapping, source: sql.Composed, watermark: dict[str, datetime]) -> sql.Composed:
    """The extraction: audits `a` of a source, with the id `p.id` that led to them first."""
    return sql.SQL("COPY ({}) TO STDOUT").format(rows_of(shape, mapping, source, watermark))


def rows_of(shape: Shape, mapping: Mapping, source: sql.Composed, watermark: dict[str, datetime]) -> sql.Composed:
    """What the extraction copies; gate B has it explained."""
    return sql.SQL(
        """
        SELECT p.id, a.id, a.auditable_type, a.auditable_id, a.user_type, {user_id}, a.username, a.action, {occurred_at},
               coalesce(a.created_at >= {watermark}, false), {request}, coalesce(to_json(a.comment)::text, 'null'), a.audited_changes
        FROM {source} a"""
    ).format(
        user_id=sql.SQL("a.user_id::text" if shape.user_id == "bpchar" else "a.user_id"),  # not filled up with blanks
        occurred_at=occurred_at(shape),
        watermark=watermark_of_row(shape, mapping, watermark),
        request=sql.SQL("a.request_uuid" if shape.has_request else "NULL"),
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


def by_audit(mapping: Mapping, audits: list[int]) -> sql.Composed:
    """Join rows' audits, by primary key: in a source that was restored meanwhile the ids may be other records' by now."""
    return sql.SQL(
        "unnest({}) AS p(id) CROSS JOIN LATERAL (SELECT * FROM audits WHERE audits.id = p.id AND auditable_type IN ({}))"
    ).format(array(audits), literals(joins(mapping)))


def by_deal(shape: Shape, mapping: Mapping, deals: list[int], selection: Selection) -> sql.Composed:
    """Audits of deals (rule 4)."""
    return sql.SQL(
        "unnest({deals}) AS p(id) CROSS JOIN LATERAL (SELECT * FROM audits WHERE auditable_type IN ({classes}) AND auditable_id = {record_key} {bounds})"
    ).format(deals=array(deals), classes=literals(mapping.classes(Role.DEAL)), record_key=key(shape.record_id), bounds=bounds(selection))


def sampled(shape: Shape, mapping: Mapping, pairs: list[tuple[int, int]]) -> sql.Composed:
    """The audits of the pairs, as far as rule 1 or 2 leads to them from the pair's contact, or a deal or a join row may: that is the caller's to see."""
    persons, audits = [person for person, _ in pairs], [audit for _, audit in pairs]
    return sql.SQL(
        """unnest({persons}, {audits}) AS p(id, audit) CROSS JOIN LATERAL (
            SELECT * FROM audits WHERE audits.id = p.audit AND (
                auditable_type IN ({contacts}) AND auditable_id = {record_key}
                OR auditable_type IN ({companions}) AND associated_type IN ({contacts}) AND associated_id = {associated_key}
                OR auditable_type IN ({linked})))"""
    ).format(
        persons=array(persons),
        audits=array(audits),
        record_key=key(shape.record_id),
        associated_key=key(shape.associated_id),
        contacts=literals(mapping.classes(Role.CONTACT)),
        companions=literals(companions(mapping)),
        linked=literals(mapping.classes(Role.DEAL) + joins(mapping)),
    )


def joins(mapping: Mapping) -> tuple[str, ...]:
    """Classes of join rows (rules 3 and 5)."""
    return mapping.classes(Role.DEAL_CONTACT_JOIN) + mapping.classes(Role.DEAL_COMPANY_JOIN)


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
