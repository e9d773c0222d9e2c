"""How far a run is and when it may end: questions that commands, admin and API ask; read only."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Q, Sum

from migration.models import Run
from migration.states import ChunkState


@dataclass(frozen=True)
class Progress:
    """Audits done of audits to do, by the counts of the planning; `rate` in audits a second since the run started, 0 before."""

    done: int
    total: int
    chunks_done: int
    chunks: int
    rate: float

    @property
    def percent(self) -> int:
        return 100 * self.done // self.total if self.total else 0

    @property
    def eta(self) -> timedelta | None:
        """Time left at the rate so far; None where there is no rate yet."""
        return timedelta(seconds=(self.total - self.done) / self.rate) if self.rate else None


def of(run: Run, *, now: datetime) -> Progress:
    done = Q(state=ChunkState.DONE)
    sums = run.chunks.aggregate(
        total=Sum("expected"),
        done=Sum("expected", filter=done),
        chunks=Count("id", filter=~Q(state=ChunkState.SPLIT)),
        chunks_done=Count("id", filter=done),
    )
    seconds = ((run.finished_at or now) - run.started_at).total_seconds() if run.started_at else 0
    finished = sums["done"] or 0
    return Progress(finished, sums["total"] or 0, sums["chunks_done"], sums["chunks"], finished / seconds if seconds > 0 else 0.0)
