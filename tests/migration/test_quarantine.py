"""What is quarantined: how it arises, is mended and tried again, or waived; and the rows that are candidates no more."""

import json
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gates.policies import Decision
from migration import accounts, chunks, forecast, ledger, quarantine, reports, revisions, runs, steps, summaries, tasks, verdicts
from migration.cdp import Cdp
from migration.models import Account, Chunk, QuarantinedCandidate, Run, Summary, Waiver
from migration.pipeline.problems import Problem
from migration.pipeline.records import Quarantined, Receipt
from migration.pipeline.rows import row_id
from migration.runs import Refused
from migration.states import Reason, RunMode, RunState
from tests import factories
from tests.conftest import Systems
from tests.migration.conftest import OWNER, mapping_document, now, run_account
from tests.migration.hard_rows import FIRST, NOBODYS, few_contacts, insert, new_contact, sample
from tests.migration.test_hard_links import DEAL, JOIN

NOTE = {"auditable_type": "Crm::Note", "auditable_id": 9001, "associated_type": "Crm::Person", "action": "create"}
AS_JSON = "ALTER TABLE audits ALTER audited_changes TYPE json USING audited_changes::text::json"
SEAM = datetime(2025, 5, 1, 12, tzinfo=UTC)  # the samples end in January
OTHERS_ORGANISATION = "UPDATE audits SET audited_changes = jsonb_set(audited_changes::jsonb, '{{organization_id}}', '{}')::json WHERE {}"


@pytest.fixture
def few(console) -> Systems:
    """Account 1 with its contacts up to CRM person 21, of which nothing is quarantined."""
    few_contacts(console, last=21)
    return console


def note(**given: Any) -> dict[str, Any]:
    return NOTE | {"associated_id": 1, "audited_changes": '{"content": "x"}'} | given


def of_persons(*persons: int) -> str:
    return f"auditable_type = 'Crm::Person' AND auditable_id IN ({', '.join(map(str, persons))})"


def ours(systems: Systems) -> dict[tuple[int, int], tuple]:
    """(CRM person id, audit id) -> row of ours."""
    return {(UUID(row[0]).int >> 80, row[11]): row for row in systems.activities("origin = 'crm_migration'")}


def retry(reason: Reason | None = None, account: int | None = 1) -> dict[str, Any]:
    """The command, here and now; its report."""
    out = StringIO()
    call_command("retry_quarantine", account=account, reason=str(reason) if reason else None, inline=True, json=True, stdout=out)
    return json.loads(out.getvalue())


def outcome(run: Run) -> tuple[str, dict[str, int]]:
    """The run's state, and what its balanced and verified ledger has quarantined, which is what staff see as rows."""
    run.refresh_from_db()
    counts = ledger.of(run)
    assert counts.balances, reports.as_json(run)
    assert run.verification["agrees"] and run.verification["candidates"] == counts.candidates
    listed = Counter(run.quarantined.filter(waiver__isnull=True).values_list("reason", flat=True))
    assert listed == counts.quarantined
    assert run.reason == (verdicts.quarantined_sentence(listed.total()) if listed else "")
    return run.state, dict(counts.quarantined)


# --- every reason arises, is mended, and is tried again -------------------------------------------------------------

MENDED_IN_CRM = {
    Reason.PROCESSING_FAILED: f"UPDATE audits SET action = 'update' WHERE id = {FIRST}",
    Reason.TIME_MISSING: f"UPDATE audits SET created_at = '2024-02-03 04:05:06.000007' WHERE id = {FIRST + 1}",
    Reason.CHANGES_UNREADABLE: f"""UPDATE audits SET audited_changes = '{{"content": "y"}}' WHERE id = {FIRST + 2}""",
    Reason.CHANGES_UNSTORABLE: f"""UPDATE audits SET audited_changes = '{{"content": "z"}}' WHERE id IN ({FIRST + 3}, {FIRST + 4})""",
    Reason.TENANT_MISMATCH: OTHERS_ORGANISATION.format(1, of_persons(14)),
}


