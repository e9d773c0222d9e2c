"""Texts, ids and JSON values as people type them into a field, and back. What is shown and read again is the same, whatever it holds.

A text stands for itself. One that a field would change or hide (line breaks, white space around it, characters that cannot be seen) is
written in quotation marks, as JSON writes it; so is one that begins with a quotation mark.
"""

import json
import re
from decimal import Decimal
from typing import Any

from migration.admin.display import unseen
from migration.mapping_json import json_text, same_json
from migration.override_csv import read_json

WHOLE = re.compile(r"[+-]?[0-9]{1,40}")


def text_field(text: object) -> str:
    """One text, or an id, as it is typed; '' for None."""
    if text is None:
        return ""
    plain = str(text)
    is_safe = plain and plain == plain.strip() and not plain.startswith('"') and not any(map(unseen, plain))
    return plain if is_safe else quoted(plain)


def read_text(field: str) -> str | None:
    """The text that was typed; None for an empty field. Raises ValueError with the reason."""
    text = field.strip()
    if not text.startswith('"'):
        return text or None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, str):
        raise ValueError('begins with a quotation mark, so it must end with one and be written as in JSON ("two\\nlines")')
    return value


def value_field(value: Any) -> str:
    """A JSON value as it is typed."""
    return quoted(value) if isinstance(value, str) else json_text(value)


def read_value(field: str) -> Any:
    """The JSON value that was typed, as a mapping keeps it. Raises ValueError with the reason."""
    return kept(read_json(field))


def read_whole(field: str) -> int | str | None:
    """A whole number, None for an empty field; anything else stays text, and the mapping's own check refuses it."""
    text = field.strip()
    return int(text) if WHOLE.fullmatch(text) else text or None


def lines_field(texts: list[Any]) -> str:
    return "\n".join(text_field(text) for text in texts)


def read_lines(field: str) -> list[str]:
    """The texts of the lines that are not blank. Raises ValueError naming the line, counted from 1 over all lines."""
    found = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", field), 1):
        try:
            text = read_text(line)
        except ValueError as error:
            raise ValueError(f"line {number} {error}") from None
        if text is not None:
            found.append(text)
    return found


def kept(value: Any) -> Any:
    """The value as the console's database gives it back: a decimal number as Python's float. Raises ValueError where that is another number."""
    if isinstance(value, list):
        return [kept(each) for each in value]
    if isinstance(value, dict):
        return {key: kept(each) for key, each in value.items()}
    if not isinstance(value, Decimal):
        return value
    number = float(value)
    if not same_json(number, value):
        raise ValueError(f"the number {json_text(value)[:40]} cannot be kept as it is written; as a mapping keeps it, it is {number!r}")
    return number


def quoted(text: str) -> str:
    """The text as JSON writes it, with escapes for what cannot be seen only."""
    return "".join(json.dumps(character)[1:-1] if unseen(character) else character for character in json.dumps(text, ensure_ascii=False))
