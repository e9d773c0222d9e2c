"""What an extension of the LinkIndex need not read again: pages of audits that are as they were at the last look."""

import json
import random
import threading
from contextlib import closing, suppress
from typing import Any

import pytest
from django.db import connection

from migration import link_source, links
from migration.crm import Crm
from migration.models import LinkIndex
from tests.conftest import Systems
from tests.migration.hard_rows import insert
from tests.migration.test_links import AGO, DEMO, FILLER, add_newer_audits, contents, up_to_date

WINDOW = range(13_001, 13_400)  # audit ids younger than the longest transaction


@pytest.fixture
def source(systems, monkeypatch) -> Systems:
    """A CRM with thousands of settled audits, some hundred that are not, and small pages."""
    monkeypatch.setattr(link_source, "PAGE", 50)
    systems.change_crm(
        FILLER.format(moment=AGO("2 days"), first=10_001, last=13_000, but=0),
        FILLER.format(moment=AGO("1 hour"), first=13_001, last=13_150, but=0),
    )
    return systems


@pytest.fixture
def read_again(monkeypatch) -> list[int]:
    """The first ids of the pages whose join rows were read again."""
    found: list[int] = []
    read = link_source.Source.changed_rows
    monkeypatch.setattr(link_source.Source, "changed_rows", lambda source, low, *more: found.append(low) or read(source, low, *more))
    return found


def test_where_nothing_came_nothing_is_read_again_and_each_page_is_asked_once(source, read_again, monkeypatch):
    before = contents(up_to_date())
    up_to_date()
    asked: list[str] = []
    ask = Crm.rows
    monkeypatch.setattr(Crm, "rows", lambda crm, query, *given: asked.append(str(query)) or ask(crm, query, *given))
    read_again.clear()
    index = up_to_date()
    assert (contents(index), read_again) == (before, [])
    # The highest id, the first page once more, the two counts of what is settled.
    assert len(asked) == len(index.pages) + 4


def test_of_many_pages_only_that_one_is_read_again_where_an_audit_came(source, read_again):
    up_to_date()
    source.change_crm("DELETE FROM audits WHERE id = 13130")
    insert(source, [link(13_130, 9001, "create", 7, 8)])
    index = up_to_date()
    read_again.clear()
    source.change_crm("""UPDATE audits SET audited_changes = '{"crm_deal_id": 7, "crm_person_id": 9}' WHERE id = 13130""")
    index = up_to_date()
    assert len(read_again) == 1 and 13_080 < read_again[0] <= 13_130 and len(index.pages) > 3
    assert contents(index) == contents(up_to_date(address="fresh"))


def test_a_worker_that_waited_while_another_looked_reads_nothing(source, monkeypatch):
    """It asked before the other one began to look."""
    up_to_date()
    monkeypatch.setattr(links, "WAIT_SECONDS", 0.05)
    began, found = threading.Event(), []

    def second() -> None:
        try:
            with closing(Crm()) as crm:
                monkeypatch.setattr(crm, "rows", None)
                found.append(links.up_to_date(DEMO, crm, "a", pulse=began.set))
        finally:
            connection.close()

    waiting = threading.Thread(target=second)
    index = LinkIndex.objects.get()
    with links.only_builder(index, lambda: None):
        waiting.start()
        assert began.wait(10)
        add_newer_audits(source)
        with closing(Crm()) as crm:
            links.extend(index, link_source.Source(DEMO, crm), now=links.ticks.now(), pulse=lambda: None)
    waiting.join(10)
    assert [each.covers_to for each in found] == [900_005]
    assert contents(*found) == contents(up_to_date(address="fresh"))


@pytest.mark.parametrize("seed", range(3))
def test_whatever_comes_goes_or_changes_it_is_what_a_fresh_build_is(source, seed, monkeypatch):
    """Late commits, changes, restores, and looks that are broken off, of one history after another."""
    chance = random.Random(seed)
    for turn in range(5):
        for _ in range(chance.randrange(1, 4)):
            chance.choice((came, went, changed))(source, chance)
        if chance.random() < 0.4:
            with suppress(KeyboardInterrupt):
                up_to_date(pulse=after_some(chance.randrange(1, 4)))
            if chance.random() < 0.5:
                went(source, chance)
        assert contents(up_to_date()) == contents(up_to_date(address=f"fresh {turn}")), turn
    assert LinkIndex.objects.get(key=links.key_of(DEMO, "a")).pages


def came(source: Systems, chance: random.Random) -> None:
    """Audits at ids that were free, or were fillers'; of no kind in the order of time."""
    for audit in chance.sample(WINDOW, chance.randrange(1, 12)):
        source.change_crm(f"DELETE FROM audits WHERE id = {audit}")
        action = chance.choice(("create", "create", "update", "destroy"))
        insert(source, [link(audit, chance.randrange(9001, 9007), action, chance.randrange(1, 4), chance.randrange(1, 5))])


def went(source: Systems, chance: random.Random) -> None:
    """A restore to a while ago, or single audits less."""
    if chance.random() < 0.5:
        source.change_crm(f"DELETE FROM audits WHERE id > {chance.choice(WINDOW)}")
    else:
        source.change_crm(f"DELETE FROM audits WHERE id = ANY('{{{','.join(map(str, chance.sample(WINDOW, 20)))}}}')")


def changed(source: Systems, chance: random.Random) -> None:
    number, person = chance.randrange(2, 5), chance.randrange(1, 5)
    source.change_crm(
        f"""UPDATE audits SET audited_changes = '{{"crm_deal_id": 1, "crm_person_id": {person}}}', action = 'create'
            WHERE auditable_type = 'Crm::DealPerson' AND id IN (SELECT id FROM audits WHERE id >= {WINDOW[0]} AND id % {number} = 0)"""
    )


def link(audit: int, row: int, action: str, deal: int, person: int) -> dict[str, Any]:
    ends: dict[str, Any] = {"crm_deal_id": deal, "crm_person_id": person}
    if action == "update":
        ends = {"crm_person_id": [person, person % 4 + 1]}
    joins = {"id": audit, "auditable_type": "Crm::DealPerson", "auditable_id": row, "associated_type": "Crm::Deal", "associated_id": deal}
    return joins | {"action": action, "audited_changes": json.dumps(ends), "created_at": f"{links.ticks.now():%Y-%m-%d %H:%M:%S}"}


def after_some(batches: int) -> links.Pulse:
    left = iter(range(batches))

    def pulse() -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    return pulse
