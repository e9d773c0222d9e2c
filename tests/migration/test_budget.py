"""The read budget: how many chunks may be read at once, when none may, and how chunks become smaller."""

import threading
from datetime import timedelta
from itertools import pairwise
from types import SimpleNamespace

import psycopg
import pytest
from django.db import connections
from django.db.models.functions import Now

from migration import attempts, budget, chunks, drafts, leases, ledger, planning, runs, steps, tasks
from migration.admin import read_budget
from migration.crm import Crm
from migration.doors import BrokenOff, translated
from migration.models import Account, Event, ReadBudget, Run
from migration.splitting import SMALLER
from migration.states import FINISHED, ChunkState, RunMode, RunReason, RunState
from tests import factories
from tests.factories import NOON
from tests.migration.conftest import OWNER, now

pytestmark = pytest.mark.django_db


# --- how many at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lag", "readers"), [(None, 4), (0.0, 4), (2.0, 4), (8.0, 3), (15.0, 2), (29.0, 1), (29.9, 1), (30.0, 0), (3600.0, 0)]
)
def test_fewer_readers_the_further_the_replica_is_behind(settings, lag, readers):
    settings.READ_AT_ONCE, settings.READ_LAG_LIMIT_SECONDS = 4, 30
    assert budget.readers(ReadBudget(lag_seconds=lag)) == readers


def test_the_reason_is_said_in_words(settings):
    settings.READ_AT_ONCE, settings.READ_LAG_LIMIT_SECONDS = 4, 30
    assert budget.reason_to_wait(ReadBudget(), 3) == ""
    assert budget.reason_to_wait(ReadBudget(), 4) == "4 workers are reading from the CRM, and no more than 4 may at once."
    assert budget.reason_to_wait(ReadBudget(lag_seconds=15.2), 2) == (
        "2 workers are reading from the CRM, and no more than 2 may at once, as the replica is 15 s behind."
    )
    said = [budget.reason_to_wait(ReadBudget(lag_seconds=lag), 4) for lag in (0.0, 0.9, 1.0)]
    assert [each.partition("may at once")[2] for each in said] == [".", ".", ", as the replica is 1 s behind."]
    assert budget.reason_to_wait(ReadBudget(), 1) == "" and budget.reason_to_wait(ReadBudget(most_readers=1), 1).startswith("1 worker is")
    assert budget.reason_to_wait(ReadBudget(lag_seconds=45.0), 0) == "The CRM's replica is 45 s behind; nothing is read from 30 s on."
    stopped = ReadBudget(stopped_at=NOON, stopped_by="ana", note="month end")
    assert budget.reason_to_wait(stopped, 0) == "Reading from the CRM is stopped by ana since 2026-03-02 12:00 UTC: month end."


def test_staff_stop_and_allow_with_an_event_each():
    budget.stop(by="ana", note="month end", now=NOON)
    budget.stop(by="ana", note="month end", now=NOON)
    budget.stop(by="ben", note="until Friday", now=NOON + timedelta(hours=1))
    stopped = budget.current()
    assert (stopped.stopped_by, stopped.stopped_at, stopped.note) == ("ana", NOON, "until Friday")
    budget.allow(by="ben", most_readers=2, note="over", now=NOON + timedelta(hours=2))
    assert (budget.current().stopped_at, budget.readers(budget.current())) == (None, 2)
    told = list(Event.objects.order_by("id").values_list("kind", "by", "sentence"))
    assert told == [
        ("reading stopped", "ana", "month end"),
        ("reading stopped", "ben", "until Friday"),
        ("reading allowed", "ben", "2 chunks at once: over"),
    ]


def test_a_stop_without_a_note_says_so_once():
    for _ in range(2):
        budget.stop(by="ana", note="", now=NOON)
    budget.stop(by="ben", note="month end", now=NOON)
    budget.stop(by="ben", note="", now=NOON)
    assert [*Event.objects.order_by("id").values_list("sentence", flat=True)] == ["no reason given", "month end"]
    assert (budget.current().stopped_by, budget.current().note) == ("ana", "month end")


@pytest.mark.parametrize(("text", "number"), [("", None), ("1", 1), ("1000", 1000)])
def test_how_many_may_read_is_a_whole_number(text, number):
    assert read_budget.readers(text) == number


@pytest.mark.parametrize("text", ["0", "1001", "-1", "1.5", "many", "٣", "9" * 30])
def test_and_nothing_else(text):
    with pytest.raises(runs.Refused, match="a whole number from 1 to 1000, or nothing"):
        read_budget.readers(text)


def test_the_replica_is_looked_at_every_five_seconds_by_whoever_comes():
    assert budget.is_due(), "nobody ever looked"
    for ago, due in ((4, False), (5.1, True), (-3, False)):
        ReadBudget.objects.update(looked_at=Now() - timedelta(seconds=ago))
        assert budget.is_due() == due


