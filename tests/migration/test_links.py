"""The LinkIndex against what Ruby knew, and against itself: built in one go or in pieces, extended or anew, by one worker or by two."""

import gzip
import json
import threading
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from psycopg import sql

from migration import ledger, link_reader, link_source, links, mapping
from migration.crm import Crm
from migration.doors import Outage
from migration.models import DealLink, Event, JoinConcern, LinkIndex, LinkOddity
from migration.pipeline.records import Links
from migration.states import RunMode
from tests.conftest import Systems, rows
from tests.migration.conftest import mapping_document, now, run_account
from tests.migration.hard_rows import insert
from tests.migration.oracle_sample import DATA

BOTH_SAMPLES = pytest.mark.parametrize("systems", ["crm_sample", "crm_sample_yaml"], indirect=True)
JOIN = {"auditable_type": "Crm::DealPerson", "associated_type": "Crm::Deal"}


def with_joins(*contact: str, company: tuple[str, ...] = ("Crm::DealCompany",)) -> mapping.Mapping:
    """The demo's mapping with these join classes."""
    document = mapping_document()
    document["class_roles"]["deal_contact_join"] = [{"class": name, "deal": "crm_deal_id", "contact": "crm_person_id"} for name in contact]
    document["class_roles"]["deal_company_join"] = [{"class": name, "deal": "crm_deal_id", "company": "crm_company_id"} for name in company]
    return mapping.parse(document)


DEMO = with_joins("Crm::DealPerson")


def up_to_date(which: mapping.Mapping = DEMO, address: str = "a", pulse: links.Pulse = lambda: None) -> LinkIndex:
    with closing(Crm()) as crm:
        return links.up_to_date(which, crm, address, pulse=pulse)


def contents(*indexes: LinkIndex) -> list[tuple]:
    """Everything that is kept, less the keys of our own tables."""
    found: list[tuple] = []
    for model in (DealLink, JoinConcern, LinkOddity):
        names = [each.name for each in model._meta.concrete_fields if each.name not in ("id", "index")]
        found += [(model.__name__, *row) for row in model._default_manager.filter(index__in=indexes).values_list(*names)]
    return sorted(found, key=repr)


@pytest.fixture
def only_build(monkeypatch):
    """The extension at the end of a build would read again what the build left out."""
    monkeypatch.setattr(links, "extend", lambda *given, **named: None)


def broken_off_after(batches: int) -> links.Pulse:
    """A worker that is stopped at its batch of that number."""
    done = iter(range(batches))

    def pulse() -> None:
        if next(done, None) is None:
            raise KeyboardInterrupt

    return pulse


# --- what Ruby knew -------------------------------------------------------------------------------------------------


@BOTH_SAMPLES
def test_every_audit_concerns_the_contacts_that_ruby_says(systems, truth):
    everybody = {row[0] for row in rows(systems.crm, "SELECT id FROM crm_people")} | set(range(1, 400))
    found = link_reader.Reader(up_to_date()).of(everybody)
    audits = rows(systems.crm, "SELECT id, auditable_type, auditable_id FROM audits ORDER BY id")
    assert {audit for audit, name, _ in audits if name not in ("Crm::DealPerson", "Crm::DealCompany")} & found.by_audit.keys() == set()
    for audit, name, record in audits:
        concern = truth["concerns"].get(str(audit), {})
        before = {person for deal in concern.get("deals", []) for person in deal["before"]}
        if name == "Crm::Deal":
            have = [person for person, start, end in found.by_deal.get(record, []) if start < audit < end]
            assert (sorted(have), len(have)) == (sorted(before), len(set(have))), audit
        elif name == "Crm::DealCompany":
            assert [each.person_id for each in found.by_audit.get(audit, [])] == sorted(before), audit
        elif name == "Crm::DealPerson":
            assert {each.person_id for each in found.by_audit.get(audit, [])} >= set(concern.get("link", [])), audit