def arrange_every_reason(systems: Systems) -> None:
    systems.change_crm(AS_JSON)
    insert(
        systems,
        [
            note(action="login", associated_id=1),
            note(created_at=None, associated_id=2),
            note(audited_changes="[1, 2]", associated_id=3),
            note(audited_changes='{"content": "a\\u0000b"}', associated_id=4),
            note(audited_changes='{"score": 1e400000}', associated_id=4),
            note(created_at=(SEAM - timedelta(seconds=7)).replace(tzinfo=None).isoformat(), associated_id=19),
        ],
    )
    systems.change_crm(
        OTHERS_ORGANISATION.format(3, of_persons(14)),
        f"UPDATE audits SET audited_changes = (audited_changes::jsonb - 'organization_id')::json WHERE {of_persons(16)}",
    )
    new_contact(systems, 15)
    new_contact(systems, 16, organisation=2)
    account = sample().accounts[1]
    systems.change_cdp(
        f"""INSERT INTO contact_activity_logs (id, account_id, contact_id, category, actor_kind, occurred_at, changes, origin)
            SELECT gen_random_uuid(), account_id, id, 'note/create', 'system', '{SEAM.isoformat()}', '{{}}', 'live'
            FROM contacts WHERE account_id = '{account}' AND source_id = 19"""
    )


def mend(systems: Systems, reason: Reason) -> None:
    if reason in MENDED_IN_CRM:
        systems.change_crm(MENDED_IN_CRM[reason])
    elif reason == Reason.CONTACT_AMBIGUOUS:
        systems.change_cdp(
            f"DELETE FROM contacts WHERE source_id IN (15, 16) AND name IS NULL OR source_id = 16 AND account_id <> '{sample().accounts[1]}'"
        )
    else:
        systems.change_cdp(
            f"UPDATE contact_activity_logs SET source_audit_id = {FIRST + 5} WHERE origin = 'live' AND source_audit_id IS NULL"
        )


def test_each_reason_is_mended_and_tried_again_until_the_run_is_complete(few):
    arrange_every_reason(few)
    run = run_account(1)
    state, left = outcome(run)
    assert (state, left.keys()) == (RunState.PARTIAL, set(Reason))
    assert [left[each] for each in (Reason.CHANGES_UNSTORABLE, Reason.PROCESSING_FAILED)] == [2, 1]
    assert dict(run.quarantined.filter(reason=Reason.PROCESSING_FAILED).values_list("audit_id", "error_class")) == {FIRST: "UnknownAction"}

    for reason in Reason:
        rows, counts = ours(few), ledger.of(run)
        keys = set(run.quarantined.filter(reason=reason).values_list("person_id", "audit_id"))
        mend(few, reason)
        number = left.pop(reason)
        told = {"tried_again": {str(run.pk): number}, "quarantined_now": {str(run.pk): sum(left.values())}, "refused": []}
        assert retry(reason) == told
        assert outcome(run) == (RunState.PARTIAL if left else RunState.SUCCEEDED, left)
        after, fresh = ours(few), ledger.of(run)
        if reason == Reason.PROBABLE_OVERLAP:
            assert (after, fresh.already_live, fresh.written) == (rows, counts.already_live + 1, counts.written)
        else:
            assert after == rows | {key: after[key] for key in keys} and rows.keys() & keys == set()
            assert (fresh.written, fresh.already_live) == (counts.written + number, counts.already_live)
            assert all(after[key][12] == str(run.uuid) for key in keys)
        assert (fresh.candidates, fresh.corrected, fresh.unchanged) == (counts.candidates, 0, 0)
    assert fresh.categories.total() == fresh.written == len(after)

    again = run_account(1)
    assert again.state == RunState.SUCCEEDED
    assert (ledger.of(again).written, ledger.of(again).corrected, ours(few)) == (0, 0, after)