def test_a_worker_whose_clock_is_ahead_keeps_nobody_from_looking_at_the_replica(monkeypatch):
    looks: list[int] = []
    world = type("World", (), {"crm": type("Near", (), {"lag": staticmethod(lambda: looks.append(1) or 7.0)})()})()
    run = factories.run(RunState.RUNNING)
    monkeypatch.setattr("django.utils.timezone.now", lambda: now() + timedelta(hours=1))
    steps.next_chunk(run, world, {}, owner=OWNER)
    monkeypatch.undo()
    steps.next_chunk(run, world, {}, owner=OWNER)
    assert (len(looks), budget.current().lag_seconds) == (1, 7.0)
    monkeypatch.setattr(budget, "LOOK_EVERY", timedelta(0))
    steps.next_chunk(run, world, {}, owner=OWNER)
    assert len(looks) == 2


# --- how large ------------------------------------------------------------------------------------------------------


def test_slow_chunks_become_smaller_smoothly_and_quick_ones_large_again(settings):
    settings.CHUNK_SIZE, settings.READ_CHUNK_SECONDS = 10_000, 20
    budget.adapt(10_000, 4.0)
    assert budget.current().chunk_audits is None
    sizes = []
    for _ in range(30):
        size = budget.current().chunk_audits or 10_000
        budget.adapt(size, size * 0.01)  # 10 s for 1,000 audits: 2,000 would take the 20 s
        sizes.append(budget.current().chunk_audits or 10_000)
    assert all(later <= earlier for earlier, later in pairwise(sizes))
    assert all(later > earlier * 0.65 for earlier, later in pairwise([10_000, *sizes]))
    assert sizes[-1] == pytest.approx(2_000, rel=0.05)
    for _ in range(40):
        budget.adapt(budget.current().chunk_audits or 10_000, 0.5)
    assert budget.current().chunk_audits is None


def test_never_smaller_than_worth_a_round_trip():
    for _ in range(60):
        budget.adapt(500, 10_000.0)
    assert budget.current().chunk_audits == budget.LEAST_AUDITS
    budget.shrink(800)
    assert budget.current().chunk_audits == budget.LEAST_AUDITS


def test_a_chunk_that_was_broken_off_is_halved(settings):
    settings.CHUNK_SIZE = 10_000
    budget.shrink(8_000)
    assert (budget.current().chunk_audits, budget.most_audits()) == (4_000, 6_000)
    budget.adapt(4_000, 0.1)
    assert budget.current().chunk_audits == 8_000, "however quick, twice as large at most"
    budget.shrink(2_000)
    assert budget.current().chunk_audits == 1_000
    budget.shrink(8_000)
    assert budget.current().chunk_audits == 500, "one that was cut before the others were made smaller"


def test_what_a_smaller_chunk_would_spare_is_told_apart_from_other_outages():
    """A conflict with recovery, a statement or a transaction that took too long, a dropped connection."""
    conflict, slow = psycopg.errors.SerializationFailure("conflict"), psycopg.errors.QueryCanceled("statement timeout")
    for error in (
        conflict,
        slow,
        psycopg.errors.TransactionTimeout("x"),
        psycopg.OperationalError("gone"),
        psycopg.errors.AdminShutdown("x"),
    ):
        with pytest.raises(BrokenOff) as caught, translated("CRM_DATABASE_URL"):
            raise error
        assert caught.value.variable == "CRM_DATABASE_URL"


@pytest.mark.parametrize(("variable", "smaller"), [("CRM_DATABASE_URL", 2000), ("CDP_DATABASE_URL", None)])
def test_a_chunk_that_was_broken_off_waits_and_only_where_the_source_did_it_the_next_are_smaller(monkeypatch, variable, smaller):
    def broken(*given: object) -> None:
        raise BrokenOff("it is gone", variable)

    monkeypatch.setattr(attempts, "process_chunk", broken)
    run = factories.run(RunState.RUNNING)
    factories.chunk(run, ChunkState.PENDING, expected=4000)
    chunk = chunks.claim(run, owner=OWNER)
    with pytest.raises(BrokenOff):
        attempts.process(chunk, SimpleNamespace(), owner=OWNER)
    chunk.refresh_from_db()
    assert (chunk.state, chunk.attempts, chunk.reason) == (ChunkState.PENDING, 0, "it is gone")
    assert timedelta(seconds=20) < chunk.not_before - now() <= attempts.OUTAGE_WAIT
    assert budget.current().chunk_audits == smaller


# --- beside real runs -----------------------------------------------------------------------------------------------


def planned(organisation: int = 2, chunk_size: int = 60) -> Run:
    run = runs.start(runs.Wish(Account.objects.get(crm_organization_id=organisation), RunMode.PRODUCTION, chunk_size), by="ana", now=now())
    steps.step(run, owner=OWNER)
    run.refresh_from_db()
    return run


