"""What the customer is told after each move of a run: the summary's only writer, on real runs."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction
from django.test import Client

from calm_console.demo.stand_ins import DATA
from migration import chunks, quarantine, runs, summaries
from migration.models import QuarantinedCandidate, Run, Summary
from migration.states import ChunkState, Reason, RunMode, RunReason, RunState
from status_api.status import State, status
from tests import factories
from tests.factories import NOON
from tests.migration.conftest import console, run_account

__all__ = ["console"]  # a fixture

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
pytestmark = pytest.mark.django_db


@pytest.fixture
def account():
    return factories.account()


def of(account) -> Summary:
    return Summary.objects.get(pk=account.pk)


def seen(account, now: datetime = NOON) -> tuple[State | None, int | None, int | None, int | None]:
    """What the customer sees: state, percent, done, total."""
    told = status(Summary.objects.filter(pk=account.pk).first(), visible=True, now=now)
    return told.state, told.percent, told.activities_done, told.activities_total


def moved(run: Run, *states: RunState, now: datetime = NOON, **fields) -> None:
    for state in states:
        runs.move(run, state, by="ana", now=now, **fields)


def ended(account, state: RunState = RunState.SUCCEEDED, **fields) -> Run:
    """A production run that was moved there, of ten candidates; all are done, but for the quarantined one of a partial run."""
    run = factories.run(RunState.VERIFYING, account=account, **fields)
    chunk = factories.chunk(run, result=factories.receipt(written=9 if state == RunState.PARTIAL else 10, first="2019-03-02 07:00:00+00"))
    if state == RunState.PARTIAL:
        factories.quarantined(chunk)
    moved(run, state)
    return run


# --- which run the customer sees ------------------------------------------------------------------------------------


def test_a_dry_run_is_nothing_to_the_customer(account):
    run = factories.run(RunState.PLANNED, RunMode.DRY_RUN, account=account)
    moved(run, RunState.RUNNING, RunState.VERIFYING, RunState.SUCCEEDED)
    assert seen(account) == (State.NOT_STARTED, 0, 0, None)
    summaries.announce(account, NOON, NOON + HOUR, now=NOON)
    assert seen(account)[0] == State.SCHEDULED


def test_from_planned_to_completed(account):
    run = factories.run(RunState.PLANNED, account=account)
    summaries.refresh(account, now=NOON)
    assert seen(account) == (State.IN_PROGRESS, 0, 0, None)
    moved(run, RunState.RUNNING, candidates=10, started_at=NOON)
    assert seen(account) == (State.IN_PROGRESS, 0, 0, 10)
    factories.chunk(run, result=factories.receipt(written=10))
    moved(run, RunState.VERIFYING)
    assert seen(account) == (State.IN_PROGRESS, 99, 10, 10)
    moved(run, RunState.SUCCEEDED, now=NOON + MINUTE)
    assert seen(account) == (State.COMPLETED, 100, 10, 10)
    found = of(account)
    assert (found.run, found.started_at, found.finished_at, found.updated_at) == (run, NOON, NOON + MINUTE, NOON + MINUTE)


def test_completed_stays_so_while_a_later_run_corrects(account):
    first = ended(account)
    told = [seen(account)]
    again = factories.run(RunState.PLANNED, account=account)
    summaries.refresh(account, now=NOON + MINUTE)
    told.append(seen(account))
    for state in (RunState.RUNNING, RunState.INTERRUPTED, RunState.RUNNING, RunState.VERIFYING):
        moved(again, state, now=NOON + MINUTE)
        told.append(seen(account, NOON + 9 * HOUR))
    assert told == [(State.COMPLETED, 100, 10, 10)] * 6
    assert (of(account).run, of(account).updated_at) == (first, NOON)
    factories.chunk(again, result=factories.receipt(unchanged=12))
    moved(again, RunState.SUCCEEDED, now=NOON + HOUR, candidates=12)
    assert seen(account) == (State.COMPLETED, 100, 12, 12)
    assert of(account).run == again


@pytest.mark.parametrize(
    ("end", "expected"),
    [(RunState.PARTIAL, State.PARTIAL), (RunState.FAILED, State.PAUSED), (RunState.CANCELLED, State.COMPLETED)],
)
def test_how_a_correcting_run_ends_counts(account, end, expected):
    ended(account)
    again = factories.run(RunState.VERIFYING, account=account)
    moved(again, end, now=NOON)
    assert seen(account)[0] == expected
    assert seen(account, NOON + 2 * HOUR)[0] == (State.DELAYED if end == RunState.FAILED else expected)


def test_after_a_failed_run_the_next_one_is_shown(account):
    """And the time that the failed one had worked is none of its."""
    ended(account)
    ended(account, RunState.FAILED)
    Summary.objects.update(worked=HOUR)
    factories.run(RunState.RUNNING, account=account)
    summaries.refresh(account, now=NOON)
    assert seen(account) == (State.IN_PROGRESS, 0, 0, 10)
    assert of(account).worked == timedelta(0)


def test_a_dry_run_after_production_is_nothing_to_the_customer_either(account):
    run = ended(account)
    factories.run(RunState.FAILED, RunMode.DRY_RUN, account=account)
    summaries.refresh(account, now=NOON + HOUR)
    assert (seen(account)[0], of(account).run) == (State.COMPLETED, run)


def test_a_run_cancelled_before_it_began_never_was(account):
    moved(factories.run(RunState.PLANNED, account=account), RunState.CANCELLED)
    assert seen(account) == (State.NOT_STARTED, 0, 0, None)


def test_a_run_cancelled_midway_stands_still(account):
    run = factories.run(RunState.RUNNING, account=account)
    factories.chunk(run, result=factories.receipt(written=4))
    moved(run, RunState.CANCELLED)
    assert seen(account, NOON + 9 * HOUR) == (State.PAUSED, 40, 4, 10)


def test_withdrawn(account):
    first, second = ended(account), ended(account)
    moved(second, RunState.WITHDRAWING)
    assert seen(account)[0] == State.PAUSED
    moved(second, RunState.WITHDRAWN)
    assert (seen(account), of(account).run) == ((State.PARTIAL, 99, 10, 10), first)  # it took along what it had corrected
    moved(first, RunState.WITHDRAWING)
    moved(first, RunState.WITHDRAWN)
    assert seen(account) == (State.NOT_STARTED, 0, 0, None)
    found = of(account)
    assert (found.run, found.history_from, found.started_at, found.finished_at) == (None, None, None, None)


def test_an_earlier_run_that_is_withdrawn_takes_a_later_one_with_it(account):
    """What the later one found right was the earlier one's rows."""
    first, second = ended(account), ended(account)
    moved(first, RunState.WITHDRAWING, withdrawal={"rows": 10})
    assert (seen(account), of(account).run) == ((State.PAUSED, 99, 10, 10), first)
    moved(first, RunState.WITHDRAWN, now=NOON + HOUR, withdrawal={"removed": {"contact/create": 10}})
    assert (seen(account), of(account).run) == ((State.NOT_STARTED, 0, 0, None), None)
    assert not Run.objects.standing().filter(account=account).exists()
    third = factories.run(RunState.RUNNING, account=account)
    moved(third, RunState.VERIFYING)
    assert seen(account)[0] == State.IN_PROGRESS
    moved(third, RunState.SUCCEEDED, now=NOON + 2 * HOUR)
    assert (seen(account)[0], of(account).run, list(Run.objects.standing())) == (State.COMPLETED, third, [third])
    assert second.state == RunState.SUCCEEDED


