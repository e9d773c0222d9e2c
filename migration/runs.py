"""From a wish to a finished run: plan, work chunk by chunk, verify. The only writer of run states."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol
from uuid import uuid4

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.module_loading import import_string

from migration import boundary, chunks, events, ledger, links, planning, reconcile, watermark, worlds
from migration import mapping as mappings
from migration.cdp import Cdp
from migration.crm import Crm
from migration.doors import Misconfigured, Outage
from migration.models import Account, Chunk, MappingRevision, RivalClaim, Run, StaleRow
from migration.pipeline.flow import VERSION, Work, World, process_chunk
from migration.pipeline.problems import Fenced, LiveRowSlippedIn, RowsDisagree
from migration.pipeline.rows import row_id
from migration.states import FINISHED, ChunkState, IllegalMove, RunMode, RunReason, RunState, check_run_move

log = logging.getLogger(__name__)
OUTAGE_WAIT = timedelta(seconds=30)


class Refused(RuntimeError):
    """The run may not start; the sentences say what is missing and who can give it."""


class Busy(RuntimeError):
    """Another run of the account is being worked on."""


class Step(StrEnum):
    """What one step of work came to."""

    WORKED = "worked"
    WAITING = "waiting"  # nothing to do at the moment: others hold it, or an outage is being waited out
    FINISHED = "finished"


class Decision(Protocol):
    """Of settings.GATE_POLICY: refusals in words (none: go), and the capabilities that the pipeline is handed."""

    @property
    def refusals(self) -> list[str]: ...
    @property
    def capabilities(self) -> frozenset[str]: ...


@dataclass(frozen=True)
class Wish:
    """What somebody asks for."""

    account: Account
    mode: RunMode
    chunk_size: int | None = None


def start(wish: Wish, *, by: str, now: datetime) -> Run:
    """The account's active run if it is this very wish, else a new one in state planned.

    A run that nobody works on and that is another wish is cancelled; one that somebody works on raises Busy. Raises Refused.
    """
    decision = gate_decision(wish.account, wish.mode)
    if decision.refusals:
        raise Refused(" ".join(decision.refusals))
    revision = MappingRevision.objects.order_by("-number").first()
    if revision is None:
        raise Refused("No mapping revision is published: run `manage.py publish_mapping --file mapping.json --yes`.")
    asked = {
        "mode": wish.mode, "mapping_revision": revision, "pipeline_version": VERSION, "capabilities": sorted(decision.capabilities),
        "systems": worlds.systems(),
    }  # fmt: skip
    try:
        with transaction.atomic():
            Account.objects.select_for_update().get(pk=wish.account.pk)  # two starts at once: the second sees the first's run
            return continued(wish, asked, by=by, now=now) or created(wish, asked, by=by, now=now)
    except IntegrityError as error:
        raise Busy(f"Another run of {wish.account} was started at this moment: try again.") from error


def gate_decision(account: Account, mode: RunMode) -> Decision:
    """What the gates allow: the one seam through which migration asks them."""
    decision: Decision = import_string(settings.GATE_POLICY)(account, mode)
    return decision


def created(wish: Wish, asked: dict, *, by: str, now: datetime) -> Run:
    size = wish.chunk_size or settings.CHUNK_SIZE
    run = Run.objects.create(uuid=uuid4(), account=wish.account, chunk_size=size, planned_at=now, planned_by=by, **asked)
    events.record("run planned", f"{run.get_mode()} of {wish.account}, chunks of {size}", now=now, by=by, run=run)
    return run


def continued(wish: Wish, asked: dict, *, by: str, now: datetime) -> Run | None:
    """The active run, taken up again; None where there is none, or it had to make way."""
    run = Run.objects.active().filter(account=wish.account).first()
    if run is None:
        return None
    same = all(getattr(run, name) == value for name, value in asked.items()) and wish.chunk_size in (None, run.chunk_size)
    if same and run.state in (RunState.PLANNED, RunState.RUNNING, RunState.VERIFYING):
        return run
    if same and run.state == RunState.INTERRUPTED:
        return resume(run, by=by, now=now)
    if chunks.is_held(run) or run.state not in (RunState.PLANNED, RunState.RUNNING, RunState.VERIFYING, RunState.INTERRUPTED):
        raise Busy(f"{run} is {run.state} and would have to end first: wait for it, or cancel it.")
    move(run, RunState.CANCELLED, code=RunReason.SUPERSEDED, reason="Another run takes its place.", by=by, now=now)
    return None


def resume(run: Run, *, by: str, now: datetime) -> Run:
    """Go on with an interrupted run where it stopped."""
    run.chunks.filter(state=ChunkState.PENDING).update(not_before=None)
    return move(run, RunState.RUNNING if run.chunks.exists() else RunState.PLANNED, by=by, now=now)


def move(run: Run, new: RunState, *, by: str, now: datetime, code: RunReason = RunReason.NONE, reason: str = "", **fields: object) -> Run:
    """The one door for a run's state: checked against the table, compare-and-set, with an Event in the same transaction."""
    old = RunState(run.state)
    check_run_move(old, new)
    values = {"state": new, "reason_code": code, "reason": reason, "lease_owner": "", "lease_expires_at": None} | fields
    if new in FINISHED:
        values["finished_at"] = now
    with transaction.atomic():
        if not Run.objects.filter(pk=run.pk, state=old).update(**values):
            raise IllegalMove(f"{run} is no longer {old}: another process was faster.")
        events.record(f"run {new}", reason or f"{old} to {new}", now=now, by=by, run=run)
    run.refresh_from_db()
    return run


