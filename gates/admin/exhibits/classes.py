"""Gate E: which classes, attributes and ids of the mapping occur in the audits, and what occurs that the mapping does not name."""

from typing import Any

from gates.admin.exhibits.reading import columns, mapping, rows, text, whole


def of(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "roles": [counted(each, "role", "class") for each in rows(facts, "roles")],
        "attributes": [counted(each, "class", "attribute") for each in rows(facts, "attributes")],
        "id_sets": [counted(each, "set", "account", "id") for each in rows(facts, "id_sets")],
        "unnamed": columns(rows(facts, "unnamed_statuses"), "role", "value", "rows"),
        "unroled": [counted(each, "class") for each in rows(facts, "unroled_classes")],
        "looked_at": looked_at(mapping(facts, "looked_at")),
    }


def looked_at(found: dict[str, Any]) -> list[dict[str, Any]]:
    """By class, how many audits were read for attributes and ids, and whether those are all there are."""
    return [
        {"class": text(each.get("class")), "rows": whole(each.get("looked_at")), "all": each.get("all_of_it") is True}
        for each in rows(found, "audits")
    ]


def counted(found: dict[str, Any], *names: str) -> dict[str, Any]:
    """The named columns as text, and how many rows: `more` where they were not counted to the end."""
    count = whole(found.get("rows"))
    return {name: text(found.get(name)) for name in names} | {
        "rows": count,
        "more": found.get("counted_all") is False,
        "absent": count == 0,
    }
