"""Batches: accounts start in order and only as the limits, the canary and the window let them; beats at once, late or dead change nothing."""

import os
import re
import subprocess
import sys
import threading
import time as clock
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection, connections, transaction
from django.db.models.functions import Now

from gates.policies import Decision
from migration import (
    batch_limits,
    batch_plans,
    batches,
    beats,
    budget,
    chunks,
    control,
    forecast,
    holding,
    ledger,
    runs,
    steps,
    tasks,
    windows,
)
from migration import states as state_tables
from migration.batch_plans import Plan
from migration.doors import Outage
from migration.forecast import Place, Terms
from migration.models import Account, Batch, BatchItem, Event, Run, Summary
from migration.runs import Refused
from migration.states import FINISHED, AtClose, BatchState, BatchWork, ChunkState, IllegalMove, ItemState, RunMode, RunReason, RunState
from migration.windows import Window
from tests import factories
from tests.migration.conftest import OWNER
from tests.migration.conftest import now as today
from tests.migration.test_lanes import until

pytestmark = pytest.mark.django_db

NIGHT = datetime(2026, 3, 2, 23, 0, tzinfo=UTC)  # a Monday
MINUTE = timedelta(minutes=1)
NIGHTS = Window(frozenset(range(7)), time(22), time(6), "UTC")
ALWAYS = Window(frozenset(range(7)), time(0), time(0), "UTC")
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
ROOT = Path(__file__).parents[2]

refused: dict[int, str] = {}  # CRM organisation id -> what the gates say of it
pace: dict[str, float] = {}


def gates(account: Account, mode: RunMode, **how: Any) -> Decision:
    """The gates of these tests: they refuse whom a test names, and take their time where it says so."""
    if how.get("measure") and pace:
        clock.sleep(pace["seconds"])
    if how.get("measure") and "CRM" in refused.values():
        raise Outage("CRM_DATABASE_URL: nothing listens.")
    sentence = refused.get(account.crm_organization_id)
    return Decision(frozenset({"D", "E"}), [sentence] if sentence else [])


@pytest.fixture(autouse=True)
def policy(settings) -> Iterator[None]:
    settings.GATE_POLICY = "tests.migration.test_batches.gates"
    settings.CRM_DATABASE_URL = settings.CDP_DATABASE_URL = NOWHERE
    yield
    refused.clear()
    pace.clear()


def planned(number: int = 4, **wishes: Any) -> Batch:
    """A batch of so many new accounts, one at a time, none of them canary, that may work at night."""
    factories.mapping()
    accounts = [factories.account() for _ in range(number)]
    given: dict[str, Any] = {"name": "first", "accounts": accounts, "window": NIGHTS, "canary": 0}
    return batch_plans.plan(Plan(**given | wishes), by="ana", now=NIGHT)


def started(batch: Batch, *, now: datetime = NIGHT) -> list[tuple[int, str]]:
    """One beat; the runs that it started, as place of the account and mode."""
    positions = dict(batch.items.values_list("account", "position"))
    found = [(positions[run.account_id], str(run.mode)) for run in beats.advance(now=now)]
    batch.refresh_from_db()
    return found


def run_at(batch: Batch, position: int) -> Run:
    run = batch.items.get(position=position).run
    assert run is not None
    run.refresh_from_db()
    return run


def end(run: Run, state: RunState = RunState.SUCCEEDED, *, candidates: int = 100, quarantined: int = 0, reason: str = "") -> None:
    """The run ends, as workers would have it."""
    moment = {"by": OWNER, "now": NIGHT}
    if run.state == RunState.PLANNED:
        runs.move(run, RunState.RUNNING, candidates=candidates, started_at=NIGHT - MINUTE, **moment)
    if quarantined:
        part = factories.chunk(run)
        for _ in range(quarantined):
            factories.quarantined(part)
    if state != RunState.FAILED:
        runs.move(run, RunState.VERIFYING, **moment)
    runs.move(run, state, reason=reason, **moment)


def states(batch: Batch) -> list[str]:
    return list(batch.items.order_by("position").values_list("state", flat=True))


# --- order, window, both runs ---------------------------------------------------------------------------------------


def test_while_staff_have_stopped_reading_no_account_is_started():
    """To start one measures gates, some by queries on the CRM."""
    batch = planned(2, at_once=2)
    budget.stop(by="ana", note="the CRM is slow", now=NIGHT)
    assert started(batch) == []
    said = batch.items.get(position=1).reason
    assert said.startswith("Reading from the CRM is stopped by ana") and "the CRM is slow" in said
    assert batch.state == BatchState.RUNNING
    budget.allow(by="ana", most_readers=None, note="", now=NIGHT)
    assert started(batch, now=NIGHT + MINUTE) == [(1, "dry_run"), (2, "dry_run")]


def test_what_comes_after_a_run_is_started_by_the_worker_that_sees_its_end(monkeypatch):
    """Only of the run's own batch, and once, however many nudges come to the end of it."""
    batch = planned(2, window=ALWAYS)
    nudged: list[int] = []
    monkeypatch.setattr(tasks, "nudge", lambda run: nudged.append(run) or True)
    assert started(batch) == [(1, "dry_run")]
    batch_plans.plan(Plan(name="other", accounts=[factories.account()], window=ALWAYS, canary=0), by="ana", now=NIGHT)
    for ended, follows, mode in ((1, 1, "production"), (1, 2, "dry_run"), (2, 2, "production")):
        run = run_at(batch, ended)
        end(run)
        for _ in range(2):
            tasks.work(run_id=run.pk)
        next_one = run_at(batch, follows)
        assert (next_one.mode, nudged) == (mode, [next_one.pk])
        nudged.clear()
    end(run_at(batch, 2))
    tasks.work(run_id=run_at(batch, 2).pk)
    batch.refresh_from_db()
    assert (batch.state, Run.objects.count(), nudged) == (BatchState.DONE, 4, [])


