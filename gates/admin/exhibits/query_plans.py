"""Gate B: each query's plan as a tree in a table, and the indexes that the queries need."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gates.admin.exhibits.reading import columns, mapping, real, rows, text, whole
from migration.admin import charts
from migration.admin.display import duration

MOST_NODES = 200
DEEPEST = 8  # levels that are drawn apart


@dataclass(frozen=True)
class Node:
    """One node of a plan. `share` and `width` are its own part of the plan's cost, without its children's."""

    depth: int
    kind: str
    relation: str
    index: str
    condition: str
    rows: int
    took: str
    share: str
    width: str
    trouble: str


def of(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "accounts": columns(rows(facts, "accounts"), "which", "account", "organisation", "contacts"),
        "queries": [query(each) for each in rows(facts, "queries")],
        "indexes": columns(rows(facts, "indexes"), "table", "columns", "found", "create"),
    }


def query(found: dict[str, Any]) -> dict[str, Any]:
    plan = mapping(found, "plan")
    costs = [own_cost(node) for _, node in walked(plan)]
    buffers = mapping(found, "buffers")
    nodes = [shown(depth, node, sum(costs)) for depth, node in walked(plan)]
    return {
        "name": text(found.get("name")),
        "which": text(found.get("which")),
        "rows": whole(found.get("rows")),
        "took": took(real(found.get("milliseconds"))),
        "hit": whole(buffers.get("hit")),
        "read": whole(buffers.get("read")),
        "sql": text(found.get("sql")),
        "nodes": nodes,
        "is_troubled": any(node.trouble for node in nodes),
    }


def walked(node: dict[str, Any], depth: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The nodes from the top, each with its depth; at most MOST_NODES."""
    stack, given = [(depth, node)] if node else [], 0
    while stack and given < MOST_NODES:
        at, each = stack.pop()
        yield at, each
        given += 1
        stack += [(at + 1, child) for child in reversed(rows(each, "Plans"))]


def own_cost(node: dict[str, Any]) -> float:
    return max(real(node.get("Total Cost")) - sum(real(child.get("Total Cost")) for child in rows(node, "Plans")), 0.0)


def shown(depth: int, node: dict[str, Any], cost: float) -> Node:
    loops = max(real(node.get("Actual Loops")), 1.0)
    own = round(own_cost(node) * 100)
    whole_cost = max(round(cost * 100), own)
    return Node(
        depth=min(depth, DEEPEST),
        kind=text(node.get("Node Type")),
        relation=text(node.get("Relation Name")),
        index=text(node.get("Index Name")),
        condition=text(node.get("Index Cond") or node.get("Filter")),
        rows=round(real(node.get("Actual Rows")) * loops),
        took=took(real(node.get("Actual Total Time")) * loops),
        share=charts.share(own, whole_cost),
        width=charts.percent(own, whole_cost),
        trouble=trouble(node),
    )


def took(milliseconds: float) -> str:
    return f"{milliseconds:.2f} ms" if milliseconds < 1000 else duration(milliseconds / 1000)


def trouble(node: dict[str, Any]) -> str:
    """What is wrong with a node by itself."""
    if node.get("Node Type") in ("Seq Scan", "Parallel Seq Scan"):
        return "reads the whole table"
    if node.get("Sort Space Type") == "Disk" or real(node.get("Temp Written Blocks")):
        return "spills to disk"
    if real(node.get("Hash Batches")) > 1:
        return "spills to disk"
    return ""
