"""A CRM and a CDP at work: candidates and contacts that come and go while a run works, and contacts that become another person's."""

from collections.abc import Callable

import pytest

from migration import chunks, ledger, reports, runs, steps, verdicts, withdrawal
from migration.admin import comparison
from migration.doors import Outage
from migration.meanwhile import Meanwhile
from migration.models import Account, Run
from migration.pipeline.problems import Problem
from migration.pipeline.records import Quarantined
from migration.reconcile import Verification, set_aside
from migration.shares import Shares
from migration.states import FINISHED, ChunkState, Reason, RunMode, RunState
from tests import factories
from tests.conftest import Systems, rows, run_sql
from tests.migration.conftest import OWNER, now, run_account
from tests.migration.hard_rows import FIRST, ORGANISATION, few_contacts, insert, new_contact
from tests.migration.test_hard_links import DEAL, JOIN
from tests.migration.test_old_crm import COMBINED
from tests.migration.test_quarantine import retry
from tests.migration.test_withdraw import DELETE

OTHERS = 900_011  # CRM persons that the sample does not know, from here on


def work(run: Run, meanwhile: Callable[[int], None]) -> Run:
    """Work on the run until it ends; `meanwhile` is called before each of its verifications, with how many there were before."""
    times = 0
    while run.state not in FINISHED:
        if run.state == RunState.VERIFYING:
            meanwhile(times)
            times += 1
        steps.step(run, owner=OWNER)
        run.refresh_from_db()
    return run


def start(mode: RunMode = RunMode.PRODUCTION, chunk_size: int = 20) -> Run:
    return runs.start(runs.Wish(Account.objects.get(crm_organization_id=ORGANISATION), mode, chunk_size), by="tester", now=now())


def ours(systems: Systems) -> list[tuple]:
    """Whole rows but for the run."""
    return [row[:-1] for row in systems.activities("origin = 'crm_migration'")]


def loaded_afresh(systems: Systems) -> list[tuple]:
    """What a first run into a CDP without rows of ours would write."""
    run_sql(systems.cdp, "DELETE FROM contact_activity_logs WHERE origin = 'crm_migration'")
    assert run_account(ORGANISATION).state == RunState.SUCCEEDED
    return ours(systems)


# --- what comes and goes --------------------------------------------------------------------------------------------


@pytest.fixture
def few(console) -> Systems:
    few_contacts(console, 9)
    return console


@pytest.mark.parametrize("mode", RunMode)
def test_audits_that_are_purged_before_each_verification_end_no_run_and_only_their_chunks_are_done_again(few, mode):
    insert(few, [{"auditable_id": person} for person in (1, 2, 3) for _ in range(25)])
    run = start(mode)

    def purge(times: int) -> None:
        few.change_crm(f"DELETE FROM audits WHERE id = {FIRST + times * 25}" if times < 3 else "SELECT")

    work(run, purge)
    assert run.state == RunState.SUCCEEDED, run.reason
    assert run.verification["rounds"] == 4
    found = ledger.of(run)
    assert found.balances and found.candidates == run.verification["candidates"]
    assert sorted(run.stale_rows.values_list("audit_id", flat=True)) == ([FIRST, FIRST + 25, FIRST + 50] if run.writes else [])
    generations = set(run.chunks.exclude(state=ChunkState.SPLIT).values_list("generation", flat=True))
    assert generations == {1, 2}, "each vanished but once, and nothing else was done again"


def test_a_contact_that_goes_before_each_verification_ends_no_run(few):
    run = start()
    work(run, lambda times: few.change_cdp(f"UPDATE contacts SET source_id = NULL WHERE source_id = {times + 1}") if times < 2 else None)
    assert run.state == RunState.SUCCEEDED, run.reason
    assert ledger.of(run).balances
    assert set(run.stale_rows.values_list("person_id", flat=True)) == {1, 2}


def test_what_comes_and_goes_without_an_end_is_never_called_done(few):
    insert(few, [{} for _ in range(30)])
    run = work(start(), lambda times: few.change_crm(f"DELETE FROM audits WHERE id = {FIRST + times}"))
    assert (run.state, run.verification["rounds"]) == (RunState.FAILED, 5)
    assert "candidates, the ledger" in run.reason
    found = run.verification
    assert f"DISAGREES: {found['candidates']:,} candidates on the source, {found['accounted']:,} in the ledger; " in reports.verdict(run)
    figures = {figure.name: figure.count for figure in comparison.figures(run)}
    assert (figures["uneven"], figures["rounds"]) == (2, 5), "a heavy contact's chunks go together"


