"""Checks of single values of the mapping document. Each names the place and goes on, so that one reading finds every problem."""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from decimal import Decimal
from typing import Any

from migration.mapping_json import is_storable

MISSING: Any = object()  # stands for a key that a document does not have
BIGINT = 2**63 - 1

_CATEGORY = re.compile(r"(?:contact|deal|task|ticket|note)/[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_NUMBER = re.compile(r"[+-]?[0-9]+")
_COMMA_BETWEEN_NUMBERS = re.compile(r"(?<!\w)[0-9]+\s*,\s*[0-9]+(?!\w)")
_PLAIN = re.compile(r"[\w:./*?-]{1,60}")
_KINDS = {
    type(None): "null",
    bool: "a boolean",
    int: "a whole number",
    float: "a decimal number",
    Decimal: "a decimal number",
    str: "text",
    list: "a list",
    dict: "an object",
}


class MappingError(ValueError):
    """A mapping document that cannot be used; `problems` holds every one found, each a sentence that begins with its place."""

    def __init__(self, problems: Collection[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Checker:
    """Collects problems. What it refuses it replaces with something harmless ("" or 0), which only goes as far as the MappingError.

    `is_new`: the document is not published yet, so that more can be asked of it; what is published must stay readable.
    """

    def __init__(self, *, is_new: bool = False) -> None:
        self.problems: list[str] = []
        self.is_new = is_new

    def refuse(self, place: str, why: str) -> None:
        self.problems.append(f"{place}: {why}.")

    def record(self, value: Any, place: str, keys: Sequence[str]) -> dict[str, Any] | None:
        """An object with no keys but these; None where it is no object."""
        if not isinstance(value, dict):
            self.refuse(place, f"must be an object, but is {kind(value)}")
            return None
        for key in value:
            if key not in keys:
                self.refuse(place, f"has the unknown key {shown(key)}; known are {', '.join(keys)}")
        return value

    def rows(self, value: Any, place: str) -> Iterator[tuple[str, Any]]:
        """The rows of a list, each with its place."""
        if not isinstance(value, list):
            self.refuse(place, f"must be a list, but is {kind(value)}")
            return
        for number, row in enumerate(value):
            yield f"{place}[{number}]", row

    def name(self, value: Any, place: str) -> str:
        """Text with something in it and no white space around it: a class, an attribute, a glob."""
        text = self.text(value, place)
        if text != text.strip():
            self.refuse(place, "has white space around it")
        return text

    def text(self, value: Any, place: str) -> str:
        """Text that is not empty and that PostgreSQL can store."""
        if not isinstance(value, str):
            self.refuse(place, f"must be text, but is {kind(value)}")
        elif not value:
            self.refuse(place, "must not be empty")
        elif not is_storable(value):
            self.refuse(place, "holds a character that PostgreSQL cannot store (U+0000 or half a surrogate pair)")
        else:
            return value
        return ""

    def id(self, value: Any, place: str) -> str:
        """A record's id, as text: a whole number not below 0, or an enum's or a uuid's text."""
        if isinstance(value, str):
            text = self.name(value, place)
            if re.fullmatch(r"-[0-9]+", text):
                self.refuse(place, "must not be below 0")
            return text
        return str(self.whole(value, place, 0, BIGINT, "a whole number or text"))

    def id_of_set(self, value: Any, place: str) -> str:
        """The same, but not several at once: they would be taken for the name of an enum, and no audit holds it."""
        text = self.id(value, place)
        if self.is_new and is_list_of_ids(text):
            self.refuse(place, f"{shown(text)} is no id: write one id to a line, without commas (in a file, one to an entry)")
        return text

    def whole(self, value: Any, place: str, low: int, high: int, what: str = "a whole number") -> int:
        """A whole number within bounds; a boolean is none, nor is 3.0."""
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(place, f"must be {what}, but is {kind(value)}")
        elif not low <= value <= high:
            self.refuse(place, f"must be from {low} to {high}")
        else:
            return value
        return 0

    def account(self, value: Any, place: str) -> int | None:
        """A CRM organisation id, or None for every account."""
        return None if value is None else self.whole(value, place, 1, BIGINT)

    def choice(self, value: Any, place: str, choices: Sequence[str]) -> str:
        text = self.text(value, place)
        if text and text not in choices:
            self.refuse(place, f"{shown(text)} is not one of {', '.join(choices)}")
        return text

    def category(self, value: Any, place: str) -> str:
        text = self.text(value, place)
        if text and not _CATEGORY.fullmatch(text):
            form = "entity/verb, such as deal/won, with the entity contact, deal, task, ticket or note"
            self.refuse(place, f"{shown(text)} is not of the form {form}")
        return text

    def optional(self, check: Callable[[Any, str], str], value: Any, place: str) -> str | None:
        """None for null or a missing key, otherwise what the check makes of the value."""
        return None if value is None else check(value, place)


def is_list_of_ids(text: str) -> bool:
    """`3, 4`, `4 5 10` and `[4,5]`; the name of an enum may have blanks, and commas too."""
    parts = [part for part in re.split(r"[\s,;]+", text) if part]
    numbers = bool(parts) and all(map(_NUMBER.fullmatch, parts)) and not _NUMBER.fullmatch(text)
    return numbers or bool(_COMMA_BETWEEN_NUMBERS.search(text))


def kind(value: Any) -> str:
    """A value's JSON type, in words."""
    return "missing" if value is MISSING else _KINDS.get(type(value), "no JSON value")


def shown(value: Any) -> str:
    """Text to quote in a sentence: plain where it is plain, else escaped and cut."""
    if not isinstance(value, str):
        return kind(value)
    return value if _PLAIN.fullmatch(value) else repr(value[:60])
