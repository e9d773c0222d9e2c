"""What keeps a run's row locked: no claim gets past it, and nobody who finishes a chunk waits for it."""

from contextlib import closing

import pytest
from django.db import OperationalError, connection, transaction

from migration import chunks, runs
from migration.states import ChunkState, RunMode, RunState
from tests import factories


def is_free(run, lock: str) -> bool:
    """Whether another session would get the lock on the run's row at once."""
    with closing(connection.copy()) as other, other.cursor() as cursor:
        try:
            cursor.execute(f"SELECT 1 FROM migration_run WHERE id = %s FOR {lock} NOWAIT", [run.pk])
        except OperationalError:
            return False
    return True


def seize(run, chunk) -> None:
    runs.seized(run)


def start_another(run, chunk) -> None:
    runs.continued(runs.Wish(run.account, RunMode.PRODUCTION), {"mode": RunMode.PRODUCTION}, by="ana", now=factories.NOON)


def split(run, chunk) -> None:
    chunks.split(chunk, [chunks.Part(10, 14, 5), chunks.Part(15, 19, 5)], "it failed")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("locking", [seize, start_another, split])
def test_whoever_finishes_a_chunk_with_quarantined_candidates_never_waits_for_the_run(locking, settings):
    """Their foreign keys take KEY SHARE on the run; a claim takes SHARE."""
    settings.CRM_DATABASE_URL = settings.CDP_DATABASE_URL = "postgresql://nobody:x@127.0.0.1:1/none"
    run = factories.run(RunState.RUNNING, RunMode.DRY_RUN)
    chunk = factories.chunk(run, ChunkState.LEASED)
    assert is_free(run, "SHARE")
    with transaction.atomic():
        locking(run, chunk)
        assert (is_free(run, "KEY SHARE"), is_free(run, "SHARE")) == (True, False)
