"""Overrides as CSV: export then import is the identity, cells are harmless in a spreadsheet, and every fault names its line."""

import csv
import io
import time
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration import override_csv
from migration.mapping import ActorKind, canonical
from migration.mapping_json import json_text

PINNED = {
    "account": None,
    "class": "Crm::Note",
    "action": "update",
    "attribute": "is_pinned",
    "to": True,
    "category": "note/pinned",
    "priority": 1,
}
BASE = {"class_roles": {"contact": ["Crm::Person"], "note": ["Crm::Note"]}}
texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), min_size=1, max_size=20)
accounts = st.none() | st.integers(1, 2**62)
values = (
    st.none()
    | st.booleans()
    | st.integers()
    | texts
    | st.decimals(allow_nan=False, allow_infinity=False, places=3)
    | st.lists(texts, max_size=2)
)


@st.composite
def category_overrides(draw):
    rows = []
    for priority in draw(st.lists(st.integers(-1000, 1000), unique=True, max_size=6)):
        row = {
            "account": draw(accounts),
            "class": draw(texts),
            "action": draw(st.sampled_from(["create", "update", "destroy"])),
            "attribute": draw(st.none() | texts),
            "category": "note/pinned",
            "priority": priority,
        }
        if row["attribute"] is not None and draw(st.booleans()):
            row["to"] = draw(values)
        rows.append(row)
    return rows


@st.composite
def actor_overrides(draw):
    rows = []
    for key in draw(st.lists(st.integers(1, 10**9) | texts, unique_by=str, max_size=6)):
        by_user = draw(st.booleans())
        rows.append(
            {
                "account": draw(accounts),
                "crm_user_id": key if by_user else None,
                "label": None if by_user else str(key),
                "kind": draw(st.sampled_from([str(kind) for kind in ActorKind])),
                "actor_id": draw(st.none() | texts),
                "actor_name": draw(st.none() | texts),
            }
        )
    return rows


@pytest.mark.parametrize(("kind", "rows"), [("category_overrides", category_overrides()), ("actor_overrides", actor_overrides())])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_export_then_import_is_the_identity_and_no_cell_is_a_formula(kind, rows, data):
    document = BASE | {kind: data.draw(rows)}
    text = override_csv.export(document, kind)
    for cells in csv.reader(io.StringIO(text, newline="")):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in cells)
    preview = override_csv.preview(text, kind, document)
    assert [json_text(row.values) for row in preview.rows] == [json_text(row) for row in document[kind]]
    assert {row.change for row in preview.rows} <= {"kept"} and not preview.removed


def test_a_spreadsheets_byte_order_mark_and_blank_lines_are_borne():
    document = BASE | {
        "actor_overrides": [{"account": None, "crm_user_id": None, "label": "=cmd", "kind": "label", "actor_id": None, "actor_name": "x"}]
    }
    text = "\ufeff" + override_csv.export(document, "actor_overrides") + "\r\n"
    preview = override_csv.preview(text, "actor_overrides", document)
    assert preview.sound
    assert canonical(preview.document) == canonical(document)


def test_what_would_come_and_go_is_shown_line_by_line():
    new = PINNED | {"to": Decimal("0.50"), "priority": 2}
    document = BASE | {"category_overrides": [PINNED]}
    preview = override_csv.preview(
        override_csv.export(BASE | {"category_overrides": [new]}, "category_overrides"), "category_overrides", document
    )
    assert [(row.line, row.change, row.values) for row in preview.rows] == [(2, "new", new)]
    assert preview.removed == [PINNED] and preview.sound


def test_overlaps_and_bad_cells_name_their_lines():
    header = ",".join(override_csv.COLUMNS["category_overrides"])
    lines = [
        header,
        ",Crm::Note,update,is_pinned,true,note/pinned,1",
        ",Crm::Note,update,is_pinned,true,note/starred,1",
        "x,Crm::Note,update,is_pinned,lost,note/pinned,2",
        "too,few",
    ]
    preview = override_csv.preview("\r\n".join(lines), "category_overrides", BASE)
    assert not preview.sound
    assert "line 2" in preview.rows[1].problems[0] and "equal priority" in preview.rows[1].problems[0]
    assert any("account: must be a whole number" in p for p in preview.rows[2].problems)
    assert any("to: must be JSON" in p for p in preview.rows[2].problems)
    assert "line 5 has 2 cells, not 7" in preview.rows[3].problems[0]


def test_thousands_of_wrong_lines_are_named_in_seconds():
    """A file of the most bytes that the page takes, each line of which overlaps the first."""
    header = ",".join(override_csv.COLUMNS["category_overrides"])
    lines = [f",Crm::Note,update,category_overrides[{number + 90_000}],true,note/pinned,1" for number in range(12_000)]
    began = time.process_time()
    preview = override_csv.preview("\r\n".join([header, *lines]), "category_overrides", BASE)
    assert time.process_time() - began < 5
    says = "overlaps line 2 with equal priority 1; give one of them another priority."
    assert [row.problems for row in preview.rows] == [[], *([f"line {number}: {says}"] for number in range(3, 12_002))]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_what_spreadsheets_make_of_a_file_is_read(delimiter):
    """Semicolons where a comma separates decimals, and booleans in capitals."""
    header = delimiter.join(override_csv.COLUMNS["category_overrides"])
    line = delimiter.join(["2", "Crm::Note", "update", "is_pinned", "TRUE", "note/pinned", "1"])
    preview = override_csv.preview(f"\ufeff{header}\r\n{line}\r\n", "category_overrides", BASE)
    values = PINNED | {"account": 2}
    assert preview.sound and [row.values for row in preview.rows] == [values]


def test_a_wrong_first_line_is_told_as_it_is():
    with pytest.raises(override_csv.CsvError, match=r"must name the columns account, .*, priority; it is 'Account, class'"):
        override_csv.preview("Account,class\r\n", "category_overrides", BASE)


@pytest.mark.parametrize("text", ["", "a,b\r\n", 'account,"class'])
def test_something_else_than_overrides_is_refused_whole(text):
    with pytest.raises(override_csv.CsvError):
        override_csv.preview(text, "category_overrides", BASE)