def test_one_that_came_and_one_that_went_are_not_taken_for_each_other(few):
    """In a dry run nothing but numbers is compared."""
    insert(few, [{"auditable_id": 1}])
    run = start(RunMode.DRY_RUN)

    def swap(times: int) -> None:
        if not times:
            few.change_crm(f"UPDATE audits SET auditable_id = 9 WHERE id = {FIRST}")

    work(run, swap)
    assert (run.state, run.verification["rounds"]) == (RunState.SUCCEEDED, 2)


def test_what_was_tried_again_counts_with_the_chunks_that_it_lies_in(db):
    run = factories.run(RunState.VERIFYING)
    aside = Quarantined(15, 7, None, Problem(Reason.TIME_MISSING))
    factories.chunk(run, result=factories.receipt(written=2, quarantined=[aside]))
    factories.chunk(run)
    factories.chunk(run, result=factories.receipt(written=1, retried={"time_missing": 1}), pairs=[[15, 7, "time_missing"]])
    shares = Shares(run)
    for person, candidates in ((15, 3), (25, 10)):
        shares.count(person, candidates)
    assert (shares.uneven(), shares.tried_again.chunks) == (set(), [1])
    shares.count(29, 1)
    assert shares.uneven() == {2}
    shares.count(19, 1)
    assert shares.uneven() == {1, 2}


def test_only_the_account_s_own_waivers_put_a_candidate_aside(db):
    chunk = factories.chunk(factories.run(RunState.VERIFYING))
    earlier = factories.chunk(factories.run(account=chunk.run.account))
    waived, quarantined, others = (factories.quarantined(each) for each in (earlier, chunk, factories.chunk(factories.run())))
    factories.waived(waived)
    factories.waived(others)
    found = set_aside(chunk.run)
    assert (found.quarantined, found.waived) == tuple({(each.person_id, each.audit_id)} for each in (quarantined, waived))


def test_what_two_servers_are_asked_at_once_fails_as_it_would_alone():
    def away() -> None:
        raise Outage("it is away")

    with pytest.raises(Outage, match="it is away"):
        Meanwhile(away).result()
    assert Meanwhile(lambda: 7).result() == 7


BEFORE = {"candidates": 10, "accounted": 9, "missing": 1}


@pytest.mark.parametrize(
    ("before", "found", "again"),
    [
        (None, {"missing": 1}, True),
        (None, {"misfit_rows": {"a row that nobody would write"}}, False),
        (BEFORE, {"candidates": 10, "accounted": 9, "missing": 1}, False),
        (BEFORE, {"candidates": 10, "accounted": 9, "missing": 2}, True),
        (BEFORE, {"candidates": 10, "accounted": 9, "missing": 2, "differing": 1}, False),
        (BEFORE | {"rounds": 3}, {"candidates": 10, "accounted": 9, "missing": 2}, True),
        (BEFORE | {"rounds": 4}, {"candidates": 10, "accounted": 9, "missing": 2}, False),
    ],
)
def test_chunks_are_done_again_while_that_may_help(before, found, again):
    assert verdicts.should_repeat(Run(verification=before), Verification(**found)) is again


@pytest.mark.parametrize(
    ("lacking", "numbers"), [([(15, 7)], {1}), ([(20, 99)], {2}), ([(20, 100)], {3}), ([(20, 99), (15, 1)], {1, 2}), ([(40, 1)], set())]
)
def test_of_a_heavy_contact_the_chunk_with_the_missing_audit_is_sent_back(db, lacking, numbers):
    run = factories.run(RunState.VERIFYING)
    for fields in ({}, {"person_to": 20, "audit_to": 100}, {"person_from": 20, "person_to": 20, "audit_from": 100}):
        factories.chunk(run, **fields)
    assert verdicts.chunks_to_repeat(run, Verification(lacking=lacking)) == numbers


def test_a_chunk_that_verification_sends_back_has_all_its_attempts_again(db):
    chunk = factories.chunk(factories.run(RunState.VERIFYING), attempts=chunks.MOST_ATTEMPTS, ended_at=now())
    assert chunks.send_back(chunk.run, {chunk.number}, with_retries=False) == 1
    chunk.refresh_from_db()
    assert (chunk.state, chunk.attempts, chunk.generation, chunk.ended_at) == (ChunkState.PENDING, 0, 2, None)