def test_a_run_waits_for_the_switch_says_so_and_goes_on(console):
    run = planned()
    budget.stop(by="ana", note="month end", now=now())
    assert steps.step(run, owner=OWNER) == steps.Step.WAITING
    run.refresh_from_db()
    assert (run.state, run.reason_code) == (RunState.RUNNING, RunReason.READ_BUDGET)
    assert run.reason.startswith("Reading from the CRM is stopped by ana since ")
    assert not run.chunks.exclude(state=ChunkState.PENDING).exists()
    budget.allow(by="ana", most_readers=None, note="", now=now())
    while run.state not in FINISHED:
        steps.step(run, owner=OWNER)
        run.refresh_from_db()
    assert run.state == RunState.PARTIAL
    assert ledger.of(run).balances


def test_nothing_is_counted_or_verified_either_while_reading_is_stopped(console):
    run = runs.start(runs.Wish(Account.objects.get(crm_organization_id=2), RunMode.PRODUCTION, 60), by="ana", now=now())
    while run.state not in FINISHED:
        before = run.state
        budget.stop(by="ana", note="month end", now=now())
        assert steps.step(run, owner=OWNER) == steps.Step.WAITING
        run.refresh_from_db()
        assert (run.state, run.reason_code, run.lease_owner) == (before, RunReason.READ_BUDGET, "")
        budget.allow(by="ana", most_readers=None, note="", now=now())
        while run.state == before:
            steps.step(run, owner=OWNER)
            run.refresh_from_db()
        assert run.reason_code != RunReason.READ_BUDGET
    assert run.state == RunState.PARTIAL
    assert ledger.of(run).balances


def test_who_counts_or_verifies_a_run_is_a_reader_like_any_other(console, settings):
    settings.READ_AT_ONCE = 1
    run = planned()
    other = factories.run(RunState.VERIFYING, account=factories.account(crm_organization_id=9001))
    Run.objects.filter(pk=other.pk).update(lease_owner="elsewhere:1", lease_expires_at=now() + timedelta(minutes=1))
    assert steps.step(run, owner=OWNER) == steps.Step.WAITING
    run.refresh_from_db()
    assert run.reason == "1 worker is reading from the CRM, and no more than 1 may at once."
    Run.objects.filter(pk=other.pk).update(lease_owner="", lease_expires_at=None)
    assert steps.step(run, owner=OWNER) == steps.Step.WORKED


def test_whoever_is_counting_when_reading_is_stopped_rests_where_it_is(console, monkeypatch):
    """The second look finds that reading is allowed again; nothing was begun anew."""
    run = runs.start(runs.Wish(Account.objects.get(crm_organization_id=2), RunMode.PRODUCTION, 60), by="ana", now=now())
    said: list[str] = []

    def rest(seconds: float) -> None:
        run.refresh_from_db()
        said.append(run.reason)
        budget.allow(by="ana", most_readers=None, note="", now=now())

    monkeypatch.setattr("migration.holding.time.sleep", rest)
    counted = planning.count

    def stopped_meanwhile(*given):
        budget.stop(by="ana", note="month end", now=now())
        yield from counted(*given)

    monkeypatch.setattr("migration.planning.count", stopped_meanwhile)
    assert steps.step(run, owner=OWNER) == steps.Step.WORKED
    run.refresh_from_db()
    assert (run.state, run.reason_code, run.reason) == (RunState.RUNNING, RunReason.NONE, "")
    assert [reason[:43] for reason in said] == ["Reading from the CRM is stopped by ana sinc"]


def test_what_a_draft_would_change_is_not_counted_while_reading_is_stopped(console):
    draft = drafts.start("next", by="ana", now=now())
    budget.stop(by="ana", note="month end", now=now())
    drafts.count_effect(draft, now=now())
    assert draft.effect_reason.startswith("Not counted: Reading from the CRM is stopped by ana since ")
    assert (draft.effect, draft.effect_digest) == (None, "")
    budget.allow(by="ana", most_readers=None, note="", now=now())
    drafts.count_effect(draft, now=now())
    assert draft.effect_reason == "Counted against revision 1."


def test_a_place_that_is_free_again_goes_to_the_run_that_has_waited_longest(console, settings, monkeypatch):
    nudged: list[int] = []
    monkeypatch.setattr(tasks, "nudge", nudged.append)
    settings.READ_AT_ONCE = 1
    run, waiting = planned(), factories.run(RunState.RUNNING, account=factories.account(crm_organization_id=9001))
    factories.chunk(waiting, ChunkState.PENDING)
    held = chunks.claim(waiting, owner="elsewhere:1")
    tasks.work(run_id=run.pk)
    assert nudged == []  # it has no room itself
    chunks.hand_back(held, "for the test")
    runs.note(waiting, "no room", now=now(), code=RunReason.READ_BUDGET)
    tasks.work(run_id=run.pk)
    assert nudged == [run.pk, waiting.pk]
    budget.stop(by="ana", note="month end", now=now())
    tasks.work(run_id=run.pk)  # on to its verification, which is for a later turn
    assert nudged == [run.pk, waiting.pk, run.pk]


