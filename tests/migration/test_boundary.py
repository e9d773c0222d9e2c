"""The seam with the live sync: gaps, overlaps, live rows that name no audit, and watermarks set by hand."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from migration import boundary, ledger, runs, watermark, worlds
from migration.boundary import Audit, Seam, Shown
from migration.models import Account, Run, SetWatermark
from migration.states import RunMode
from tests.conftest import Systems
from tests.migration.conftest import now, run_account
from tests.migration.hard_rows import FIRST, insert, sample
from tests.migration.oracle import ENTITIES, expected
from tests.migration.oracle_links import concerned_contacts

MARK = datetime(2025, 5, 1, 12, tzinfo=UTC)  # the samples end in January
LAG = timedelta(seconds=10)
MICROSECOND = timedelta(microseconds=1)
TICKET = {"auditable_type": "Crm::Ticket", "auditable_id": 9001, "associated_type": "Crm::Person", "associated_id": 1}


def contact_of(person: int, organisation: int = 1) -> str:
    account = sample().accounts[organisation]
    return next(str(row["id"]) for row in sample().contacts if row["account_id"] == account and row["source_id"] == str(person))


def tickets(systems: Systems, *moments: datetime, person: int = 1) -> None:
    """An audit of a ticket of the person at each moment, numbered from FIRST."""
    insert(
        systems,
        [TICKET | {"associated_id": person, "created_at": at.replace(tzinfo=None).isoformat(), "action": "create"} for at in moments],
    )


def live(systems: Systems, at: datetime, audit: int | None = None, person: int = 1, category: str = "ticket/create") -> None:
    """A row that the live sync wrote for account 1."""
    systems.change_cdp(
        f"""INSERT INTO contact_activity_logs (id, account_id, contact_id, category, actor_kind, occurred_at, changes, origin, source_audit_id)
            VALUES (gen_random_uuid(), '{sample().accounts[1]}', '{contact_of(person)}', '{category}', 'system', '{at.isoformat()}', '{{}}',
                    'live', {audit or "NULL"})"""
    )


def set_watermark(moment: datetime | None, entity: str = "ticket", organisation: int = 1) -> None:
    account = Account.objects.get(crm_organization_id=organisation)
    SetWatermark.objects.create(account=account, entity=entity, moment=moment, note="trial rows", set_at=now(), set_by="ana")


def seam(run: Run, entity: str = "ticket") -> dict[str, Any]:
    """The counts of a run's seam, less its examples."""
    return {name: value for name, value in run.boundary[entity].items() if name not in ("watermark", "examples")}


def counts(**given: int) -> dict[str, int]:
    return {"crm_before": 0, "crm_beyond": 0, "cdp_live": 0, "matched": 0, "gaps": 0, "overlaps": 0} | given


# --- the sample, against a count of its own -------------------------------------------------------------------------


def test_the_sample_s_seams_are_as_counted_by_hand(console):
    for organisation in (1, 2, 3):
        run = run_account(organisation, RunMode.DRY_RUN)
        wanted = {entity: counted(organisation, entity) for entity in ENTITIES}
        assert {entity: seam(run, entity) for entity in ENTITIES} == wanted
        assert run.watermark == {entity: each["watermark"] for entity, each in run.boundary.items()}
        assert organisation == 3 or wanted["contact"]["matched"] > 10


def counted(organisation: int, entity: str) -> dict[str, int]:
    """Every candidate pair of the oracle and every live row of the entity; each unnamed row shows at most one audit."""
    account = sample().accounts[organisation]
    persons = {int(str(row["source_id"])): row["id"] for row in sample().contacts if row["account_id"] == account and row["source_id"]}
    rows = [row for row in sample().live if row["account_id"] == account and row["category"].startswith(f"{entity}/")]
    mark = min((row["occurred_at"] for row in rows), default=now() - timedelta(hours=24))
    pairs = []
    roles = expected(sample(), organisation)
    for audit, contacts in concerned_contacts(sample().audits, sample().mapping):
        for person in contacts.by_rules({1, 2, 3, 4, 5}) & persons.keys():
            pairs.append((audit, person))
    near = [
        (a, p) for a, p in pairs if entity_of(a.auditable_type) == entity and a.created_at and a.created_at >= mark - timedelta(hours=24)
    ]
    assert roles.beyond.total() >= sum(a.created_at >= mark for a, _ in near)
    free = [(row["contact_id"], row["occurred_at"]) for row in rows if row["source_audit_id"] is None]
    named = {(row["contact_id"], row["source_audit_id"]) for row in rows}
    found = counts(cdp_live=len(rows))
    for audit, person in sorted(near, key=lambda pair: (pair[0].created_at, pair[0].id)):
        follows = [each for each in free if each[0] == persons[person] and audit.created_at <= each[1] <= audit.created_at + LAG]
        shown = (persons[person], audit.id) in named
        if not shown and follows:
            free.remove(min(follows))
            shown = True
        beyond = audit.created_at >= mark
        found["crm_beyond" if beyond else "crm_before"] += 1
        if shown:
            found["matched" if beyond else "overlaps"] += 1
        elif beyond:
            found["gaps"] += 1
    return found


