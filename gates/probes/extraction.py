"""The queries that a run sends to the CRM, for one chunk's worth of an account's contacts, as gate B explains them.

They are the pipeline's own (queries, lookups, planning); only the watermark is a fixed moment, so that their text follows from the mapping.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from django.conf import settings
from psycopg import sql

from gates.probes import by_index
from migration import link_reader, links, planning, watermark
from migration.crm import Crm
from migration.doors import Outage
from migration.mapping import Mapping, Role
from migration.models import LinkIndex
from migration.pipeline.lookups import named_query, organisations_query, records_to_name
from migration.pipeline.queries import Selection, by_audit, by_contact, by_deal, rows_of
from migration.pipeline.records import Joined, Links
from migration.planning import HasShape
from migration.worlds import address

MOMENT = dict.fromkeys(watermark.ENTITIES, datetime(2020, 1, 1, tzinfo=UTC))
MARK = watermark.as_json(MOMENT)
UNCOUNTED = 100  # contacts, where an index is missing so that their audits cannot be counted
BY_RECORD, BY_KEY = ("auditable_id", "associated_id"), ("id",)


@dataclass(frozen=True)
class Work:
    """What one chunk reads: whose audits, and what the LinkIndex says of them. `audits`: how many were counted, None where none were."""

    selection: Selection
    links: Links = field(default_factory=Links)
    audits: int | None = None


@dataclass(frozen=True)
class Query:
    """One of them: which columns it must be answered by, and whether it is read by sets (see Crm.rows_by_sets) or through a cursor, which
    PostgreSQL plans otherwise."""

    name: str
    statement: sql.Composed
    keys: tuple[str, ...]
    by_cursor: bool = False
    by_sets: bool = False

    @property
    def explained(self) -> sql.Composed:
        return sql.SQL("DECLARE calm_probe CURSOR FOR ") + self.statement if self.by_cursor else self.statement


def queries(crm: HasShape, mapping: Mapping, work: Work) -> Iterator[Query]:
    """In the order in which a run sends them: planning first, then the chunk."""
    yield from counting(crm, mapping, work)
    shape, persons, found = crm.shape, work.selection.persons, work.links
    attribute = settings.CRM_ORGANIZATION_ATTRIBUTE
    yield Query("an organisation that contacts name", organisations_query(shape, mapping, persons, attribute, first=True), BY_RECORD, True)
    yield Query("all organisations that contacts name", organisations_query(shape, mapping, persons, attribute), BY_RECORD, True)
    for role, records in records_to_name(found).items():
        attribute = mapping.name_attributes.get(role, "")
        if records and attribute and mapping.classes(role):
            statement = named_query(shape, mapping.classes(role), sorted(records), attribute)
            yield Query(f"the names of {'deals' if role == Role.DEAL else 'companies'}", statement, BY_RECORD, True)
    own = by_contact(shape, mapping, work.selection)
    yield Query("the contacts' own audits", rows_of(shape, mapping, own, MOMENT), BY_RECORD)
    if audits := [audit for audit in found.by_audit if work.selection.holds(audit)]:
        yield Query("the join rows' audits", rows_of(shape, mapping, by_audit(mapping, audits), MOMENT), BY_KEY)
    if found.by_deal and mapping.classes(Role.DEAL):
        of_deals = by_deal(shape, mapping, sorted(found.by_deal), work.selection)
        yield Query("the deals' audits", rows_of(shape, mapping, of_deals, MOMENT), BY_RECORD)


def counting(crm: HasShape, mapping: Mapping, work: Work) -> Iterator[Query]:
    """Planning's, for as many contacts as it takes at once."""
    persons = work.selection.persons[: planning.PERSONS_AT_ONCE]
    nobody: list[int] = []
    parts = (
        ("counting the contacts' own audits", persons, Links(), BY_RECORD),
        ("counting the deals' audits", nobody, Links(by_deal=work.links.by_deal), BY_RECORD),
        ("counting the join rows' audits", nobody, Links(by_audit=work.links.by_audit), BY_KEY),
    )
    for name, of, found, keys in parts:
        for source in planning.sources(crm, mapping, of, found):
            yield Query(name, planning.counting_query(crm, mapping, MARK, source), keys, by_sets=source.by_sets)