def test_each_account_gets_its_dry_run_then_production_in_order():
    batch = planned(2)
    assert started(batch, now=NIGHT - 2 * MINUTE * 60) == []
    assert (batch.state, Run.objects.count()) == (BatchState.PLANNED, 0), "the window is closed"
    assert started(batch) == [(1, "dry_run")]
    assert started(batch, now=NIGHT + MINUTE) == []
    end(run_at(batch, 1))
    assert started(batch, now=NIGHT + 2 * MINUTE) == [(1, "production")]
    end(run_at(batch, 1))
    assert started(batch, now=NIGHT + 3 * MINUTE) == [(2, "dry_run")]
    end(run_at(batch, 2))
    assert started(batch, now=NIGHT + 4 * MINUTE) == [(2, "production")]
    end(run_at(batch, 2))
    assert started(batch, now=NIGHT + 5 * MINUTE) == []
    assert (batch.state, batch.reason) == (BatchState.DONE, "Of 2 accounts 2 done.")
    told = list(batch.events.order_by("id").values_list("kind", "by"))
    own = f"batch {batch.pk}"
    account = [("account running", own), ("account done", own)]
    assert told == [("batch planned", "ana"), ("batch running", own), *account, *account, ("batch done", own)]


def test_production_follows_at_once_where_a_dry_run_fits_and_not_where_the_mapping_changed():
    batch = planned(2)
    for item in batch.items.select_related("account"):
        end(runs.start(runs.Wish(item.account, RunMode.DRY_RUN), by="ana", now=NIGHT))
    assert started(batch) == [(1, "production")]
    end(run_at(batch, 1))
    factories.mapping(number=10_000)
    assert started(batch) == [(2, "dry_run")]


@pytest.mark.parametrize(("work", "mode"), [(BatchWork.DRY_RUN, "dry_run"), (BatchWork.PRODUCTION, "production")])
def test_a_batch_may_do_but_one_kind_of_run(work, mode):
    batch = planned(1, work=work)
    assert started(batch) == [(1, mode)]
    end(run_at(batch, 1))
    assert started(batch) == []
    assert batch.state == BatchState.DONE


def test_no_more_at_once_than_allowed():
    batch = planned(5, at_once=2)
    assert started(batch) == [(1, "dry_run"), (2, "dry_run")]
    assert started(batch) == []
    end(run_at(batch, 2))
    assert started(batch) == [(2, "production")], "an account keeps its place between its two runs"
    end(run_at(batch, 2))
    assert started(batch) == [(3, "dry_run")]


def test_the_first_day_is_waited_for():
    first_day = (NIGHT + 3 * windows.DAY).date()
    batch = planned(1, window=Window(NIGHTS.days, NIGHTS.begins, NIGHTS.ends, "UTC", first_day))
    assert started(batch) == []
    assert started(batch, now=NIGHT + 3 * windows.DAY) == [(1, "dry_run")]


# --- canary and limits ----------------------------------------------------------------------------------------------


def test_the_canary_balances_before_others_start():
    batch = planned(6, at_once=4, canary=3, work=BatchWork.PRODUCTION)
    assert started(batch) == [(1, "production"), (2, "production"), (3, "production")]
    end(run_at(batch, 2))
    assert started(batch) == [], "the first and the last are still at it"
    end(run_at(batch, 1))
    assert started(batch) == [], "the last is still at it"
    end(run_at(batch, 3))
    assert started(batch) == [(4, "production"), (5, "production"), (6, "production")]


@pytest.mark.parametrize(("how", "said"), [("failed", "failed: Chunk 1 failed: KeyError."), ("cancelled", "is cancelled.")])
def test_a_canary_that_does_not_balance_stops_the_batch_whatever_the_limit(how, said):
    batch = planned(3, canary=1, most_failures=9, work=BatchWork.PRODUCTION)
    started(batch)
    if how == "failed":
        end(run_at(batch, 1), RunState.FAILED, reason="Chunk 1 failed: KeyError.")
    else:
        control.cancel(run_at(batch, 1), by="ana", now=NIGHT)
    assert started(batch) == []
    account, run = batch.items.get(position=1).account, run_at(batch, 1)
    assert batch.state == BatchState.STOPPED
    assert batch.reason == f"{account} is of the canary and did not balance: {run} {said}"
    assert states(batch) == [how, "waiting", "waiting"]


def test_an_account_that_left_the_cdp_meanwhile_is_refused():
    batch = planned(3, most_failures=1)
    Account.objects.filter(pk=batch.items.get(position=1).account_id).update(gone=True)
    assert started(batch) == [(2, "dry_run")]
    assert states(batch) == ["refused", "running", "waiting"]
    assert batch.items.get(position=1).reason == f"{batch.items.get(position=1).account} is no longer in the CDP."
    end(run_at(batch, 2))
    Account.objects.filter(pk=batch.items.get(position=2).account_id).update(gone=True)
    assert started(batch) == [], "nothing is written for it after its dry run; and two are more than may be refused"
    assert (batch.state, states(batch)) == (BatchState.STOPPED, ["refused", "refused", "waiting"])