def entity_of(class_name: str) -> str:
    return {"Crm::Person": "contact", "Contact": "contact", "Crm::Note": "note", "Crm::Task": "task", "Crm::Ticket": "ticket"}.get(
        class_name, "deal"
    )


# --- one seam, case by case -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("audits", "rows", "wanted"),
    [
        ([0], [], counts(crm_beyond=1, gaps=1)),
        ([0], [(0, FIRST)], counts(crm_beyond=1, cdp_live=1, matched=1)),
        ([0], [(3600, FIRST)], counts(crm_beyond=1, cdp_live=1, matched=1)),
        ([60], [(60, None)], counts(crm_beyond=1, cdp_live=1, matched=1)),
        ([60], [(70, None)], counts(crm_beyond=1, cdp_live=1, matched=1)),
        ([60], [(70.000001, None)], counts(crm_beyond=1, cdp_live=1, gaps=1)),
        ([60], [(59.999999, None)], counts(crm_beyond=1, cdp_live=1, gaps=1)),
        ([60, 61], [(62, None)], counts(crm_beyond=2, cdp_live=1, matched=1, gaps=1)),
        ([60, 65], [(66, None), (64, None)], counts(crm_beyond=2, cdp_live=2, matched=2)),
        ([-60], [(-59, FIRST)], counts(crm_before=1, cdp_live=1, overlaps=1)),
        ([-5], [(4, None)], counts(crm_before=1, cdp_live=1, overlaps=1)),
        ([-86400], [(0, FIRST)], counts(crm_before=1, cdp_live=1, overlaps=1)),
        ([-86400.000001], [(0, FIRST)], counts(cdp_live=1)),
        ([-0.000001, 0], [], counts(crm_before=1, crm_beyond=1, gaps=1)),
        ([0], [(0, FIRST + 7)], counts(crm_beyond=1, cdp_live=1, gaps=1)),
    ],
)
def test_each_case_of_a_seam(audits: Sequence[float], rows: Sequence[tuple[float, int | None]], wanted: dict[str, int]):
    found = Seam(MARK.isoformat())
    in_crm = [Audit(1, FIRST + at, MARK + timedelta(seconds=second)) for at, second in enumerate(audits)]
    in_cdp = sorted((Shown(1, audit, MARK + timedelta(seconds=second)) for second, audit in rows), key=lambda each: each.at)
    near = [each for each in in_crm if each.at >= MARK - boundary.AROUND]
    boundary.compare(near, in_cdp, MARK, LAG, found)
    assert {name: value for name, value in vars(found).items() if name not in ("watermark", "examples")} == wanted
    assert len(found.examples) == found.gaps + found.overlaps


seconds = st.integers(-30, 30)


@examples(max_examples=300)
@given(st.lists(st.tuples(st.integers(1, 2), seconds), max_size=7), st.lists(st.tuples(st.integers(1, 2), seconds), max_size=7))
def test_unnamed_live_rows_show_as_many_audits_as_they_can_and_each_only_one(audits, rows):
    in_crm = sorted(Audit(person, at, MARK + timedelta(seconds=second)) for at, (person, second) in enumerate(audits))
    in_crm.sort(key=lambda each: (each.at, each.id))
    in_cdp = sorted((Shown(person, None, MARK + timedelta(seconds=second)) for person, second in rows), key=lambda each: each.at)
    found = Seam(MARK.isoformat())
    boundary.compare(in_crm, in_cdp, MARK, LAG, found)
    assert found.matched + found.overlaps == most_pairs(in_crm, in_cdp)
    assert found.matched + found.gaps == found.crm_beyond == sum(each.at >= MARK for each in in_crm)


def most_pairs(audits: list[Audit], rows: list[Shown]) -> int:
    """The largest matching, by augmenting paths."""
    taken: dict[int, int] = {}

    def find(audit: int, seen: set[int]) -> bool:
        for place, row in enumerate(rows):
            fits = row.person == audits[audit].person and audits[audit].at <= row.at <= audits[audit].at + LAG
            if fits and place not in seen:
                seen.add(place)
                if place not in taken or find(taken[place], seen):
                    taken[place] = audit
                    return True
        return False

    return sum(find(audit, set()) for audit in range(len(audits)))


