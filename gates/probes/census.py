"""What the CRM's audits hold by class, counted and looked at through the gem's index (auditable_type, auditable_id, version), within bounds."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from psycopg import sql

from gates.probes.by_index import check, gave_up, rows
from migration.crm import Crm, Shape
from migration.doors import Outage
from migration.pipeline.lookups import UNSTORABLE
from migration.pipeline.reading import changes_reader, values

MOST_CLASSES = 200
ENOUGH = (100_000, 1_000)  # rows counted of one class; the second where the first takes too long
NEWEST, OLDEST = 1_000, 1_000  # audits looked at of one class, from both ends of the index
FARTHEST = 200_000  # audits looked at from the oldest on, while an id has not occurred yet
AT_ONCE = 200
LONGEST = 100_000  # bytes of audited_changes that are read where it is no jsonb
LONGEST_ID = 255  # characters


@dataclass
class Seen:
    """What the audits of one class that were looked at hold."""

    audits: int = 0
    attributes: Counter[str] = field(default_factory=Counter)  # how many audits have the key
    ids: Counter[str] = field(default_factory=Counter)  # how many audits have the status, as an id-set would name it


def class_names(crm: Crm) -> list[str]:
    """The first classes that occur, at most one more than MOST_CLASSES: from one to the next through the index, never row by row."""
    statement = sql.SQL(
        """WITH RECURSIVE found(name) AS (
               (SELECT auditable_type FROM audits WHERE auditable_type IS NOT NULL ORDER BY auditable_type LIMIT 1)
               UNION ALL
               SELECT (SELECT a.auditable_type FROM audits a WHERE a.auditable_type > found.name ORDER BY a.auditable_type LIMIT 1)
               FROM found WHERE found.name IS NOT NULL)
           SELECT name FROM found WHERE name IS NOT NULL LIMIT {}"""
    )
    return [name for (name,) in rows(crm, statement.format(sql.Literal(MOST_CLASSES + 1)))]


def count(crm: Crm, name: str) -> tuple[int, bool]:
    """How many audits the class has, and whether all were counted."""
    statement = sql.SQL("SELECT count(*) FROM (SELECT 1 FROM audits WHERE auditable_type = {} LIMIT {}) counted")
    for most in ENOUGH:
        try:
            found = rows(crm, statement.format(sql.Literal(name), sql.Literal(most + 1)))[0][0]
        except Outage as outage:
            if not gave_up(outage) or most == ENOUGH[-1]:
                raise
        else:
            break
    return min(found, most), found <= most


def look(crm: Crm, name: str, attributes: list[str], status: str, wanted: set[str], *, until: float) -> Seen:
    """The newest and the oldest audits of a class; farther from the oldest on while one of the `wanted` ids has not occurred.

    `attributes` are the keys to look for; `status` is that one of them which holds ids, or "". After `until`, of time.monotonic,
    nothing more is read. Raises NoIndex and Outage.
    """
    seen, known = Seen(), set[int]()
    reader = changes_reader(crm.shape)

    def take(audit: int, action: str, text: str | None) -> None:
        if audit not in known:
            known.add(audit)
            note(seen, action, values(text, reader) if text else None, attributes, status)

    def newest_done() -> bool:
        return seen.audits >= NEWEST

    def oldest_done() -> bool:
        return seen.audits >= NEWEST + OLDEST and (wanted <= seen.ids.keys() or seen.audits >= FARTHEST)

    walk(crm, statement(crm.shape, name, attributes, "DESC"), take, newest_done, until=until)
    walk(crm, statement(crm.shape, name, attributes, "ASC"), take, oldest_done, until=until)
    return seen


def statement(shape: Shape, name: str, attributes: list[str], order: Literal["ASC", "DESC"]) -> sql.Composed:
    """Audits of a class in the index's order: (id, action, what holds the attributes, or NULL)."""
    if shape.changes == "jsonb":
        told = sql.SQL(
            """CASE WHEN jsonb_typeof(audited_changes) = 'object' AND audited_changes ?| {keys}
               THEN (SELECT jsonb_object_agg(k.name, audited_changes -> k.name) FROM unnest({keys}) k(name) WHERE audited_changes ? k.name) END"""
        ).format(keys=sql.SQL("ARRAY[{}]::text[]").format(sql.SQL(", ").join(map(sql.Literal, attributes))))
    else:  # json and YAML are read here, not there: the server's own operators stop at the first \\u0000 of a row
        holds = sql.SQL(" OR ").join(sql.SQL("strpos(audited_changes::text, {}) > 0").format(sql.Literal(each)) for each in attributes)
        told = sql.SQL("CASE WHEN octet_length(audited_changes::text) <= {longest} AND ({holds}) THEN audited_changes END").format(
            longest=sql.Literal(LONGEST), holds=holds
        )
    return sql.SQL("SELECT id, action, ({told})::text FROM audits WHERE auditable_type = {name} ORDER BY auditable_id {order}").format(
        told=told, name=sql.Literal(name), order=sql.SQL(order)
    )


def walk(crm: Crm, query: sql.Composed, take: Callable[[int, str, str | None], None], done: Callable[[], bool], *, until: float) -> None:
    """Hand each row to `take` until `done`, or there is no time left."""
    check(crm, query)
    try:
        with crm.snapshot() as connection, connection.cursor(name="census") as cursor:
            cursor.itersize = AT_ONCE
            for row in cursor.execute(query):
                take(*row)
                if done() or time.monotonic() > until:
                    break
    except Outage as outage:
        if not gave_up(outage):
            raise


def note(seen: Seen, action: str, told: dict[str, Any] | None, attributes: list[str], status: str) -> None:
    seen.audits += 1
    if told is None:
        return
    seen.attributes.update(each for each in attributes if each in told)
    if status in told:
        seen.ids.update(set(ids_in(told[status], action)))


def ids_in(value: Any, action: str) -> Iterator[str]:
    """A status as the id-sets name it, both sides of an update's pair; null is none. What no id-set can name stands as Python writes it."""
    for each in value if action == "update" and isinstance(value, list) and len(value) == 2 else [value]:
        if each is not None:
            text = str(each)
            yield (ascii(text) if UNSTORABLE.search(text) else text)[:LONGEST_ID]