def test_more_failures_than_allowed_stop_it():
    batch = planned(4, most_failures=1, work=BatchWork.PRODUCTION)
    for position in (1, 2):
        assert started(batch) == [(position, "production")]
        end(run_at(batch, position), RunState.FAILED, reason="It broke.")
    assert started(batch) == []
    last = batch.items.get(position=2)
    told = f"2 accounts failed or were refused, and no more than 1 may. The last, {last.account}: {last.run} failed: It broke."
    assert (batch.state, batch.reason) == (BatchState.STOPPED, told)


@pytest.mark.parametrize(("quarantined", "waived", "goes_on"), [(5, 0, True), (6, 0, False), (6, 1, True)])
def test_more_quarantined_than_allowed_stops_it(quarantined, waived, goes_on):
    batch = planned(2, most_quarantined=Decimal("2.5"), work=BatchWork.PRODUCTION)
    started(batch)
    end(run_at(batch, 1), RunState.PARTIAL, candidates=200, quarantined=quarantined)
    for each in run_at(batch, 1).quarantined.all()[:waived]:
        factories.waived(each)
    assert bool(started(batch)) is goes_on
    assert batch.state == (BatchState.RUNNING if goes_on else BatchState.STOPPED)
    if not goes_on:
        assert batch.reason == f"3.00 % of the candidates of {run_at(batch, 1)} are quarantined (6 of 200), more than 2.50 %."


def test_a_dry_run_with_too_many_quarantined_stops_it_before_anything_is_written():
    batch = planned(1, most_quarantined=Decimal(0))
    started(batch)
    end(run_at(batch, 1), RunState.PARTIAL, quarantined=1)
    assert started(batch) == []
    assert batch.state == BatchState.STOPPED
    batches.resume(batch, by="ana", now=NIGHT)
    assert started(batch) == [(1, "production")], "a person has seen it"
    end(run_at(batch, 1), RunState.PARTIAL, quarantined=1)
    started(batch)
    assert batch.state == BatchState.DONE, "the same again is no news"


def test_a_canary_whose_dry_run_was_taken_for_good_enough_still_balances_before_others_start():
    batch = planned(3, canary=1, at_once=3, most_quarantined=Decimal(0))
    started(batch)
    end(run_at(batch, 1), RunState.PARTIAL, quarantined=1)
    assert started(batch) == []
    batches.resume(batch, by="ana", now=NIGHT)
    assert started(batch) == [(1, "production")]
    assert started(batch) == [], "nothing of it is written yet"
    end(run_at(batch, 1))
    assert started(batch) == [(2, "dry_run"), (3, "dry_run")]


def test_a_refusal_is_said_and_the_next_account_goes_on():
    batch = planned(3, most_failures=1, work=BatchWork.PRODUCTION)
    first = batch.items.get(position=1)
    refused[first.account.crm_organization_id] = "Gate C is closed: 97 % of its contacts carry a source_id."
    assert started(batch) == [(2, "production")]
    first.refresh_from_db()
    assert (first.state, first.reason) == (ItemState.REFUSED, "Gate C is closed: 97 % of its contacts carry a source_id.")


def test_a_gate_that_refuses_everybody_stops_it_before_all_are_spent():
    batch = planned(5, most_failures=2)
    refused.update(dict.fromkeys(batch.items.values_list("account__crm_organization_id", flat=True), "Gate A is closed."))
    assert started(batch) == []
    assert (batch.state, states(batch)) == (BatchState.STOPPED, [*["refused"] * 3, "waiting", "waiting"])
    refused.clear()
    batches.resume(batch, by="ana", now=NIGHT, again=True)
    assert started(batch) == [(1, "dry_run")], "nothing was lost"


def test_resumed_without_trying_again_it_goes_on_behind_what_failed():
    batch = planned(3, canary=1, work=BatchWork.PRODUCTION)
    started(batch)
    end(run_at(batch, 1), RunState.FAILED)
    started(batch)
    batches.resume(batch, by="ana", now=NIGHT)
    assert started(batch) == [(2, "production")]
    assert states(batch) == ["failed", "running", "waiting"]


def test_a_failed_run_that_a_person_mends_counts_as_done():
    batch = planned(1, most_failures=1, work=BatchWork.PRODUCTION)
    started(batch)
    run = run_at(batch, 1)
    end(run, RunState.FAILED)
    item = batch.items.get(position=1)
    beats.follow(item, now=NIGHT)
    assert item.state == ItemState.FAILED
    runs.move(run, RunState.RUNNING, by="ana", now=NIGHT, finished_at=None)
    end(run)
    item = batch.items.get(position=1)
    beats.follow(item, now=NIGHT)
    assert item.state == ItemState.DONE


@pytest.mark.parametrize("how", ["interrupted", "gate"])
def test_a_run_that_waits_for_a_person_stops_it_and_goes_on_with_it(how):
    batch = planned(2, work=BatchWork.PRODUCTION)
    started(batch)
    run = run_at(batch, 1)
    runs.move(run, RunState.RUNNING, by=OWNER, now=NIGHT, candidates=1, started_at=NIGHT)
    factories.chunk(run, ChunkState.PENDING)
    if how == "gate":
        runs.pause(run, by="tick", now=NIGHT, code=RunReason.GATE_LAPSED, reason="Gate B is closed.")
    else:
        runs.interrupt(run, "CDP_DATABASE_URL: permission denied.", by=OWNER, now=NIGHT, code=RunReason.STOPPED)
    assert started(batch) == []
    assert batch.state == BatchState.STOPPED
    assert batch.reason == f"{run} is {run.state}: {run.reason}"
    batches.resume(batch, by="ana", now=NIGHT)
    assert run_at(batch, 1).state == RunState.RUNNING
    assert started(batch) == []
    assert batch.state == BatchState.RUNNING