def test_gaps_and_overlaps_through_both_systems(console):
    """What the comparison is handed: only this entity, only the contact of the person, only live rows."""
    set_watermark(MARK)
    hour = timedelta(hours=1)
    tickets(console, MARK - 30 * hour, MARK - hour, MARK - MICROSECOND, MARK, MARK + hour, MARK + 2 * hour)
    live(console, MARK - hour + LAG)
    live(console, MARK + hour, FIRST + 4)
    live(console, MARK + LAG, person=14)
    live(console, MARK + LAG, category="task/create")
    run = run_account(1)
    assert seam(run) == counts(crm_before=2, crm_beyond=3, cdp_live=3, matched=1, gaps=2, overlaps=1)
    assert run.boundary["ticket"]["examples"] == [
        f"overlap: audit {FIRST + 1} of CRM person 1 at {(MARK - hour).isoformat()} is before the watermark and live too",
        f"gap: audit {FIRST + 3} of CRM person 1 at {MARK.isoformat()} has no live row",
        f"gap: audit {FIRST + 5} of CRM person 1 at {(MARK + 2 * hour).isoformat()} has no live row",
    ]
    assert run.warnings == []
    ours = {row[11] for row in console.activities(f"origin = 'crm_migration' AND source_audit_id >= {FIRST}")}
    # The one that a live row follows within the lag is quarantined; what is at or beyond the watermark is left to the live sync.
    assert ours == {FIRST, FIRST + 2}
    assert set(run.quarantined.filter(audit_id__gte=FIRST).values_list("audit_id", "reason")) == {(FIRST + 1, "probable_overlap")}
    assert ledger.of(run).beyond["ticket/create"] == 3


def test_the_seam_s_lag_is_the_setting(console, settings):
    settings.SEAM_LAG_SECONDS = 60
    set_watermark(MARK)
    tickets(console, MARK + timedelta(hours=1))
    live(console, MARK + timedelta(hours=1, seconds=60))
    assert seam(run_account(1, RunMode.DRY_RUN)) == counts(crm_beyond=1, cdp_live=1, matched=1)


def test_an_entity_without_live_rows_begins_a_safety_lag_ago(console, settings):
    settings.SAFETY_LAG_HOURS = 48
    before = now()
    tickets(console, before - timedelta(hours=49), before - timedelta(hours=47), before - timedelta(days=4))
    run = run_account(1, RunMode.DRY_RUN)
    assert before <= datetime.fromisoformat(run.watermark["ticket"]) + timedelta(hours=48) <= now()
    assert seam(run) == counts(crm_before=1, crm_beyond=1, gaps=1)
    assert run.warnings == []


def test_odd_times_trouble_nobody(console):
    set_watermark(MARK)
    tickets(console, MARK, MARK, MARK)
    console.change_crm(
        f"UPDATE audits SET created_at = NULL WHERE id = {FIRST}",
        f"UPDATE audits SET created_at = 'infinity' WHERE id = {FIRST + 1}",
        f"UPDATE audits SET created_at = '-infinity' WHERE id = {FIRST + 2}",
    )
    run = run_account(1, RunMode.DRY_RUN)
    assert seam(run) == counts()
    assert ledger.of(run).balances


def test_a_live_row_at_no_moment_or_of_another_account_begins_no_watermark(console):
    """At a contact of the account: before and after all times, and one that carries the other account's id."""
    odd = {"note/create": "occurred_at = '-infinity'", "note/update": "occurred_at = 'infinity'"}
    odd |= {"note/delete": "account_id = (SELECT id FROM accounts WHERE crm_organization_id = 2)"}
    for category, change in odd.items():
        live(console, MARK, category=category)
        console.change_cdp(f"UPDATE contact_activity_logs SET {change} WHERE category = '{category}' AND origin = 'live'")
    run = run_account(1, RunMode.DRY_RUN)
    assert run.watermark["note"] == run.watermark["deal"], "a safety lag ago, as of an entity without live rows"
    assert ledger.of(run).balances


# --- trial rows, and watermarks by hand -----------------------------------------------------------------------------


def test_live_rows_too_sparse_for_a_running_sync_are_warned_of_until_the_watermark_is_set_by_hand(console):
    """One trial row, then ten tickets that nobody synced."""
    hour = timedelta(hours=1)
    tickets(console, *(MARK + n * hour for n in range(11)))
    live(console, MARK + LAG, FIRST)
    sparse = run_account(1, RunMode.DRY_RUN)
    assert seam(sparse) == counts(crm_beyond=10, crm_before=1, cdp_live=1, overlaps=1, gaps=10)
    assert sparse.warnings == [
        f"Live sync of ticket activity seems not to run: since the watermark {(MARK + LAG).isoformat()} the CRM has 10 audits, the CDP live "
        "rows for 0 of them. Set the watermark by hand if the first live rows were a trial."
    ]
    assert ledger.of(sparse).beyond["ticket/create"] == 10

    set_watermark(MARK + 10 * hour)
    mended = run_account(1)
    assert mended.warnings == [] and mended.watermark["ticket"] == (MARK + 10 * hour).isoformat()
    assert {name: moment for name, moment in mended.watermark.items() if name == "contact"} == {"contact": sparse.watermark["contact"]}
    assert (ledger.of(mended).beyond["ticket/create"], ledger.of(mended).already_live) == (1, ledger.of(sparse).already_live)
    assert {row[11] for row in console.activities(f"origin = 'crm_migration' AND source_audit_id >= {FIRST}")} == set(
        range(FIRST + 1, FIRST + 10)
    )

    set_watermark(None)
    reset = run_account(1, RunMode.DRY_RUN)
    assert reset.watermark["ticket"] == sparse.watermark["ticket"] and reset.warnings == sparse.warnings


