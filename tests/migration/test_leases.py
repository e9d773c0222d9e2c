"""Leases on chunks and runs: only who renewed in time counts, and whoever lost one neither keeps nor frees it for another."""

from datetime import timedelta

import pytest

from migration import chunks, fences, holding, leases, worlds
from migration.doors import Outage
from migration.models import Run
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