def test_what_is_not_mended_stays_and_what_was_hidden_behind_it_comes_out(few):
    """Without a time and without readable changes: the second reason shows when the first is gone."""
    insert(few, [note(created_at=None, audited_changes="[1]"), note(created_at=None, associated_id=2)])
    run = run_account(1)
    before = ours(few), ledger.of(run)
    assert outcome(run) == (RunState.PARTIAL, {Reason.TIME_MISSING: 2})
    assert retry()["quarantined_now"] == {str(run.pk): 2}
    assert (ours(few), ledger.of(run)) == before
    few.change_crm(f"UPDATE audits SET created_at = '2024-01-01' WHERE id = {FIRST}")
    retry(Reason.TIME_MISSING)
    assert outcome(run) == (RunState.PARTIAL, {Reason.TIME_MISSING: 1, Reason.CHANGES_UNREADABLE: 1})
    assert retry(Reason.CHANGES_UNSTORABLE) == {"tried_again": {}, "quarantined_now": {}, "refused": []}
    assert ours(few) == before[0]


def again(run: Run, **which: Any) -> dict[Run, int]:
    """Have some of a run's candidates tried again, without doing it yet."""
    with closing(Cdp()) as cdp:
        return quarantine.retry(run.quarantined.filter(**which), cdp, by="ana", now=now())


def test_one_candidate_alone(few):
    insert(few, [note(created_at=None, associated_id=person) for person in (1, 2)])
    run = run_account(1)
    few.change_crm(f"UPDATE audits SET created_at = '2024-01-01' WHERE id >= {FIRST}")
    rows = ours(few)
    assert again(run, audit_id=FIRST) == {run: 1}
    run.refresh_from_db()
    assert (run.state, run.verification, run.reason) == (RunState.RUNNING, None, "1 quarantined candidate is tried again.")
    tasks.work_here(run)
    assert outcome(run) == (RunState.PARTIAL, {Reason.TIME_MISSING: 1})
    assert ours(few).keys() - rows.keys() == {(1, FIRST)}


def test_many_go_in_several_chunks_and_a_worker_that_stopped_is_followed_by_another(few, monkeypatch):
    monkeypatch.setattr(quarantine, "RETRIED_AT_ONCE", 2)
    insert(few, [note(created_at=None, associated_id=person) for person in (1, 2, 3, 4, 14)])
    run = run_account(1)
    few.change_crm(f"UPDATE audits SET created_at = '2024-01-01' WHERE id >= {FIRST}")
    again(run)
    assert list(run.chunks.filter(pairs__isnull=False).values_list("number", "expected", "person_from", "person_to")) == [
        (2, 2, 1, 2), (3, 2, 3, 4), (4, 1, 14, 14),
    ]  # fmt: skip
    steps.step(run, owner=OWNER, turn=0.0)
    assert runs.start(runs.Wish(run.account, RunMode.PRODUCTION), by="ana", now=now()) == run, "the account's run goes on"
    tasks.work_here(run)
    assert outcome(run) == (RunState.SUCCEEDED, {})
    assert len(ours(few)) == ledger.of(run).written


def test_all_accounts_at_once(console):
    """Of each account the latest production run; a dry run's are not touched, though it is partial too."""
    found = {number: run_account(number) for number in (1, 2)}
    dry = run_account(3, RunMode.DRY_RUN)
    assert {outcome(run)[0] for run in (*found.values(), dry)} == {RunState.PARTIAL}
    before = console.activities()
    assert retry(account=None)["tried_again"] == {str(run.pk): run.quarantined.count() for run in found.values()}
    assert console.activities() == before
    assert {outcome(run)[0] for run in found.values()} == {RunState.PARTIAL}


def test_of_all_accounts_one_that_is_refused_keeps_no_other_from_being_tried_again(console):
    refused, run = run_account(1), run_account(2)
    dry = runs.start(runs.Wish(refused.account, RunMode.DRY_RUN), by="ana", now=now())
    out = StringIO()
    with pytest.raises(CommandError) as ended:
        call_command("retry_quarantine", inline=True, json=True, stdout=out)
    told = json.loads(out.getvalue())
    said = f"{dry} is planned: wait for it, or cancel it, before candidates of {refused} are tried again."
    assert (ended.value.returncode, str(ended.value), told["refused"]) == (4, said, [said])
    assert told["tried_again"] == {str(run.pk): run.quarantined.count()}
    assert list(Chunk.objects.filter(pairs__isnull=False).values_list("run", flat=True)) == [run.pk]
    assert outcome(run)[0] == RunState.PARTIAL


