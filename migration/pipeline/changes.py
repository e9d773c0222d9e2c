"""`audited_changes` as JSON text: reading it for a decision, and taking keys out of it without touching a single other character."""

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from json.decoder import scanstring  # type: ignore[attr-defined]  # not in typeshed
from typing import Any

from migration.pipeline.problems import Unreadable

_SPACE = re.compile(r"[ \t\n\r]*")
# Numbers are only stepped over here; kept as text they can be neither rounded nor refused for their length.
_extents = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str, strict=False)
_LONGEST_INT = 4000  # Python refuses to read longer ones as int


def parse(text: str) -> dict[str, Any]:
    """The top-level object; integers as int, other numbers as Decimal. For decisions, never for writing back.

    Raises Unreadable where the text is no JSON object.
    """
    try:
        value = json.loads(text, parse_float=_fraction, parse_int=_integer, strict=False)
    except ValueError as error:
        raise Unreadable("it is not JSON") from error
    if not isinstance(value, dict):
        raise Unreadable("it is JSON, but no object")
    return value


def _fraction(text: str) -> Decimal:
    """A number whose exponent even Decimal refuses (beyond 10^18, as jsonb does) is one that nothing equals."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("NaN")


def _integer(text: str) -> int | Decimal:
    return int(text) if len(text) < _LONGEST_INT else Decimal(text)


def members(text: str) -> Iterator[tuple[str, str]]:
    """(key, the member's own text `"key": value`) of the top-level object, in order, duplicates included."""
    position = _skip(text, 0)
    if text[position : position + 1] != "{":
        raise Unreadable("it is JSON, but no object")
    position = _skip(text, position + 1)
    while text[position] != "}":
        start = position
        key, position = scanstring(text, position + 1, False)
        position = _skip(text, position)  # at the colon
        _, position = _extents.raw_decode(text, _skip(text, position + 1))
        yield key, text[start:position]
        position = _skip(text, position)
        if text[position] == ",":
            position = _skip(text, position + 1)


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def without(text: str, drop: Callable[[str], bool]) -> str:
    """The object less the members whose key `drop` names; everything else letter for letter."""
    return "{" + ", ".join(member for key, member in members(text) if not drop(key)) + "}"


_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)


def has_unstorable_escape(text: str) -> bool:
    r"""Whether a string in the JSON text holds `\u0000` or half of a surrogate pair, which `json` keeps and jsonb refuses."""
    expected = -1  # where the second half of a pair must begin
    for match in _ESCAPE.finditer(text):
        code = int(match[1], 16) if match[1] else -1
        low = 0xDC00 <= code < 0xE000
        if expected >= 0 and not (low and match.start() == expected):
            return True
        if code == 0 or (low and expected < 0):
            return True
        expected = match.end() if 0xD800 <= code < 0xDC00 else -1
    return expected >= 0
