"""The queue of record: claim, heartbeat, finish, hand back. Only this module writes chunks once they are cut.

Times are the database's, so that a worker whose clock is off cannot hold or lose a lease by it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.conf import settings
from django.db import close_old_connections, connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from migration.models import Chunk, NameCollision, QuarantinedCandidate, Run
from migration.pipeline.records import Receipt
from migration.states import ChunkState, check_chunk_move

MOST_ATTEMPTS = 3

CLAIM = """
    UPDATE migration_chunk SET state = 'leased', token = token + 1, attempts = attempts + 1, reason = '', not_before = NULL,
           lease_owner = %(owner)s, lease_expires_at = now() + make_interval(secs => %(lease)s)
    WHERE id = (
        SELECT id FROM migration_chunk
        WHERE run_id = %(run)s AND (state = 'pending' AND (not_before IS NULL OR not_before <= now())
                                    OR state = 'leased' AND lease_expires_at < now())
        ORDER BY number FOR UPDATE SKIP LOCKED LIMIT 1)
    RETURNING id"""


class LeaseLost(RuntimeError):
    """Another worker has the chunk now; what this one does with it must come to nothing."""


def lease() -> timedelta:
    return timedelta(seconds=settings.LEASE_SECONDS)


def claim(run: Run, *, owner: str) -> Chunk | None:
    """The run's next chunk that is pending, or whose lease ran out, now leased to `owner`; None where there is none at the moment.

    The attempt is counted before it is made. A chunk whose attempts are spent comes back too: the caller fails it.
    """
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, {"owner": owner, "lease": settings.LEASE_SECONDS, "run": run.pk})
        row = cursor.fetchone()
    return Chunk.objects.get(pk=row[0]) if row else None


def available(run: Run) -> bool:
    """Whether `claim` would find a chunk."""
    ready = Q(state=ChunkState.PENDING) & (Q(not_before__isnull=True) | Q(not_before__lte=Now()))
    return run.chunks.filter(ready | Q(state=ChunkState.LEASED, lease_expires_at__lt=Now())).exists()


def waiting(run: Run) -> int:
    """Chunks that are not done."""
    return run.chunks.filter(state__in=(ChunkState.PENDING, ChunkState.LEASED)).count()


def leases(run: Run) -> int:
    """Workers at the run's chunks right now."""
    return run.chunks.filter(state=ChunkState.LEASED, lease_expires_at__gte=Now()).count()


def held(chunk: Chunk) -> Q:
    """The chunk as this worker holds it: a later claim has a higher token."""
    return Q(pk=chunk.pk, state=ChunkState.LEASED, token=chunk.token)


def beat(chunk: Chunk) -> None:
    """Renew the lease; raises LeaseLost where it is another's."""
    if not Chunk.objects.filter(held(chunk)).update(lease_expires_at=Now() + lease()):
        raise LeaseLost(f"{chunk} was claimed by another worker")


@contextmanager
def heartbeat(chunk: Chunk) -> Iterator[None]:
    """Renew the lease from a thread of its own while the block works; a frozen process stops renewing, which is the point."""
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(settings.LEASE_SECONDS / 3):
            close_old_connections()
            try:
                beat(chunk)
            except LeaseLost:
                return  # the fence in the CDP keeps this worker out; the next checkpoint ends it
            except Exception:  # noqa: BLE001, S112 - the console's database is away: the next beat tries again, the lease decides
                continue
            finally:
                connection.close()

    thread = threading.Thread(target=renew, name=f"heartbeat-{chunk.pk}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def finish(chunk: Chunk, receipt: Receipt, *, seconds: float, now: datetime) -> None:
    """Record what the CDP has committed: the receipt, and as rows that staff can see the quarantined candidates and colliding names."""
    with transaction.atomic():
        move(chunk, ChunkState.DONE, reason="", receipt=receipt.as_json(), seconds=seconds)
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


def hand_back(chunk: Chunk, reason: str, *, outage: bool = False, wait: timedelta = timedelta(0)) -> None:
    """Let go of the chunk for another try; after an outage the attempt does not count."""
    move(chunk, ChunkState.PENDING, reason=reason, not_before=Now() + wait if wait else None, attempts=F("attempts") - (1 if outage else 0))


def failed_attempt(chunk: Chunk, reason: str) -> None:
    """A data error: try again, and after the last attempt fail the chunk."""
    if chunk.attempts >= MOST_ATTEMPTS:
        fail(chunk, reason)
    else:
        hand_back(chunk, reason)


def disagreed(chunk: Chunk, reason: str) -> None:
    """The rows read back are not what was mapped: do the chunk once more, as a new generation; the second time it fails."""
    if chunk.generation > 1:
        fail(chunk, reason)
    else:
        move(chunk, ChunkState.PENDING, reason=reason, generation=F("generation") + 1)


def fail(chunk: Chunk, reason: str) -> None:
    move(chunk, ChunkState.FAILED, reason=reason)


def move(chunk: Chunk, new: ChunkState, **fields: object) -> None:
    """From leased to `new`, if this worker still holds the lease; raises LeaseLost."""
    check_chunk_move(ChunkState.LEASED, new)
    if not Chunk.objects.filter(held(chunk)).update(state=new, lease_owner="", lease_expires_at=None, **fields):
        raise LeaseLost(f"{chunk} was claimed by another worker")


def send_back(run: Run, numbers: list[int]) -> int:
    """Have verified chunks done again, as a new generation; the number of them."""
    check_chunk_move(ChunkState.DONE, ChunkState.PENDING)
    return Chunk.objects.filter(run=run, number__in=numbers, state=ChunkState.DONE).update(
        state=ChunkState.PENDING, generation=F("generation") + 1, attempts=0, reason="verification sent it back"
    )


def is_held(run: Run) -> bool:
    """Whether any worker holds an unexpired lease on the run or one of its chunks."""
    alive = Q(lease_expires_at__gte=Now())
    return run.chunks.filter(alive, state=ChunkState.LEASED).exists() or Run.objects.filter(alive, pk=run.pk).exists()