def test_of_all_accounts_none_that_left_the_cdp_is_tried_again(console):
    """Its contacts left with it: its run would find no candidate, list every row as stale, and have succeeded."""
    left, run = run_account(1), run_account(2)
    told = (outcome(left), reports.as_json(left), list(left.quarantined.order_by("pk").values()))
    console.change_cdp(
        f"DELETE FROM contact_activity_logs WHERE account_id = '{left.account.cdp_id}'",
        f"DELETE FROM contacts WHERE account_id = '{left.account.cdp_id}'",
        f"DELETE FROM accounts WHERE id = '{left.account.cdp_id}'",
    )
    assert accounts.sync(now=now()).gone == 1
    assert retry(account=None) == {
        "tried_again": {str(run.pk): run.quarantined.count()}, "quarantined_now": {str(run.pk): run.quarantined.count()}, "refused": [],
    }  # fmt: skip
    assert (outcome(left), reports.as_json(left), list(left.quarantined.order_by("pk").values())) == told


# --- the world moved on meanwhile -----------------------------------------------------------------------------------


def test_a_retried_audit_that_is_gone_or_beyond_the_watermark_by_now_is_a_candidate_no_more(few):
    insert(few, [note(created_at=None, associated_id=1), note(created_at=None, associated_id=2)])
    run = run_account(1)
    before = ledger.of(run)
    few.change_crm(
        f"DELETE FROM audits WHERE id = {FIRST}", f"UPDATE audits SET created_at = now() AT TIME ZONE 'UTC' WHERE id = {FIRST + 1}"
    )
    retry()
    assert outcome(run) == (RunState.SUCCEEDED, {})
    assert (ledger.of(run).candidates, ledger.of(run).written) == (before.candidates - 2, before.written)
    assert ledger.of(run).beyond["note/create"] == before.beyond["note/create"] + 1


def test_what_became_another_contacts_or_another_record_is_not_written_for_the_one_it_was(few):
    link = JOIN | {"auditable_id": 7001, "audited_changes": '{"crm_deal_id": 9001, "crm_person_id": 1}'}
    timeless = [note(associated_id=1), note(associated_id=2), DEAL, DEAL, {"auditable_id": 1}, {"auditable_id": 2}, note(associated_id=4)]
    insert(few, [link, *(audit | {"created_at": None} for audit in timeless)])
    run = run_account(1)
    assert outcome(run) == (RunState.PARTIAL, {"time_missing": len(timeless)})
    others_now = (
        "associated_id = 2",
        "associated_id = 999999",
        "auditable_id = 9002",
        "id = id",
        "auditable_type = 'Invoice'",
        "auditable_id = 999999",
    )
    few.change_crm(
        *(f"UPDATE audits SET {change} WHERE id = {audit}" for audit, change in enumerate(others_now, FIRST + 1)),
        f"UPDATE audits SET created_at = '2024-02-03 04:05:06' WHERE id > {FIRST}",
    )
    retry()
    assert outcome(run) == (RunState.SUCCEEDED, {})
    assert {key for key in ours(few) if key[1] > FIRST} == {(2, FIRST + 1), (1, FIRST + 4), (4, FIRST + 7)}
    assert stale(run) == set()


def test_contacts_that_were_pointed_at_another_tenant_s_persons_are_mended_in_the_cdp(few):
    """The usual cure of a tenant_mismatch: nobody claims the person any more."""
    few.change_crm(OTHERS_ORGANISATION.format(3, of_persons(14, 15, 16)).replace("::json ", " "))
    run = run_account(1)
    before = ledger.of(run)
    number = before.quarantined[Reason.TENANT_MISMATCH]
    assert number > 9
    few.change_cdp(
        "DELETE FROM contacts WHERE source_id = 14",
        "UPDATE contacts SET source_id = NULL WHERE source_id = 15",
        "UPDATE contacts SET source_id = 9999 WHERE source_id = 16",
    )
    retry()
    assert outcome(run) == (RunState.SUCCEEDED, {})
    assert (ledger.of(run).candidates, ledger.of(run).written) == (before.candidates - number, before.written)