def test_an_earlier_run_of_which_nothing_was_left_to_remove_takes_nothing(account):
    first, second = ended(account), ended(account)
    moved(first, RunState.WITHDRAWING)
    moved(first, RunState.WITHDRAWN, now=NOON + HOUR, withdrawal={"removed": {}})
    assert (seen(account)[0], of(account).run) == (State.COMPLETED, second)


def test_what_stands_is_shown_past_a_withdrawn_run(account):
    first, second = ended(account), ended(account)
    moved(second, RunState.WITHDRAWING, RunState.WITHDRAWN)
    third = factories.run(RunState.PLANNED, account=account)
    for state in (RunState.RUNNING, RunState.CANCELLING, RunState.CANCELLED):
        moved(third, state, started_at=NOON, candidates=10)
        assert (seen(account), of(account).run) == ((State.PARTIAL, 99, 10, 10), first)


# --- partial, quarantine --------------------------------------------------------------------------------------------


def test_partial_counts_what_is_quarantined_as_missing(account):
    ended(account, RunState.PARTIAL)
    assert seen(account) == (State.PARTIAL, 90, 9, 10)


def test_waiving_moves_the_figures(account):
    run = ended(account, RunState.PARTIAL)
    Run.objects.filter(pk=run.pk).update(candidates=11)
    chunk = run.chunks.get()
    factories.quarantined(chunk)
    receipt = factories.receipt(written=9)
    receipt.quarantined = [chunks_quarantined(each) for each in QuarantinedCandidate.objects.all()]
    type(chunk).objects.filter(pk=chunk.pk).update(receipt=receipt.as_json())
    told = []
    for each in QuarantinedCandidate.objects.order_by("pk"):
        quarantine.waive(QuarantinedCandidate.objects.filter(pk=each.pk), by="ana", note="lost", now=NOON)
        told.append(seen(account))
    assert told == [(State.PARTIAL, 90, 10, 11), (State.COMPLETED, 100, 11, 11)]


