"""The queue of record: claim, heartbeat, finish, hand back. Only this module writes chunks once they are cut.

Times are the database's, so that a worker whose clock is off cannot hold or lose a lease by it.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.db import close_old_connections, connection, transaction
from django.db.models import F, Max, Q
from django.db.models.functions import Now

from migration import summaries, tallies
from migration.models import Chunk, NameCollision, QuarantinedCandidate, Run
from migration.pipeline.records import Receipt
from migration.states import ChunkState, RunState, check_chunk_move

MOST_ATTEMPTS = 3
TRIED_ANEW = "verification sent back the chunks that its candidates lie in"

# The run's row is locked against changes of its state: once a pause or an end is asked for, nobody claims any more.
CLAIM = """
    WITH run AS (SELECT id FROM migration_run WHERE id = %(run)s AND state = 'running' FOR SHARE)
    UPDATE migration_chunk SET state = 'leased', token = token + 1, attempts = attempts + 1, reason = '', not_before = NULL,
           lease_owner = %(owner)s, lease_expires_at = now() + make_interval(secs => %(lease)s), sessions = %(sessions)s
    WHERE id = (
        SELECT id FROM migration_chunk
        WHERE run_id = (SELECT id FROM run) AND state = 'pending' AND (not_before IS NULL OR not_before <= now())
        ORDER BY number FOR UPDATE SKIP LOCKED LIMIT 1)
    RETURNING id"""

FREE = """
    UPDATE migration_chunk SET state = 'pending', lease_owner = '', lease_expires_at = NULL, reason = lease_owner || ' did not come back'
    WHERE id IN (
        SELECT id FROM migration_chunk WHERE state = 'leased' AND lease_expires_at < now() AND (%(run)s::bigint IS NULL OR run_id = %(run)s)
        FOR UPDATE SKIP LOCKED)
    RETURNING id"""

Sessions = dict[str, list[tuple[int, str]]]  # system -> process id and start of each session that a worker has there


@dataclass(frozen=True)
class Part:
    """A smaller chunk that takes a split one's place; the fields are the chunk's."""

    person_from: int
    person_to: int
    expected: int
    audit_from: int | None = None
    audit_to: int | None = None
    pairs: list[list[Any]] | None = None


class LeaseLost(RuntimeError):
    """Another worker has the chunk now; what this one does with it must come to nothing."""


class Unwanted(RuntimeError):
    """The run is to end: the chunk is handed back at once."""


def lease() -> timedelta:
    return timedelta(seconds=settings.LEASE_SECONDS)


def claim(run: Run, *, owner: str, sessions: Sessions | None = None) -> Chunk | None:
    """The next pending chunk of a running run, now leased to `owner`; None where there is none at the moment.

    The attempt is counted before it is made. A chunk whose attempts are spent comes back too: the caller splits it. One whose lease
    ran out is pending again once `free` has been called.
    """
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, {"owner": owner, "lease": settings.LEASE_SECONDS, "run": run.pk, "sessions": json.dumps(sessions)})
        row = cursor.fetchone()
    return Chunk.objects.get(pk=row[0]) if row else None


def free(run: Run | None = None) -> list[Chunk]:
    """Make pending what is leased by a worker that did not renew in time, in one run or in all; the attempt stays counted."""
    with connection.cursor() as cursor:
        cursor.execute(FREE, {"run": run.pk if run else None})
        return list(Chunk.objects.filter(pk__in=[row[0] for row in cursor.fetchall()]).select_related("run"))


def let_go(run: Run, *, owner: str) -> None:
    """Hand back whatever a worker that has to stop holds of the run, wherever in its work that was; the attempt does not count."""
    connection.close()  # it may have been left in the middle of a statement
    run.chunks.filter(state=ChunkState.LEASED, lease_owner=owner).update(
        state=ChunkState.PENDING, attempts=F("attempts") - 1, lease_owner="", lease_expires_at=None, reason="the worker was stopped"
    )


def take_away(run: Run) -> list[Chunk]:
    """Make pending whatever of the run is leased, under a higher token; the chunks that were."""
    check_chunk_move(ChunkState.LEASED, ChunkState.PENDING)
    taken = list(run.chunks.select_for_update(of=("self",)).filter(state=ChunkState.LEASED))  # ordering by run, it would lock that too
    fields = {"state": ChunkState.PENDING, "token": F("token") + 1, "lease_owner": "", "lease_expires_at": None}
    run.chunks.filter(pk__in=[chunk.pk for chunk in taken]).update(**fields, reason="its lease was taken away")
    return taken


def wake(run: Run) -> None:
    """Let chunks that wait out an outage be claimed at once."""
    run.chunks.filter(state=ChunkState.PENDING).update(not_before=None)


def held(chunk: Chunk) -> Q:
    """The chunk as this worker holds it: a later claim has a higher token."""
    return Q(pk=chunk.pk, state=ChunkState.LEASED, token=chunk.token)


def checkpoint(chunk: Chunk, name: str) -> None:
    """Between two phases of the work: raises LeaseLost, and Unwanted where the run is to end and nothing is committed yet. Renewing is `heartbeat`'s."""
    state = Chunk.objects.filter(held(chunk)).values_list("run__state", flat=True).first()
    if state is None:
        raise LeaseLost(f"{chunk} was claimed by another worker")
    if name != "committed" and state == RunState.CANCELLING:
        raise Unwanted(f"{chunk} belongs to a run that is to end")