def test_history_that_came_up_since_is_brought_by_the_retry(few):
    """A contact is pointed at the right person meanwhile, whose history no chunk of this run had: the chunk it belongs to is done again."""
    few.change_crm(OTHERS_ORGANISATION.format(3, of_persons(14)).replace("::json ", " "))
    run = run_account(1)
    few.change_cdp("UPDATE contacts SET source_id = 43 WHERE source_id = 14")
    retry()
    assert outcome(run) == (RunState.SUCCEEDED, {})
    assert (43, 149) in ours(few)
    assert outcome(run_account(1)) == (RunState.SUCCEEDED, {})


# --- waived ---------------------------------------------------------------------------------------------------------


def waive(run: Run, note: str = "the source is lost", **which: Any) -> int:
    return quarantine.waive(run.quarantined.filter(**which), by="ana", note=note, now=now())


def test_waived_is_waived_in_this_run_and_in_every_later_one(few):
    insert(few, [note(created_at=None, associated_id=person) for person in (1, 2, 3)])
    run = run_account(1)
    rows = ours(few)
    assert waive(run, audit_id=FIRST) == 1
    assert outcome(run) == (RunState.PARTIAL, {Reason.TIME_MISSING: 2})
    assert ledger.of(run).waived == {Reason.TIME_MISSING: 1}
    assert run.events.filter(kind="candidates waived").values_list("sentence", "by").get() == ("1 by ana: the source is lost", "ana")

    assert retry()["tried_again"] == {str(run.pk): 2}, "a waived one is not tried again"
    assert outcome(run) == (RunState.PARTIAL, {Reason.TIME_MISSING: 2})
    assert ledger.of(run).waived == {Reason.TIME_MISSING: 1}
    assert (waive(run), waive(run)) == (2, 0)
    assert outcome(run) == (RunState.SUCCEEDED, {})
    assert (ledger.of(run).waived, run.finished_at is not None) == ({Reason.TIME_MISSING: 3}, True)

    for mode in (RunMode.DRY_RUN, RunMode.PRODUCTION):
        later = run_account(1, mode)
        assert outcome(later) == (RunState.SUCCEEDED, {})
        assert ledger.of(later).waived == {Reason.TIME_MISSING: 3}
        assert not later.quarantined.exists()
    assert ours(few) == rows
    assert Waiver.objects.count() == 3


def test_a_waiver_is_for_its_reason_alone_and_none_stands_in_the_way_of_a_mended_row(few):
    insert(few, [note(created_at=None, audited_changes="[1]", associated_id=1), note(created_at=None, associated_id=2)])
    waive(run_account(1))
    few.change_crm(f"UPDATE audits SET created_at = '2024-01-01' WHERE id >= {FIRST}")
    later = run_account(1)
    assert outcome(later) == (RunState.PARTIAL, {Reason.CHANGES_UNREADABLE: 1})
    assert (ledger.of(later).waived, ledger.of(later).written) == ({}, 1)
    assert ours(few).keys() >= {(2, FIRST + 1)}


def test_waived_in_a_dry_run_counts_in_production(few):
    insert(few, [note(created_at=None)])
    dry = run_account(1, RunMode.DRY_RUN)
    waive(dry)
    assert outcome(dry) == (RunState.SUCCEEDED, {})
    run = run_account(1)
    assert outcome(run) == (RunState.SUCCEEDED, {})
    assert reports.as_json(run)["prediction"]["agrees"]


def test_overlaps_and_unstorable_rows_can_be_waived_too(few):
    """Both are found in the CDP, not while mapping."""
    arrange_every_reason(few)
    run = run_account(1)
    quarantined = ledger.of(run).quarantined
    waive(run)
    assert outcome(run) == (RunState.SUCCEEDED, {})
    later = run_account(1)
    assert outcome(later) == (RunState.SUCCEEDED, {})
    assert ledger.of(run).waived == ledger.of(later).waived == quarantined