def step(run: Run, *, owner: str, turn: float | None = None) -> Step:
    """Do the next piece of the run's work, of about `turn` seconds. Outage and Misconfigured go on to the caller, the state kept sound."""
    run.refresh_from_db()
    try:
        return next_piece(run, owner=owner, turn=settings.TURN_SECONDS if turn is None else turn)
    except chunks.LeaseLost:
        return Step.WAITING  # another worker has it
    except (Outage, Misconfigured, IllegalMove):
        raise
    except Exception as error:
        # Nothing that waiting or trying again cures: said on the run, told in the log.
        log.exception("run %s failed while %s", run.pk, run.state)
        reason = f"{type(error).__name__} while the run was {run.state}; the log has the details."
        move(run, RunState.FAILED, by=owner, now=timezone.now(), code=RunReason.STOPPED, reason=reason)
        return Step.FINISHED


def next_piece(run: Run, *, owner: str, turn: float) -> Step:
    if run.state == RunState.PLANNED:
        return planned(run, owner=owner)
    if run.state == RunState.RUNNING:
        return worked(run, owner=owner, turn=turn)
    if run.state == RunState.VERIFYING:
        return verified(run, owner=owner)
    return Step.FINISHED if run.state in FINISHED else Step.WAITING


# --- planning -------------------------------------------------------------------------------------------------------


def planned(run: Run, *, owner: str) -> Step:
    """Count the candidates and cut the chunks, under the run's own lease."""
    with leased(run, owner) as mine:
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
    if run.writes and cdp.prepare():
        events.record("schema made", "schema calm was made in the CDP for fences and receipts", now=timezone.now(), by=owner, run=run)
    now = timezone.now()
    account = run.account
    moments = watermark.resolve(cdp, account, now=now, safety_lag=timedelta(hours=settings.SAFETY_LAG_HOURS))
    mark = watermark.as_json(moments)
    mapping = mappings.parse(run.mapping_revision.document)
    index = links.up_to_date(
        mapping, crm, worlds.address("CRM_DATABASE_URL"), now=now, pulse=lambda: renew(run)
    )  # fmt: skip
    reader = links.Reader(index)
    candidates = 0

    def counted() -> Iterator[planning.PersonCount]:
        nonlocal candidates
        for each in planning.count(crm, mapping, mark, cdp.persons(account.cdp_id), reader):
            candidates += each.candidates
            yield each

    with transaction.atomic():
        RivalClaim.objects.filter(run=run).delete()
        RivalClaim.objects.bulk_create(
            [RivalClaim(run=run, person_id=person, crm_organization_id=org) for person, org in cdp.rival_claims(account.cdp_id)],
            batch_size=1000,
        )
        cuts = planning.cut(counted(), run.chunk_size, crm, mapping, reader)
        Chunk.objects.bulk_create((Chunk(uuid=uuid4(), run=run, number=n, **vars(cut)) for n, cut in enumerate(cuts, 1)), batch_size=1000)
        move(
            run, RunState.RUNNING, by=owner, now=now, watermark=mark, candidates=candidates, started_at=now, link_index=index,
            contacts_without_source_id=cdp.contacts_without_source_id(account.cdp_id),
        )  # fmt: skip