@BOTH_SAMPLES
def test_every_join_audit_says_what_ruby_saw_happen(systems, truth):
    found = link_reader.Reader(up_to_date()).of(range(1, 400))
    events = [(kind, event) for told in truth["organisations"].values() for kind, every in told["events"].items() for event in every]
    seen: dict[int, set[tuple]] = {}
    for kind, event in events:
        for joined in what_happened(kind, event):
            seen.setdefault(event["audit_id"], set()).add(joined)
    of_contacts = {row[0] for row in rows(systems.crm, "SELECT id FROM audits WHERE auditable_type = 'Crm::DealPerson'")}
    assert {audit: set(each) for audit, each in found.by_audit.items() if audit in of_contacts} == seen
    companies = {event["audit_id"]: (event["deal_id"], event["company_id"]) for kind, event in events if kind.startswith("company_")}
    for audit in found.by_audit.keys() - of_contacts:
        assert {(each.moved, each.deal_id, each.company_id) for each in found.by_audit[audit]} == {(None, *companies[audit])}


def what_happened(kind: str, event: dict[str, int]) -> list[tuple]:
    """(person, moved, deal, company) for each contact that an event of a deal-contact join row is about."""
    if kind in ("person_link", "person_unlink", "person_link_changed"):
        return [(event["person_id"], None, event["deal_id"], None)]
    if kind != "person_move":
        return []
    old, new = event["from_person_id"], event["to_person_id"]
    if old == new:
        return [(new, "deal", event["to_deal_id"], None)]
    return [(old, "contact_old", event["from_deal_id"], None), (new, "contact_new", event["to_deal_id"], None)]


@pytest.fixture
def truth(systems):
    """Ruby's truth of whichever sample the CRM holds."""
    number = rows(systems.crm, "SELECT count(*) FROM audits")[0][0]
    name = {2002: "crm_sample", 500: "crm_sample_yaml"}[number]
    return json.loads(gzip.decompress((DATA / f"{name}.truth.json.gz").read_bytes()))


COLUMN_TYPES = (
    "ALTER TABLE audits ALTER auditable_id TYPE varchar, ALTER associated_id TYPE varchar",
    "ALTER TABLE audits ALTER created_at TYPE timestamptz USING created_at AT TIME ZONE 'UTC'",
    "ALTER TABLE audits ALTER audited_changes TYPE json USING audited_changes::text::json",
)


def test_the_columns_types_make_no_difference(systems):
    before = contents(up_to_date(address="before"))
    for change in COLUMN_TYPES:
        systems.change_crm(change)
        assert contents(up_to_date(address=change[:60])) == before
        assert contents(up_to_date(address="before")) == before


# --- built, broken off, resumed -------------------------------------------------------------------------------------


AS_TEXT = pytest.mark.parametrize("as_text", [False, True])


@AS_TEXT
def test_small_batches_and_one_give_the_same(systems, monkeypatch, only_build, as_text):
    if as_text:
        systems.change_crm(COLUMN_TYPES[0])
    whole = contents(up_to_date(address="whole"))
    monkeypatch.setattr(link_source, "BATCH", 3)
    assert contents(up_to_date(address="in threes")) == whole
    assert len(whole) > 500


@AS_TEXT
def test_a_build_that_is_broken_off_goes_on_where_it_was(systems, monkeypatch, only_build, as_text):
    if as_text:
        systems.change_crm(COLUMN_TYPES[0])
    whole = contents(up_to_date(address="whole"))
    monkeypatch.setattr(link_source, "BATCH", 40)
    batches: list[int] = []
    up_to_date(address="undisturbed", pulse=lambda: batches.append(1))
    assert len(batches) > 8
    for stop in (0, 1, 4, len(batches) - 1):
        again: list[int] = []
        with pytest.raises(KeyboardInterrupt):
            up_to_date(address=f"stopped at {stop}", pulse=broken_off_after(stop))
        half = LinkIndex.objects.latest("pk")
        assert not half.built and (half.cursor > -1) == (stop > 0)
        index = up_to_date(address=f"stopped at {stop}", pulse=lambda: again.append(1))  # noqa: B023 - called at once
        assert (index.pk, index.built, len(again)) == (half.pk, True, len(batches) - stop)
        assert contents(index) == whole