def test_waived_while_it_is_being_tried_again(few):
    insert(few, [note(created_at=None, associated_id=person) for person in (1, 2)])
    run = run_account(1)
    again(run)
    assert waive(run, audit_id=FIRST) == 1
    run.refresh_from_db()
    tasks.work_here(run)
    assert outcome(run) == (RunState.PARTIAL, {Reason.TIME_MISSING: 1})
    assert ledger.of(run).waived == {Reason.TIME_MISSING: 1}


def test_many_are_waived_by_sets(db, django_assert_max_num_queries):
    """One statement for each took half a minute for some thousands, in one request and with their rows locked."""
    account = factories.account()
    runs_of = {mode: factories.run(RunState.PARTIAL, mode, account=account) for mode in RunMode}
    for run in runs_of.values():
        chunk = factories.chunk(run)
        for audit in range(150):
            factories.quarantined(chunk, audit_id=audit, person_id=1)
    factories.waived(runs_of[RunMode.DRY_RUN].quarantined.get(audit_id=7), note="looked at before")
    with django_assert_max_num_queries(60):
        of_both = QuarantinedCandidate.objects.filter(run__in=runs_of.values())
        assert quarantine.waive(of_both, by="ana", note="the source is lost", now=now()) == 299
    assert Waiver.objects.count() == 150, "a candidate of two runs has one waiver"
    notes = {(each.run.mode, each.audit_id): each.waiver.note for each in of_both.select_related("waiver", "run")}
    assert {key for key, said in notes.items() if said != "the source is lost"} == {(mode, 7) for mode in RunMode}
    assert {run.state for run in Run.objects.all()} == {RunState.SUCCEEDED}


def test_one_is_told_as_one_and_thousands_as_people_write_them(few):
    insert(few, [note(created_at=None, associated_id=1)])
    run_account(1)
    out = StringIO()
    call_command("retry_quarantine", account=1, reason=None, inline=True, stdout=out)
    assert ": 1 candidate is tried again; 1 is quarantined now, the run is partial." in out.getvalue()
    assert verdicts.quarantined_sentence(3856) == "3,856 candidates are quarantined."


def test_a_waiver_needs_a_note(few):
    insert(few, [note(created_at=None)])
    run = run_account(1)
    for words in ("", "  \n\t"):
        with pytest.raises(Refused, match="note"):
            waive(run, words)
    assert not Waiver.objects.exists()
    assert outcome(run) == (RunState.PARTIAL, {Reason.TIME_MISSING: 1})


# --- refusals -------------------------------------------------------------------------------------------------------


def refused(run: Run) -> str:
    """Why a run's candidates are not tried again; nothing was moved by asking."""
    before = list(Run.objects.values_list("pk", "state", "reason"))
    with pytest.raises(Refused) as caught:
        again(run)
    assert list(Run.objects.values_list("pk", "state", "reason")) == before
    assert not Chunk.objects.filter(pairs__isnull=False).exists()
    return str(caught.value)


def test_what_may_not_be_tried_again(few):
    insert(few, [note(created_at=None)])
    dry = run_account(1, RunMode.DRY_RUN)
    assert "is a dry run" in refused(dry)
    with pytest.raises(CommandError, match="has no production run yet") as nothing:
        retry()
    assert nothing.value.returncode == 4
    first = run_account(1)
    second = run_account(1)
    assert f"is not the account's latest production run; {second} is." in refused(first)
    document = mapping_document()
    document["id_sets"]["won"] = [4]
    revisions.publish(document, by="tester", note="", now=now())
    assert "have changed" in refused(second)
    with pytest.raises(CommandError, match="have changed"):
        retry()
    with pytest.raises(CommandError, match="no account for CRM organisation 77"):
        retry(account=77)


def test_a_run_that_fails_while_its_candidates_are_tried_again_here_is_told_by_the_exit_code(few):
    insert(few, [note(created_at=None)])
    run = run_account(1)
    few.change_cdp(NOBODYS)
    out = StringIO()
    with pytest.raises(CommandError) as ended:
        call_command("retry_quarantine", account=1, inline=True, json=True, stdout=out)
    run.refresh_from_db()
    assert (run.state, ended.value.returncode) == (RunState.FAILED, 1)
    assert str(ended.value) == f"{run} is failed: {run.reason}"
    assert json.loads(out.getvalue()) == {"tried_again": {str(run.pk): 1}, "quarantined_now": {str(run.pk): 1}, "refused": []}


