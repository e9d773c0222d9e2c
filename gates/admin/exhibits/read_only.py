"""Gate A: the server, what the role may do, and the writes that were attempted."""

from typing import Any

from gates.admin.exhibits.reading import columns, mapping, rows, text, texts, whole

VERDICT_ORDER = ("excess", "needed", "default")
SERVER = {"version": "PostgreSQL", "in_recovery": "In recovery (a replica)", "role": "Role", "database": "Database", "address": "Address"}


def of(facts: dict[str, Any]) -> dict[str, Any]:
    grants = columns(rows(facts, "grants"), "object_type", "object", "privilege", "through", "verdict")
    total = whole(facts.get("grants_total"))
    return {
        "server": [(label, text(mapping(facts, "server").get(name))) for name, label in SERVER.items() if name in mapping(facts, "server")],
        "attributes": texts(facts, "attributes"),
        "memberships": [{"role": text(each.get("role")), "ok": each.get("ok")} for each in rows(facts, "memberships")],
        "grants": sorted(grants, key=place),
        "more_grants": max((total or 0) - len(grants), 0),
        "attempts": [
            {"statement": text(each.get("statement")), "refused": each.get("refused") is True, "answer": text(each.get("answer"))}
            for each in rows(facts, "write_attempts")
        ],
    }


def place(grant: dict[str, Any]) -> int:
    verdict = grant["verdict"]
    return VERDICT_ORDER.index(verdict) if verdict in VERDICT_ORDER else len(VERDICT_ORDER)
