"""Gate F: how many names are certain, absent or ambiguous, and the match keys with more than one candidate."""

from typing import Any

from gates.admin.exhibits.reading import mapping, rows, text, texts, whole
from migration.admin import charts, links
from migration.models import NameCollision


def of(facts: dict[str, Any]) -> dict[str, Any]:
    keys = [key(each) for each in rows(facts, "keys")]
    counts = {name: value for name, value in mapping(facts, "counts").items() if whole(value) is not None}
    return {
        "bars": charts.bars(counts),
        "keys": keys,
        "more": max((whole(facts.get("keys_total")) or 0) - len(keys), 0),
        "collisions": links.listing(NameCollision),
    }


def key(found: dict[str, Any]) -> dict[str, Any]:
    return {name: text(found.get(name)) for name in ("account", "role", "record_id", "class", "version", "verdict")} | {
        "candidates": texts(found, "candidates")
    }