def test_verifying_again_tells_the_seam_as_it_is_by_then_and_stores_nothing_of_it(console):
    """The live sync died after the run; a terminal is warned as the pages are."""
    hour = timedelta(hours=1)
    tickets(console, *(MARK + n * hour for n in range(11)))
    for number in range(11):
        live(console, MARK + number * hour, FIRST + number)
    run = run_account(1)
    assert (seam(run), run.warnings) == (counts(crm_beyond=11, cdp_live=11, matched=11), [])
    withdrawn = "Run 0 (production, X) was withdrawn afterwards: what this run had found right and left in place went with it."
    runs.record(run, warnings=[withdrawn])
    console.change_cdp(f"DELETE FROM contact_activity_logs WHERE origin = 'live' AND source_audit_id > {FIRST}")
    sparse = (
        f"Live sync of ticket activity seems not to run: since the watermark {MARK.isoformat()} the CRM has 11 audits, the CDP live rows for 1 "
        "of them. Set the watermark by hand if the first live rows were a trial."
    )
    told, said = verify("--json"), verify().splitlines()
    found = json.loads(told)
    assert found["boundary"]["ticket"].pop("examples")
    assert found["boundary"]["ticket"] == {"watermark": MARK.isoformat()} | counts(crm_beyond=11, cdp_live=1, matched=1, gaps=10)
    assert found["warnings"] == [sparse, withdrawn]
    assert [line for line in said if "warning" in line] == [f"  warning: {sparse}", f"  warning: {withdrawn}"]
    stored = (run.boundary, run.warnings)
    run.refresh_from_db()
    assert (run.boundary, run.warnings) == stored


def verify(*options: str) -> str:
    """What verify_account prints of account 1, which it finds partial."""
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("verify_account", 1, *options, stdout=out)
    assert ended.value.code == 3
    return out.getvalue()


@pytest.mark.parametrize(("audits", "live_rows", "sparse"), [(9, 1, False), (10, 0, False), (10, 4, True), (10, 5, False), (11, 5, True)])
def test_sparse_is_from_ten_audits_on_and_fewer_than_half(audits, live_rows, sparse):
    found = Seam("", crm_beyond=audits, cdp_live=live_rows, matched=live_rows)
    assert found.sparse is sparse
    assert bool(boundary.Boundary({"ticket": found}).warnings()) is sparse


def test_the_newest_word_by_hand_counts_for_its_account_and_entity_alone(console):
    with worlds.opened(run_account(1, RunMode.DRY_RUN)) as world:
        accounts = {number: Account.objects.get(crm_organization_id=number) for number in (1, 2)}

        def resolved(number: int) -> dict[str, datetime]:
            return watermark.resolve(world.cdp, accounts[number], now=MARK, safety_lag=timedelta(hours=24))

        first, other = resolved(1), resolved(2)
        assert first["contact"] == min(row["occurred_at"] for row in sample().live if row["account_id"] == sample().accounts[1])
        assert first["task"] == MARK - timedelta(hours=24)
        set_watermark(MARK - timedelta(days=9), "contact")
        set_watermark(MARK - timedelta(days=2), "contact")
        set_watermark(MARK, "task")
        assert resolved(1) == first | {"contact": MARK - timedelta(days=2), "task": MARK}
        set_watermark(None, "contact")
        assert resolved(1) == first | {"task": MARK}
        assert resolved(2) == other


def test_the_moment_of_the_watermark_itself_is_the_live_sync_s_and_stays_the_run_s(console):
    set_watermark(MARK)
    tickets(console, MARK - MICROSECOND, MARK, MARK + MICROSECOND)
    run = run_account(1)
    assert [row[11] for row in console.activities(f"source_audit_id >= {FIRST}")] == [FIRST]
    assert ledger.of(run).beyond["ticket/create"] == 2
    set_watermark(MARK - timedelta(days=100))
    with worlds.opened(run) as world:
        assert world.watermark["ticket"] == MARK, "what staff set afterwards is the next run's"