def beat(chunk: Chunk) -> None:
    """Renew the lease; raises LeaseLost where it is another's."""
    if not Chunk.objects.filter(held(chunk)).update(lease_expires_at=Now() + lease()):
        raise LeaseLost(f"{chunk} was claimed by another worker")


def heartbeat(chunk: Chunk) -> AbstractContextManager[None]:
    """Renew the chunk's lease while the block works."""
    return renewing(partial(beat, chunk), name=f"heartbeat-{chunk.pk}")


@contextmanager
def renewing(renew: Callable[[], None], *, name: str) -> Iterator[None]:
    """Renew a lease from a thread of its own while the block works; a frozen process stops renewing, which is the point.

    `renew` raises LeaseLost where the lease is another's.
    """
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(settings.LEASE_SECONDS / 3):
            close_old_connections()
            try:
                renew()
            except LeaseLost:
                return  # the fence in the CDP keeps this worker out; the next checkpoint ends it
            except Exception:  # noqa: BLE001, S112 - the console's database is away: the next beat tries again, the lease decides  # nosec B112
                continue
            finally:
                connection.close()

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def finish(chunk: Chunk, receipt: Receipt, *, seconds: float, now: datetime, reason: str = "") -> None:
    """Record what the CDP has committed: the receipt, and as rows that staff can see the quarantined candidates and colliding names.
    `reason` says, for a chunk that could not be done, what was done in its place."""
    with transaction.atomic():
        move(chunk, ChunkState.DONE, reason=reason, receipt=receipt.as_json(), seconds=seconds, ended_at=Now())
        replace_quarantined(chunk, receipt)
        NameCollision.objects.bulk_create(
            [
                NameCollision(
                    account_id=chunk.run.account_id,
                    role=c.role,
                    record_id=c.record_id,
                    class_name=c.class_name,
                    version=c.version,
                    candidates=c.candidates,
                    first_seen_at=now,
                )
                for c in receipt.collisions
            ],
            ignore_conflicts=True,  # known from an earlier chunk or run, perhaps decided since
        )
        summaries.progress(chunk, receipt, now=now)
        tallies.count(chunk.run.mode, receipt)


def replace_quarantined(chunk: Chunk, receipt: Receipt) -> None:
    """Put the receipt's quarantined candidates in the place of what this chunk, or the one it tries again, had put there."""
    QuarantinedCandidate.objects.filter(chunk=chunk).delete()
    for person, audit, _ in chunk.pairs or ():
        QuarantinedCandidate.objects.filter(run_id=chunk.run_id, person_id=person, audit_id=audit).delete()
    QuarantinedCandidate.objects.bulk_create(
        [
            QuarantinedCandidate(
                run_id=chunk.run_id,
                chunk=chunk,
                account_id=chunk.run.account_id,
                person_id=q.person_id,
                audit_id=q.audit_id,
                contact_id=q.contact_id,
                reason=q.problem.reason,
                detail=q.problem.detail,
                error_class=q.problem.error_class,
            )
            for q in receipt.quarantined
        ],
        batch_size=1000,
    )


