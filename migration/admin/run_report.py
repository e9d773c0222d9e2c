"""What a run's page tells beside the run's own columns. Reads, never writes."""

from datetime import datetime
from typing import Any

from django.db.models import Count, Sum

from migration import forecast, leases, ledger, progress
from migration.admin import charts, comparison, equation, links, samples
from migration.admin.quarantine import EXPLAINED
from migration.models import Chunk, Event, QuarantinedCandidate, Run
from migration.states import ACTIVE, ChunkState, Reason, RunState
from migration.watermark import ENTITIES

MOST_EVENTS = 50
MOST_TROUBLED_CHUNKS = 5

# What a state means where the run itself gives no reason.
MEANING = {
    RunState.PLANNED: "It waits for a worker to count the candidates and cut the chunks.",
    RunState.RUNNING: "Workers are at its chunks.",
    RunState.PAUSING: "A pause was asked for; workers are handing their chunks back.",
    RunState.PAUSED: "It is paused until a person resumes it.",
    RunState.INTERRUPTED: "It was interrupted; starting it again goes on where it stopped.",
    RunState.VERIFYING: "All chunks are done; what they did is being verified.",
    RunState.SUCCEEDED: "The ledger balances, verification agrees, and nothing is quarantined.",
    RunState.PARTIAL: "The ledger balances and verification agrees, but candidates are quarantined.",
    RunState.FAILED: "It failed without a reason on record; its events tell how far it came.",
    RunState.CANCELLING: "A person asked for its end; workers are handing their chunks back.",
    RunState.CANCELLED: "It was cancelled.",
    RunState.WITHDRAWING: "Its rows are being removed.",
    RunState.WITHDRAWN: "Its rows were removed.",
}
# While a worker holds a lease on it, and while none does.
ATTENDED = {RunState.PLANNED: "A worker is counting its candidates, and then cuts the chunks."}
ALONE = {
    RunState.RUNNING: "No worker is at its chunks at this moment; each tick asks for one.",
    RunState.VERIFYING: "All chunks are done; it waits for a worker to verify what they did.",
}


def of(run: Run, *, now: datetime) -> dict[str, Any]:
    """The page's parts, by the names that its template uses."""
    found = ledger.of(run)
    return {
        "is_active": run.state in ACTIVE,
        "sentence": run.reason or meaning(run),
        "took": (run.finished_at or now) - run.started_at if run.started_at else None,
        "production_takes": forecast.production_takes(run),
        "progress": progress.of(run, now=now),
        "equation": equation.of(run, found),
        "categories": charts.bars(found.categories),
        "actor_kinds": charts.bars(found.actor_kinds),
        "recategorised": charts.bars(found.recategorised),
        "removed": charts.bars((run.withdrawal or {}).get("removed", {})),
        "left_to_live": charts.bars(found.beyond),
        "examples": (run.verification or {}).get("examples", []),
        "figures": list(comparison.figures(run)),
        "prediction": comparison.prediction(run, found),
        "quarantine": quarantine(run),
        "samples": [] if run.writes else samples.of(run.chunks.all()),
        "watermark": by_entity(run.watermark),
        "boundary": by_entity(run.boundary),
        "events": run.events.order_by("-id")[:MOST_EVENTS],
        "chunks": chunks_by_state(run),
        "troubled_chunks": run.chunks.exclude(reason="").exclude(state=ChunkState.DONE).order_by("number")[:MOST_TROUBLED_CHUNKS],
        "lists": {
            "chunks": links.listing(Chunk, run=run.pk),
            "quarantine": links.listing(QuarantinedCandidate, run=run.pk),
            "events": links.listing(Event, run=run.pk),
        },
    }


def meaning(run: Run) -> str:
    """What its state means; where workers have something to do, by whether one is at it."""
    state = RunState(run.state)
    if state in (*ATTENDED, *ALONE):
        return (ATTENDED if leases.is_held(run) else ALONE).get(state, MEANING[state])
    return MEANING[state]


def by_entity(found: dict[str, Any] | None) -> list[tuple[str, Any]]:
    """In the order in which people name the entities; jsonb has another one."""
    return sorted((found or {}).items(), key=lambda item: ENTITIES.index(item[0]) if item[0] in ENTITIES else len(ENTITIES))


def chunks_by_state(run: Run) -> list[dict[str, Any]]:
    """`{"state", "chunks", "audits", "seconds", "url"}` for each state that chunks are in, in the order of a chunk's life."""
    sums = {"chunks": Count("id"), "audits": Sum("expected"), "seconds": Sum("seconds")}
    counted = {row["state"]: row for row in run.chunks.order_by().values("state").annotate(**sums)}
    return [{**counted[state], "url": links.listing(Chunk, run=run.pk, state=state)} for state in ChunkState if state in counted]


def quarantine(run: Run) -> list[dict[str, Any]]:
    """`{"reason", "count", "waived", "about", "url"}`, the most frequent first; `count` holds the waived too."""
    counted = run.quarantined.order_by().values("reason").annotate(count=Count("id"), waived=Count("waiver")).order_by("-count", "reason")
    return [
        {**row, "about": EXPLAINED[Reason(row["reason"])], "url": links.listing(QuarantinedCandidate, run=run.pk, reason=row["reason"])}
        for row in counted
    ]
