"""Leases on chunks and runs: only who renewed in time counts, and whoever lost one neither keeps nor frees it for another."""

from datetime import timedelta
from functools import partial

import pytest
from django.db.models.functions import Now

from migration import chunks, fences, holding, leases, worlds
from migration.doors import Outage
from migration.models import Chunk, QuarantinedCandidate, Run
from migration.states import ChunkState, RunMode, RunState
from tests import factories
from tests.migration.conftest import now

pytestmark = pytest.mark.django_db

SOON, GONE = {"lease_expires_at": now() + timedelta(hours=1)}, {"lease_expires_at": now() - timedelta(hours=1)}


def test_only_unexpired_leases_count_and_only_those_who_read_are_readers():
    run = factories.run(RunState.RUNNING)
    for owner, until in (("a", SOON), ("a", SOON), ("b", SOON), ("gone", GONE)):
        factories.chunk(run, ChunkState.LEASED, lease_owner=owner, **until)
    for state, owner, until in (
        (RunState.VERIFYING, "c", SOON),
        (RunState.PLANNED, "gone", GONE),
        (RunState.WITHDRAWING, "d", SOON),
    ):
        factories.run(state, lease_owner=owner, **until)
    assert (leases.count(run), leases.workers(run), leases.reading(), leases.reading(besides="a")) == (3, 2, 3, 2)


def test_who_counts_a_run_reads_and_a_run_waits_for_its_own_chunks_alone():
    factories.run(RunState.PLANNED, lease_owner="counts", **SOON)
    other = factories.run(RunState.RUNNING)
    run = factories.run(RunState.RUNNING)
    factories.chunk(other, ChunkState.LEASED, lease_owner="elsewhere", **SOON)
    factories.chunk(other, ChunkState.PENDING)
    for state in (ChunkState.DONE, ChunkState.FAILED, ChunkState.SPLIT):
        factories.chunk(run, state)
    assert (leases.reading(), leases.waiting(run), leases.available(run), leases.is_held(run), leases.count(run)) == (2, 0, False, False, 0)
    factories.chunk(run, ChunkState.LEASED, **GONE)
    assert (leases.waiting(run), leases.available(run), leases.is_held(run)) == (1, True, False)
    factories.chunk(run, ChunkState.PENDING)
    assert leases.waiting(run) == 2


def test_a_claim_takes_the_lowest_chunk_of_its_run_and_nothing_is_left_of_why_it_waited():
    other, run = factories.run(RunState.RUNNING), factories.run(RunState.RUNNING)
    factories.chunk(other, ChunkState.PENDING, number=1)
    for number in (3, 1, 2):
        factories.chunk(run, ChunkState.PENDING, number=number, reason="it was away", not_before=now() - timedelta(hours=1))
    for number in (1, 2, 3):
        claimed = chunks.claim(run, owner="a", sessions={"crm": [(7, "then")]})
        assert (claimed.run, claimed.number, claimed.reason, claimed.not_before, claimed.attempts, claimed.token) == (
            run,
            number,
            "",
            None,
            1,
            1,
        )
        assert (claimed.lease_owner, claimed.sessions) == ("a", {"crm": [[7, "then"]]})
    assert chunks.claim(run, owner="a") is None
    assert not leases.is_held(other)


def test_only_what_ran_out_is_freed_and_of_one_run_only_its_own():
    run, other = factories.run(RunState.RUNNING), factories.run(RunState.RUNNING)
    gone, alive = (factories.chunk(run, ChunkState.LEASED, **until) for until in (GONE, SOON))
    elsewhere = factories.chunk(other, ChunkState.LEASED, lease_owner="host:2", **GONE)
    assert chunks.free(run) == [gone]
    assert chunks.free() == [elsewhere]
    told = Chunk.objects.order_by("pk").values_list("state", "lease_owner", "reason", "attempts", "token")
    assert [*told] == [
        (ChunkState.PENDING, "", "host:1 did not come back", 1, 1),
        (ChunkState.LEASED, "host:1", "", 1, 1),
        (ChunkState.PENDING, "", "host:2 did not come back", 1, 1),
    ]
    assert chunks.free() == [] and Chunk.objects.get(pk=alive.pk).state == ChunkState.LEASED


def test_a_heartbeat_makes_a_lease_last_anew():
    run, counted = factories.run(RunState.RUNNING), factories.run(RunState.VERIFYING)
    factories.chunk(run, ChunkState.PENDING)
    chunk = chunks.claim(run, owner="a")
    with holding.leased(counted, "a"):
        for row, renew in ((chunk, partial(chunks.beat, chunk)), (counted, partial(holding.renew, counted))):
            type(row).objects.filter(pk=row.pk).update(lease_expires_at=Now() + timedelta(seconds=1))
            renew()
            assert type(row).objects.filter(pk=row.pk, lease_expires_at__gt=Now() + chunks.lease() - timedelta(seconds=2)).exists()


def test_sending_chunks_back_takes_only_what_their_retries_had_put_aside():
    """What other runs, other chunks and a retry that is not done have in quarantine stays for people to see."""
    run, other = factories.run(RunState.VERIFYING), factories.run(RunState.PARTIAL)
    first, second = factories.chunk(run), factories.chunk(run)
    retried = factories.chunk(run, pairs=[[1, 2, "time_missing"]])
    waiting = factories.chunk(run, ChunkState.PENDING, pairs=[[3, 4, "time_missing"]])
    elsewhere = factories.chunk(other, pairs=[[5, 6, "time_missing"]])
    kept = {factories.quarantined(of).pk for of in (first, second, waiting, elsewhere)}
    gone = factories.quarantined(retried)
    assert chunks.send_back(run, {1, 4}, with_retries=True) == 1
    assert {*QuarantinedCandidate.objects.values_list("pk", flat=True)} == kept != kept | {gone.pk}
    told = Chunk.objects.order_by("pk").values_list("state", "generation", "expected")
    assert [*told] == [
        (ChunkState.PENDING, 2, 10), (ChunkState.DONE, 1, 10), (ChunkState.SPLIT, 1, 0), (ChunkState.PENDING, 1, 10), (ChunkState.DONE, 1, 10),
    ]  # fmt: skip


