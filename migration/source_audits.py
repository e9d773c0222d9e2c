"""What the source tells of an account's candidates, read afresh for verification: by SQL of its own, not the extractor's."""

from datetime import datetime
from typing import NamedTuple

from psycopg import sql

from migration import boundary
from migration.boundary import Near
from migration.ours import Key
from migration.pipeline.flow import World
from migration.pipeline.queries import array, occurred_at
from migration.pipeline.reading import changes_reader, values
from migration.pipeline.records import Links
from migration.planning import before, sources

EMPTY = {  # an audited_changes that says nothing changed, as the column's type writes it
    "jsonb": "pg_column_size(a.audited_changes) < 16 AND a.audited_changes = '{}'",  # so that no large one is unpacked to be compared
    "json": r"a.audited_changes::text ~ '^\s*\{\s*\}\s*$'",
    "text": r"a.audited_changes ~ '^---\s+(!\S+\s+)?\{\s*\}\s*(\.\.\.\s*)?$'",
}


class Told(NamedTuple):
    """What the source tells of one person."""

    number: int = 0  # candidates
    ids: str = ""  # of those that change something, ascending, as `ours.of_contacts` writes them
    # Ids, classes and times of audits for the boundary audit, candidates or not.
    close: tuple[list[int], list[str], list[datetime]] = ([], [], [])

    def near(self, person: int) -> list[Near]:
        """The audits for the boundary audit, one by one."""
        return [(person, *each) for each in zip(*self.close, strict=True)]

    def and_of(self, other: "Told") -> "Told":
        """The two together; no audit is in both."""
        ids = ",".join(sorted([*self.ids.split(","), *other.ids.split(",")])) if self.ids and other.ids else self.ids or other.ids
        mine, its = self.close, other.close
        return Told(self.number + other.number, ids, (mine[0] + its[0], mine[1] + its[1], mine[2] + its[2]))


def source_ids(world: World, persons: list[int], known: Links) -> dict[int, Told]:
    """Person -> what the source tells; `known` are their links. Every audit is read once."""
    statement = sql.SQL(
        """SELECT person, count(*) FILTER (WHERE before),
                  coalesce(string_agg(to_hex(id | (-9223372036854775808)), ',' ORDER BY id) FILTER (WHERE before AND NOT nothing), ''),
                  array_agg(id) FILTER (WHERE near), array_agg(class) FILTER (WHERE near), array_agg(at) FILTER (WHERE near)
           FROM (SELECT a.person, a.id, a.auditable_type::text AS class, {at} AS at, {before} AS before, {empty} AS nothing,
                        {at} >= {since}::timestamptz AND {at} < '9999-12-31' AS near FROM {source} a OFFSET 0) audit GROUP BY person"""
    )  # OFFSET 0: what is sorted to be put together are these few columns, not the audits' changes
    names = {
        "at": occurred_at(world.crm.shape),
        "empty": nothing_changed(world),
        "before": before_watermark(world),
        "since": sql.Literal(boundary.since(world).isoformat()),
    }
    found: dict[int, Told] = {}
    for source in sources(world.crm, world.mapping, persons, known):
        for key, number, ids, near, classes, times in source.rows(world.crm, statement.format(source=source.text, **names)):
            person = int(key)
            told = Told(number, ids, (near or [], classes or [], times or []))
            found[person] = found[person].and_of(told) if person in found else told
    return found


def nothing_changed(world: World) -> sql.Composed:
    return sql.SQL("coalesce(a.action = 'update' AND {}, false)").format(sql.SQL(EMPTY[world.crm.shape.changes]))


def says_nothing(world: World, audits: list[int]) -> set[int]:
    """Of audits in a text column those updates that are `{}` however YAML or JSON writes it: EMPTY knows the usual spelling alone."""
    if world.crm.shape.changes != "text" or not audits:
        return set()
    statement = sql.SQL("SELECT id, audited_changes FROM audits WHERE id = ANY({}) AND action = 'update'").format(array(audits))
    reader = changes_reader(world.crm.shape)
    return {audit for audit, text in world.crm.rows(statement) if values(text, reader) == {}}


def before_watermark(world: World) -> sql.Composed:
    return before(world.crm, world.mapping, {entity: moment.isoformat() for entity, moment in world.watermark.items()})


def source_keys(world: World, persons: list[int]) -> dict[Key, bool]:
    """Candidate key -> whether it is an update that changed nothing."""
    statement = sql.SQL("SELECT a.person, a.id, {empty} FROM {source} a WHERE {before}")
    return {
        (int(person), audit): nothing
        for source in sources(world.crm, world.mapping, persons, world.links.of(persons))
        for person, audit, nothing in source.rows(
            world.crm, statement.format(empty=nothing_changed(world), source=source.text, before=before_watermark(world))
        )
    }