def test_of_a_run_with_more_workers_than_room_the_one_that_reads_goes_on(console, settings, monkeypatch):
    """That the others have no room does not end its turn, and is nothing to say of a run that is being worked on."""
    nudged: list[int] = []
    monkeypatch.setattr(tasks, "nudge", nudged.append)
    settings.READ_AT_ONCE, settings.TURN_SECONDS = 1, 0.001
    run = planned()
    process = attempts.process

    def beside_another(chunk, world, *, owner):
        assert steps.step(Run.objects.get(pk=run.pk), owner="elsewhere:1", turn=10) == steps.Step.WAITING
        process(chunk, world, owner=owner)

    monkeypatch.setattr(attempts, "process", beside_another)
    tasks.work(run_id=run.pk)
    run.refresh_from_db()
    assert (nudged, run.reason) == ([run.pk], "")


def test_a_large_chunk_is_made_smaller_before_it_is_read_and_no_attempt_counts(console, settings):
    run = planned(chunk_size=100_000)
    [whole] = run.chunks.all()
    assert whole.expected > 500
    ReadBudget.objects.update_or_create(pk=1, defaults={"chunk_audits": 200})
    budget_stays(settings)
    while run.state not in FINISHED:
        steps.step(run, owner=OWNER)
        run.refresh_from_db()
    whole.refresh_from_db()
    assert (whole.state, whole.reason) == (ChunkState.SPLIT, SMALLER)
    done = run.chunks.filter(state=ChunkState.DONE)
    assert max(done.values_list("expected", flat=True)) <= 300
    assert set(done.values_list("attempts", flat=True)) == {1}
    assert run.state == RunState.PARTIAL
    assert ledger.of(run).balances


def budget_stays(settings) -> None:
    """Nothing that a chunk takes makes the next one larger."""
    settings.READ_CHUNK_SECONDS, settings.CHUNK_SIZE = 0.0001, 1000


@pytest.mark.django_db(transaction=True)
def test_of_many_workers_no_more_read_than_may(settings):
    settings.READ_AT_ONCE, settings.LEASE_SECONDS = 2, 30
    run = factories.run(RunState.RUNNING)
    for _ in range(12):
        factories.chunk(run, ChunkState.PENDING)
    budget.current()
    barrier, claimed = threading.Barrier(8), []

    class World:
        crm = type("Near", (), {"lag": staticmethod(lambda: None)})()

    def work() -> None:
        try:
            barrier.wait(10)
            claimed.append(steps.next_chunk(run, World(), {}, owner=threading.current_thread().name)[0])  # type: ignore[arg-type]
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(chunk is not None for chunk in claimed) == 2
    assert leases.reading() == 2


def test_a_server_that_is_no_replica_has_no_lag(systems):
    crm = Crm()
    try:
        assert crm.lag() is None
    finally:
        crm.close()


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_page_shows_it_and_sets_it_for_those_who_may(client, db):
    from django.contrib.auth.models import Group, User

    watching, operating = User.objects.create_user("watching", is_staff=True), User.objects.create_user("operating", is_staff=True)
    watching.groups.add(Group.objects.get(name="viewer"))
    operating.groups.add(Group.objects.get(name="operator"))
    client.force_login(watching)
    page = client.get("/admin/migration/readbudget/").content.decode()
    assert "reading allowed" in page
    assert "<form" not in page.partition('id="content-main"')[2]
    assert client.post("/admin/migration/readbudget/set/", {"what": "stop", "note": "x"}).status_code == 403
    client.force_login(operating)
    refused = client.post("/admin/migration/readbudget/set/", {"what": "stop", "note": " "}).content.decode()
    assert "A note is needed" in refused
    refused = client.post("/admin/migration/readbudget/set/", {"what": "allow", "most": "-1", "note": "x"}).content.decode()
    assert "must be a whole number from 1" in refused
    assert client.post("/admin/migration/readbudget/set/", {"what": "stop", "note": "<b>month</b> end"}).status_code == 302
    page = client.get("/admin/migration/readbudget/").content.decode()
    assert "is stopped by operating since" in page
    assert "&lt;b&gt;month&lt;/b&gt; end" in page
    assert client.post("/admin/migration/readbudget/set/", {"what": "allow", "most": "7", "note": "over"}).status_code == 302
    assert budget.readers(budget.current()) == 7
