"""Claim, work, expire, reap, thaw, commit, in any order: the queue and the CDP's fence are held to a model of what they promise."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, precondition, rule, run_state_machine_as_test

from migration import chunks, fences, runs, steps
from migration.cdp import Cdp
from migration.chunks import LeaseLost
from migration.models import Account, Chunk, Run
from migration.pipeline.load import Target, load
from migration.pipeline.problems import Fenced
from migration.pipeline.records import Receipt
from migration.pipeline.staging import SPANS, STAGING, VERDICT
from migration.states import ChunkState, RunMode
from tests import factories
from tests.migration.conftest import now

CHUNKS = 3
LONG_AGO = "2020-01-01T00:00Z"
FENCE = "SELECT token, generation FROM calm.receipts WHERE chunk = %s"
ENDED = (ChunkState.DONE, ChunkState.SPLIT, ChunkState.FAILED)


@dataclass
class Told:
    """What the model knows of a chunk."""

    token: int = 0  # of the last claim, or of what was taken away since
    attempts: int = 0
    generation: int = 1
    leased: bool = False
    expired: bool = False
    ended: bool = False
    fence: int = 0  # the highest token that the CDP has seen
    committed: int = 0  # the generation that it has a receipt of


class Queue(RuleBasedStateMachine):
    """A worker is a claimed chunk, kept for ever: what it does late is what a frozen process does when it wakes up."""

    workers = Bundle("workers")
    run: Run
    cdp: Cdp  # one session for all examples: to open one costs more than all that a step does

    def __init__(self) -> None:
        super().__init__()
        Run.objects.filter(pk=self.run.pk).update(state="running")
        Chunk.objects.filter(run=self.run).delete()
        for _ in range(CHUNKS):
            factories.chunk(self.run, ChunkState.PENDING)
        self.told = {chunk.pk: Told() for chunk in self.run.chunks.all()}

    def holds(self, worker: Chunk) -> bool:
        told = self.told[worker.pk]
        return told.leased and told.token == worker.token

    # --- what workers do --------------------------------------------------------------------------------------------

    @rule(target=workers)
    def claim(self) -> object:
        free = [pk for pk, told in self.told.items() if not told.leased and not told.ended]
        chunk = chunks.claim(self.run, owner="worker")
        if not free:
            assert chunk is None
            return multiple()
        assert chunk is not None and chunk.pk == free[0]  # in the order of their numbers
        told = self.told[chunk.pk]
        told.token, told.attempts, told.leased, told.expired = told.token + 1, told.attempts + 1, True, False
        assert (chunk.token, chunk.attempts) == (told.token, told.attempts)  # counted before it is made
        return chunk

    @rule(worker=workers)
    def work(self, worker: Chunk) -> None:
        """The heartbeat, which alone renews the lease: in time, or before anybody noticed that it was not."""
        with self.only_for_the_holder(worker):
            chunks.beat(worker)
            self.told[worker.pk].expired = False

    @rule(worker=workers)
    def go_on(self, worker: Chunk) -> None:
        """A checkpoint between two phases."""
        with self.only_for_the_holder(worker):
            chunks.checkpoint(worker, "staged")

    @rule(worker=workers)
    def commit(self, worker: Chunk) -> None:
        """In the CDP: refused where a higher token is known there, adopted where this generation has a receipt."""
        told = self.told[worker.pk]
        if worker.token < told.fence:
            assert not self.holds(worker)
            with pytest.raises(Fenced):
                load(self.cdp, target_of(worker), Receipt())
            return
        mine = Receipt()
        adopted = load(self.cdp, target_of(worker), mine) is not mine
        assert adopted == (told.committed == worker.generation)
        told.fence, told.committed = worker.token, worker.generation
        assert self.cdp.rows(FENCE, (worker.uuid,)) == [(worker.token, worker.generation)]

    @rule(worker=workers, how=st.sampled_from(("finish", "fail", "disagree")))
    def conclude(self, worker: Chunk, how: str) -> None:
        """One rule for all that ends a chunk: were each as likely as a claim, little would be left to happen."""
        with self.only_for_the_holder(worker):
            if how == "finish":
                chunks.finish(worker, Receipt(), seconds=0.1, now=now())
            elif how == "fail":
                chunks.fail(worker, "no candidate is to blame")
            else:
                chunks.disagreed(worker, "rows differ")
            told = self.told[worker.pk]
            assert not told.ended, "a chunk ends once"
            told.leased, told.ended = False, how != "disagree" or worker.generation > 1
            told.generation += not told.ended

    @rule(worker=workers, outage=st.booleans())
    def hand_back(self, worker: Chunk, outage: bool) -> None:
        with self.only_for_the_holder(worker):
            chunks.hand_back(worker, "an error", outage=outage)
            told = self.told[worker.pk]
            told.leased, told.attempts = False, told.attempts - outage

    # --- what others do ---------------------------------------------------------------------------------------------

    @rule(worker=workers)
    def expire(self, worker: Chunk) -> None:
        """The process is frozen: nobody renews its lease."""
        if self.holds(worker):
            Chunk.objects.filter(pk=worker.pk).update(lease_expires_at=LONG_AGO)
            self.told[worker.pk].expired = True

    @precondition(lambda self: any(told.leased for told in self.told.values()))
    @rule()
    def reap(self) -> None:
        lost = {pk for pk, told in self.told.items() if told.leased and told.expired}
        assert {chunk.pk for chunk in chunks.free(self.run)} == lost
        for pk in lost:
            self.told[pk].leased = self.told[pk].expired = False  # the attempt stays counted: the worker may be dead

    @precondition(lambda self: any(told.token for told in self.told.values()))
    @rule()
    def take_away(self) -> None:
        """A person forces a pause: whoever holds a chunk is out, in the CDP too."""
        with transaction.atomic():
            taken = chunks.take_away(self.run)
        assert {chunk.pk for chunk in taken} == {pk for pk, told in self.told.items() if told.leased}
        for chunk in taken:
            told = self.told[chunk.pk]
            told.token, told.leased, told.expired = told.token + 1, False, False
        fences.shut_out(self.run)
        for chunk in self.run.chunks.filter(token__gt=0).exclude(state=ChunkState.DONE):
            self.told[chunk.pk].fence = max(self.told[chunk.pk].fence, chunk.token + 1)

    # --- what always holds ------------------------------------------------------------------------------------------

    @invariant()
    def the_table_is_the_model(self) -> None:
        found = {
            pk: (*counted, state == ChunkState.LEASED, state in ENDED)
            for pk, state, *counted in self.run.chunks.values_list("pk", "state", "token", "attempts", "generation")
        }
        assert found == {pk: (t.token, t.attempts, t.generation, t.leased, t.ended) for pk, t in self.told.items()}

    def only_for_the_holder(self, worker: Chunk) -> AbstractContextManager:
        """Whoever holds the chunk with its highest token may; everybody else is refused, and nothing changes."""
        return nullcontext() if self.holds(worker) else pytest.raises(LeaseLost)


def target_of(chunk: Chunk) -> Target:
    return Target(chunk.run.uuid, chunk.run.account.cdp_id, chunk.uuid, chunk.token, chunk.generation, timedelta(0))


@pytest.fixture
def cdp(console) -> Iterator[Cdp]:
    """A session at the CDP with nothing staged."""
    with closing(Cdp()) as cdp:
        cdp.connection.execute(f"{STAGING}; {SPANS}; {VERDICT}")
        yield cdp


@pytest.mark.parametrize("examples", [10, pytest.param(60, marks=[pytest.mark.fault, pytest.mark.timeout(300)])])
def test_whatever_the_order(console, cdp, examples):
    account = Account.objects.get(crm_organization_id=1)
    run = runs.start(runs.Wish(account, RunMode.PRODUCTION, None), by="tester", now=now())
    steps.step(run, owner="tester")
    machine = type("OnThisRun", (Queue,), {"run": run, "cdp": cdp})
    wanted = settings(
        max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    run_state_machine_as_test(machine, settings=wanted)