@pytest.mark.parametrize(
    ("state", "code", "stands_still"),
    [
        (RunState.INTERRUPTED, RunReason.OUTAGE, True),
        (RunState.PAUSING, RunReason.GATE_LAPSED, True),
        (RunState.PAUSED, RunReason.GATE_LAPSED, True),
        (RunState.PAUSED, RunReason.ASKED, False),
        (RunState.RUNNING, RunReason.OUTAGE, False),
    ],
)
def test_which_runs_a_person_has_to_see_to(state, code, stands_still):
    assert batch_limits.cannot_go_on(Run(state=state, reason_code=code)) is stands_still


def test_a_pause_forgives_nothing():
    batch = planned(3, most_failures=9, work=BatchWork.PRODUCTION)
    started(batch)
    end(run_at(batch, 1), RunState.FAILED, reason="It broke.")
    assert started(batch) == [(2, "production")]
    batches.pause(batch, by="ana", now=NIGHT)
    batches.resume(batch, by="ana", now=NIGHT, again=True)
    assert (states(batch), batch.items.filter(is_accepted=True).exists()) == (["failed", "running", "waiting"], False)


def test_a_cancelled_run_takes_its_account_out():
    batch = planned(2, work=BatchWork.PRODUCTION)
    started(batch)
    control.cancel(run_at(batch, 1), by="ana", now=NIGHT)
    assert started(batch) == [(2, "production")]
    assert states(batch) == ["cancelled", "running"]


# --- busy accounts and systems that are away ------------------------------------------------------------------------


def test_an_account_at_which_somebody_else_works_is_passed_over_and_comes_later():
    batch = planned(2, work=BatchWork.PRODUCTION)
    first = batch.items.get(position=1)
    others = runs.start(runs.Wish(first.account, RunMode.PRODUCTION), by="bo", now=NIGHT)
    assert started(batch) == [(2, "production")]
    first.refresh_from_db()
    assert first.reason == f"{others} is planned and not of this batch: it waits until that has ended."
    end(others)
    end(run_at(batch, 2))
    assert started(batch) == [(1, "production")]
    assert run_at(batch, 1) != others


def test_so_is_one_whose_dry_run_is_done():
    batch = planned(1)
    started(batch)
    end(run_at(batch, 1))
    runs.start(runs.Wish(batch.items.get().account, RunMode.PRODUCTION), by="bo", now=NIGHT)
    assert started(batch) == []
    assert "not of this batch: it waits until that has ended" in batch.items.get().reason


def test_an_outage_is_waited_out_with_its_reason():
    batch = planned(2)
    refused[0] = "CRM"
    assert started(batch) == []
    item = batch.items.get(position=1)
    assert (batch.state, item.state, item.reason) == (BatchState.RUNNING, ItemState.WAITING, "CRM_DATABASE_URL: nothing listens.")
    refused.clear()
    assert started(batch) == [(1, "dry_run")]
    item.refresh_from_db()
    assert item.reason == ""


def test_one_batch_that_breaks_does_not_stop_the_others(caplog):
    broken, sound = planned(1), planned(1)
    Batch.objects.filter(pk=broken.pk).update(zone="Europe/Atlantis")
    assert started(sound) == [(1, "dry_run")]
    assert f"batch {broken.pk} was not advanced" in caplog.text


# --- the window closes ----------------------------------------------------------------------------------------------


def working(batch: Batch) -> Run:
    """The first account's run, with a chunk to do."""
    started(batch)
    run = run_at(batch, 1)
    runs.move(run, RunState.RUNNING, by=OWNER, now=NIGHT, candidates=10, started_at=NIGHT)
    factories.chunk(run, ChunkState.PENDING)
    return run


def test_runs_rest_while_the_window_is_closed_and_go_on_when_it_opens():
    batch = planned(1)
    run = working(batch)
    assert started(batch, now=NIGHT + timedelta(hours=8)) == []
    run.refresh_from_db()
    assert (run.state, run.reason_code) == (RunState.PAUSED, RunReason.BATCH)
    assert run.reason == f"The window of {batch} is closed until 2026-03-03 22:00 UTC."
    assert batch.state == BatchState.RUNNING
    started(batch, now=NIGHT + timedelta(hours=9))
    assert Event.objects.filter(run=run, kind="run paused").count() == 1, "asked again, no change"
    started(batch, now=NIGHT + windows.DAY)
    assert run_at(batch, 1).state == RunState.RUNNING


def test_an_outage_that_meets_the_last_chunk_in_hand_does_not_keep_it_paused():
    """The worker says what was away; the run is still the batch's to take up again."""
    batch = planned(1)
    run = working(batch)
    held = chunks.claim(run, owner=OWNER)
    started(batch, now=NIGHT + timedelta(hours=8))
    assert run_at(batch, 1).state == RunState.PAUSING
    chunks.hand_back(held, "the CRM is away", outage=True)
    runs.note(run, "the CRM is away", now=NIGHT)
    started(batch, now=NIGHT + timedelta(hours=9))
    runs.settle(run, by=OWNER, now=NIGHT)
    assert (run.state, run.reason_code) == (RunState.PAUSED, RunReason.BATCH)
    assert run.reason == f"The window of {batch} is closed until 2026-03-03 22:00 UTC."
    started(batch, now=NIGHT + windows.DAY)
    assert run_at(batch, 1).state == RunState.RUNNING


