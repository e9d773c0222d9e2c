"""Reads a plan of EXPLAIN (FORMAT JSON): which nodes go through a whole table, which spill to disk. Touches no database."""

import re
from collections.abc import Iterator
from typing import Any

KEPT = (
    "Node Type", "Relation Name", "Index Name", "Index Cond", "Filter", "Total Cost", "Actual Rows", "Actual Loops", "Actual Total Time",
    "Shared Hit Blocks", "Shared Read Blocks", "Sort Space Type", "Temp Written Blocks",
)  # fmt: skip
MOST_CHILDREN = 40  # of one node: a table of many partitions has a child for each
MOST_CHARACTERS = 4000
BY_INDEX = ("Index Scan", "Index Only Scan", "Bitmap Index Scan")
WHOLE = ("Seq Scan", "Sample Scan", "Tid Range Scan")
LONG_ARRAY = re.compile(r"\{(-?\d+(?:,-?\d+){2}),-?\d+(?:,-?\d+)*\}")

Plan = dict[str, Any]


def nodes(plan: Plan) -> Iterator[Plan]:
    """A plan's nodes, each before its children."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def scans(plan: Plan, keys: tuple[str, ...], most: int) -> list[str]:
    """What reads a table otherwise than by one of `keys` through an index, in words, each once.

    A part of an index that holds at most `most` rows (a class with few audits) may be read as a whole.
    """
    return list(dict.fromkeys(found for node in nodes(plan) if (found := scan(node, keys, most))))


def scan(node: Plan, keys: tuple[str, ...], most: int) -> str:
    """Why a node reads more than it was asked for; "" where it does not."""
    kind, table = node["Node Type"], node.get("Relation Name", "")
    if kind in WHOLE:
        return f"a sequential scan of {table}"
    if kind == "Foreign Scan":
        return f"a scan of the foreign table {table}, whose own plan is made on another server and not seen here"
    if kind == "Custom Scan" and "Plans" not in node:
        return f"a scan of {table} by an extension, whose plan cannot be read"
    if kind not in BY_INDEX:
        return ""
    if "Index Cond" not in node:
        return f"a scan of the whole index {node['Index Name']}, and so of all of {table or 'the table'}"
    if is_by(node["Index Cond"], keys) or rows_read(node) <= most:
        return ""
    return f"a scan of index {node['Index Name']} that is not by {' or '.join(keys)} and reads {rows_read(node)} rows"


def rows_read(node: Plan) -> int:
    """How many rows a node went through, those too that it left out; as many as were expected, where it was not executed."""
    if "Actual Rows" not in node:
        return round(node["Plan Rows"])
    left_out = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return round((node["Actual Rows"] + left_out) * node["Actual Loops"])


def most_rows_read(plan: Plan) -> int:
    """Of the node that went through most rows of a table."""
    return max((rows_read(node) for node in nodes(plan) if "Relation Name" in node), default=0)


def is_by(condition: str, keys: tuple[str, ...]) -> bool:
    """Whether an index condition speaks of one of the columns, outside of any literal."""
    return re.search(rf"\b({'|'.join(keys)})\b", re.sub(r"'(?:[^']|'')*'", "''", condition)) is not None


def spills(plan: Plan) -> list[str]:
    """What did not fit into memory, in words."""
    found = [said for node in nodes(plan) if (said := spill(node))]
    written = plan.get("Temp Written Blocks", 0)
    return found or ([f"{written} temporary blocks were written to disk"] if written else [])


def spill(node: Plan) -> str:
    if "Disk" in (node.get("Sort Space Type"), *(worker.get("Sort Space Type") for worker in node.get("Workers", []))):
        return f"a sort that spills to disk ({node.get('Sort Space Used', 0)} kB)"
    if node.get("Hash Batches", 1) > 1 or node.get("HashAgg Batches", 1) > 1 or node.get("Disk Usage", 0):
        return f"a hash that spills to disk ({max(node.get('Hash Batches', 1), node.get('HashAgg Batches', 1))} batches)"
    if node.get("Storage") == "Disk":
        return f"a {node['Node Type']} that spills to disk"
    return ""


def indexes(plan: Plan) -> list[str]:
    """The indexes that a plan reads, by name."""
    return sorted({node["Index Name"] for node in nodes(plan) if "Index Name" in node})


def pruned(plan: Plan) -> Plan:
    """The plan as it is stored: only what is KEPT of each node, long lists of ids shortened, and of many children the first."""
    kept = {key: short(plan[key]) if isinstance(plan[key], str) else plan[key] for key in KEPT if key in plan}
    children = [pruned(child) for child in plan.get("Plans", [])[:MOST_CHILDREN]]
    return kept | ({"Plans": children} if children else {})


def short(text: str) -> str:
    """A statement for a reader: {1,2,3,… 497 more} in place of long arrays of numbers, cut at MOST_CHARACTERS."""
    said = LONG_ARRAY.sub(lambda found: f"{{{found[1]},… {found[0].count(',') - 2} more}}", text)
    return said if len(said) <= MOST_CHARACTERS else f"{said[: MOST_CHARACTERS - 1]}…"
