"""From an account to a run's chunks: the counting query on the source, and where to cut."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from psycopg import sql

from migration.crm import TEXTS, Crm, Shape
from migration.link_reader import Reader
from migration.mapping import Mapping, Role
from migration.pipeline.queries import array, companions, joins, literals, watermark_of_row
from migration.pipeline.records import Links
from migration.watermark import from_json

PERSONS_AT_ONCE = 4000  # at first
FEWEST_AT_ONCE, MOST_AT_ONCE = 500, 16_000
QUICK_SECONDS, SLOW_SECONDS = 1.0, 10.0  # of one batch: a CRM that has all in memory, and one whose disks are waited for
LAST_PERSON = 2**63 - 1
MOST_PERSONS_PER_CHUNK = 20_000  # contacts without any audit cost a look-up each
TOLD = ("id", "auditable_type", "action", "created_at", "audited_changes")


class HasShape(Protocol):
    """The CRM, as far as a query's text depends on it."""

    shape: Shape


@dataclass(frozen=True)
class PersonCount:
    """How many audits concern a person, and how many of them are candidates (made before the watermark)."""

    person_id: int
    audits: int
    candidates: int


class Source(NamedTuple):
    """A subquery of audits, with whom they concern as column `person`."""

    text: sql.Composed
    by_sets: bool  # of many contacts at once, as against single audits or deals

    def rows(self, crm: Crm, query: sql.Composed) -> list[tuple]:
        """The answer to a query that reads the source."""
        return crm.rows_by_sets(query) if self.by_sets else crm.rows(query)


@dataclass(frozen=True)
class Cut:
    """Where a chunk begins and ends; see models/chunk.py."""

    person_from: int
    person_to: int
    audit_from: int | None
    audit_to: int | None
    expected: int


def count(
    crm: Crm, mapping: Mapping, watermark: dict[str, str], persons: Sequence[int], links: Reader, pulse: Callable[[], None]
) -> Iterator[PersonCount]:
    """Each person's audits and candidates, by queries of their own: by sets, not contact by contact as extraction goes.

    `pulse` is called before each batch, of a size that follows from how long the last one took.
    """
    start, size = 0, PERSONS_AT_ONCE
    while start < len(persons):
        pulse()
        batch, begun = list(persons[start : start + size]), time.monotonic()
        found: dict[int, list[int]] = {person: [0, 0] for person in batch}
        for source in sources(crm, mapping, batch, links.of(batch)):
            for person, audits, candidates in source.rows(crm, counting_query(crm, mapping, watermark, source)):
                found[int(person)][0] += audits
                found[int(person)][1] += candidates
        start, size = start + size, next_size(size, time.monotonic() - begun)
        for person in batch:
            yield PersonCount(person, *found[person])