def test_a_purge_between_a_partial_run_and_its_retry_is_settled_by_the_retry(few):
    note = {"auditable_type": "Crm::Note", "auditable_id": 7001, "associated_type": "Crm::Person", "created_at": None}
    insert(few, [note | {"associated_id": person} for person in (1, 1, 2)] + [{"auditable_id": person} for person in (1, 3)])
    run = work(start(), lambda times: None)
    assert run.state == RunState.PARTIAL
    few.change_crm(
        f"DELETE FROM audits WHERE id >= {FIRST + 3}",
        f"UPDATE audits SET created_at = '2024-01-01' WHERE id IN ({FIRST}, {FIRST + 2})",
    )
    retry()
    run.refresh_from_db()
    assert run.state == RunState.PARTIAL, run.reason
    assert list(run.quarantined.values_list("audit_id", flat=True)) == [FIRST + 1]
    found = ledger.of(run)
    assert found.balances and found.quarantined == {"time_missing": 1}
    assert sorted(run.stale_rows.values_list("audit_id", flat=True)) == [FIRST + 3, FIRST + 4]
    assert run.chunks.filter(pairs__isnull=False).values_list("state", flat=True).get() == ChunkState.SPLIT
    told = "SELECT source_audit_id FROM contact_activity_logs WHERE source_audit_id >= %s AND origin = 'crm_migration' ORDER BY 1"
    assert [row[0] for row in rows(few.cdp, told, (FIRST,))] == [FIRST, FIRST + 2, FIRST + 3, FIRST + 4]
    few.change_crm(f"UPDATE audits SET created_at = '2024-01-01' WHERE id = {FIRST + 1}")
    retry()
    run.refresh_from_db()
    assert run.state == RunState.SUCCEEDED, run.reason
    assert ledger.of(run).balances


# --- contacts that become another person's --------------------------------------------------------------------------


def deal_of(*persons: int) -> list[dict]:
    """One deal that these persons are linked to, with thirty audits; and audits of their own."""
    links = [
        JOIN | {"auditable_id": 8001 + at, "audited_changes": f'{{"crm_deal_id": 9001, "crm_person_id": {each}}}'}
        for at, each in enumerate(persons)
    ]
    return [*links, *[DEAL] * 30, *({"auditable_id": each} for each in persons)]


@pytest.mark.parametrize("chunk_size", [20, 2000])
def test_a_contact_that_is_another_persons_now_keeps_the_audits_that_both_share(few, chunk_size):
    insert(few, deal_of(OTHERS, OTHERS + 1))
    contact = new_contact(few, OTHERS)
    first = run_account(ORGANISATION, chunk_size=chunk_size)
    few.change_cdp(f"UPDATE contacts SET source_id = {OTHERS + 1} WHERE id = '{contact}'")
    foreseen = run_account(ORGANISATION, RunMode.DRY_RUN, chunk_size=chunk_size)
    run = run_account(ORGANISATION, chunk_size=chunk_size)
    assert run.state == RunState.SUCCEEDED, run.reason
    assert ledger.of(foreseen).as_json() == ledger.of(run).as_json()
    assert (ledger.of(run).corrected, ledger.of(run).written) == (30, 2)
    assert ledger.of(run).recategorised == {"deal/update -> deal/update": 30}
    own = {FIRST, FIRST + 32}  # of the former person: their link to the deal, and what is theirs alone
    assert set(run.stale_rows.values_list("person_id", "audit_id")) == {(OTHERS, audit) for audit in own}
    stands = [row for row in ours(few) if row[11] not in own]
    assert stands == loaded_afresh(few)
    assert ledger.of(first).balances


@pytest.mark.parametrize("chunk_size", [20, 2000])
def test_two_contacts_that_were_taken_for_each_other_are_put_right(few, chunk_size):
    insert(few, deal_of(OTHERS, OTHERS + 1))
    one, other = new_contact(few, OTHERS), new_contact(few, OTHERS + 1)
    run_account(ORGANISATION, chunk_size=chunk_size)
    few.change_cdp(
        f"UPDATE contacts SET source_id = CASE id WHEN '{one}' THEN {OTHERS + 1} ELSE {OTHERS} END WHERE id IN ('{one}', '{other}')"
    )
    run = run_account(ORGANISATION, chunk_size=chunk_size)
    assert run.state == RunState.SUCCEEDED, run.reason
    assert (run.stale, ledger.of(run).quarantined) == (0, {})
    assert ledger.of(run).corrected + ledger.of(run).written == 64
    assert ours(few) == loaded_afresh(few)
    assert ledger.of(run_account(ORGANISATION)).unchanged >= 64


