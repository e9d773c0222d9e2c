"""From an account to a run's chunks: the counting query on the source, and where to cut."""

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from migration.crm import Crm
from migration.mapping import Mapping, Role
from migration.pipeline.extract import Selection, array, companions, key, literals, watermark_of_row
from migration.watermark import from_json

PERSONS_AT_ONCE = 2000
LAST_PERSON = 2**63 - 1
MOST_PERSONS_PER_CHUNK = 20_000  # contacts without any audit cost a look-up each


@dataclass(frozen=True)
class PersonCount:
    """How many audits concern a person, and how many of them are candidates (made before the watermark)."""

    person_id: int
    audits: int
    candidates: int


@dataclass(frozen=True)
class Cut:
    """Where a chunk begins and ends; see models/chunk.py."""

    person_from: int
    person_to: int
    audit_from: int | None
    audit_to: int | None
    expected: int


def count(crm: Crm, mapping: Mapping, watermark: dict[str, str], persons: list[int]) -> Iterator[PersonCount]:
    """Each person's audits and candidates, by a query of its own: by sets, not contact by contact as extraction goes."""
    for start in range(0, len(persons), PERSONS_AT_ONCE):
        batch = persons[start : start + PERSONS_AT_ONCE]
        found = {int(person): (audits, candidates) for person, audits, candidates in crm.rows(counting_query(crm, mapping, watermark, batch))}
        for person in batch:
            yield PersonCount(person, *found.get(person, (0, 0)))


def counting_query(crm: Crm, mapping: Mapping, watermark: dict[str, str], persons: list[int]) -> sql.Composed:
    return sql.SQL(
        """SELECT person, count(*), count(*) FILTER (WHERE before) FROM (
               SELECT a.auditable_id AS person, {before} AS before FROM audits a
               WHERE a.auditable_type IN ({contacts}) AND a.auditable_id = ANY({record_keys})
               UNION ALL
               SELECT a.associated_id, {before} FROM audits a
               WHERE a.associated_type IN ({contacts}) AND a.associated_id = ANY({associated_keys}) AND a.auditable_type IN ({companions})
           ) concerned GROUP BY person"""
    ).format(
        before=before(crm, mapping, watermark),
        contacts=literals(mapping.classes(Role.CONTACT)),
        companions=literals(companions(mapping)),
        record_keys=keys(persons, crm.shape.record_id),
        associated_keys=keys(persons, crm.shape.associated_id),
    )


def before(crm: Crm, mapping: Mapping, watermark: dict[str, str]) -> sql.Composed:
    """Whether audit `a` is a candidate by its time."""
    return sql.SQL("(a.created_at IS NULL OR a.created_at < {})").format(watermark_of_row(crm.shape, mapping, from_json(watermark)))


def keys(persons: list[int], column_type: str) -> sql.Composed:
    """The persons' ids in the column's own kind."""
    return sql.SQL("{}::text[]").format(array(persons)) if str(key(column_type).as_string()) != "p.id" else array(persons)


def cut(counts: Iterator[PersonCount], size: int, crm: Crm, mapping: Mapping) -> Iterator[Cut]:
    """Chunks of about `size` audits, in the order of person ids and without gaps, so that a contact that appears meanwhile has its chunk.

    A contact with more than `size` audits is cut by audit id.
    """
    start, rows, persons, last = 0, 0, 0, -1
    for each in counts:
        if persons and (rows + each.audits > size or persons >= MOST_PERSONS_PER_CHUNK):
            yield Cut(start, last, None, None, rows)
            start, rows, persons = last + 1, 0, 0
        if each.audits > size:
            yield from split(each, size, crm, mapping)
            start, last = each.person_id + 1, each.person_id
            continue
        rows, persons, last = rows + each.audits, persons + 1, each.person_id
    yield Cut(start, LAST_PERSON, None, None, rows)


def split(heavy: PersonCount, size: int, crm: Crm, mapping: Mapping) -> Iterator[Cut]:
    """One contact's chunks, each of `size` audits."""
    audits = sorted(row[0] for row in crm.rows(audit_ids(crm, mapping, heavy.person_id)))
    starts = audits[::size] or [0]
    for number, first in enumerate(starts):
        following = starts[number + 1] if number + 1 < len(starts) else None
        expected = min(size, len(audits) - number * size)
        yield Cut(heavy.person_id, heavy.person_id, first if number else None, following, expected)


def audit_ids(crm: Crm, mapping: Mapping, person: int) -> sql.Composed:
    from migration.pipeline.extract import by_contact

    return sql.SQL("SELECT a.id FROM {} a").format(by_contact(crm.shape, mapping, Selection([person])))
