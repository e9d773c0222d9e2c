"""Fences in the CDP that somebody else than a chunk's worker raises: what that worker may still try to write is refused there."""

import json
from collections.abc import Iterable
from contextlib import closing

import psycopg

from migration import worlds
from migration.cdp import Cdp
from migration.doors import Outage
from migration.models import Chunk, Run
from migration.pipeline.records import Receipt
from migration.states import ChunkState

NO_TOKEN_IS_HIGHER = 2**63 - 1  # of the receipts of a run that was withdrawn

RAISE = """
    INSERT INTO calm.receipts AS r (chunk, run_id, account_id, token, generation)
    SELECT chunk, %(run)s, %(account)s, token, generation
    FROM unnest(%(chunks)s::uuid[], %(tokens)s::bigint[], %(generations)s::integer[]) AS f(chunk, token, generation) ORDER BY chunk
    ON CONFLICT (chunk) DO UPDATE SET token = greatest(r.token, excluded.token)
    RETURNING generation, receipt"""

SETTLE = """
    INSERT INTO calm.receipts AS r (chunk, run_id, account_id, token, generation, receipt, committed_at)
    VALUES (%(chunk)s, %(run)s, %(account)s, %(token)s, %(generation)s, %(receipt)s, now())
    ON CONFLICT (chunk) DO UPDATE SET token = excluded.token, generation = excluded.generation, receipt = excluded.receipt,
        committed_at = excluded.committed_at
    WHERE r.token <= excluded.token"""


def shut_out(run: Run) -> None:
    """Let nobody write any more who was ever at a chunk of this run that is not done. Asks the CDP only where there may be somebody.

    A run that was planned on another CDP is left alone: what its workers may still write, they write there. Raises Outage where the CDP
    does not answer, or a session there still holds a fence.
    """
    open_chunks = list(unfinished(run))
    if open_chunks and run.systems == worlds.systems():
        with closing(Cdp()) as cdp:
            raised(cdp, run, open_chunks)


def unfinished(run: Run) -> Iterable[Chunk]:
    """Chunks of a run that writes, which somebody began and nobody finished. A split one's fence is raised when it is split."""
    if not run.writes:
        return run.chunks.none()
    return run.chunks.filter(token__gt=0).exclude(state__in=(ChunkState.DONE, ChunkState.SPLIT))


def committed(cdp: Cdp, chunk: Chunk) -> Receipt | None:
    """Keep every other worker of this chunk from writing; its receipt, where one of them had committed it in this generation."""
    if not chunk.run.writes:
        return None
    generation, receipt = raised(cdp, chunk.run, [chunk])[0]
    return Receipt.from_json(receipt) if receipt and generation == chunk.generation else None


def highest(cdp: Cdp, chunk: Chunk) -> int:
    """The highest fencing token that the CDP has seen for the chunk."""
    return cdp.rows("SELECT token FROM calm.receipts WHERE chunk = %s", (chunk.uuid,))[0][0]


def settle(cdp: Cdp, chunk: Chunk, receipt: Receipt) -> None:
    """Keep a receipt that comes with no row. A later holder's fence stays as it is: then the console's own lease decides."""
    if chunk.run.writes:
        names = names_of(chunk.run) | {"chunk": chunk.uuid, "token": chunk.token + 1, "generation": chunk.generation}
        with cdp.transaction() as connection:
            connection.execute(SETTLE, names | {"receipt": json.dumps(receipt.as_json())})


def raised(cdp: Cdp, run: Run, chunks: list[Chunk]) -> list[tuple[int, dict | None]]:
    """Raise each chunk's fence above the token it was last claimed with; (generation, receipt) of each, as the CDP has them."""
    names = names_of(run) | {
        "chunks": [chunk.uuid for chunk in chunks],
        "tokens": [chunk.token + 1 for chunk in chunks],
        "generations": [chunk.generation for chunk in chunks],
    }
    cdp.prepare()  # it may have gone back to an older copy
    with cdp.transaction() as connection:
        try:
            return connection.execute(RAISE, names).fetchall()
        except psycopg.errors.LockNotAvailable as error:
            raise Outage(
                f"CDP_DATABASE_URL: a session of a worker of {run} still holds a chunk there; it is ended within a minute."
            ) from error


def names_of(run: Run) -> dict[str, object]:
    return {"run": run.uuid, "account": run.account.cdp_id}
