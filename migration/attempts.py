"""A worker's attempt at one chunk: from the claim to the receipt, or to what becomes of it where that fails."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from migration import budget, chunks, fences, runs, splitting, ticks
from migration.crm import VARIABLE as CRM_VARIABLE
from migration.doors import BrokenOff, Misconfigured, Outage, console_translated
from migration.models import Chunk
from migration.pipeline.flow import Work, World, process_chunk
from migration.pipeline.problems import Fenced, LiveRowSlippedIn, RowsDisagree
from migration.states import RunReason, RunState

log = logging.getLogger(__name__)
OUTAGE_WAIT = timedelta(seconds=30)


def process(chunk: Chunk, world: World, *, owner: str, staged: Callable[[], None] = lambda: None) -> None:
    """One chunk from claim to receipt. An outage hands it back and goes on to the caller; a data error is tried again, then splits it.

    `staged` is called once reading is done. A worker that is stopped leaves it leased: the caller lets go of whatever it holds.
    """
    if chunk.attempts > chunks.MOST_ATTEMPTS:
        give_up(chunk, splitting.WORKER_DIED, owner=owner)
        return
    if chunk.expected > budget.most_audits() and made_smaller(chunk, owner=owner):
        return
    started = time.monotonic()
    world.checkpoint = listener(chunk, started, staged)
    try:
        with console_translated():
            with chunks.heartbeat(chunk):
                receipt = process_chunk(work_of(chunk), world)
            chunks.finish(chunk, receipt, seconds=time.monotonic() - started, now=ticks.now())
    except chunks.LeaseLost:
        went_to_another(chunk)
    except Fenced:
        fenced(chunk, world)
    except chunks.Unwanted:
        chunks.hand_back(chunk, "the run is to end", outage=True)
    except Outage as error:
        if isinstance(error, BrokenOff) and error.variable == CRM_VARIABLE:
            budget.shrink(chunk.expected)
        chunks.hand_back(chunk, str(error), outage=True, wait=OUTAGE_WAIT)
        raise
    except Misconfigured as error:
        chunks.hand_back(chunk, str(error), outage=True)
        raise
    except RowsDisagree as error:
        chunks.disagreed(chunk, str(error))
    except Exception as error:
        log.exception("chunk %s of run %s, attempt %s", chunk.number, chunk.run_id, chunk.attempts)
        failed_attempt(chunk, error, owner=owner)


def went_to_another(chunk: Chunk) -> None:
    log.warning("chunk %s of run %s went to another worker", chunk.number, chunk.run_id)


def fenced(chunk: Chunk, world: World) -> None:
    """The CDP knows a higher token than this worker's. Where the chunk is still this worker's by the console's own word, the console's database
    is an older copy than the CDP: it takes the token over, and the next attempt adopts what the CDP has. Raises Misconfigured where the run
    was withdrawn since that copy.
    """
    token = fences.highest(world.cdp, chunk)
    if token == fences.NO_TOKEN_IS_HIGHER:
        with suppress(chunks.LeaseLost):
            chunks.hand_back(chunk, "the run was withdrawn", outage=True)
        raise Misconfigured(
            f"{chunk.run} was withdrawn in the CDP, which this console's database, restored from an older copy, does not know: "
            f"cancel the run, then withdraw it again."
        )
    try:
        chunks.hand_back(chunk, "the CDP knew a higher token", outage=True, token=token)
    except chunks.LeaseLost:
        went_to_another(chunk)
    else:
        log.warning(
            "chunk %s of run %s: the CDP knew a higher token than the console, whose database was restored", chunk.number, chunk.run_id
        )


def listener(chunk: Chunk, started: float, staged: Callable[[], None]) -> Callable[[str], None]:
    """What the pipeline calls between its phases: whether the lease still stands, and the read budget learns how long reading took."""

    def listen(name: str) -> None:
        chunks.checkpoint(chunk, name)
        if name == "staged":
            budget.adapt(chunk.expected, time.monotonic() - started)
            staged()

    return listen


def made_smaller(chunk: Chunk, *, owner: str) -> bool:
    with chunks.heartbeat(chunk):
        try:
            return splitting.make_smaller(chunk, by=owner, now=ticks.now())
        except (Outage, Misconfigured) as away:
            chunks.hand_back(chunk, str(away), outage=True, wait=OUTAGE_WAIT)
            raise


def failed_attempt(chunk: Chunk, error: Exception, *, owner: str) -> None:
    """A data error: try again, and after the last attempt look for what is at fault."""
    if chunk.attempts < chunks.MOST_ATTEMPTS:
        said = f"{type(error).__name__}: {error}" if isinstance(error, LiveRowSlippedIn) else type(error).__name__
        chunks.hand_back(chunk, said)
    else:
        give_up(chunk, type(error).__name__, owner=owner)


def give_up(chunk: Chunk, error_class: str, *, owner: str) -> None:
    """Split a chunk whose attempts are spent, and end the run where that happens to most of its chunks."""
    with chunks.heartbeat(chunk):
        try:
            splitting.give_up(chunk, error_class, by=owner, now=ticks.now())
        except (Outage, Misconfigured) as away:
            chunks.hand_back(chunk, str(away), outage=True, wait=OUTAGE_WAIT)
            raise
    run = chunk.run
    run.refresh_from_db()
    if run.state == RunState.RUNNING and splitting.most_fail(run):
        reason = f"More than half of the last {splitting.LAST} chunks failed, lately chunk {chunk.number} ({error_class})."
        runs.end(run, RunState.FAILED, by=owner, now=ticks.now(), code=RunReason.CHUNKS_FAILING, reason=reason)


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
