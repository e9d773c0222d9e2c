"""A CRM that was restored to some hours ago, whose ids jump, or whose clocks were wrong: links are what its audits tell now."""

from datetime import timedelta

import pytest

from migration import link_source, revisions
from migration.models import Account, DealLink, SetWatermark
from migration.states import RunMode, RunState
from tests.conftest import rows
from tests.migration.conftest import mapping_document, now, run_account
from tests.migration.hard_rows import FIRST, ORGANISATION, insert, new_contact
from tests.migration.test_hard_links import DEAL, JOIN
from tests.migration.test_links import AGO, FILLER, contents, up_to_date

LINK = JOIN | {"auditable_id": 8001, "audited_changes": '{"crm_deal_id": 9001, "crm_person_id": 900001}'}


def ago(**long: int) -> str:
    return (now() - timedelta(**long)).replace(tzinfo=None).isoformat()


@pytest.mark.parametrize("taken_by", ["Crm::Person", "User", None])
def test_links_that_a_restored_source_no_longer_tells_are_gone(console, taken_by):
    """Their audits' ids are given out again: to another account's person, or to a class that nobody maps."""
    mine = new_contact(console, 900_001)
    new_contact(console, 900_002, 2)
    account = Account.objects.get(crm_organization_id=ORGANISATION)
    for entity in ("contact", "deal"):
        SetWatermark.objects.create(account=account, entity=entity, moment=now(), note="as of now", set_by="tester", set_at=now())
    console.change_crm(FILLER.format(moment=AGO("2 days"), first=10_001, last=13_000, but=0))
    insert(console, [LINK | {"created_at": ago(hours=1)}])
    run_account(ORGANISATION, RunMode.DRY_RUN)
    assert DealLink.objects.filter(person_id=900_001).count() == 1
    console.change_crm(f"DELETE FROM audits WHERE id = {FIRST}")
    if taken_by:
        insert(
            console,
            [{"auditable_type": taken_by, "auditable_id": 900_002, "created_at": ago(minutes=30)}, DEAL | {"created_at": ago(minutes=20)}],
        )
    run = run_account(ORGANISATION)
    assert (run.verification["agrees"], run.quarantined.filter(person_id=900_001).count()) == (True, 0)
    assert not DealLink.objects.filter(person_id=900_001).exists()
    assert rows(console.cdp, f"SELECT source_audit_id, category FROM contact_activity_logs WHERE contact_id = '{mine}'") == []


def test_an_unlink_that_was_taken_back_by_a_restore_is_a_link_again(systems):
    systems.change_crm(FILLER.format(moment=AGO("2 days"), first=10_001, last=13_000, but=0))
    insert(systems, [LINK | {"id": 20_001, "created_at": "2023-04-01"}])
    systems.change_crm(FILLER.format(moment=AGO("2 days"), first=20_002, last=23_000, but=0))
    before = contents(up_to_date())
    insert(systems, [
        LINK | {"action": "update", "audited_changes": '{"crm_deal_id": [9001, 9002]}', "created_at": ago(hours=2)},
        LINK | {"action": "destroy", "created_at": ago(hours=1)},
    ])  # fmt: skip
    assert contents(up_to_date()) == contents(up_to_date(address="fresh")) != before
    systems.change_crm(f"DELETE FROM audits WHERE id >= {FIRST}")
    assert contents(up_to_date()) == before
    assert DealLink.objects.filter(person_id=900_001, index=up_to_date()).values_list("from_audit", "to_audit").get() == (20_001, None)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("highest", [5_000_000_000, 2**62 - 1])
def test_ids_may_jump(console, highest):
    insert(console, [{"id": highest}])
    assert run_account(ORGANISATION).state == RunState.PARTIAL


def test_what_is_dated_in_the_future_has_nothing_read_again(systems, monkeypatch):
    """One audit in each thousand, from a clock that was in 2099: a page of two thousand holds two of them."""
    systems.change_crm(
        """INSERT INTO audits (id, auditable_type, auditable_id, action, audited_changes, version, created_at)
           SELECT n, 'Crm::Note', 5000, 'update', '{}', 1, CASE WHEN n % 1000 = 0 THEN '2099-01-01'::timestamp ELSE '2023-01-01' END
           FROM generate_series(10001, 60000) n"""
    )
    up_to_date()
    looked: list[int] = []
    look = link_source.Source.page
    monkeypatch.setattr(link_source.Source, "page", lambda source, low, moment: looked.append(low) or look(source, low, moment))
    monkeypatch.setattr(link_source.Source, "changed_rows", None)
    up_to_date()
    assert looked and min(looked) > 50_000


def test_an_associated_contact_tells_two_join_tables_apart(console):
    """The second table's row has the first one's id, its create was not audited, and its update names neither end."""
    new_contact(console, 900_001), new_contact(console, 900_002, 2)
    document = mapping_document()
    document["class_roles"]["deal_contact_join"].append({"class": "Crm::DealStakeholder", "deal": "deal_id", "contact": "person_id"})
    revisions.publish(document, by="tester", note="", now=now())
    theirs = {"auditable_type": "Crm::DealStakeholder", "associated_type": "Crm::Person", "associated_id": 900_002}
    insert(console, [LINK, LINK | theirs | {"action": "update", "audited_changes": '{"note": ["of another account", "x"]}'}])
    run_account(ORGANISATION)
    assert rows(console.cdp, f"SELECT category FROM contact_activity_logs WHERE source_audit_id = {FIRST + 1}") == []