def no_gate_is_open(account: Account, mode: RunMode, **how: object) -> Decision:
    return Decision(frozenset(), ["Gate A is not signed."])


def test_not_past_a_gate_nor_beside_another_run(few, settings):
    insert(few, [note(created_at=None)])
    run = run_account(1)
    settings.GATE_POLICY = "tests.migration.test_quarantine.no_gate_is_open"
    assert refused(run) == "Gate A is not signed."
    settings.GATE_POLICY = "tests.migration.policies.with_f"
    assert "have changed" in refused(run)
    settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"
    dry = runs.start(runs.Wish(run.account, RunMode.DRY_RUN), by="ana", now=now())
    assert f"{dry} is planned" in refused(run)
    runs.interrupt(dry, "the server is away", by="ana", now=now())
    assert f"{dry} is interrupted" in refused(run)


def test_not_while_it_is_being_tried_again_already(few):
    insert(few, [note(created_at=None, associated_id=person) for person in (1, 2)])
    run = run_account(1)
    again(run, audit_id=FIRST)
    with pytest.raises(Refused, match="is running"):
        again(run, audit_id=FIRST + 1)
    assert Chunk.objects.filter(pairs__isnull=False).count() == 1


# --- stale rows -----------------------------------------------------------------------------------------------------


def stale(run: Run) -> set[tuple[str, int, int]]:
    run.refresh_from_db()
    found = {(str(row.row_id), row.person_id, row.audit_id) for row in run.stale_rows.all()}
    assert len(found) == run.stale == run.verification["stale"]
    return found


def test_rows_that_are_candidates_no_more_are_listed_and_left_alone(few):
    first = run_account(1)
    assert stale(first) == set()
    rows = ours(few)
    few.change_cdp("UPDATE contacts SET source_id = 9999 WHERE source_id = 1")
    few.change_crm("DELETE FROM audits WHERE id = 738")  # an update of person 15
    second = run_account(1)
    assert outcome(second) == (RunState.SUCCEEDED, {})
    gone = {key for key in rows if key[0] == 1 or key == (15, 738)}
    assert len(gone) > 4 and (15, 738) in gone
    assert stale(second) == {(row_id(*key), *key) for key in gone}
    assert ours(few) == rows
    assert ledger.of(second).candidates == ledger.of(first).candidates - len(gone) - 1, "one of them had changed nothing"

    few.change_cdp("UPDATE contacts SET source_id = 1 WHERE source_id = 9999")
    third = run_account(1)
    assert stale(third) == {(row_id(15, 738), 15, 738)}
    assert len(stale(second)) == len(gone), "an earlier run's list stays as it was found"


def test_a_role_removed_from_the_mapping_leaves_its_rows_stale(few):
    run_account(1)
    document = mapping_document()
    document["class_roles"]["note"] = []
    revisions.publish(document, by="tester", note="", now=now())
    run = run_account(1)
    notes = {(row[0], *key) for key, row in ours(few).items() if row[3].startswith("note/")}
    assert notes and stale(run) == notes


# --- when the run finished ------------------------------------------------------------------------------------------


def test_waiving_is_no_work_of_the_run(db):
    run = factories.run(RunState.PARTIAL, candidates=1000)
    factories.quarantined(factories.chunk(run))
    finished, paces = run.finished_at, forecast.Paces.recent()
    quarantine.waive(run.quarantined.all(), by="ana", note="lost", now=factories.NOON + timedelta(days=14))
    run.refresh_from_db()
    assert (run.state, run.finished_at) == (RunState.SUCCEEDED, finished)
    assert forecast.Paces.recent() == paces == forecast.Paces((), ((1000, 5.0),))


def test_a_run_that_was_cancelled_is_not_the_latest_whose_quarantine_counts(db):
    run = factories.run(RunState.PARTIAL)
    factories.run(RunState.CANCELLED, account=run.account)
    factories.run(RunState.SUCCEEDED, RunMode.DRY_RUN, account=run.account)
    assert quarantine.latest_run(run.account) == run


