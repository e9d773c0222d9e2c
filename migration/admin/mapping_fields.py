"""The kinds of fields that a mapping's parts are made of: a list with one text a line, one text, and a table with a row for each entry."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from migration.admin import typed

ROWS = 50  # of a table on one page: Django takes a thousand fields from a form
BLANK = 2  # rows below the last one, for new entries
ENTRY = re.compile(r"^\[([0-9]+)\](?:\.[a-z_]+)?: ?")
EMPTY = re.compile(r"but is (?:null|missing)\.$")
ELSEWHERE = re.compile(r"\b([a-z_]+(?:\.[a-z_]+)*)\[([0-9]+)\]")


@dataclass
class Sink:
    """Where problems are shown."""

    problems: list[str] = field(default_factory=list)

    def take(self, rest: str) -> None:
        """What follows the place in a problem's sentence."""
        self.problems.append(for_people(ENTRY.sub(lambda at: f"entry {int(at[1]) + 1}: ", rest).lstrip(":. ")))


@dataclass
class Field(Sink):
    """One input: its name in the form and its text."""

    name: str = ""
    label: str = ""
    text: str = ""
    kind: str = "text"  # text, lines, choice
    choices: tuple[str, ...] = ()
    about: str = ""

    @property
    def height(self) -> int:
        """Lines of a textarea."""
        return min(max(self.text.count("\n") + 2, 3), 14)

    def read(self, reader: Callable[[str], Any]) -> Any:
        """What was typed, or None with the reason among the problems."""
        try:
            return reader(self.text)
        except ValueError as error:
            self.problems.append(str(error))
            return None


@dataclass
class Row(Sink):
    """One entry of a table; `number` is its place in the whole list, from 1, or 0 for a new one."""

    fields: list[Field] = field(default_factory=list)
    name: str = ""
    number: int = 0
    removed: bool = False

    @property
    def is_blank(self) -> bool:
        return not any(each.text.strip() for each in self.fields)

    @property
    def wrong(self) -> bool:
        return bool(self.problems) or any(each.problems for each in self.fields)


@dataclass(frozen=True)
class Lines:
    """A list of texts, one a line."""

    path: tuple[str, ...]
    label: str
    about: str = ""
    template = "admin/migration/mappingdraft/field.html"

    def shown(self, document: Mapping[str, Any], start: int) -> Field:
        return self.field(typed.lines_field(at(document, self.path, [])))

    def posted(self, old: Mapping[str, Any], new: dict[str, Any], data: Mapping[str, str], start: int) -> Field:
        made = self.field(data.get(".".join(self.path), ""))
        put(new, self.path, made.read(typed.read_lines) or [])
        return made

    def field(self, text: str) -> Field:
        return Field(name=".".join(self.path), label=self.label, text=text, kind="lines", about=self.about)

    def sinks(self, made: Field) -> dict[str, Sink]:
        return {made.name: made}


@dataclass(frozen=True)
class One:
    """A text, or none: then the document does not have the key."""

    path: tuple[str, ...]
    label: str
    template = "admin/migration/mappingdraft/field.html"

    def shown(self, document: Mapping[str, Any], start: int) -> Field:
        return self.field(typed.text_field(at(document, self.path, None)))

    def posted(self, old: Mapping[str, Any], new: dict[str, Any], data: Mapping[str, str], start: int) -> Field:
        made = self.field(data.get(".".join(self.path), ""))
        put(new, self.path, made.read(typed.read_text))
        return made

    def field(self, text: str) -> Field:
        return Field(name=".".join(self.path), label=self.label, text=text)

    def sinks(self, made: Field) -> dict[str, Sink]:
        return {made.name: made}


@dataclass(frozen=True)
class Column:
    """One column: how a value is shown and read. An empty field is null, or where it is `left_out` no key at all."""

    key: str
    label: str
    show: Callable[[Any], str] = typed.text_field
    read: Callable[[str], Any] = typed.read_text
    choices: tuple[str, ...] = ()
    left_out: bool = False


