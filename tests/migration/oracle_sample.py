"""The demo's files as the oracle reads them: its own reader of pg_dump's text, sharing no code with the console."""

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "calm_console" / "demo" / "data"


@dataclass
class Audit:
    """One row of `audits`. `changes` is its JSON with every number as Decimal, `created_at` aware in UTC."""

    id: int
    auditable_type: str
    auditable_id: int
    action: str
    changes: Any
    created_at: datetime | None
    associated_type: str | None = None
    associated_id: int | None = None
    user_id: int | None = None
    user_type: str | None = None
    username: str | None = None
    comment: str | None = None


@dataclass
class Sample:
    """Everything the rows follow from, as it lies in the demo's files."""

    audits: list[Audit]
    users: dict[int, dict[str, str | None]]
    truth: dict[str, Any]
    accounts: dict[int, str]  # CRM organisation id -> CDP account id
    contacts: list[dict[str, str | None]]
    live: list[dict[str, Any]]
    usman: list[dict[str, str]]
    mapping: dict[str, Any]


def read_sample(name: str = "crm_sample") -> Sample:
    """The CRM sample of that name with the one CDP; of YAML, the changes as Ruby told them."""
    crm, cdp = tables(f"{name}.sql.gz"), tables("sample_cdp.sql.gz")
    truth = gzip.decompress((DATA / f"{name}.truth.json.gz").read_bytes()).decode()
    told = read_json(truth).get("decoded_changes", {})
    return Sample(
        audits=sorted((audit(row, told) for row in crm["audits"]), key=lambda one: one.id),
        users={int(str(row["id"])): row for row in crm["users"]},
        truth=json.loads(truth),
        accounts={int(str(row["crm_organization_id"])): str(row["id"]) for row in cdp["accounts"]},
        contacts=cdp["contacts"],
        live=[
            row | {"occurred_at": datetime.fromisoformat(str(row["occurred_at"])), "source_audit_id": number(row["source_audit_id"])}
            for row in cdp["contact_activity_logs"]
        ],
        usman=json.loads((DATA / "sample_usman_users.json").read_text())["users"],
        mapping=json.loads((DATA.parent / "mapping.json").read_text()),
    )


def number(text: str | None) -> int | None:
    return None if text is None else int(text)


def audit(row: dict[str, str | None], told: dict[str, Any]) -> Audit:
    """A row of the dump, typed; its changes as they were told, else the row's own JSON."""
    numbers: dict[str, Any] = {name: number(row[name]) for name in ("id", "auditable_id", "associated_id", "user_id")}
    names = ("auditable_type", "associated_type", "user_type", "username", "action", "comment")
    texts: dict[str, Any] = {name: row[name] for name in names}
    created_at = None if row["created_at"] is None else datetime.fromisoformat(row["created_at"]).replace(tzinfo=UTC)
    changes = told.get(str(row["id"]))
    if changes is None and row["audited_changes"] is not None:
        changes = read_json(row["audited_changes"])
    return Audit(**numbers, **texts, changes=changes, created_at=created_at)


def tables(dump: str) -> dict[str, list[dict[str, str | None]]]:
    """Every table of a plain dump, its rows read from the COPY blocks."""
    found: dict[str, list[dict[str, str | None]]] = {}
    lines = iter(gzip.decompress((DATA / dump).read_bytes()).decode().split("\n"))
    for line in lines:
        if begin := re.fullmatch(r"COPY (?:public\.)?(\w+) \((.*)\) FROM stdin;", line):
            columns = [name.strip('"') for name in begin[2].split(", ")]
            found[begin[1]] = [dict(zip(columns, fields(row), strict=True)) for row in iter(lambda: next(lines), "\\.")]
    return found


def fields(line: str) -> Iterator[str | None]:
    """The fields of one line in COPY's text format, as pg_dump writes it."""
    escapes = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
    for text in line.split("\t"):
        yield None if text == "\\N" else re.sub(r"\\(.)", lambda found: escapes.get(found[1], found[1]), text)


def read_json(text: str) -> Any:
    """A JSON text with every number as Decimal."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)
