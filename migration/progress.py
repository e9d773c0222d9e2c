"""How far a run is and when it may end: questions that commands, admin and API ask; read only."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Q, Sum

from migration.models import Run
from migration.states import FINISHED, ChunkState, RunState

RESTING = {f"run {state}" for state in (RunState.PAUSED, RunState.INTERRUPTED, *FINISHED)}


@dataclass(frozen=True)
class Progress:
    """Audits done of audits to do, by the counts of the planning; `rate` in audits a second while the run was at work, 0 before."""

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
    seconds = at_work(run, run.started_at, run.finished_at or now).total_seconds() if run.started_at else 0
    finished = sums["done"] or 0
    return Progress(finished, sums["total"] or 0, sums["chunks_done"], sums["chunks"], finished / seconds if seconds > 0 else 0.0)


def at_work(run: Run, start: datetime, end: datetime) -> timedelta:
    """The time between the two, without that in which the run was paused, interrupted, or had ended before it was tried again; by its events.

    A night in which a batch's window is closed says nothing of the pace.
    """
    moves = run.events.filter(kind__in=[f"run {state}" for state in RunState]).order_by("id").values_list("kind", "at")
    rested, since = timedelta(0), None
    for kind, at in [*moves, ("", end)]:
        if kind in RESTING:
            since = since or at
        elif since is not None:
            rested, since = rested + max(timedelta(0), min(at, end) - max(since, start)), None
    return end - start - rested