def test_runs_may_go_on_to_their_end_instead():
    batch = planned(2, at_close=AtClose.FINISH, work=BatchWork.PRODUCTION)
    run = working(batch)
    morning = NIGHT + timedelta(hours=8)
    started(batch, now=morning)
    assert run_at(batch, 1).state == RunState.RUNNING
    end(run)
    assert started(batch, now=morning) == [], "the next one waits for the night"
    assert states(batch) == ["done", "waiting"]


def test_a_run_that_is_verified_ends_that_first():
    batch = planned(1)
    run = working(batch)
    runs.move(run, RunState.VERIFYING, by=OWNER, now=NIGHT)
    started(batch, now=NIGHT + timedelta(hours=8))
    assert run_at(batch, 1).state == RunState.VERIFYING


def test_a_run_that_is_counted_ends_that_first():
    batch = planned(1)
    started(batch)
    with holding.leased(run_at(batch, 1), OWNER):
        started(batch, now=NIGHT + timedelta(hours=8))
        assert run_at(batch, 1).state == RunState.PLANNED
    started(batch, now=NIGHT + timedelta(hours=8))
    assert (run_at(batch, 1).state, run_at(batch, 1).reason_code) == (RunState.PAUSED, RunReason.BATCH)


def test_a_run_whose_counting_was_killed_is_not_counted_by_day():
    batch = planned(1)
    started(batch)
    hour_ago = Now() - timedelta(hours=1)
    Run.objects.filter(pk=run_at(batch, 1).pk).update(lease_owner="a worker that was killed", lease_expires_at=hour_ago)
    started(batch, now=NIGHT + timedelta(hours=8))
    assert (run_at(batch, 1).state, run_at(batch, 1).reason_code) == (RunState.PAUSED, RunReason.BATCH)


def test_a_run_that_has_just_come_to_its_verification_is_left_alone():
    batch = planned(1)
    run = working(batch)
    as_it_was = Run.objects.get(pk=run.pk)
    runs.move(run, RunState.VERIFYING, by=OWNER, now=NIGHT)
    batches.pause_runs(batch, [as_it_was], "The window is closed.", now=NIGHT)
    assert run_at(batch, 1).state == RunState.VERIFYING


def test_what_a_person_paused_stays_paused():
    batch = planned(1)
    run = working(batch)
    runs.pause(run, by="ana", now=NIGHT)
    started(batch, now=NIGHT + timedelta(hours=8))
    started(batch, now=NIGHT + windows.DAY)
    assert (run_at(batch, 1).state, batch.state) == (RunState.PAUSED, BatchState.RUNNING)


def test_a_gate_that_closed_overnight_stops_it():
    batch = planned(1)
    run = working(batch)
    started(batch, now=NIGHT + timedelta(hours=8))
    refused[run.account.crm_organization_id] = "Gate B is closed."
    started(batch, now=NIGHT + windows.DAY)
    assert (run_at(batch, 1).state, batch.state) == (RunState.PAUSED, BatchState.STOPPED)
    assert batch.reason == f"{run} cannot go on: Gate B is closed."


# --- what people ask for --------------------------------------------------------------------------------------------


def test_pause_and_resume_take_the_runs_along():
    batch = planned(2)
    run = working(batch)
    batches.pause(batch, by="ana", now=NIGHT)
    run.refresh_from_db()
    assert (run.state, run.reason) == (RunState.PAUSED, f"{batch} is paused.")
    assert started(batch) == []
    assert (batch.state, batch.reason) == (BatchState.PAUSED, "ana paused it.")
    batches.resume(batch, by="ana", now=NIGHT)
    assert started(batch) == []
    assert (run_at(batch, 1).state, batch.state) == (RunState.RUNNING, BatchState.RUNNING)


def test_a_wish_that_is_heard_twice_within_moments_is_one():
    batch = planned(2)
    working(batch)
    wishes = [(batches.pause, BatchState.PAUSED), (batches.resume, BatchState.RUNNING), (batches.cancel, BatchState.CANCELLED)]
    for wish, state in wishes:
        for seconds in (0, 5):
            assert wish(batch, by="ana", now=NIGHT + timedelta(seconds=seconds)).state == state
        assert Event.objects.filter(batch=batch, kind=f"batch {state}", by="ana").count() == 1
        for by, seconds in (("ben", 5), ("ana", 60)):
            if wish == batches.pause:  # whoever asks, it is paused
                assert wish(batch, by=by, now=NIGHT + timedelta(seconds=seconds)).state == state
            else:
                with pytest.raises(Refused, match=f"is {state}: .* is for a batch that is"):
                    wish(batch, by=by, now=NIGHT + timedelta(seconds=seconds))
    assert run_at(batch, 1).state == RunState.RUNNING
    with pytest.raises(Refused, match="is cancelled: cancel is for"):  # the run that was left to end is not ended by it, and that is said
        batches.cancel(batch, by="ana", now=NIGHT, end_runs=True)