@dataclass(frozen=True)
class Table:
    """A list of objects, a row for each; long ones are shown and edited ROWS at a time."""

    path: tuple[str, ...]
    label: str
    columns: tuple[Column, ...]
    about: str = ""
    csv: str = ""  # the kind of override that override_csv knows
    template = "admin/migration/mappingdraft/table.html"

    def shown(self, document: Mapping[str, Any], start: int) -> list[Row]:
        entries = at(document, self.path, [])
        first = start if len(entries) > ROWS else 0
        rows = [self.row(n, first + n + 1, self.texts(entry)) for n, entry in enumerate(entries[first : first + ROWS])]
        if first + ROWS >= len(entries):
            rows += [self.row(len(rows) + n, 0, {}) for n in range(BLANK)]
        return rows

    def posted(self, old: Mapping[str, Any], new: dict[str, Any], data: Mapping[str, str], start: int) -> list[Row]:
        entries = at(old, self.path, [])
        first = start if len(entries) > ROWS else 0
        known = len(entries[first : first + ROWS])
        rows = []
        for n in range(rows_sent(self.name, data, ROWS + BLANK)):
            texts = {column.key: data.get(f"{self.name}.{n}.{column.key}", "") for column in self.columns}
            rows.append(self.row(n, first + n + 1 if n < known else 0, texts, bool(data.get(f"{self.name}.{n}.remove"))))
        here = [row for row in rows if not row.removed and not row.is_blank]
        for position, row in enumerate(here, first + 1):
            row.number = position
        put(new, self.path, [*entries[:first], *map(self.entry, here), *entries[first + ROWS :]])
        return rows

    @property
    def name(self) -> str:
        return ".".join(self.path)

    def size(self, document: Mapping[str, Any]) -> int:
        return len(at(document, self.path, []))

    def texts(self, entry: Mapping[str, Any]) -> dict[str, str]:
        return {column.key: column.show(entry[column.key]) for column in self.columns if column.key in entry}

    def row(self, n: int, number: int, texts: Mapping[str, str], removed: bool = False) -> Row:
        name = f"{self.name}.{n}"
        fields = [
            Field(
                name=f"{name}.{c.key}",
                label=c.label,
                text=texts.get(c.key, ""),
                kind="choice" if c.choices else "text",
                choices=c.choices,
            )
            for c in self.columns
        ]
        return Row(fields=fields, name=name, number=number, removed=removed)

    def entry(self, row: Row) -> dict[str, Any]:
        """The object that a row's fields say."""
        found = {}
        for column, made in zip(self.columns, row.fields, strict=True):
            if made.text.strip():
                found[column.key] = made.read(column.read)
            elif not column.left_out:
                found[column.key] = None
        return found

    def sinks(self, rows: list[Row]) -> dict[str, Sink]:
        found: dict[str, Sink] = {}
        for row in rows:
            if row.number and not row.removed and not row.is_blank:
                place = f"{self.name}[{row.number - 1}]"
                found[place] = row
                found |= {f"{place}.{column.key}": each for column, each in zip(self.columns, row.fields, strict=True)}
        return found


def for_people(problem: str) -> str:
    """The sentence with positions in lists told as people count, and an empty field called so."""
    return ELSEWHERE.sub(lambda at: f"entry {int(at[2]) + 1} of {at[1]}", EMPTY.sub("but is empty.", problem))


def rows_sent(name: str, data: Mapping[str, str], most: int) -> int:
    """How many rows of a table the form had."""
    count = data.get(f"{name}.rows", "")
    return min(int(count), most) if count.isascii() and count.isdecimal() and len(count) < 9 else 0


def at(document: Mapping[str, Any], path: tuple[str, ...], default: Any) -> Any:
    """What the document has there."""
    for key in path[:-1]:
        document = document.get(key, {})
    return document.get(path[-1], default)


def put(document: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set it; None takes the key away. The objects on the way are the caller's own copies."""
    for key in path[:-1]:
        document = document.setdefault(key, {})
    if value is None:
        document.pop(path[-1], None)
    else:
        document[path[-1]] = value
