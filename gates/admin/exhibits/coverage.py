"""Gate C: how many of the account's contacts carry their CRM id, and which do not."""

from typing import Any

from gates.admin.exhibits.reading import columns, real, rows, text, when, whole
from migration.admin import charts


def of(facts: dict[str, Any]) -> dict[str, Any] | None:
    have, among = whole(facts.get("numerator")), whole(facts.get("denominator"))
    if have is None or among is None:
        return None
    missing = rows(facts, "missing")
    return {
        "numerator": have,
        "denominator": among,
        "percent": text(facts.get("percent")),
        "threshold": text(facts.get("threshold")),
        "width": charts.percent(have, among),
        "mark": f"{min(max(real(as_number(facts.get('threshold'))), 0.0), 100.0):.3f}%",
        "missing": [each | {"created_at": when(each["created_at"])} for each in columns(missing, "contact", "source_id", "created_at")],
        "more": max((whole(facts.get("missing_total")) or 0) - len(missing), 0),
        "missing_total": whole(facts.get("missing_total")),
        "sources": columns(rows(facts, "sources"), "source", "contacts"),
    }


def as_number(threshold: object) -> object:
    """The threshold is kept as text, as it is shown."""
    return float(threshold) if isinstance(threshold, str) and threshold.replace(".", "", 1).isdecimal() else threshold
