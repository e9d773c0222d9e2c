"""Reads facts that may be missing or of another kind than expected."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any


def rows(facts: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of objects; whatever else stands there is left out."""
    found = facts.get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def mapping(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = facts.get(name)
    return found if isinstance(found, dict) else {}


def texts(facts: Mapping[str, Any], name: str) -> list[str]:
    found = facts.get(name)
    return [str(each) for each in found] if isinstance(found, list) else []


def whole(value: object) -> int | None:
    """A whole number, be it written as 28.0; None where it is none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def when(value: object) -> datetime | None:
    """A moment as ISO 8601 writes it."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if found and found.tzinfo else None


def real(value: object) -> float:
    """A number, 0 where it is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def text(value: object) -> str:
    """As people read it: lists by commas, objects as `name: value`, nothing as ''."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(text, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}: {text(each)}" for name, each in value.items() if each is not None)
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def columns(found: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    """The rows with just these columns; whole numbers as they are, the rest as text."""
    return [{name: whole(row.get(name)) if whole(row.get(name)) is not None else text(row.get(name)) for name in names} for row in found]
