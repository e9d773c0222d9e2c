"""JSON values as the mapping compares them: strict, but for numbers, which are compared by the text that jsonb would print."""

import json
from decimal import Decimal
from typing import Any

MAX_DEPTH = 20  # of a value in a mapping; deeper ones would only exhaust the recursion below
MAX_BITS = 4096  # of a whole number in a mapping; Python prints no number of more than 4,300 digits
_MAX_EXPONENT = 400  # beyond it a number keeps its exponent, or `1e999999999` would become a text of a gigabyte


def json_text(value: Any) -> str:
    """One text for equal JSON values: keys sorted, no white space, ASCII only. For values that json_problem finds nothing wrong with."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{json_text(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(json_text, value)) + "]"
    if isinstance(value, float | Decimal):
        return _number_text(value)
    return json.dumps(value)


def same_json(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal: true is not 1, 3 is not "3", 0.5 is not 0.50. Recurses no deeper than the shallower one."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, float | Decimal) or isinstance(right, float | Decimal):
        return _is_number(left) and _is_number(right) and _number_text(left) == _number_text(right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_json, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_json(left[key], right[key]) for key in left)
    return bool(left == right)


def json_problem(value: Any, depth: int = MAX_DEPTH) -> str | None:
    """What keeps a value from being stored as JSON and compared, or None."""
    if isinstance(value, list | dict) and depth == 0:
        return f"is nested more than {MAX_DEPTH} deep"
    if isinstance(value, dict):
        parts = [*value, *value.values()]
        return "has a key that is not text" if not all(isinstance(key, str) for key in value) else _first_problem(parts, depth - 1)
    if isinstance(value, list):
        return _first_problem(value, depth - 1)
    if isinstance(value, str):
        return None if is_storable(value) else "holds a character that PostgreSQL cannot store (U+0000 or half a surrogate pair)"
    if isinstance(value, bool) or value is None:
        return None
    return _number_problem(value)


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can store the text, in jsonb too: neither U+0000 nor a lone surrogate."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _first_problem(values: list[Any], depth: int) -> str | None:
    return next((problem for value in values if (problem := json_problem(value, depth))), None)


def _number_problem(value: Any) -> str | None:
    if isinstance(value, int):
        return None if value.bit_length() <= MAX_BITS else f"is a whole number of more than {MAX_BITS} bits"
    if isinstance(value, float | Decimal):
        return None if Decimal(value).is_finite() else "is not a finite number"
    return "is not a JSON value"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal)


def _number_text(value: float | Decimal) -> str:
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    return f"{number:f}" if abs(number.adjusted()) < _MAX_EXPONENT else str(number)
