"""audited_changes as it comes from the CRM, turned into a JSON object as it goes to the CDP, by the column's type."""

import re
from collections.abc import Callable
from typing import Any

from migration import copytext
from migration.crm import Shape
from migration.pipeline import changes, ruby_yaml
from migration.pipeline.problems import Unreadable

_OBJECT = re.compile(copytext.SPACE + rb"\{")
Reader = Callable[[bytes], bytes]  # from the raw COPY field to the JSON object's


class UnstorableText(ValueError):
    """JSON that jsonb would refuse; it can be read all the same, for decisions."""

    def __init__(self, sentence: str, text: str) -> None:
        super().__init__(sentence)
        self.text = text


def changes_reader(shape: Shape) -> Reader:
    """What turns the column's raw field into a JSON object's, by the column's type."""
    return {"jsonb": read_jsonb, "json": read_json, "text": read_yaml}[shape.changes]


def read_jsonb(raw: bytes) -> bytes:
    """jsonb comes as it can be written again; only its outermost shape is looked at."""
    if raw[:1] != b"{":
        raise Unreadable("it is NULL" if raw == copytext.NULL else "it is JSON, but no object")
    return raw


def read_json(raw: bytes) -> bytes:
    """json keeps the text it was given: white space around it, and escapes that jsonb refuses."""
    if raw == copytext.NULL:
        raise Unreadable("it is NULL")
    if not _OBJECT.match(raw):
        raise Unreadable("it is JSON, but no object")
    if b"\\\\u" in raw:
        check_escapes(copytext.unescape(raw).decode())
    return raw


def read_yaml(raw: bytes) -> bytes:
    """text holds Ruby YAML."""
    if raw == copytext.NULL:
        raise Unreadable("it is NULL")
    text = ruby_yaml.to_json(copytext.unescape(raw).decode())
    if "\\u" in text:
        check_escapes(text)
    return copytext.write(text)


def check_escapes(text: str) -> None:
    if changes.has_unstorable_escape(text):
        raise UnstorableText("it holds \\u0000 or half of a surrogate pair", text)


def values(text: str | None, reader: Reader) -> dict[str, Any] | None:
    """audited_changes as a dict, for decisions; None where nobody can read it. What cannot be stored can still be read."""
    try:
        return changes.parse(readable(text, reader))
    except (Unreadable, RecursionError):  # depths that JSON allows, and Python does not
        return None


def readable(text: str | None, reader: Reader) -> str:
    try:
        return copytext.unescape(reader(copytext.write(text))).decode()
    except UnstorableText as error:
        return error.text