@pytest.mark.parametrize(("end_runs", "state"), [(False, RunState.RUNNING), (True, RunState.CANCELLED)])
def test_cancel_leaves_or_ends_the_runs_under_way(end_runs, state):
    batch = planned(2)
    run = working(batch)
    batches.pause(batch, by="ana", now=NIGHT)
    batch = batches.cancel(batch, by="ana", now=NIGHT, end_runs=end_runs)
    run.refresh_from_db()
    assert (run.state, batch.state, states(batch)) == (state, BatchState.CANCELLED, ["cancelled", "cancelled"])
    assert started(batch) == []


def test_a_run_that_no_gate_lets_go_on_says_so_when_its_batch_is_cancelled():
    batch = planned(1, work=BatchWork.PRODUCTION)
    started(batch)
    batches.pause(batch, by="ana", now=NIGHT)
    refused[batch.items.get().account.crm_organization_id] = "Gate A is closed."
    batches.cancel(batch, by="ana", now=NIGHT)
    run = run_at(batch, 1)
    assert (run.state, run.reason_code, run.reason) == (RunState.PAUSED, RunReason.GATE_LAPSED, f"{run} cannot go on: Gate A is closed.")
    assert Summary.objects.get(pk=run.account_id).waiting_since == NIGHT


def test_a_run_that_has_just_failed_does_not_keep_a_batch_from_being_cancelled():
    batch = planned(1)
    end(working(batch), RunState.FAILED)
    batches.cancel(batch, by="ana", now=NIGHT, end_runs=True)
    assert states(batch) == ["cancelled"]


def test_moves_that_the_table_does_not_have_are_refused():
    batch = planned(1)
    with pytest.raises(Refused) as caught:
        batches.resume(batch, by="ana", now=NIGHT)
    assert str(caught.value) == f"{batch} is planned: resume is for a batch that is paused or stopped. Possible now: pause, cancel."
    batches.cancel(batch, by="ana", now=NIGHT)
    with pytest.raises(Refused, match="Possible now: nothing"):
        batches.pause(batch, by="ana", now=NIGHT)
    with pytest.raises(IllegalMove, match="A batch that is cancelled cannot become running"):
        batches.move(Batch.objects.get(), BatchState.RUNNING, by="ana", now=NIGHT)


def test_a_plan_is_refused_with_everything_that_is_wrong():
    batch = planned(1)
    taken = batch.items.get(position=1).account
    gone = factories.account(gone=True)
    with pytest.raises(Refused) as caught:
        batch_plans.plan(
            Plan("", [taken, gone, gone], Window(frozenset(), time(0), time(0), "Mars/Olympus"), canary=9), by="ana", now=NIGHT
        )
    assert str(caught.value) == (
        "A batch needs a name, such as who is moved in it. Choose at least one day on which the window opens. "
        "There is no time zone 'Mars/Olympus': write a name such as Asia/Jakarta or Europe/Berlin. "
        f"The canary can be none to all 3 of the accounts. Named twice: {gone.crm_organization_id}. "
        f"No longer in the CDP: {gone.crm_organization_id}, {gone.crm_organization_id}. {taken} is waiting in {batch} already."
    )
    assert Batch.objects.count() == 1


@pytest.mark.parametrize(
    ("edges", "beyond", "said"),
    [
        ([{"at_once": 1}, {"at_once": 100}], [{"at_once": 0}, {"at_once": 101}], "From 1 to 100 accounts can be at work at once."),
        ([{"canary": 0}, {"canary": 2}], [{"canary": -1}, {"canary": 3}], "The canary can be none to all 2 of the accounts."),
        (
            [{"most_failures": 0}, {"most_failures": 5000}, {"most_quarantined": Decimal(0)}, {"most_quarantined": Decimal(100)}],
            [{"most_failures": -1}, {"most_failures": 5001}, {"most_quarantined": Decimal(-1)}, {"most_quarantined": Decimal("100.01")}],
            "The limits are a number of accounts up to 5,000, and a percentage from 0 to 100.",
        ),
        ([{"name": "n" * 120}], [{"name": "n" * 121}], "The name may have 120 characters; this one has 121."),
        ([], [{"name": " "}], "A batch needs a name, such as who is moved in it."),
        ([], [{"name": "a\0b"}], "The name holds a character that cannot be stored."),
    ],
)
def test_the_edges_of_a_plan(edges, beyond, said):
    sound = Plan("first", [factories.account(), factories.account()], NIGHTS)
    assert [batch_plans.problems(replace(sound, **each)) for each in edges] == [[]] * len(edges)
    assert [batch_plans.problems(replace(sound, **each)) for each in beyond] == [[said]] * len(beyond)


def test_a_plan_holds_so_many_accounts_and_no_more(monkeypatch):
    monkeypatch.setattr(batch_plans, "MOST_ACCOUNTS", 2)
    three = [factories.account() for _ in range(3)]
    assert batch_plans.problems(Plan("first", three[:2], NIGHTS)) == []
    assert batch_plans.problems(Plan("first", three, NIGHTS)) == ["A batch holds at most 2 accounts; these are 3."]


def test_accounts_are_read_in_the_order_in_which_they_are_written():
    one, two, three = (factories.account() for _ in range(3))
    ids = [account.crm_organization_id for account in (three, one, two)]
    assert batch_plans.accounts_of(f"{ids[0]}, {ids[1]};\n{ids[2]}") == [three, one, two]
    with pytest.raises(Refused) as caught:
        batch_plans.accounts_of(f"{ids[0]} 987654321 12x ٣ 987654321")
    assert str(caught.value) == (
        "No CRM organisation ids: '12x', '٣'. "
        "No account has these CRM organisation ids: 987654321. Run `manage.py sync_accounts` if they are new."
    )


