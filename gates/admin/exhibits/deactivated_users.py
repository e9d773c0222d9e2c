"""Gate D: the CRM's users and what USMAN says of them, side by side."""

from typing import Any

from gates.admin.exhibits.reading import mapping, rows, text, whole

FIGURES = ("asked", "ACTIVE", "DEACTIVATED", "absent")
KINDS = ("deactivated", "deleted", "active")


def of(facts: dict[str, Any]) -> dict[str, Any]:
    counts = mapping(facts, "counts")
    kinds = [*(kind for kind in KINDS if kind in counts), *(kind for kind in counts if kind not in KINDS)]
    cases = [case(each) for each in rows(facts, "cases")]
    return {
        "figures": FIGURES,
        "counts": [{"kind": kind, "figures": [whole(mapping(counts, kind).get(name)) for name in FIGURES]} for kind in kinds],
        "cases": sorted(cases, key=lambda each: KINDS.index(each["kind"]) if each["kind"] in KINDS else len(KINDS)),
    }


def case(found: dict[str, Any]) -> dict[str, Any]:
    usman = mapping(found, "usman")
    return {
        "kind": text(found.get("kind")),
        "user": text(found.get("user_id")),
        "email": text(found.get("email")),
        "crm": text(found.get("crm")),
        "usman": text(usman.get("id")),
        "status": text(usman.get("status")),
    }