def hand_back(chunk: Chunk, reason: str, *, outage: bool = False, wait: timedelta = timedelta(0), **fields: object) -> None:
    """Let go of the chunk for another try; after an outage the attempt does not count."""
    until = Now() + wait if wait else None
    move(chunk, ChunkState.PENDING, reason=reason, attempts=F("attempts") - int(outage), not_before=until, **fields)


def split(chunk: Chunk, parts: list[Part], reason: str, *, searching: bool = True) -> list[int]:
    """Put smaller chunks in a chunk's place, numbered after the run's last; their numbers.

    Where they are a search for what is at fault, each has one try; only a single candidate is tried as often as a chunk.
    """
    with transaction.atomic():
        Run.objects.select_for_update(no_key=True).get(pk=chunk.run_id)  # two splits at once would give the same numbers
        last = Chunk.objects.filter(run=chunk.run_id).aggregate(last=Max("number"))["last"]
        move(chunk, ChunkState.SPLIT, reason=reason, expected=0, ended_at=Now())
        made = [
            Chunk(
                uuid=uuid4(),
                run_id=chunk.run_id,
                parent=chunk,
                number=number,
                attempts=MOST_ATTEMPTS - 1 if searching and part.expected > 1 else 0,
                **vars(part),
            )
            for number, part in enumerate(parts, last + 1)
        ]
        Chunk.objects.bulk_create(made)
    return [part.number for part in made]


def disagreed(chunk: Chunk, reason: str) -> None:
    """The rows read back are not what was mapped: do the chunk once more, as a new generation; the second time it fails."""
    if chunk.generation > 1:
        fail(chunk, reason)
    else:
        move(chunk, ChunkState.PENDING, reason=reason, generation=F("generation") + 1)


def fail(chunk: Chunk, reason: str) -> None:
    move(chunk, ChunkState.FAILED, reason=reason, ended_at=Now())


def revive(run: Run) -> int:
    """Have failed chunks tried again, and give those that wait their attempts back; how many failed. A receipt of the failed try is not adopted."""
    check_chunk_move(ChunkState.FAILED, ChunkState.PENDING)
    run.chunks.filter(ended_at__isnull=False).update(ended_at=None)  # what failed before says nothing of what comes
    run.chunks.filter(state=ChunkState.PENDING).update(attempts=0, not_before=None)
    return run.chunks.filter(state=ChunkState.FAILED).update(
        state=ChunkState.PENDING, attempts=0, generation=F("generation") + 1, reason="a person has it tried again"
    )


def move(chunk: Chunk, new: ChunkState, **fields: object) -> None:
    """From leased to `new`, if this worker still holds the lease; raises LeaseLost."""
    check_chunk_move(ChunkState.LEASED, new)
    if not Chunk.objects.filter(held(chunk)).update(state=new, lease_owner="", lease_expires_at=None, **fields):
        raise LeaseLost(f"{chunk} was claimed by another worker")


def send_back(run: Run, numbers: set[int], *, with_retries: bool) -> int:
    """Have verified chunks done again, as a new generation; the number of them.

    `with_retries`: quarantined candidates of theirs were tried again. Done anew they try them themselves, so the chunks that did so count no more.
    """
    check_chunk_move(ChunkState.DONE, ChunkState.PENDING)
    check_chunk_move(ChunkState.DONE, ChunkState.SPLIT)
    if with_retries:
        retries = run.chunks.filter(pairs__isnull=False, state=ChunkState.DONE)
        QuarantinedCandidate.objects.filter(chunk__in=retries).delete()
        retries.update(state=ChunkState.SPLIT, expected=0, reason=TRIED_ANEW)
    return Chunk.objects.filter(run=run, number__in=numbers, state=ChunkState.DONE).update(
        state=ChunkState.PENDING, generation=F("generation") + 1, attempts=0, reason="verification sent it back", ended_at=None
    )