def next_size(size: int, seconds: float, most: int = MOST_AT_ONCE) -> int:
    """Persons to ask about next, after so many took so long: the more at once, the fewer pages are read twice; but a statement has its limit."""
    if seconds < QUICK_SECONDS:
        return min(size * 2, most)
    return max(size // 2, FEWEST_AT_ONCE) if seconds > SLOW_SECONDS else size


def counting_query(crm: HasShape, mapping: Mapping, watermark: dict[str, str], source: Source) -> sql.Composed:
    return sql.SQL("SELECT person, count(*), count(*) FILTER (WHERE {before}) FROM {source} a GROUP BY person").format(
        before=before(crm, mapping, watermark), source=source.text
    )


def sources(crm: HasShape, mapping: Mapping, persons: list[int], links: Links) -> Iterator[Source]:
    """Subqueries that together give every audit with each of these persons it concerns: no pair twice.

    Contact rules 1 and 2; 4; then 3 and 5, whose audits the LinkIndex names. OFFSET 0 keeps what only narrows a contact's or a deal's audits
    down out of any index: all notes of a CRM, or all audits since a link, are no way to them.
    """
    if persons:
        of_contacts = sql.SQL(
            """(SELECT CASE WHEN auditable_type IN ({contacts}) THEN auditable_id::bigint ELSE associated_id::bigint END AS person, {told} FROM (
                    SELECT * FROM audits WHERE auditable_type IN ({contacts}) AND auditable_id = ANY({record_keys})
                                            OR associated_type IN ({contacts}) AND associated_id = ANY({associated_keys}) OFFSET 0) found
                WHERE auditable_type IN ({companions}) OR auditable_type IN ({contacts}) AND {record_id} = ANY({record_keys}))"""
        ).format(
            told=told("found"),
            contacts=literals(mapping.classes(Role.CONTACT)),
            companions=literals(companions(mapping)),
            record_keys=keys(persons, crm.shape.record_id),
            # As wide as the keys: only then does the server hash them, and not compare each audit with each.
            record_id=sql.SQL("auditable_id" if crm.shape.record_id in TEXTS else "auditable_id::bigint"),
            associated_keys=keys(persons, crm.shape.associated_id),
        )
        yield Source(of_contacts, by_sets=True)
    spans = [(person, deal, start, end) for deal, found in links.by_deal.items() for person, start, end in found]
    if spans and mapping.classes(Role.DEAL):
        of_deals = sql.SQL(
            """(SELECT l.person, {told} FROM unnest({persons}, {deals}, {starts}, {ends}) AS l(person, deal, start, stop) CROSS JOIN LATERAL (
                    SELECT * FROM audits WHERE auditable_type IN ({classes}) AND auditable_id = {deal_key} OFFSET 0) a
                WHERE a.id > l.start AND a.id < l.stop)"""
        ).format(
            **{name: array([span[at] for span in spans]) for at, name in enumerate(("persons", "deals", "starts", "ends"))},
            told=told("a"),
            classes=literals(mapping.classes(Role.DEAL)),
            deal_key=sql.SQL("l.deal::text" if crm.shape.record_id in TEXTS else "l.deal"),
        )
        yield Source(of_deals, by_sets=False)
    pairs = [(joined.person_id, audit) for audit, found in links.by_audit.items() for joined in found]
    if pairs:
        of_join_rows = sql.SQL(
            "(SELECT l.person, {} FROM unnest({}, {}) AS l(person, audit) JOIN audits a ON a.id = l.audit WHERE a.auditable_type IN ({}))"
        ).format(told("a"), array([person for person, _ in pairs]), array([audit for _, audit in pairs]), literals(joins(mapping)))
        yield Source(of_join_rows, by_sets=False)


def told(table: str) -> sql.Composed:
    """What is asked of an audit: by name, since a table of ten years may have any other column, also one called person."""
    return sql.SQL(", ").join(sql.Identifier(table, name) for name in TOLD)


def before(crm: HasShape, mapping: Mapping, watermark: dict[str, str]) -> sql.Composed:
    """Whether audit `a` is a candidate by its time."""
    return sql.SQL("(a.created_at IS NULL OR a.created_at < {})").format(watermark_of_row(crm.shape, mapping, from_json(watermark)))


def keys(persons: list[int], column_type: str) -> sql.Composed:
    """The persons' ids in the column's own kind."""
    return sql.SQL("{}::text[]").format(array(persons)) if column_type in TEXTS else array(persons)


def cut(counts: Iterator[PersonCount], size: int, crm: Crm, mapping: Mapping, links: Reader) -> Iterator[Cut]:
    """Chunks of about `size` audits, in the order of person ids and without gaps, so that a contact that appears meanwhile has its chunk.

    A contact with more than `size` audits is cut by audit id.
    """
    start, rows, persons, last = 0, 0, 0, -1
    for each in counts:
        if persons and (rows + each.audits > size or persons >= MOST_PERSONS_PER_CHUNK):
            yield Cut(start, last, None, None, rows)
            start, rows, persons = last + 1, 0, 0
        if each.audits > size:
            if start < each.person_id:  # whoever appears before the heavy one has a chunk too
                yield Cut(start, each.person_id - 1, None, None, rows)
                rows, persons = 0, 0
            yield from split(each, size, crm, mapping, links)
            start, last = each.person_id + 1, each.person_id
            continue
        rows, persons, last = rows + each.audits, persons + 1, each.person_id
    yield Cut(start, LAST_PERSON, None, None, rows)


def split(heavy: PersonCount, size: int, crm: Crm, mapping: Mapping, links: Reader) -> Iterator[Cut]:
    """One contact's chunks, each of `size` audits."""
    persons = [heavy.person_id]
    audits = sorted(
        row[0]
        for source in sources(crm, mapping, persons, links.of(persons))
        for row in source.rows(crm, sql.SQL("SELECT a.id FROM {} a").format(source.text))
    )
    starts = audits[::size] or [0]
    for number, first in enumerate(starts):
        following = starts[number + 1] if number + 1 < len(starts) else None
        expected = min(size, len(audits) - number * size)
        yield Cut(heavy.person_id, heavy.person_id, first if number else None, following, expected)