def test_a_retry_takes_its_candidates_out_of_its_own_run_s_quarantine_alone():
    """An earlier run put the same candidate aside, and says so for good."""
    earlier, run = factories.run(RunState.PARTIAL), factories.run(RunState.RUNNING)
    same = {"person_id": 1, "audit_id": 2}
    kept = [factories.quarantined(factories.chunk(earlier), **same)]
    first = factories.chunk(run)
    factories.quarantined(first, **same)
    kept += [factories.quarantined(first, person_id=1, audit_id=3), factories.quarantined(first, person_id=2, audit_id=2)]
    factories.chunk(run, ChunkState.PENDING, pairs=[[1, 2, "time_missing"]], expected=1)
    retried = chunks.claim(run, owner="a")
    chunks.finish(retried, factories.receipt(written=1), seconds=0.1, now=now())
    assert [*QuarantinedCandidate.objects.order_by("pk")] == kept


def test_holding_a_run_is_of_that_run_alone():
    """Others may be at the same state, with the same token."""
    run, other = factories.run(RunState.VERIFYING), factories.run(RunState.VERIFYING, token=1, lease_owner="b", **SOON)
    waiting = factories.run(RunState.VERIFYING)

    def told(of: Run) -> tuple:
        return Run.objects.values_list("lease_owner", "lease_expires_at", "token").get(pk=of.pk)

    before = told(other), told(waiting)
    with holding.leased(run, "a") as mine:
        assert mine and run.token == 1
        holding.renew(run)
        assert told(run)[0] == "a" and (told(other), told(waiting)) == before
    assert (told(run), told(other), told(waiting)) == (("", None, 1), *before)


def test_a_chunk_that_waits_is_neither_available_nor_claimed_before_its_time():
    run = factories.run(RunState.RUNNING)
    factories.chunk(run, ChunkState.PENDING, not_before=now() + timedelta(hours=1))
    assert (leases.available(run), leases.waiting(run)) == (False, 1)
    factories.chunk(run, ChunkState.PENDING, not_before=now() - timedelta(seconds=1))
    assert leases.available(run)
    assert (chunks.claim(run, owner="a").number, chunks.claim(run, owner="b"), leases.available(run)) == (2, None, False)


def test_whoever_lost_a_run_neither_renews_it_nor_frees_it():
    run = factories.run(RunState.VERIFYING)
    other = Run.objects.get(pk=run.pk)
    with holding.leased(run, "slow:1") as mine:
        holding.renew(run)
        assert mine and not holding.taken(other, "quick:2")
        Run.objects.filter(pk=run.pk).update(**GONE)
        assert holding.taken(other, "quick:2")
        with pytest.raises(chunks.LeaseLost):
            holding.renew(run)
    run.refresh_from_db()
    assert (run.lease_owner, leases.is_held(run), run.token) == ("quick:2", True, 2)


def test_a_run_that_moved_meanwhile_is_neither_taken_nor_renewed():
    run = factories.run(RunState.VERIFYING)
    before = Run.objects.get(pk=run.pk)
    with holding.leased(run, "slow:1"):
        Run.objects.filter(pk=run.pk).update(state=RunState.CANCELLING, lease_owner="", lease_expires_at=None)
        with pytest.raises(chunks.LeaseLost):
            holding.renew(run)
    assert not holding.taken(before, "quick:2")


def test_a_run_that_is_to_end_gives_back_what_is_not_committed_and_no_more():
    run = factories.run(RunState.RUNNING, RunMode.DRY_RUN)
    factories.chunk(run, ChunkState.PENDING)
    chunk = chunks.claim(run, owner="a")
    Run.objects.filter(pk=run.pk).update(state=RunState.CANCELLING)
    chunks.checkpoint(chunk, "committed")
    with pytest.raises(chunks.Unwanted):
        chunks.checkpoint(chunk, "staged")


def test_a_worker_that_stops_hands_back_its_own_chunks_alone(monkeypatch):
    monkeypatch.setattr(chunks.connection, "close", lambda: None)  # it would end the test's transaction
    run = factories.run(RunState.RUNNING)
    for owner in ("stops:1", "stays:2"):
        factories.chunk(run, ChunkState.PENDING)
        chunks.claim(run, owner=owner)
    chunks.let_go(run, owner="stops:1")
    found = run.chunks.order_by("number").values_list("state", "attempts", "lease_owner")
    assert list(found) == [(ChunkState.PENDING, 0, ""), (ChunkState.LEASED, 1, "stays:2")]


def test_a_run_that_was_planned_on_another_cdp_is_fenced_nowhere(settings):
    """What its workers may still write, they write there; here nobody listens."""
    settings.CRM_DATABASE_URL = settings.CDP_DATABASE_URL = "postgresql://nobody:x@127.0.0.1:1/none"
    run = factories.run(RunState.CANCELLING)
    factories.chunk(run, ChunkState.LEASED)
    fences.shut_out(run)
    run.systems = worlds.systems()
    with pytest.raises(Outage):
        fences.shut_out(run)