def test_ids_that_are_texts_are_walked_in_the_order_of_the_index(systems, monkeypatch):
    """Of a million join rows, sorting all for each batch took hours."""
    systems.change_crm(
        COLUMN_TYPES[0],
        """INSERT INTO audits (auditable_type, auditable_id, action, audited_changes, version, created_at)
           SELECT 'Crm::DealPerson', n * 7, 'create', '{}', 1, now() FROM generate_series(1, 30000) n""",
        "VACUUM ANALYZE audits",
    )
    with closing(Crm()) as crm:
        source, plans, after, seen = link_source.Source(DEMO, crm), [], -1, set()
        walk = crm.rows_in_order

        def explained(query: sql.Composed) -> list[tuple]:
            plans.append(json.dumps(walk(sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) {}").format(query))))
            return walk(query)

        monkeypatch.setattr(crm, "rows_in_order", explained)
        while (batch := source.next_batch(after)) is not None:
            after = batch[0]
            seen |= {row for which in batch[1] for _, row in source.histories(which)}
    assert seen >= {n * 7 for n in range(1, 30_001)}
    assert len(plans) > 10
    assert not [plan for plan in plans if '"Sort"' in plan or "Index Only Scan" not in plan]


def test_what_is_written_while_a_build_is_broken_off_is_found(systems, monkeypatch):
    monkeypatch.setattr(link_source, "BATCH", 40)
    with pytest.raises(KeyboardInterrupt):
        up_to_date(address="stopped", pulse=broken_off_after(5))
    add_newer_audits(systems)
    assert contents(up_to_date(address="stopped")) == contents(up_to_date(address="fresh"))


def test_two_workers_do_not_build_at_once(systems, monkeypatch):
    monkeypatch.setattr(links, "WAIT_SECONDS", 0)
    refused: list[str] = []

    def second() -> None:
        try:
            up_to_date()
        except Outage as error:
            refused.append(str(error))
        finally:
            connection.close()

    def pulse() -> None:
        if not refused:
            thread = threading.Thread(target=second)
            thread.start()
            thread.join(20)

    index = up_to_date(pulse=pulse)
    assert index.built and LinkIndex.objects.count() == 1
    assert len(refused) == 1 and "building the link index" in refused[0]
    second()
    assert len(refused) == 1, "once it is built, nobody waits"


# --- kept, and extended ---------------------------------------------------------------------------------------------


def test_one_build_serves_every_account_and_mode(console, monkeypatch):
    run_account(1, RunMode.DRY_RUN)
    index = LinkIndex.objects.get()
    kept = contents(index)
    monkeypatch.setattr(links, "build", None)
    for organisation in (2, 3):
        assert run_account(organisation, RunMode.DRY_RUN).link_index == index
    assert LinkIndex.objects.get().covers_to == index.covers_to
    assert contents(index) == kept


def test_another_crm_or_another_join_class_is_another_index(systems):
    keys = {up_to_date(which, address).key for which in (DEMO, with_joins("Crm::DealPerson", "Other")) for address in ("a", "b")}
    assert len(keys) == 4


def add_newer_audits(systems: Systems) -> None:
    """New rows, and more of old ones: a new link, one unlinked, one whose contact was merged, a company linked, a row that names nobody."""
    moment = now().replace(tzinfo=None).isoformat()
    deal, row = rows(
        systems.crm,
        """SELECT associated_id, auditable_id FROM audits WHERE auditable_type = 'Crm::DealPerson' AND action = 'create'
           ORDER BY 2 DESC LIMIT 1""",
    )[0]
    ends = f'"crm_deal_id": {deal}, "crm_person_id": 7'
    insert(
        systems,
        [
            JOIN
            | {"auditable_id": 9001, "associated_id": deal, "action": "create", "audited_changes": f"{{{ends}}}", "created_at": moment},
            JOIN | {"auditable_id": row, "associated_id": deal, "audited_changes": '{"crm_person_id": [1, 8]}', "created_at": moment},
            JOIN
            | {"auditable_id": 9001, "associated_id": deal, "action": "destroy", "audited_changes": f"{{{ends}}}", "created_at": moment},
            JOIN | {"auditable_id": 9002, "associated_id": deal, "audited_changes": '{"role": [null, "x"]}', "created_at": moment},
            JOIN
            | {"auditable_type": "Crm::DealCompany", "auditable_id": 9001, "associated_id": deal, "action": "create", "created_at": moment}
            | {"audited_changes": f'{{"crm_deal_id": {deal}, "crm_company_id": 3}}'},
        ],
    )


def test_an_extension_equals_a_fresh_build(systems, monkeypatch):
    index = up_to_date()
    before, covered = contents(index), index.covered_at
    add_newer_audits(systems)
    monkeypatch.setattr(link_source, "PAGE", 300)
    monkeypatch.setattr(links, "build", None)
    index = up_to_date()
    monkeypatch.undo()
    assert index.covered_at > covered and index.covers_to == 900_005
    after = contents(index)
    assert after == contents(up_to_date(address="fresh"))
    assert {row[0] for row in after} == {"DealLink", "JoinConcern", "LinkOddity"} and after != before


AGO = "(now() AT TIME ZONE 'UTC') - interval '{}'".format
FILLER = """
    INSERT INTO audits (id, auditable_type, auditable_id, action, audited_changes, version, created_at)
    SELECT n, 'Crm::Note', 5000, 'update', '{{}}', 1, {moment} FROM generate_series({first}, {last}) n WHERE n <> {but}"""


def test_an_extension_finds_what_committed_late_with_a_lower_id_and_reads_no_more_than_the_window(systems, monkeypatch):
    """Far below the highest id: a transaction that was open for hours while others wrote thousands of audits."""
    systems.change_crm(
        FILLER.format(moment=AGO("2 days"), first=10_001, last=16_000, but=0),
        FILLER.format(moment=AGO("3 hours"), first=16_001, last=21_000, but=16_002),
    )
    up_to_date()
    looked: list[int] = []
    monkeypatch.setattr(link_source.Source, "changed_rows", spy(link_source.Source.changed_rows, looked))
    monkeypatch.setattr(links, "build", None)
    moment = (now() - timedelta(hours=3)).replace(tzinfo=None).isoformat()
    insert(systems, [JOIN | {"id": 16_002, "auditable_id": 9001, "action": "create", "audited_changes": ENDS, "created_at": moment}])
    index = up_to_date()
    monkeypatch.undo()
    assert DealLink.objects.filter(index=index, join_row=9001).values_list("person_id", "deal_id", "from_audit").get() == (7, 7, 16_002)
    assert 12_000 < min(looked) <= 16_002
    assert contents(index) == contents(up_to_date(address="fresh"))


ENDS = '{"crm_deal_id": 7, "crm_person_id": 7}'
SETTLED = {
    "an audit less": "DELETE FROM audits WHERE id = (SELECT min(id) FROM audits WHERE auditable_type = 'Crm::DealPerson' AND action = 'destroy')",
    "a contact's row less": "DELETE FROM audits WHERE auditable_type = 'Crm::DealPerson' AND auditable_id = 9",
    "the last rows less": "DELETE FROM audits WHERE auditable_type = 'Crm::DealPerson' AND auditable_id > 150",
    "all contacts' rows less": "DELETE FROM audits WHERE auditable_type = 'Crm::DealPerson'",
    "all companies' rows less": "DELETE FROM audits WHERE auditable_type = 'Crm::DealCompany'",
    "one more": f"""INSERT INTO audits (id, auditable_type, auditable_id, action, audited_changes, version, created_at)
                    VALUES (9000, 'Crm::DealPerson', 9001, 'create', '{ENDS}', 1, '2024-01-01')""",
}


def test_where_settled_audits_came_or_went_the_index_is_built_again(systems):
    systems.change_crm(FILLER.format(moment=AGO("2 days"), first=10_001, last=13_000, but=0))
    before = contents(up_to_date())
    for name, change in SETTLED.items():
        systems.change_crm(change)
        after = contents(up_to_date())
        assert after == contents(up_to_date(address=name)), name
        assert after != before, name
        before = after
    assert Event.objects.filter(kind="link index begun again").count() == len(SETTLED)


def test_a_slow_count_of_settled_audits_is_made_seldom_and_tells_since_when_runs_may_rest_on_wrong_links(systems, monkeypatch):
    systems.change_crm(FILLER.format(moment=AGO("2 days"), first=10_001, last=13_000, but=0))
    index = up_to_date()
    assert index.counted_at and index.counting_seconds > 0
    counted: list[int] = []
    monkeypatch.setattr(link_source.Source, "settled", spy(link_source.Source.settled, counted))
    up_to_date()
    assert len(counted) == 1  # it is quick
    LinkIndex.objects.update(counting_seconds=20.0)
    before = contents(index)
    systems.change_crm(SETTLED["a contact's row less"])
    assert (contents(up_to_date()), len(counted)) == (before, 1)
    last = now() - timedelta(seconds=2001)
    LinkIndex.objects.update(counted_at=last)
    assert contents(up_to_date()) == contents(up_to_date(address="fresh")) != before
    event = Event.objects.get(kind="link index begun again")
    assert event.sentence == links.BEGUN_AGAIN.format(since=f"{last:%Y-%m-%d %H:%M} UTC")
    LinkIndex.objects.update(counting_seconds=20.0, counted_at=now() + timedelta(days=1))
    counted.clear()
    up_to_date()
    assert len(counted) == 1  # a moment that is still to come says nothing


def test_what_is_newly_settled_is_counted_by_itself(systems, monkeypatch):
    """Two days of audits settle between two looks; what was counted is what lies there."""
    systems.change_crm(FILLER.format(moment=AGO("5 hours"), first=10_001, last=13_000, but=0))
    first = up_to_date()
    add_newer_audits(systems)
    monkeypatch.setattr(links, "LAG", timedelta(0))
    LinkIndex.objects.update(counting_seconds=20.0)
    second = up_to_date()
    assert second.settled_to > first.settled_to and second.settled_audits > first.settled_audits
    with closing(Crm()) as crm:
        assert link_source.Source(DEMO, crm).settled(second.settled_to) == second.settled_audits


def spy(original: Any, seen: list[int]) -> Any:
    """A method of Source that also notes what it was first given."""

    def watched(self: link_source.Source, low: int, *others: int) -> Any:
        seen.append(low)
        return original(self, low, *others)

    return watched


def test_an_index_of_no_join_classes_is_empty_and_built(systems):
    index = up_to_date(with_joins(company=()))
    assert index.built and contents(index) == []


# --- classes --------------------------------------------------------------------------------------------------------


def test_a_renamed_join_class_goes_on_as_the_same_rows(systems):
    before = contents(up_to_date())
    both = with_joins("Crm::DealPerson", "DealContact", company=("Crm::DealCompany", "DealFirm"))
    old = {"Crm::DealPerson": "DealContact", "Crm::DealCompany": "DealFirm"}
    for renamed_at in (300, 1000, 1700):
        systems.change_crm(
            *(f"UPDATE audits SET auditable_type = '{o}' WHERE auditable_type = '{n}' AND id < {renamed_at}" for n, o in old.items())
        )
        assert contents(up_to_date(both, address=f"renamed at {renamed_at}")) == before


def test_two_join_tables_with_equal_ids_and_equal_ends_do_not_mix(systems):
    """The second table's audits are copies of the first's, each right behind its original."""
    systems.change_crm(
        "UPDATE audits SET id = -2 * id",
        "UPDATE audits SET id = -id",
        """INSERT INTO audits (id, auditable_type, auditable_id, associated_type, associated_id, action, audited_changes, version, created_at)
           SELECT id + 1, 'Second', auditable_id, associated_type, associated_id, action, audited_changes, version, created_at
           FROM audits WHERE auditable_type = 'Crm::DealPerson'""",
    )
    apart = [up_to_date(with_joins(name)) for name in ("Crm::DealPerson", "Second")]
    both = contents(up_to_date(with_joins("Crm::DealPerson", "Second")))
    of_companies = [row for row in contents(apart[1]) if row[1] < 0]
    assert sorted(both + of_companies, key=repr) == contents(*apart)


# --- cases ----------------------------------------------------------------------------------------------------------


def joins(systems: Systems, *audits: dict[str, Any]) -> Links:
    """Audits of join rows of deal 9000 (unless they say otherwise), and what the index then tells of persons 1 to 5."""
    for each in audits:
        each.setdefault("associated_id", 9000)
    insert(systems, [JOIN | each for each in audits])
    return link_reader.Reader(up_to_date()).of(range(1, 6))


def linked(row: int, person: int, action: str = "create") -> dict[str, Any]:
    return {"auditable_id": row, "action": action, "audited_changes": f'{{"crm_deal_id": 9000, "crm_person_id": {person}}}'}


def test_two_join_rows_of_one_pair_are_one_link_until_both_are_gone(systems):
    found = joins(systems, linked(9001, 1), linked(9002, 1), linked(9001, 1, "destroy"), linked(9002, 1, "destroy"))
    assert found.by_deal[9000] == [(1, 900_001, 900_004)]


def test_spans_that_overlap_are_one_and_spans_that_touch_are_two():
    assert link_reader.union([(3, 9), (1, 5), (4, 7), (9, 12), (20, link_reader.FOREVER)]) == [(1, 9), (9, 12), (20, link_reader.FOREVER)]


def test_unlinked_and_linked_again_within_one_microsecond_are_two_links_in_the_order_of_ids(systems):
    found = joins(systems, linked(9001, 1), linked(9001, 1, "destroy"), linked(9002, 1))
    assert found.by_deal[9000] == [(1, 900_001, 900_002), (1, 900_003, link_reader.FOREVER)]


def test_an_audit_of_a_company_row_concerns_the_contacts_linked_just_before_it(systems):
    company = {"auditable_type": "Crm::DealCompany", "auditable_id": 9001, "action": "create"}
    company["audited_changes"] = '{"crm_deal_id": 9000, "crm_company_id": 3}'
    found = joins(systems, linked(9001, 1), linked(9002, 1), company, linked(9003, 2))
    assert [tuple(each) for each in found.by_audit[900_003]] == [(1, None, 9000, 3)]


def test_a_company_row_that_moved_concerns_the_contacts_of_both_deals_and_names_the_new_one(systems):
    """There and back again."""
    to_the_other = {"auditable_id": 9002, "action": "create", "audited_changes": '{"crm_deal_id": 8000, "crm_person_id": 1}'}
    moved = {"auditable_type": "Crm::DealCompany", "auditable_id": 9001, "action": "update"}
    there = moved | {"associated_id": 8000, "audited_changes": '{"crm_deal_id": [9000, 8000], "crm_company_id": 3}'}
    back = moved | {"associated_id": 9000, "audited_changes": '{"crm_deal_id": [8000, 9000]}'}
    found = joins(systems, linked(9001, 1), to_the_other | {"associated_id": 8000}, linked(9003, 2), there, back)
    assert [tuple(each) for each in found.by_audit[900_004]] == [(1, None, 8000, 3), (2, None, 9000, 3)]
    assert [tuple(each) for each in found.by_audit[900_005]] == [(1, None, 9000, 3), (2, None, 9000, 3)]


def test_a_contact_reached_twice_is_one_candidate(console):
    """Person 1 is linked by two rows when the deal is renamed: one activity."""
    deal = {"auditable_type": "Crm::Deal", "auditable_id": 9000, "associated_type": None, "associated_id": None}
    joins(console, linked(9001, 1), linked(9002, 1), deal | {"audited_changes": '{"name": ["a", "b"]}'})
    run = run_account(1)
    assert ledger.of(run).balances and run.verification["agrees"]
    assert [row[3] for row in console.activities("source_audit_id >= 900001")] == ["deal/contact_linked"] * 2 + ["deal/update"]


def test_a_join_row_with_what_jsonb_refuses_still_links(systems):
    """Its own activity is quarantined, but the deal's later ones are the contact's all the same."""
    systems.change_crm("ALTER TABLE audits ALTER audited_changes TYPE json USING audited_changes::text::json")
    ends = '{"role": "a\\u0000b", "crm_deal_id": 9000, "crm_person_id": 1}'
    found = joins(systems, linked(9001, 1) | {"audited_changes": ends})
    assert found.by_deal.get(9000) == [(1, 900_001, link_reader.FOREVER)]