def test_a_withdrawal_names_rows_that_an_earlier_run_wrote_under_the_former_persons_id(few):
    few.change_cdp(DELETE)
    insert(few, deal_of(OTHERS, OTHERS + 1))
    contact = new_contact(few, OTHERS)
    first = run_account(ORGANISATION)
    few.change_cdp(f"UPDATE contacts SET source_id = {OTHERS + 1} WHERE id = '{contact}'")
    run = run_account(ORGANISATION)
    assert (ledger.of(run).corrected, ledger.of(run).written) == (30, 2)
    assert withdrawal.preview(run).earlier == {str(first): 30}


def test_a_purged_audits_row_at_a_contact_that_is_nobodys_any_more_is_stale(few):
    insert(few, [{"auditable_id": OTHERS}, {"auditable_id": OTHERS}])
    former = new_contact(few, OTHERS)
    run_account(ORGANISATION)
    few.change_cdp(f"UPDATE contacts SET source_id = NULL WHERE id = '{former}'")
    new_contact(few, OTHERS)
    few.change_crm(f"DELETE FROM audits WHERE id = {FIRST}")
    run = run_account(ORGANISATION)
    assert run.state == RunState.SUCCEEDED, run.reason
    assert ledger.of(run).corrected == 1
    assert list(run.stale_rows.values_list("person_id", "audit_id")) == [(OTHERS, FIRST)]


def test_what_the_row_of_the_former_person_tells_more_finely_stays(few):
    insert(few, deal_of(OTHERS, OTHERS + 1))
    contact = new_contact(few, OTHERS)
    run_account(ORGANISATION)
    [before] = few.activities(f"source_audit_id = {FIRST + 20}")
    few.change_cdp(f"UPDATE contacts SET source_id = {OTHERS + 1} WHERE id = '{contact}'")
    few.change_crm(
        f"""UPDATE audits SET audited_changes = '{{"amount": ["0.1", "2.0"], "name": ["a", "b"]}}', comment = {COMBINED} WHERE id = {FIRST + 20}"""
    )
    run = run_account(ORGANISATION)
    assert run.state == RunState.SUCCEEDED, run.reason
    [after] = few.activities(f"source_audit_id = {FIRST + 20}")
    assert (after[0] != before[0], after[1:-1]) == (True, before[1:-1])


def test_a_row_under_an_id_that_nobodys_row_could_have_is_not_written_over(few):
    insert(few, [{"auditable_id": OTHERS}])
    new_contact(few, OTHERS)
    run_account(ORGANISATION)
    few.change_cdp(f"UPDATE contact_activity_logs SET id = gen_random_uuid() WHERE source_audit_id = {FIRST}")
    before = few.activities(f"source_audit_id = {FIRST}")
    run = run_account(ORGANISATION)
    assert run.state == RunState.FAILED and "not its own" in run.reason
    assert few.activities(f"source_audit_id = {FIRST}") == before


def test_a_live_row_at_a_contact_that_became_another_persons_stays_the_live_syncs(few):
    insert(few, deal_of(OTHERS, OTHERS + 1))
    contact = new_contact(few, OTHERS)
    run_account(ORGANISATION)
    few.change_cdp(
        f"DELETE FROM contact_activity_logs WHERE source_audit_id = {FIRST + 20}",
        f"""INSERT INTO contact_activity_logs (id, account_id, contact_id, category, actor_kind, occurred_at, changes, context, origin, source_audit_id)
            SELECT gen_random_uuid(), account_id, id, 'deal/update', 'system', now(), '{{}}', '{{}}', 'live', {FIRST + 20}
            FROM contacts WHERE id = '{contact}'""",
        f"UPDATE contacts SET source_id = {OTHERS + 1} WHERE id = '{contact}'",
    )
    live = few.activities(f"source_audit_id = {FIRST + 20}")
    run = run_account(ORGANISATION)
    assert run.state == RunState.SUCCEEDED, run.reason
    assert (ledger.of(run).already_live, few.activities(f"source_audit_id = {FIRST + 20}")) == (1, live)
