"""One step of a run's work after another: plan, work chunk by chunk, verify."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from enum import StrEnum
from functools import partial
from uuid import uuid4

from django.conf import settings
from django.db import DatabaseError, transaction
from structlog.contextvars import bound_contextvars

from migration import (
    budget,
    chunks,
    events,
    holding,
    leases,
    ledger,
    link_reader,
    planning,
    reaper,
    reconcile,
    runs,
    ticks,
    verdicts,
    watermark,
    withdrawal,
    worlds,
)
from migration import mapping as mappings
from migration.cdp import Cdp
from migration.crm import Crm
from migration.doors import Misconfigured, Outage, console_translated
from migration.lanes import Lanes
from migration.models import Chunk, RivalClaim, Run
from migration.pipeline.flow import World
from migration.runs import Refused, may_go_on, move
from migration.states import FINISHED, ChunkState, IllegalMove, Overtaken, RunReason, RunState

log = logging.getLogger(__name__)


class Step(StrEnum):
    """What one step of work came to."""

    WORKED = "worked"
    WAITING = "waiting"  # nothing to do at the moment: others hold it, or an outage is being waited out
    FINISHED = "finished"


def step(run: Run, *, owner: str, turn: float | None = None) -> Step:
    """Do the next piece of the run's work, of about `turn` seconds. Outage and Misconfigured go on to the caller, the state kept sound."""
    run.refresh_from_db()
    try:
        with bound_contextvars(run=run.pk, account=run.account_id), console_translated():
            return next_piece(run, owner=owner, turn=settings.TURN_SECONDS if turn is None else turn)
    except (chunks.LeaseLost, Overtaken, Refused) as overtaken:
        log.info("run %s: %s", run.pk, overtaken)  # another worker has it, or a person asked for something else meanwhile
        return Step.WAITING
    except (Outage, Misconfigured, IllegalMove):
        raise
    except Exception as error:
        log.exception("run %s failed while %s", run.pk, run.state)
        return failed(run, error, owner=owner)


def failed(run: Run, error: Exception, *, owner: str) -> Step:
    """Nothing that waiting or trying again cures: said on the run, told in the log. Unless another worker was faster, and it is its run now.

    Raises Misconfigured where a person asked for what failed: the wish stays, and is tried again, as the cause may be mended.
    """
    reason = f"{type(error).__name__} while the run was {run.state}; the log has the details."
    if run.state in (RunState.CANCELLING, RunState.WITHDRAWING):
        raise Misconfigured(reason) from error
    try:
        runs.end(run, RunState.FAILED, by=owner, now=ticks.now(), code=RunReason.STOPPED, reason=reason)
    except Overtaken as overtaken:
        log.info("run %s: %s", run.pk, overtaken)
        return Step.WAITING
    return Step.FINISHED


def next_piece(run: Run, *, owner: str, turn: float) -> Step:
    if run.state == RunState.PLANNED:
        return planned(run, owner=owner)
    if run.state == RunState.RUNNING:
        return worked(run, owner=owner, turn=turn)
    if run.state == RunState.VERIFYING:
        return verified(run, owner=owner)
    if run.state in (RunState.PAUSING, RunState.CANCELLING):
        return settled(run, owner=owner)
    if run.state == RunState.WITHDRAWING:
        return withdrawn(run, owner=owner, turn=turn)
    return Step.FINISHED if run.state in FINISHED else Step.WAITING


def settled(run: Run, *, owner: str) -> Step:
    """See whether the last worker has handed its chunk back; free what a dead one holds."""
    reaper.reap(run)
    wish = run.state
    runs.settle(run, by=owner, now=ticks.now())
    return Step.WAITING if run.state == wish else Step.WORKED


def withdrawn(run: Run, *, owner: str, turn: float) -> Step:
    """Remove rows under the run's own lease for about a turn."""
    with holding.leased(run, owner) as mine:
        if not mine:
            return Step.WAITING
        turn_ends = time.monotonic() + turn

        def goes_on() -> bool:
            holding.renew(run)
            runs.goes_on(run)
            return time.monotonic() < turn_ends

        withdrawal.proceed(run, by=owner, now=ticks.now(), pulse=goes_on)
    return Step.WORKED


# --- planning -------------------------------------------------------------------------------------------------------


def planned(run: Run, *, owner: str) -> Step:
    """Count the candidates and cut the chunks, under the run's own lease."""
    worlds.check_fits(run)
    with holding.leased(run, owner, reads=True) as mine:
        if not mine:
            return Step.WAITING
        with opened_doors() as (crm, cdp):
            plan(run, crm, cdp, owner=owner)
    return Step.WORKED


@contextmanager
def opened_doors() -> Iterator[tuple[Crm, Cdp]]:
    crm = Crm()
    try:
        cdp = Cdp()
        try:
            yield crm, cdp
        finally:
            cdp.close()
    finally:
        crm.close()