def chunks_quarantined(each: QuarantinedCandidate):
    from migration.pipeline.problems import Problem
    from migration.pipeline.records import Quarantined

    return Quarantined(each.person_id, each.audit_id, None, Problem(Reason(each.reason), ""))


def test_a_partial_run_stays_partial_while_it_tries_again(account):
    run = ended(account, RunState.PARTIAL)
    told = []
    for state in (RunState.RUNNING, RunState.INTERRUPTED, RunState.RUNNING, RunState.VERIFYING):
        moved(run, state, now=NOON + HOUR)
        told.append((seen(account, NOON + 9 * HOUR)[0], of(account).finished_at))
    assert told == [(State.PARTIAL, NOON)] * 4
    moved(run, RunState.FAILED, now=NOON + HOUR)
    assert (seen(account)[0], of(account).finished_at) == (State.PAUSED, None)


def test_more_outcomes_than_candidates_are_never_told(account):
    """Audits that came since they were counted; verification counts them afresh."""
    run = factories.run(RunState.RUNNING, account=account)
    factories.chunk(run, result=factories.receipt(written=12))
    moved(run, RunState.VERIFYING)
    assert seen(account) == (State.IN_PROGRESS, 99, 10, 10)


# --- progress -------------------------------------------------------------------------------------------------------


def finish(run: Run, now: datetime, **counts) -> None:
    chunk = factories.chunk(run, ChunkState.LEASED)
    chunks.finish(chunk, factories.receipt(**counts), seconds=1.0, now=now)


def test_each_chunk_adds_itself(account):
    run = factories.run(RunState.PLANNED, account=account)
    moved(run, RunState.RUNNING, candidates=100, started_at=NOON)
    finish(
        run,
        NOON + 2 * MINUTE,
        written=10,
        corrected=1,
        unchanged=2,
        already_live=3,
        skipped={"nothing_changed": 4},
        waived={"time_missing": 5},
    )
    finish(run, NOON + 3 * MINUTE, written=5, first="2019-03-02 07:00:00.25+00")
    finish(run, NOON + 3 * MINUTE, written=5, first="2020-03-02 07:00:00+00")
    found = of(account)
    assert (found.done, found.total, found.worked, found.progress_at) == (35, 100, 3 * MINUTE, NOON + 3 * MINUTE)
    assert found.history_from == datetime(2019, 3, 2, 7, 0, 0, 250_000, tzinfo=UTC)
    runs.move(run, RunState.VERIFYING, by="ana", now=NOON + 4 * MINUTE)
    again = of(account)
    assert (again.done, again.worked, again.history_from) == (35, 4 * MINUTE, found.history_from)  # counted afresh from the receipts


def test_a_chunk_is_one_update_whatever_is_there_already(account, django_assert_num_queries):
    run = factories.run(RunState.PLANNED, account=account)
    moved(run, RunState.RUNNING, candidates=100)
    chunk = factories.chunk(run, ChunkState.LEASED)
    chunk.run  # noqa: B018 - the worker has it at hand
    with django_assert_num_queries(1) as found:
        summaries.progress(chunk, factories.receipt(written=1), now=NOON)
    assert found.captured_queries[0]["sql"].startswith('UPDATE "migration_summary"')


def test_a_correcting_run_adds_nothing(account):
    ended(account)
    run = factories.run(RunState.RUNNING, account=account)
    summaries.refresh(account, now=NOON)
    finish(run, NOON, written=3)
    assert seen(account) == (State.COMPLETED, 100, 10, 10)