@contextmanager
def leased(run: Run, owner: str) -> Iterator[bool]:
    """Hold the run itself while planning or verifying; yields False where another worker does."""
    free = Q(lease_expires_at__isnull=True) | Q(lease_expires_at__lt=Now())
    mine = Run.objects.filter(free, pk=run.pk, state=run.state).update(
        lease_owner=owner, lease_expires_at=Now() + chunks.lease(), token=F("token") + 1
    )
    if not mine:
        yield False
        return
    run.refresh_from_db()
    try:
        yield True
    finally:
        Run.objects.filter(pk=run.pk, token=run.token).update(lease_owner="", lease_expires_at=None)


def renew(run: Run) -> None:
    """Renew the run's own lease; raises LeaseLost where it is another's."""
    if not Run.objects.filter(pk=run.pk, token=run.token).exclude(lease_owner="").update(lease_expires_at=Now() + chunks.lease()):
        raise chunks.LeaseLost(f"{run} is held by another worker")


# --- chunks ---------------------------------------------------------------------------------------------------------


def worked(run: Run, *, owner: str, turn: float) -> Step:
    """Claim chunks and process them until none is to be had or the turn is over; then see whether the run is done."""
    if not chunks.available(run):
        return end_of_chunks(run, owner=owner)
    turn_ends = time.monotonic() + turn
    with worlds.opened(run) as world:
        while time.monotonic() < turn_ends and (chunk := chunks.claim(run, owner=owner)):
            process(chunk, world)
    return Step.WORKED


def process(chunk: Chunk, world: World) -> None:
    """One chunk from claim to receipt. An outage hands it back and goes on to the caller; a data error is tried again, then fails it."""
    if chunk.attempts > chunks.MOST_ATTEMPTS:
        chunks.fail(chunk, f"{chunks.MOST_ATTEMPTS} workers began it and did not come back")
        return
    started = time.monotonic()
    world.checkpoint = lambda name: chunks.beat(chunk)
    try:
        with chunks.heartbeat(chunk):
            receipt = process_chunk(work_of(chunk), world)
        chunks.finish(chunk, receipt, seconds=time.monotonic() - started, now=timezone.now())
    except (chunks.LeaseLost, Fenced):
        log.warning("chunk %s of run %s went to another worker", chunk.number, chunk.run_id)
    except Outage as error:
        chunks.hand_back(chunk, str(error), outage=True, wait=OUTAGE_WAIT)
        raise
    except Misconfigured as error:
        chunks.hand_back(chunk, str(error), outage=True)
        raise
    except RowsDisagree as error:
        chunks.disagreed(chunk, str(error))
    except Exception as error:
        log.exception("chunk %s of run %s, attempt %s", chunk.number, chunk.run_id, chunk.attempts)
        chunks.failed_attempt(chunk, f"{type(error).__name__}: {error}" if isinstance(error, LiveRowSlippedIn) else type(error).__name__)
    except BaseException:
        chunks.hand_back(chunk, "the worker was stopped", outage=True)
        raise


def work_of(chunk: Chunk) -> Work:
    return Work(
        chunk=chunk.uuid,
        token=chunk.token,
        generation=chunk.generation,
        person_from=chunk.person_from,
        person_to=chunk.person_to,
        audit_from=chunk.audit_from,
        audit_to=chunk.audit_to,
        pairs=[(person, audit) for person, audit, _ in chunk.pairs] if chunk.pairs is not None else None,
        retried=[tuple(each) for each in chunk.pairs or ()],
    )


def end_of_chunks(run: Run, *, owner: str) -> Step:
    """Nothing to claim: on to verification if all chunks are done, to failed if one failed, else wait for the others."""
    states = set(run.chunks.values_list("state", flat=True))
    if states & {ChunkState.PENDING, ChunkState.LEASED}:
        return Step.WAITING
    try:
        if ChunkState.FAILED in states:
            worst = run.chunks.filter(state=ChunkState.FAILED).order_by("number").first()
            reason = f"Chunk {worst.number} failed: {worst.reason}." if worst else ""
            move(run, RunState.FAILED, by=owner, now=timezone.now(), code=RunReason.CHUNK_FAILED, reason=reason)
        else:
            move(run, RunState.VERIFYING, by=owner, now=timezone.now())
    except IllegalMove:
        log.info("run %s was moved on by another worker", run.pk)
    return Step.WORKED


