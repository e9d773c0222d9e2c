"""Join rows whose id is no number, and audits that name no row: followed by the LinkIndex like others, and moved."""

from collections.abc import Iterable
from typing import Any

import pytest

from migration import link_source, links
from migration.models import DealLink, LinkIndex, LinkOddity
from migration.states import RunState
from tests.conftest import Systems, rows
from tests.migration.conftest import now, run_account
from tests.migration.hard_rows import ORGANISATION, insert, new_contact
from tests.migration.test_links import JOIN, contents, up_to_date

UUIDS = ("b0a3c1de-0000-4000-8000-000000000001", "b0a3c1de-0000-4000-8000-000000000002", "007", "-5")


def joins(
    number: int, ids: Iterable[object], action: str = "create", changes: str = '{{"crm_deal_id": {0}, "crm_person_id": {0}}}'
) -> list[dict[str, Any]]:
    """An audit of each join row, from audit id `number` on; row n links person and deal n."""
    each = enumerate(ids)
    return [
        JOIN | {"id": number + at, "auditable_id": row, "action": action, "audited_changes": changes.format(at + 1)} for at, row in each
    ]


def linked(index: LinkIndex) -> set[tuple[int, int, int, int | None]]:
    found = DealLink.objects.filter(index=index, from_audit__gte=50_000)
    return set(found.values_list("person_id", "deal_id", "from_audit", "to_audit"))


def index_with(
    audits: list[dict[str, Any]], systems: Systems, monkeypatch: pytest.MonkeyPatch, *, batch: int, built_before: bool
) -> LinkIndex:
    """The index of a CRM that has these audits too: extended by them, or built with them."""
    with monkeypatch.context() as patch:
        patch.setattr(link_source, "BATCH", batch)
        patch.setattr(link_source, "IDS_AT_ONCE", batch)
        if built_before:
            up_to_date()
        else:  # what extends the index after a build would read again what that left out
            patch.setattr(links, "extend", lambda *given, **named: None)
        insert(systems, audits)
        return up_to_date()


@pytest.mark.parametrize("batch", [1, 5000])
@pytest.mark.parametrize("built_before", [True, False])
def test_join_rows_that_have_texts_as_ids_are_followed_like_others(systems, monkeypatch, batch, built_before):
    systems.change_crm("ALTER TABLE audits ALTER auditable_id TYPE varchar USING auditable_id::varchar")
    audits = joins(50_001, UUIDS) + joins(50_011, UUIDS, "destroy")
    index = index_with(audits, systems, monkeypatch, batch=batch, built_before=built_before)
    assert linked(index) == {(row, row, 50_000 + row, 50_010 + row) for row in range(1, 5)}
    insert(systems, joins(50_021, UUIDS))
    again = up_to_date()
    assert (
        linked(again)
        == linked(index)
        == {each for row in range(1, 5) for each in [(row, row, 50_000 + row, 50_010 + row), (row, row, 50_020 + row, None)]}
    )
    assert contents(again) == contents(up_to_date(address="fresh"))
    systems.change_crm("DELETE FROM audits WHERE id >= 50001")
    links.forget(again, since=None, now=now())
    assert linked(up_to_date()) == set()


@pytest.mark.parametrize("batch", [1, 5000])
@pytest.mark.parametrize("built_before", [True, False])
@pytest.mark.parametrize("column", ["bigint", "integer", "varchar"])
def test_an_audit_that_names_no_join_row_is_a_row_of_its_own(systems, monkeypatch, column, built_before, batch):
    systems.change_crm(f"ALTER TABLE audits ALTER auditable_id TYPE {column} USING auditable_id::{column}")
    audits = joins(50_001, [None, None, -5]) + joins(50_011, [None], "update", '{{"role": ["a", "b"]}}')
    index = index_with(audits, systems, monkeypatch, batch=batch, built_before=built_before)
    assert linked(index) == {(row, row, 50_000 + row, None) for row in (1, 2, 3)}
    assert LinkOddity.objects.filter(index=index, audit_id=50_011).values_list("kind", flat=True).get() == "contactless"
    assert contents(index) == contents(up_to_date(address="fresh")) == contents(up_to_date())


@pytest.mark.parametrize("column", ["bigint", "varchar"])
def test_such_audits_are_moved_with_the_deal_s(console, column):
    console.change_crm(f"ALTER TABLE audits ALTER auditable_id TYPE {column} USING auditable_id::{column}")
    person, deal = 900_077, 900_078
    new_contact(console, person)
    ends = f'{{"crm_deal_id": {deal}, "crm_person_id": {person}}}'
    link = JOIN | {"action": "create", "audited_changes": ends}
    change = {"id": 50_002, "auditable_type": "Crm::Deal", "auditable_id": deal, "audited_changes": '{"amount": ["1.0", "2.0"]}'}
    text = [link | {"id": 50_003, "auditable_id": UUIDS[0]}] if column == "varchar" else []
    insert(console, [link | {"id": 50_001, "auditable_id": None}, change, *text])
    run = run_account(ORGANISATION)
    assert run.state in (RunState.SUCCEEDED, RunState.PARTIAL) and run.verification["agrees"], run.reason
    told = "SELECT source_audit_id, category FROM contact_activity_logs WHERE source_audit_id > 50000 ORDER BY 1"
    expected = [(50_001, "deal/contact_linked"), (50_002, "deal/update"), (50_003, "deal/contact_linked")]
    assert rows(console.cdp, told) == expected[: 2 + len(text)]
