"""Overrides that come as CSV: from the file, or from the preview that is confirmed. Nothing is kept between the two but in the page."""

import base64
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest

from migration import override_csv
from migration.admin import draft_report, typed
from migration.models import MappingDraft
from migration.runs import Refused

MOST_BYTES = 1_000_000
MOST_SHOWN = 500  # lines of a preview: first those that change something


@dataclass
class Sent:
    """What was sent, and its preview, if it could be read."""

    problem: str = ""
    confirmed: bool = False
    seen: str = ""
    encoded: str = ""
    preview: override_csv.Preview | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    removed: list[list[str]] = field(default_factory=list)
    document: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        return self.preview is not None and self.preview.sound and not self.problem

    def check_seen(self, draft: MappingDraft) -> None:
        """Raise Refused where the draft is another than the preview was made for."""
        if self.seen != draft_report.seen(draft):
            raise Refused(f"{draft.edited_by} changed the draft since this preview: look at the new one below, then confirm again.")


def read(request: HttpRequest, draft: MappingDraft, kind: str) -> Sent:
    """What the request holds: nothing yet, a file, or a preview that is confirmed."""
    if request.method != "POST":
        return Sent()
    sent = Sent(confirmed="confirm" in request.POST, seen=request.POST.get("seen", ""))
    try:
        raw = confirmed(request.POST.get("file", "")) if sent.confirmed else uploaded(request)
        text = raw.decode("utf-8-sig")
        sent.preview = override_csv.preview(text, kind, draft.document)
    except UnicodeDecodeError:
        sent.problem = "The file is not UTF-8: save it as “CSV UTF-8”."
    except (override_csv.CsvError, Refused) as error:
        sent.problem = str(error)
    if sent.preview:
        sent.encoded = base64.b64encode(raw).decode()
        lay_out(sent, sent.preview, kind)
        if not sent.confirmed:
            sent.seen = draft_report.seen(draft)
    return sent


def uploaded(request: HttpRequest) -> bytes:
    file = request.FILES.get("csv")
    if file is None:
        raise Refused("Choose a CSV file first.")
    if (file.size or 0) > MOST_BYTES:
        raise Refused(f"The file has {file.size:,} bytes; this page takes {MOST_BYTES:,}; publish_mapping takes more.")
    raw: bytes = file.read()
    return raw


def confirmed(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:  # binascii.Error is one, and so is what letters beyond ASCII raise
        raise Refused("The preview did not come back whole: choose the file again.") from None


def lay_out(sent: Sent, preview: override_csv.Preview, kind: str) -> None:
    """The preview's lines for the page; what a mapping cannot keep becomes a problem of its line."""
    for row in preview.rows:
        try:
            row.values |= {"to": typed.kept(row.values["to"])} if "to" in row.values else {}
        except ValueError as error:
            row.problems.append(f"line {row.line}, to: {error}")
    columns = override_csv.COLUMNS[kind]
    by_interest = sorted(preview.rows, key=lambda row: (not row.problems, row.change == "kept"))[:MOST_SHOWN]
    sent.rows = [
        {"line": row.line, "change": "wrong" if row.problems else row.change, "problems": row.problems, "cells": cells(row.values, columns)}
        for row in sorted(by_interest, key=lambda row: row.line)
    ]
    sent.removed = [cells(override, columns) for override in preview.removed[:MOST_SHOWN]]
    sent.document = preview.document
    sent.counts = {
        "lines": len(preview.rows),
        "new": sum(row.change == "new" and not row.problems for row in preview.rows),
        "kept": sum(row.change == "kept" and not row.problems for row in preview.rows),
        "removed": len(preview.removed),
        "wrong": sum(bool(row.problems) for row in preview.rows),
        "shown": len(sent.rows),
    }


def cells(values: dict[str, Any], columns: tuple[str, ...]) -> list[str]:
    show = {"to": typed.value_field}
    return [show.get(column, typed.text_field)(values[column]) if column in values else "" for column in columns]
