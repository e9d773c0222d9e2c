"""Overrides as CSV: for a spreadsheet and back. Exporting and importing again changes nothing.

A cell that a spreadsheet would run as a formula gets an apostrophe before it, and loses it again on the way back; so does an empty text,
since an empty cell means "not given". The value that a category override looks for (`to`) is a cell of JSON.
"""

import csv
import io
import json
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from migration import mapping as mappings
from migration.mapping import MappingError
from migration.mapping_json import json_problem, json_text

COLUMNS = {
    "category_overrides": ("account", "class", "action", "attribute", "to", "category", "priority"),
    "actor_overrides": ("account", "crm_user_id", "label", "kind", "actor_id", "actor_name"),
}
NUMBERS = {"account", "priority"}
DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
BYTE_ORDER_MARK = "\ufeff"
SPREADSHEETS_BOOLEANS = {"TRUE": "true", "FALSE": "false"}  # as they give back what they take for one


class CsvError(ValueError):
    """The file is no CSV of overrides at all."""


@dataclass
class Row:
    """One line of the file: what it says, and what is wrong with it."""

    line: int
    values: dict[str, Any]
    change: str = ""  # new, kept
    problems: list[str] = field(default_factory=list)


@dataclass
class Preview:
    """What importing would do, line by line; `document` is the whole mapping then."""

    rows: list[Row]
    removed: list[dict[str, Any]]
    document: dict[str, Any]
    problems: list[str]

    @property
    def sound(self) -> bool:
        return not self.problems and not any(row.problems for row in self.rows)


def export(document: dict[str, Any], kind: str) -> str:
    """The overrides of one kind ("category_overrides", "actor_overrides") of a mapping document as CSV."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(COLUMNS[kind])
    for override in document.get(kind, []):
        writer.writerow([cell(override[name], name) if name in override else "" for name in COLUMNS[kind]])
    return out.getvalue()


def cell(value: Any, column: str) -> str:
    """One value as a harmless cell."""
    if column == "to":
        return harmless(json_text(value))
    if value is None:
        return ""
    # A user id may be a number or a text that looks like one: the text is marked.
    text = f'"{value}"' if column == "crm_user_id" and isinstance(value, str) else str(value)
    return harmless(text)


def harmless(text: str) -> str:
    return f"'{text}" if not text or text.startswith(DANGEROUS) else text


def preview(text: str, kind: str, document: dict[str, Any]) -> Preview:
    """Read a CSV as the new overrides of one kind; each line's problems, and what would come and go. Raises CsvError."""
    rows = read(text, kind)
    before = {meaning(override) for override in document.get(kind, [])}
    new = document | {kind: [row.values for row in rows]}
    for row in rows:
        row.change = "kept" if meaning(row.values) in before else "new"
    after = {meaning(row.values) for row in rows}
    removed = [override for override in document.get(kind, []) if meaning(override) not in after]
    return Preview(rows, removed, new, place_problems(new, kind, rows))


def meaning(override: dict[str, Any]) -> str:
    """One text for overrides that mean the same: a null, but for `to`, is no key, and a user id is what its text is."""
    given = {key: value for key, value in override.items() if value is not None or key == "to"}
    return json_text(given | {"crm_user_id": str(given["crm_user_id"])} if "crm_user_id" in given else given)


def place_problems(document: dict[str, Any], kind: str, rows: list[Row]) -> list[str]:
    """Check the whole mapping; problems of a line go to it, what is left is returned."""
    try:
        mappings.digest_of_new(document)
    except MappingError as error:
        left: list[str] = []
        place = re.compile(rf"{kind}\[([0-9]+)\]")
        for problem in error.problems:
            its = place.match(problem)
            named = place.sub(lambda at: f"line {rows[int(at[1])].line}" if int(at[1]) < len(rows) else at[0], problem)
            (rows[int(its[1])].problems if its else left).append(named)
        return left
    return []


def read(text: str, kind: str) -> list[Row]:
    columns, text = COLUMNS[kind], text.removeprefix(BYTE_ORDER_MARK)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter_of(text))
    try:
        header = next(reader, [])
        if tuple(header) != columns:
            found = f"it is {', '.join(header)[:200]!r}" if any(header) else "it is empty"
            raise CsvError(f"The first line must name the columns {', '.join(columns)}; {found}.")
        rows = []
        for cells in reader:
            if any(cells):
                rows.append(row_of(reader.line_num, cells, columns))
    except csv.Error as error:
        raise CsvError(f"Line {reader.line_num} is not CSV: {error}.") from error
    return rows


def delimiter_of(text: str) -> str:
    """What stands between the names of the columns: where a comma separates decimals, spreadsheets write semicolons."""
    first = re.split(r"[\r\n]", text, maxsplit=1)[0]
    return max(",;\t", key=first.count)


def row_of(line: int, cells: list[str], columns: tuple[str, ...]) -> Row:
    row = Row(line, {})
    if len(cells) != len(columns):
        row.problems.append(f"line {line} has {len(cells)} cells, not {len(columns)}")
        return row
    for column, text in zip(columns, cells, strict=True):
        try:
            value_into(row.values, column, text)
        except ValueError as error:
            row.problems.append(f"line {line}, {column}: {error}")
    return row


def value_into(values: dict[str, Any], column: str, text: str) -> None:
    """One cell's value; an empty cell is null, or for `to` no key at all."""
    plain = text[1:] if text.startswith("'") else text
    if column == "to":
        if text:
            values[column] = read_json(SPREADSHEETS_BOOLEANS.get(plain, plain))
    elif not text:
        values[column] = None
    elif column in NUMBERS:
        values[column] = whole(plain)
    elif column == "crm_user_id":
        values[column] = plain[1:-1] if len(plain) > 1 and plain[0] == plain[-1] == '"' else whole(plain)
    else:
        values[column] = plain


def whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"must be a whole number, not {text[:40]!r}") from None


def read_json(text: str) -> Any:
    """The value of a `to` cell. Raises ValueError with the reason, too for what is JSON but cannot be kept."""
    try:
        value = json.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError):
        raise ValueError('must be JSON: text in quotes ("lost"), numbers, true, false or null without') from None
    if problem := json_problem(value):
        raise ValueError(problem)
    return value