def chunk(scout: Crm, mapping: Mapping, persons: list[int]) -> Work:
    """One chunk's worth of these contacts, cut as planning does; the first UNCOUNTED, where counting would read whole tables.

    `scout` is a session prepared by by_index. What the LinkIndex does not tell (it is built by the first run) is taken from the CRM's
    first deals and join rows instead, as many.
    """
    index = LinkIndex.objects.filter(key=links.key_of(mapping, address("CRM_DATABASE_URL")), built=True).first()
    reader = link_reader.Reader(index)
    first = persons[: planning.PERSONS_AT_ONCE]
    try:
        for query in counting(scout, mapping, Work(Selection(first), reader.of(first))):
            by_index.check(scout, query.statement)
        counts = planning.count(scout, mapping, MARK, persons, reader, lambda: None)
        cuts = planning.cut(counts, settings.CHUNK_SIZE, scout, mapping, reader)
        cut = next(cuts)
        if not cut.expected:  # kept for whoever may appear before a contact that is split: with nobody nothing is measured
            # Nor with a part of that contact: counting goes through all its audits, more than a chunk's, and that is nothing to mend.
            cut = next((each for each in cuts if each.expected and each.audit_from is None and each.audit_to is None), cut)
    except by_index.NoIndex:
        return Work(Selection(persons[:UNCOUNTED]), stand_ins(scout, mapping, reader.of(persons[:UNCOUNTED])))
    except Outage as error:
        if not by_index.gave_up(error):
            raise
        return Work(Selection(persons[:UNCOUNTED]), stand_ins(scout, mapping, reader.of(persons[:UNCOUNTED])))
    chosen = [person for person in persons if cut.person_from <= person <= cut.person_to]
    return Work(Selection(chosen, cut.audit_from, cut.audit_to), stand_ins(scout, mapping, reader.of(chosen)), cut.expected)


def stand_ins(scout: Crm, mapping: Mapping, found: Links) -> Links:
    """The links, and where they tell of no deal, join row or company, the CRM's first ones."""
    by_deal, by_audit = found.by_deal, found.by_audit
    if not by_deal:
        by_deal = {deal: [(0, 0, planning.LAST_PERSON)] for deal in first(scout, mapping, Role.DEAL)}
    if not by_audit:
        companies: list[int | None] = [*first(scout, mapping, Role.COMPANY)] or [None]
        audits = first(scout, mapping, Role.DEAL_CONTACT_JOIN, "id") + first(scout, mapping, Role.DEAL_COMPANY_JOIN, "id")
        by_audit = {audit: [Joined(0, None, None, companies[at % len(companies)])] for at, audit in enumerate(sorted(audits))}
    return Links(by_deal, by_audit)


def first(scout: Crm, mapping: Mapping, role: Role, column: str = "auditable_id") -> list[int]:
    """The ids that the role's first CHUNK_SIZE audits hold in a column, in the gem's index's order; some numbers, where no index leads there."""
    statement = sql.SQL("SELECT {}::text FROM audits WHERE auditable_type = {} ORDER BY auditable_id LIMIT {}")
    found: dict[int, None] = {}
    try:
        for name in mapping.classes(role):
            query = statement.format(sql.Identifier(column), sql.Literal(name), sql.Literal(settings.CHUNK_SIZE))
            found |= {int(row[0]): None for row in by_index.rows(scout, query) if row[0] and row[0].isdecimal()}
    except by_index.NoIndex:
        return list(range(1, UNCOUNTED))
    except Outage as error:
        if not by_index.gave_up(error):
            raise
        return list(range(1, UNCOUNTED))
    return list(found)