def interrupt(run: Run, reason: str, *, by: str, now: datetime, code: RunReason = RunReason.OUTAGE) -> Run:
    """Stop working on a run that cannot go on by itself; starting it again goes on where it stopped."""
    run.refresh_from_db()
    return move(run, RunState.INTERRUPTED, by=by, now=now, code=code, reason=reason)


def note(run: Run, reason: str) -> None:
    """Say in words what a run is waiting for; its state stays."""
    Run.objects.filter(pk=run.pk).update(reason_code=RunReason.OUTAGE, reason=reason)


# --- verification ---------------------------------------------------------------------------------------------------


def verified(run: Run, *, owner: str) -> Step:
    """Verify under the run's own lease, and give the verdict."""
    with leased(run, owner) as mine:
        if not mine:
            return Step.WAITING
        with worlds.opened(run) as world:
            found = reconcile.verify_run(run, world, ledger.of(run), lambda name: renew(run))
            seam = boundary.audit(world, lambda: renew(run))
        conclude(run, found, seam, by=owner, now=timezone.now())
    return Step.WORKED


def conclude(run: Run, found: reconcile.Verification, seam: boundary.Boundary, *, by: str, now: datetime) -> None:
    """Succeeded, partial or failed; or, once, the chunks of what is missing sent back."""
    remember_stale(run, found)
    # Chunks that tried quarantined candidates again stand beside the ones that quarantined them: done anew, the two would count twice.
    first_time = run.verification is None and not run.chunks.filter(pairs__isnull=False).exists()
    fields: dict[str, Any] = {
        "verification": found.as_json(),
        "candidates": found.candidates,
        "stale": found.stale,
        "boundary": seam.as_json(),
        "warnings": seam.warnings(),
    }
    quarantined = run.quarantined.filter(waiver__isnull=True).count()
    if found.agrees and quarantined:
        move(run, RunState.PARTIAL, by=by, now=now, code=RunReason.QUARANTINED, reason=quarantined_sentence(quarantined), **fields)
    elif found.agrees:
        move(run, RunState.SUCCEEDED, by=by, now=now, **fields)
    elif first_time and (back := chunks.send_back(run, chunks_to_repeat(run, found.lacking))):
        reason = f"Verification found {found.candidates} candidates, the ledger {found.accounted}; {back} chunks are done again."
        move(run, RunState.RUNNING, by=by, now=now, reason=reason, **fields)
    else:
        code = RunReason.VERIFICATION_DISAGREES if found.missing or found.differing else RunReason.LEDGER_UNBALANCED
        move(run, RunState.FAILED, by=by, now=now, code=code, reason=disagreement(found), **fields)


def quarantined_sentence(number: int) -> str:
    return f"{number} candidates are quarantined." if number != 1 else "1 candidate is quarantined."


def remember_stale(run: Run, found: reconcile.Verification) -> None:
    """List the rows of ours that are candidates no more; they stay until somebody has them removed."""
    StaleRow.objects.filter(run=run).delete()
    rows = (StaleRow(run=run, row_id=row_id(person, audit), person_id=person, audit_id=audit) for person, audit in found.stale_keys)
    StaleRow.objects.bulk_create(rows, batch_size=2000)


def chunks_to_repeat(run: Run, lacking: list[reconcile.Key]) -> list[int]:
    """Chunks that the missing candidates lie in; all of them where only the counts differ, or sampled rows do."""
    if not lacking:
        return list(run.chunks.values_list("number", flat=True))
    numbers = set()
    for number, first, last, audit_from, audit_to in run.chunks.values_list("number", "person_from", "person_to", "audit_from", "audit_to"):
        for person, audit in lacking:
            if first <= person <= last and (audit_from or 0) <= audit and (audit_to is None or audit < audit_to):
                numbers.add(number)
                break
    return sorted(numbers)


def disagreement(found: reconcile.Verification) -> str:
    parts = [f"the source has {found.candidates} candidates, the ledger {found.accounted}"] if found.candidates != found.accounted else []
    parts += [f"{found.missing} candidates are missing in the CDP"] if found.missing else []
    parts += [f"{found.differing} of {found.sampled} sampled rows are not what mapping them again gives"] if found.differing else []
    return f"Verification disagrees: {', '.join(parts)}."