def test_a_chunk_of_a_run_that_is_not_shown_adds_nothing(account):
    before = ended(account, RunState.FAILED)
    run = factories.run(RunState.RUNNING, account=account)
    summaries.refresh(account, now=NOON)
    finish(before, NOON, written=3)
    assert (of(account).run, seen(account)) == (run, (State.IN_PROGRESS, 0, 0, 10))


def test_a_chunk_that_ends_after_its_run_failed_leaves_it_waiting(account):
    run = factories.run(RunState.PLANNED, account=account)
    moved(run, RunState.RUNNING, candidates=100)
    moved(run, RunState.FAILED)
    finish(run, NOON + MINUTE, written=1)
    assert of(account).waiting_since == NOON
    assert seen(account, NOON + 2 * HOUR)[0] == State.DELAYED


def test_it_waits_from_when_it_waited_first(account):
    """An outage of which an inline run makes an interruption is one waiting."""
    run = factories.run(RunState.RUNNING, account=account)
    summaries.refresh(account, now=NOON)
    runs.note(run, "USMAN is away.", now=NOON + MINUTE)
    runs.interrupt(run, "USMAN is away.", by="ana", now=NOON + HOUR)
    assert of(account).waiting_since == NOON + MINUTE


def test_waiting_is_no_work_and_ends_with_the_next_chunk(account):
    run = factories.run(RunState.PLANNED, account=account)
    moved(run, RunState.RUNNING, candidates=100)
    runs.note(run, "USMAN does not answer.", now=NOON + MINUTE)
    runs.note(run, "USMAN does not answer.", now=NOON + HOUR)
    assert of(account).waiting_since == NOON + MINUTE
    assert seen(account, NOON + MINUTE + HOUR)[0] == State.IN_PROGRESS
    assert seen(account, NOON + 2 * MINUTE + HOUR)[0] == State.DELAYED
    finish(run, NOON + 2 * HOUR, written=1)
    found = of(account)
    assert (found.waiting_since, found.worked) == (None, MINUTE)
    assert seen(account, NOON + 2 * HOUR)[0] == State.IN_PROGRESS


@pytest.mark.parametrize(("state", "ends"), [(RunState.PLANNED, True), (RunState.VERIFYING, True), (RunState.RUNNING, False)])
def test_waiting_without_chunks_ends_when_what_it_waited_for_is_there(account, state, ends):
    """No chunk says so while candidates are counted or verified; at chunks the next one that is done does."""
    run = factories.run(state, account=account)
    summaries.refresh(account, now=NOON)
    runs.note(run, "USMAN does not answer.", now=NOON + MINUTE)
    assert of(account).waiting_since == NOON + MINUTE
    runs.goes_on(run)
    assert of(account).waiting_since == (None if ends else NOON + MINUTE)


@pytest.mark.parametrize("state", [RunState.CANCELLING, RunState.WITHDRAWING])
def test_what_an_end_waits_for_is_no_waiting_of_the_customers(account, state):
    run = factories.run(state, account=account)
    summaries.refresh(account, now=NOON)
    runs.note(run, "The CDP does not answer.", now=NOON + MINUTE)
    run.refresh_from_db()
    assert (run.reason, of(account).run_state, of(account).waiting_since) == ("The CDP does not answer.", state, None)


def test_a_clock_that_is_behind_takes_no_work_away(account):
    run = factories.run(RunState.PLANNED, account=account)
    moved(run, RunState.RUNNING, candidates=100)
    finish(run, NOON + MINUTE, written=1)
    finish(run, NOON - HOUR, written=1)
    assert (of(account).worked, of(account).progress_at) == (MINUTE, NOON + MINUTE)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (RunReason.ASKED, State.PAUSED),
        (RunReason.BATCH, State.PAUSED),
        (RunReason.GATE_LAPSED, State.DELAYED),
        (RunReason.NONE, State.DELAYED),
    ],
)
def test_a_pause_that_nobody_asked_for_is_waiting(account, code, expected):
    run = factories.run(RunState.PLANNED, account=account)
    moved(run, RunState.RUNNING, RunState.PAUSING)
    moved(run, RunState.PAUSED, code=code)
    assert seen(account, NOON + HOUR)[0] == State.PAUSED
    assert seen(account, NOON + HOUR + MINUTE)[0] == expected
    moved(run, RunState.RUNNING, now=NOON + 2 * HOUR)
    assert seen(account, NOON + 2 * HOUR)[0] == State.IN_PROGRESS