# --- what customers are told ----------------------------------------------------------------------------------------


def told(batch: Batch) -> list[tuple[str, str] | None]:
    found = {each.account_id: each for each in Summary.objects.all()}
    both = [(found.get(item.account_id), item) for item in batch.items.order_by("position")]
    shown = [(each.window_from, each.window_to) if each and each.window_from else None for each, _ in both]
    return [pair and (f"{pair[0]:%d %H:%M}", f"{pair[1]:%d %H:%M}") for pair in shown]


def test_customers_are_told_the_window_in_which_their_account_is_expected():
    batch = planned(3, work=BatchWork.PRODUCTION)
    paced = factories.run(candidates=1000, started_at=NIGHT, finished_at=NIGHT + timedelta(hours=1))
    for item, candidates in zip(batch.items.select_related("account"), (5000, 3000, 1000), strict=True):
        factories.run(
            RunState.SUCCEEDED, RunMode.DRY_RUN, account=item.account, candidates=candidates, mapping_revision=paced.mapping_revision
        )
    started(batch, now=NIGHT)
    # Five hours from 23:00; then three from 04:00 on, of which one is left for the next night; then one.
    assert told(batch) == [("02 23:00", "03 06:00"), ("03 04:00", "04 06:00"), ("03 23:00", "04 06:00")]
    end(run_at(batch, 1))
    started(batch, now=NIGHT + timedelta(hours=5))
    assert told(batch)[0] is None, "what is done is promised no more"
    batches.cancel(batch, by="ana", now=NIGHT)
    assert told(batch) == [None, None, None]


def test_once_a_batch_goes_on_those_who_wait_are_promised_another_window():
    """The old one may be over by then, and an account behind its window counts as delayed."""
    batch = planned(2, work=BatchWork.PRODUCTION)
    paced = factories.run(candidates=1000, started_at=NIGHT, finished_at=NIGHT + timedelta(hours=1))
    for item in batch.items.select_related("account"):
        factories.run(RunState.SUCCEEDED, RunMode.DRY_RUN, account=item.account, candidates=4000, mapping_revision=paced.mapping_revision)
    started(batch, now=NIGHT)
    before = told(batch)
    assert before == [("02 23:00", "03 06:00"), ("03 03:00", "04 06:00")]
    batches.pause(batch, by="ana", now=NIGHT)
    batches.resume(batch, by="ana", now=NIGHT + 3 * windows.DAY)
    assert told(batch) == [before[0], None], "whoever is at work keeps what it was told"
    started(batch, now=NIGHT + 3 * windows.DAY)
    assert told(batch) == [before[0], ("06 03:00", "07 06:00")]


def test_nothing_is_promised_that_cannot_be_told():
    batch = planned(2)
    started(batch)
    assert told(batch) == [None, None]


def hours(*numbers: float | None) -> list[timedelta | None]:
    return [None if number is None else timedelta(hours=number) for number in numbers]


def test_places_in_the_row():
    def row(works, **terms):
        given = {"window": ALWAYS, "at_once": 1, "canary": 0, "at_close": AtClose.PAUSE} | terms
        found = forecast.places(works, Terms(**given), now=NIGHT)
        return [tuple(None if at is None else (at - NIGHT) / timedelta(hours=1) for at in (each.start, each.end)) for each in found]

    assert row(hours(1, 2, 3)) == [(0, 1), (1, 3), (3, 6)]
    assert row(hours(4, 1, 1, 2), at_once=2) == [(0, 4), (0, 1), (1, 2), (2, 4)]
    assert row(hours(4, 1, 1), at_once=2, canary=2) == [(0, 4), (0, 1), (4, 5)]
    assert row(hours(1, None, 1), at_once=1) == [(0, 1), (1, None), (None, None)]
    assert row(hours(1, None, 1, 1), at_once=2) == [(0, 1), (0, None), (1, 2), (2, 3)]
    assert row(hours(None, 1, 1), at_once=2, canary=1) == [(0, None), (None, None), (None, None)]
    assert row(hours(6, 2, 1), window=NIGHTS) == [(0, 6), (6, 24), (24, 25)]
    assert row(hours(6, 2, 1), window=NIGHTS, at_close=AtClose.FINISH) == [(0, 6), (6, 8), (23, 24)]
    assert forecast.places([], Terms(ALWAYS, 1, 0, AtClose.PAUSE), now=NIGHT) == []
    assert forecast.places(hours(1), Terms(NIGHTS, 1, 1, AtClose.PAUSE), now=NIGHT) == [
        Place(timedelta(hours=1), NIGHT, NIGHT + timedelta(hours=1))
    ]


# --- two beats, dead beats, late beats ------------------------------------------------------------------------------


def in_threads(*works: Any) -> list[Any]:
    """Each in a thread and a database session of its own; what they return."""
    found: list[Any] = []

    def of(work: Any) -> None:
        try:
            found.append(work())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=of, args=(work,)) for work in works]
    for each in threads:
        each.start()
    for each in threads:
        each.join(20)
    return found


