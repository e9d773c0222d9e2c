"""Queries on a table of any size that are only asked where an index answers them, and are given up after a while."""

from collections.abc import Iterator
from typing import Any

from psycopg import errors, sql

from migration.crm import Crm
from migration.doors import Outage

WHOLE_TABLE = ("Seq Scan", "Sort", "Incremental Sort")
INDEX_SCANS = ("Index Scan", "Index Only Scan", "Bitmap Index Scan")


class NoIndex(RuntimeError):
    """No index of the CRM answers the query, so asking it would read the whole table."""


def prepare(crm: Crm, seconds: float) -> None:
    """The session's statements end after `seconds`, and its plans use an index wherever there is one that serves."""
    limit(crm, seconds)
    for name in ("enable_bitmapscan", "enable_sort"):
        crm.rows("SELECT set_config(%s, 'off', false)", (name,))


def limit(crm: Crm, seconds: float) -> None:
    """The session's statements end after `seconds`."""
    crm.rows("SELECT set_config('statement_timeout', %s, false)", (f"{int(seconds * 1000)}ms",))


def rows(crm: Crm, query: sql.Composed) -> list[tuple]:
    """The answer to one query. Raises NoIndex, and Outage where it takes too long (see `gave_up`)."""
    check(crm, query)
    return crm.rows(query)


def check(crm: Crm, query: sql.Composed) -> None:
    """Raise NoIndex where the plan holds a scan that no condition bounds, or a sort."""
    plan = crm.rows(sql.SQL("EXPLAIN (FORMAT JSON) ") + query)[0][0][0]["Plan"]
    for node in nodes(plan):
        kind = node["Node Type"]
        if kind in WHOLE_TABLE or (kind in INDEX_SCANS and "Index Cond" not in node):
            raise NoIndex(f"{kind} on {node.get('Relation Name', 'audits')}")


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def gave_up(outage: Outage) -> bool:
    """Whether the statement ended by its timeout, not the server or the way to it."""
    return isinstance(outage.__cause__, errors.QueryCanceled)