def test_chunks_sent_back_are_counted_once(account):
    run = factories.run(RunState.PLANNED, account=account)
    moved(run, RunState.RUNNING, candidates=10)
    finish(run, NOON, written=10)
    moved(run, RunState.VERIFYING)
    chunks.send_back(run, {1}, with_retries=False)
    moved(run, RunState.RUNNING)
    assert seen(account)[1:] == (0, 0, 10)


@pytest.mark.parametrize("first", [None, "infinity", "-infinity", "0044-03-15 00:00:00+00 BC", "10000-01-01 00:00:00+00"])
def test_a_moment_that_no_calendar_of_ours_holds_is_not_told(account, first):
    run = factories.run(RunState.PLANNED, account=account)
    moved(run, RunState.RUNNING, candidates=100)
    finish(run, NOON, written=1, first=first)
    moved(run, RunState.VERIFYING)
    assert of(account).history_from is None


# --- the announced window -------------------------------------------------------------------------------------------


def test_announce_and_take_back(account):
    summaries.announce(account, NOON, NOON + HOUR, now=NOON)
    told = [seen(account)[0], seen(account, NOON + 2 * HOUR)[0]]
    moved(factories.run(RunState.PLANNED, account=account), RunState.RUNNING)
    assert of(account).window_to == NOON + HOUR  # a run's move leaves it
    summaries.announce(account, None, None, now=NOON)
    told.append(seen(account)[0])
    assert told == [State.SCHEDULED, State.DELAYED, State.IN_PROGRESS]


# --- real runs ------------------------------------------------------------------------------------------------------


def test_real_runs(console):
    """The sample: a dry run, production in small chunks, and production again."""
    dry = run_account(2, RunMode.DRY_RUN)
    assert not Summary.objects.filter(account=dry.account).exclude(run_state="").exists()
    run = run_account(2, chunk_size=50)
    found = of(run.account)
    earliest = console.activities(f"account_id = '{run.account.cdp_id}'")
    assert (found.run, found.run_state, found.total) == (run, run.state, run.candidates)
    assert found.done == run.candidates - run.quarantined.count()
    assert found.history_from == min(row[7] for row in earliest)
    again = run_account(2)
    assert of(run.account).run == again
    assert of(run.account).history_from == found.history_from


def test_the_samples_sessions_see_their_own_accounts(console, sessions):
    """What the demo's frontend would see: three accounts, of which two were moved."""
    sample = json.loads((DATA / "sample_iag_sessions.json").read_text())["sessions"]
    cookies = [sessions.add(each["session"], each.get("account_id", ""), active=each["active"]) for each in sample]
    moved_runs = [run_account(1), run_account(2)]
    found = [Client().get("/api/v1/migration-status", headers={"cookie": cookie}) for cookie in cookies]
    assert [each.status_code for each in found] == [200, 200, 200, 401]
    seen = [(each.json()["state"], each.json()["activities_done"], each.json()["activities_total"]) for each in found[:3]]
    expected = [("partial", run.candidates - run.quarantined.count(), run.candidates) for run in moved_runs]
    assert seen == [*expected, ("not_started", 0, None)]


# --- at once --------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_chunk_that_finishes_while_the_run_moves_is_counted_once():
    """Whichever of the two transactions comes first; each with a connection of its own."""
    account = factories.account()
    run = factories.run(RunState.PLANNED, account=account)
    moved(run, RunState.RUNNING, candidates=10)
    for written in (3, 4):
        chunk = factories.chunk(run, ChunkState.LEASED)
        with ThreadPoolExecutor(1) as threads:
            with transaction.atomic():
                if written == 4:  # the move comes while the chunk is done but not counted, nor committed
                    chunks.move(chunk, ChunkState.DONE, receipt=factories.receipt(written=written).as_json(), seconds=1.0)
                    threads.submit(in_a_connection_of_its_own, account).result(10)
                    summaries.progress(chunk, factories.receipt(written=written), now=NOON)
                else:  # the move waits for a chunk that is counted and not committed
                    chunks.finish(chunk, factories.receipt(written=written), seconds=1.0, now=NOON)
                    waiting = threads.submit(in_a_connection_of_its_own, account)
                    time.sleep(0.5)
                    assert not waiting.done()
            if written == 3:
                waiting.result(10)
        assert of(account).done == {3: 3, 4: 7}[written]


def in_a_connection_of_its_own(account) -> None:
    try:
        summaries.refresh(account, now=NOON)
    finally:
        connection.close()