def plan(run: Run, crm: Crm, cdp: Cdp, *, owner: str) -> None:
    """Watermark, contacts, rival claims, counts and chunks, stored with the run in one transaction."""
    prepare(run, cdp, owner=owner)
    now = ticks.now()
    account = run.account
    moments = watermark.resolve(cdp, account, now=now, safety_lag=timedelta(hours=settings.SAFETY_LAG_HOURS))
    mark = watermark.as_json(moments)
    mapping = mappings.parse(run.mapping_revision.document)
    index = worlds.links_until_now(mapping, crm, partial(holding.pulse, run, crm))
    reader = link_reader.Reader(index)
    candidates = 0

    def counted() -> Iterator[planning.PersonCount]:
        nonlocal candidates
        for each in planning.count(crm, mapping, mark, cdp.persons(account.cdp_id), reader, lambda: holding.pulse(run, crm)):
            candidates += each.candidates
            yield each

    # All that others are asked comes first: they may take minutes, and no lock is held meanwhile.
    rivals = [RivalClaim(run=run, person_id=person, crm_organization_id=org) for person, org in cdp.rival_claims(account.cdp_id)]
    without = cdp.contacts_without_source_id(account.cdp_id)
    cuts = list(planning.cut(counted(), run.chunk_size, crm, mapping, reader))
    with transaction.atomic():
        holding.renew(run)  # until this transaction ends, nobody else takes the run over
        RivalClaim.objects.filter(run=run).delete()
        RivalClaim.objects.bulk_create(rivals, batch_size=1000)
        Chunk.objects.bulk_create((Chunk(uuid=uuid4(), run=run, number=n, **vars(cut)) for n, cut in enumerate(cuts, 1)), batch_size=1000)
        move(
            run, RunState.RUNNING, by=owner, now=now, watermark=mark, candidates=candidates, started_at=now, link_index=index,
            contacts_without_source_id=without,
        )  # fmt: skip


def prepare(run: Run, cdp: Cdp, *, owner: str) -> None:
    """Make schema calm in the CDP where it is missing: at first, and again where the CDP went back to an older copy. Raises Misconfigured with the cure."""
    if run.writes and cdp.prepare():
        events.record("schema made", "schema calm was made in the CDP for fences and receipts", now=ticks.now(), by=owner, run=run)


# --- chunks ---------------------------------------------------------------------------------------------------------


def worked(run: Run, *, owner: str, turn: float) -> Step:
    """Claim chunks and process them until none is to be had or the turn is over; then see whether the run is done."""
    if not leases.available(run):
        return end_of_chunks(run, owner=owner)
    waits = ""

    def claim(world: World, sessions: chunks.Sessions) -> Chunk | None:
        nonlocal waits
        if not may_go_on(run, by=owner, now=ticks.now()):
            return None
        reaper.reap(run)
        chunk, waits = next_chunk(run, world, sessions, owner=owner)
        return chunk

    several = Lanes(claim, owner=owner, turn_ends=time.monotonic() + turn)
    try:
        with worlds.opened(run) as world:
            prepare(run, world.cdp, owner=owner)
            several.work(world, ahead=settings.READ_AHEAD and leases.waiting(run) > 1)
    except (SystemExit, KeyboardInterrupt):
        chunks.let_go(run, owner=owner)
        raise
    except Exception:
        # What was met right after a claim has handed nothing back; where the console is away its lease has to run out.
        with suppress(DatabaseError):
            chunks.let_go(run, owner=owner)
        raise
    run.refresh_from_db()
    if run.state in (RunState.PAUSING, RunState.CANCELLING):
        settled(run, owner=owner)
    return Step.WAITING if run.state == RunState.RUNNING and waits else Step.WORKED


def next_chunk(run: Run, world: World, sessions: chunks.Sessions, *, owner: str) -> tuple[Chunk | None, str]:
    """The run's next chunk, as far as the read budget leaves room for one; and why it does not, which is said on a run that nobody else is at."""
    budget.look(world.crm)
    with transaction.atomic():  # of two workers that want the last room, one sees that the other has it
        waits = budget.reason_to_wait(budget.locked(), leases.reading(besides=owner))
        chunk = None if waits else chunks.claim(run, owner=owner, sessions=sessions)
    if waits and not leases.count(run):
        runs.note(run, waits, now=ticks.now(), code=RunReason.READ_BUDGET)
    elif chunk:
        runs.goes_on(run)
    return chunk, waits


def end_of_chunks(run: Run, *, owner: str) -> Step:
    """Nothing to claim: on to verification if all chunks are done, to failed if one failed, else wait for the others."""
    states = set(run.chunks.values_list("state", flat=True))
    if states & {ChunkState.PENDING, ChunkState.LEASED}:
        return Step.WAITING
    try:
        if ChunkState.FAILED in states:
            worst = run.chunks.filter(state=ChunkState.FAILED).order_by("number").first()
            reason = f"Chunk {worst.number} failed: {worst.reason}." if worst else ""
            runs.end(run, RunState.FAILED, by=owner, now=ticks.now(), code=RunReason.CHUNK_FAILED, reason=reason)
        else:
            move(run, RunState.VERIFYING, by=owner, now=ticks.now())
    except IllegalMove:
        log.info("run %s was moved on by another worker", run.pk)
    return Step.WORKED


# --- verification ---------------------------------------------------------------------------------------------------


def verified(run: Run, *, owner: str) -> Step:
    """Verify under the run's own lease, and give the verdict."""
    with holding.leased(run, owner, reads=True) as mine:
        if not mine:
            return Step.WAITING
        with worlds.opened(run) as world:
            prepare(run, world.cdp, owner=owner)
            worlds.links_until_now(world.mapping, world.crm, partial(holding.pulse, run, world.crm))
            found, seam = reconcile.verify_run(run, world, ledger.of(run), lambda name: holding.pulse(run, world.crm))
        verdicts.conclude(run, found, seam, by=owner, now=ticks.now())
    return Step.WORKED