def test_a_run_whose_last_candidate_is_waived_while_it_is_tried_again_goes_on(db):
    run = factories.run(RunState.RUNNING)
    factories.quarantined(factories.chunk(run))
    assert quarantine.waive(run.quarantined.all(), by="ana", note="lost", now=factories.NOON) == 1
    run.refresh_from_db()
    assert (run.state, run.reason) == (RunState.RUNNING, "")


def test_a_run_that_is_tried_again_is_not_finished_meanwhile_and_sets_no_pace_afterwards(db):
    run = factories.run(RunState.PARTIAL)
    again = factories.quarantined(factories.chunk(run))
    summaries.refresh(run.account, now=factories.NOON)
    later = factories.NOON + timedelta(days=3)
    quarantine.add_chunks(run, [again])
    runs.move(run, RunState.RUNNING, by="ana", now=later)
    told = Summary.objects.get(pk=run.account_id)
    assert (run.finished_at, told.run_state) == (None, RunState.PARTIAL) and told.finished_at
    runs.move(run, RunState.VERIFYING, by=OWNER, now=later)
    runs.move(run, RunState.PARTIAL, by=OWNER, now=later)
    assert run.finished_at == later == Summary.objects.get(pk=run.account_id).finished_at
    assert forecast.Paces.recent() == forecast.Paces((), ())


# --- the ledger, whatever was tried again and waived ----------------------------------------------------------------

OUTCOMES = ["written", "already_live", *map(str, Reason)]
KEYS = range(8)


@examples(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(OUTCOMES), min_size=len(KEYS), max_size=len(KEYS)),
    st.lists(st.tuples(st.sampled_from(["retry", "waive"]), st.sets(st.sampled_from(KEYS)), st.sampled_from(OUTCOMES)), max_size=5),
)
def test_the_ledger_balances_after_any_mix_of_retries_and_waivers(db, first: list[str], acts: list[tuple[str, set[int], str]]):
    run = factories.run(RunState.RUNNING, candidates=len(KEYS))
    now_ = factories.NOON
    outcomes = dict(enumerate(first))
    waived: dict[int, str] = {}
    worked(factories.chunk(run, state="pending", person_from=0, person_to=9), outcomes, [])
    for act, chosen, result in acts:
        rows = run.quarantined.filter(audit_id__in=chosen, waiver__isnull=True)
        keys = set(rows.values_list("audit_id", flat=True))
        assert keys == {key for key in chosen if outcomes[key] in list(Reason) and key not in waived}
        if act == "waive":
            quarantine.waive(rows, by="ana", note="lost", now=now_)
            waived |= {key: outcomes[key] for key in keys}
        elif keys:
            tried = list(rows.order_by("person_id", "audit_id"))
            quarantine.add_chunks(run, tried)
            outcomes |= dict.fromkeys(keys, result)
            worked(run.chunks.get(state="pending"), dict.fromkeys(keys, result), [each.reason for each in tried])
        counts = ledger.of(run)
        assert counts.balances
        open_ = Counter(value for key, value in outcomes.items() if key not in waived)
        assert (counts.written, counts.already_live) == (open_.pop("written", 0), open_.pop("already_live", 0))
        assert (counts.quarantined, counts.waived) == (open_, Counter(waived.values()))
        assert Counter(run.quarantined.filter(waiver__isnull=True).values_list("reason", flat=True)) == open_


def worked(chunk: Chunk, outcomes: dict[int, str], retried: list[str]) -> None:
    """A worker's claim and receipt, with these outcomes by audit id; person and audit have one number here."""
    receipt = Receipt(retried=Counter(retried), written=0)
    for key, value in outcomes.items():
        if value in list(Reason):
            receipt.quarantined.append(Quarantined(key, key, None, Problem(Reason(value), error_class="X")))
        else:
            setattr(receipt, value, getattr(receipt, value) + 1)
    claimed = chunks.claim(chunk.run, owner=OWNER)
    assert claimed == chunk
    chunks.finish(claimed, receipt, seconds=0.1, now=now())