@pytest.mark.django_db(transaction=True)
def test_four_beats_at_once_start_what_one_would():
    batch = planned(6, at_once=2, work=BatchWork.PRODUCTION)
    pace["seconds"] = 0.1
    found = in_threads(*[lambda: beats.advance(now=NIGHT)] * 4)
    assert sorted(len(each) for each in found) in ([0, 0, 0, 2], [0, 0, 1, 1])
    assert states(batch) == ["running", "running", *["waiting"] * 4]
    assert Run.objects.count() == 2
    assert batch.events.filter(kind="batch running").count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_person_is_not_kept_waiting_and_is_obeyed_by_a_start_under_way():
    batch = planned(2, work=BatchWork.PRODUCTION)
    pace["seconds"] = 1.0
    took: list[float] = []

    def pauses() -> None:
        clock.sleep(0.5)
        began = clock.monotonic()
        batches.pause(batch, by="ana", now=NIGHT)
        took.append(clock.monotonic() - began)

    in_threads(lambda: beats.advance(now=NIGHT), pauses)
    assert took[0] < 0.4
    batch.refresh_from_db()
    assert (batch.state, states(batch), Run.objects.count()) == (BatchState.PAUSED, ["waiting", "waiting"], 0)


@pytest.mark.django_db(transaction=True)
def test_a_beat_that_is_killed_in_the_middle_of_a_start_leaves_nothing(settings):
    """A real process, which the gates' policy kills once the run is being started."""
    batch = planned(2, work=BatchWork.PRODUCTION)
    login = connection.settings_dict
    password = f":{quote(login['PASSWORD'], safe='')}" if login["PASSWORD"] else ""
    url = f"postgresql://{quote(login['USER'])}{password}@{quote(login['HOST'], safe='')}:{login['PORT']}/{login['NAME']}"
    code = (
        "import os, django; django.setup(); from datetime import datetime; from migration import batches, beats;"
        "batches.attach = lambda *a, **k: os.kill(os.getpid(), 9);"
        f"beats.advance(now=datetime.fromisoformat({NIGHT.isoformat()!r}))"
    )
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.open_gates", "DATABASE_URL": url, "REDIS_URL": settings.REDIS_URL}
    environment |= {"CRM_DATABASE_URL": NOWHERE, "CDP_DATABASE_URL": NOWHERE}
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, timeout=60, check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    assert (Run.objects.count(), states(batch)) == (0, ["waiting", "waiting"])
    until(lambda: started(batch) == [(1, "production")])  # the server notices in its own time that the process is dead


@pytest.mark.django_db(transaction=True)
def test_while_another_process_is_at_a_batch_a_beat_leaves_it_alone():
    batch = planned(1)
    with transaction.atomic():
        assert beats.alone(batch.pk)
        assert in_threads(lambda: beats.advance(now=NIGHT)) == [[]]
    assert started(batch) == [(1, "dry_run")]


def test_late_and_repeated_beats_change_nothing():
    batch = planned(2)
    started(batch)
    before = list(Event.objects.values_list("pk", flat=True)), list(BatchItem.objects.order_by("pk").values())
    for minutes in (1, 1, 5, 90):
        assert started(batch, now=NIGHT + minutes * MINUTE) == []
    assert (list(Event.objects.values_list("pk", flat=True)), list(BatchItem.objects.order_by("pk").values())) == before


def test_the_worker_that_is_given_the_tick_may_have_a_clock_that_is_off(monkeypatch):
    """A window opens by the database's."""
    in_two_days = today().date() + 2 * windows.DAY
    batch = planned(1, window=replace(ALWAYS, first_day=in_two_days))
    monkeypatch.setattr("django.utils.timezone.now", lambda: today() + 3 * windows.DAY)
    tasks.tick()
    batch.refresh_from_db()
    assert (batch.state, states(batch)) == (BatchState.PLANNED, ["waiting"])


# --- with real systems ----------------------------------------------------------------------------------------------


def test_a_batch_moves_the_sample_by_ticks(console, monkeypatch, settings):
    """Dry run, then production, by nothing but ticks and workers' steps."""
    settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"
    monkeypatch.setattr(tasks, "nudge", lambda run_id: None)  # the steps are taken here, not by a broker's worker
    accounts = list(Account.objects.filter(crm_organization_id=3))
    wish = Plan("sample", accounts, ALWAYS, most_quarantined=Decimal(50))
    batch = batch_plans.plan(wish, by="ana", now=today())
    for _ in range(4):
        tasks.tick()
        for run in Run.objects.workable():
            while run.state not in FINISHED:
                steps.step(run, owner=OWNER)
                run.refresh_from_db()
    batch.refresh_from_db()
    assert (batch.state, batch.reason) == (BatchState.DONE, "Of 1 account 1 done.")
    dry, production = Run.objects.order_by("pk")
    assert (dry.mode, production.mode) == (RunMode.DRY_RUN, RunMode.PRODUCTION)
    assert ledger.of(production).balances and ledger.of(production).written > 200


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_documents_page_has_every_move():
    text = (ROOT / "docs" / "batches.md").read_text()
    drawn = re.findall(r"^\| (\w+) \| (\w+) \| (.*) \|$", text.partition("<!-- batches: begin -->")[2], re.MULTILINE)
    moves = [*state_tables.BATCH_MOVES.items(), *state_tables.ITEM_MOVES.items()]
    assert [row for row in drawn if row[0] != "from"] == [(*move, cause) for move, cause in moves]
    assert {state for move in state_tables.BATCH_MOVES for state in move} == set(BatchState)
    assert {state for move in state_tables.ITEM_MOVES for state in move} == set(ItemState)
