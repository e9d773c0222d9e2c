"""Sampled rows of a dry run, as they are and as they would be: `Receipt.samples`, laid side by side."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from django.db.models import QuerySet, TextField
from django.db.models.fields.json import KeyTransform
from django.db.models.functions import Cast

from migration.models import Chunk

NESTED = ("changes", "context")


class Number(str):
    """A number of the JSON, as it was written: read into a float, 0.50 would be shown as 0.5."""


@dataclass(frozen=True)
class Field:
    """One field of a row, as JSON; '' where it is not there. It `differs` where an existing row would be rewritten."""

    name: str
    before: str
    after: str
    differs: bool


@dataclass(frozen=True)
class Sample:
    category: str
    audit: str
    is_new: bool
    fields: list[Field]


def of(chunks: QuerySet[Chunk], most: int = 5) -> list[Sample]:
    """The first samples that these chunks kept; production keeps none."""
    kept = chunks.filter(receipt__samples__0__isnull=False).annotate(kept=Cast(KeyTransform("samples", "receipt"), TextField()))
    samples: list[Sample] = []
    for text in kept.order_by("number").values_list("kept", flat=True)[:most]:
        samples += [compared(each["before"], each["after"]) for each in json.loads(text, parse_int=Number, parse_float=Number)]
    return samples[:most]


def compared(before: dict | None, after: dict) -> Sample:
    old, new = dict(flat(before or {})), dict(flat(after))
    names = [*new, *(name for name in old if name not in new)]
    fields = [Field(n, old.get(n, ""), new.get(n, ""), before is not None and old.get(n) != new.get(n)) for n in names]
    return Sample(str(after.get("category", "")), str(after.get("source_audit_id", "")), before is None, fields)


def flat(row: dict) -> Iterator[tuple[str, str]]:
    """The row's own fields first, then those inside `changes` and `context`."""
    yield from ((name, as_json(value)) for name, value in row.items() if name not in NESTED)
    for outer in NESTED:
        yield from ((f"{outer}.{name}", as_json(value)) for name, value in (row.get(outer) or {}).items())


def as_json(value: object) -> str:
    """JSON again, with every number as it was."""
    if isinstance(value, Number):
        return value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {as_json(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
