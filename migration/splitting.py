"""What becomes of a chunk whose attempts are spent: smaller chunks, down to the one candidate that is at fault, which is put aside.

For what fails as a whole (a row that the server refuses, a process that dies); a candidate that breaks the mapping is put aside at once.
"""

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from typing import NamedTuple

from psycopg import sql

from migration import chunks, events, fences, worlds
from migration.cdp import Cdp
from migration.chunks import Part
from migration.models import Chunk, Run
from migration.pipeline.flow import World
from migration.pipeline.problems import Problem
from migration.pipeline.records import Quarantined, Receipt
from migration.planning import PERSONS_AT_ONCE, before, sources
from migration.states import ChunkState, Reason

WORKER_DIED = "WorkerDied"  # the error's class where no worker came back to tell
SMALLER = "made smaller: the read budget asks for it"
LAST = 50  # chunks that ended, by which a run is judged


class Found(NamedTuple):
    """An audit of a chunk with the contact it concerns; one beyond the watermark is no candidate."""

    person: int
    audit: int
    is_candidate: bool


def give_up(chunk: Chunk, error_class: str, *, by: str, now: datetime) -> None:
    """Split the chunk, which the caller holds; or quarantine its only candidate; or, where no candidate is to blame, fail it.

    No other worker can write for it afterwards. What one had committed meanwhile is adopted instead.
    """
    with closing(Cdp()) as cdp:
        receipt = fences.committed(cdp, chunk)
    if receipt:
        chunks.finish(chunk, receipt, seconds=0.0, now=now)
        return
    with worlds.opened(chunk.run) as world:  # a fresh one: the failure may have taken its sessions with it
        found = sorted(set(audits_of(chunk, world)))
        if len(found) == 1:
            put_aside(chunk, found[0], world, error_class, now=now)
            return
    if not found:
        chunks.fail(chunk, f"{error_class}, though it has no audit")
        return
    numbers = chunks.split(chunk, parts(chunk, found), error_class)
    sentence = f"Chunk {chunk.number} failed ({error_class}): chunks {numbers[0]} to {numbers[-1]} take its place."
    events.record("chunk split", sentence, now=now, by=by, run=chunk.run)


def make_smaller(chunk: Chunk, *, by: str, now: datetime) -> bool:
    """Put two halves in the place of a chunk, which the caller holds; False where it cannot be divided."""
    with closing(Cdp()) as cdp:
        receipt = fences.committed(cdp, chunk)
    if receipt:
        chunks.finish(chunk, receipt, seconds=0.0, now=now)
        return True
    with worlds.opened(chunk.run) as world:
        found = sorted(set(audits_of(chunk, world)))
    if len(found) < 2:
        return False
    numbers = chunks.split(chunk, parts(chunk, found), SMALLER, searching=False)
    events.record("chunk split", f"Chunk {chunk.number} {SMALLER}: chunks {numbers[0]} to {numbers[-1]}.", now=now, by=by, run=chunk.run)
    return True


def audits_of(chunk: Chunk, world: World) -> Iterator[Found]:
    """Every audit of the chunk with each contact it concerns, from counting's own queries."""
    if chunk.pairs is not None:
        yield from (Found(person, audit, True) for person, audit, _ in chunk.pairs)
        return
    limit = before(world.crm, world.mapping, {entity: moment.isoformat() for entity, moment in world.watermark.items()})
    statement = sql.SQL("SELECT a.person, a.id, {before} FROM {source} a WHERE a.id >= {first} AND a.id < {end}")
    first, end = sql.Literal(chunk.audit_from or 0), sql.Literal(2**63 - 1 if chunk.audit_to is None else chunk.audit_to)
    persons = list(world.cdp.contacts(world.account_id, chunk.person_from, chunk.person_to))
    for start in range(0, len(persons), PERSONS_AT_ONCE):
        batch = persons[start : start + PERSONS_AT_ONCE]
        for source in sources(world.crm, world.mapping, batch, world.links.of(batch)):
            for person, audit, counts in source.rows(world.crm, statement.format(before=limit, source=source.text, first=first, end=end)):
                yield Found(int(person), audit, bool(counts))


def put_aside(chunk: Chunk, found: Found, world: World, error_class: str, *, now: datetime) -> None:
    """End a chunk of one candidate: it is quarantined, unless a person waived it for that, or it is the live sync's."""
    receipt = Receipt()
    for _, _, reason in chunk.pairs or ():
        receipt.retried[reason] += 1
    problem = Problem(Reason.PROCESSING_FAILED, error_class=error_class)
    if not found.is_candidate:
        receipt.beyond["unreadable"] += 1
    elif (found.person, found.audit, problem.reason) in world.waived:
        receipt.waived[str(problem.reason)] += 1
    else:
        contacts = world.cdp.contacts(world.account_id, found.person, found.person).get(found.person, [])
        contact = contacts[0] if len(contacts) == 1 else None
        receipt.quarantined.append(Quarantined(found.person, found.audit, contact, problem))
    fences.settle(world.cdp, chunk, receipt)
    reason = f"audit {found.audit} of CRM person {found.person} is put aside: {error_class}"
    chunks.finish(chunk, receipt, seconds=0.0, now=now, reason=reason)


def parts(chunk: Chunk, found: list[Found]) -> list[Part]:
    """Two halves with about as many audits each, by contacts, or within one contact by audits; its neighbours without audits apart."""
    if chunk.pairs is not None:
        middle = len(chunk.pairs) // 2
        return [Part(half[0][0], half[-1][0], len(half), pairs=half) for half in (chunk.pairs[:middle], chunk.pairs[middle:])]
    first, middle_person = found[0].person, found[len(found) // 2].person
    cut = next((each.person for each in found if each.person >= middle_person and each.person > first), first)
    if cut > first:
        below = sum(each.person < cut for each in found)
        return [Part(chunk.person_from, cut - 1, below), Part(cut, chunk.person_to, len(found) - below)]
    half, middle = len(found) // 2, found[len(found) // 2].audit
    of_contact = [
        Part(first, first, half, chunk.audit_from, middle),
        Part(first, first, len(found) - half, middle, chunk.audit_to),
    ]
    lower = [Part(chunk.person_from, first - 1, 0)] if chunk.person_from < first else []
    upper = [Part(first + 1, chunk.person_to, 0)] if first < chunk.person_to else []
    return lower + of_contact + upper


def most_fail(run: Run) -> bool:
    """Whether more than half of the run's last fifty chunks that ended failed; never before fifty have.

    A part of a split chunk counts as failing only where all its fellows failed too: else it is the search for a single row, which halves
    a chunk again and again.
    """
    last = list(run.chunks.filter(ended_at__isnull=False).order_by("-ended_at", "-id")[:LAST])
    if len(last) < LAST:
        return False
    fellows: dict[int, list[Chunk]] = {}
    for each in run.chunks.filter(parent__in={chunk.parent_id for chunk in last if chunk.parent_id}):
        fellows.setdefault(each.parent_id or 0, []).append(each)
    return sum(failed(chunk) and all(map(failed, fellows.get(chunk.parent_id or 0, ()))) for chunk in last) > LAST / 2


def failed(chunk: Chunk) -> bool:
    """Failed, split, or done only by putting its candidate aside."""
    if chunk.state == ChunkState.SPLIT:
        return chunk.reason not in (SMALLER, chunks.TRIED_ANEW)
    return chunk.state == ChunkState.FAILED or bool(chunk.state == ChunkState.DONE and chunk.reason)
