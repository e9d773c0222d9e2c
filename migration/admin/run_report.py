"""What a run's page tells: whether the ledger balances, what verification found, how it compares with the dry run. Reads, never writes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, QuerySet, Sum

from migration import ledger, progress, reports
from migration.admin import charts, links, samples
from migration.admin.quarantine import EXPLAINED
from migration.ledger import Ledger
from migration.models import Chunk, Event, QuarantinedCandidate, Run
from migration.states import ACTIVE, ChunkState, Reason, RunState

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
SINGLE = ("written", "corrected", "unchanged", "already_live")
BY_RULE = ("skipped", "quarantined", "waived")


@dataclass(frozen=True)
class Line:
    """One outcome in the ledger's sum; `detail` is the rule or reason, `url` lists the candidates where there is a list."""

    outcome: str
    detail: str
    count: int
    share: str
    url: str


@dataclass(frozen=True)
class Sum:
    """The ledger as an equation: `candidates` = the sum of `lines`, which is `outcomes`; `verdict` is a pill of display.py."""

    candidates: int
    outcomes: int
    lines: list[Line]
    slices: list[charts.Slice]
    verdict: str
    off_by: int
    sentence: str


@dataclass(frozen=True)
class Figure:
    """One figure with what it counts; `count` is None where it was not looked for."""

    name: str
    count: int | None
    about: str
    is_bad: bool = False


@dataclass(frozen=True)
class Pair:
    """One figure of the dry run beside the same of this run."""

    name: str
    predicted: int
    actual: int

    @property
    def difference(self) -> str:
        return f"{self.actual - self.predicted:+,}" if self.actual != self.predicted else ""


def of(run: Run, *, now: datetime) -> dict[str, Any]:
    """All that the page shows beside the run's own columns."""
    found = ledger.of(run)
    return {
        "is_active": run.state in ACTIVE,
        "sentence": run.reason or MEANING[RunState(run.state)],
        "took": (run.finished_at or now) - run.started_at if run.started_at else None,
        "progress": progress.of(run, now=now),
        "sum": balance(run, found) if run.candidates is not None else None,
        "categories": charts.bars(found.categories),
        "actor_kinds": charts.bars(found.actor_kinds),
        "recategorised": charts.bars(found.recategorised),
        "left_to_live": charts.bars(found.beyond),
        "verdict": reports.verdict(run) if run.verification else "",
        "figures": list(figures(run)),
        "examples": (run.verification or {}).get("examples", []),
        "prediction": prediction(run, found),
        "quarantine": quarantine(run),
        "all_quarantined": links.listing(QuarantinedCandidate, run=run.pk),
        "samples": [] if run.writes else samples.of(run.chunks.all()),
        "events": events(run),
        "all_events": links.listing(Event, run=run.pk),
    } | chunk_context(run)


# --- the ledger -----------------------------------------------------------------------------------------------------


def balance(run: Run, found: Ledger) -> Sum:
    shown = list(lines(run, found))
    missing = found.candidates - found.outcomes
    parts = [(line.outcome, f"{line.outcome} {line.detail}".strip(), line.count) for line in shown]
    return Sum(
        candidates=found.candidates,
        outcomes=found.outcomes,
        lines=shown,
        slices=charts.stacked([*parts, ("open", "without an outcome", missing)]),
        verdict=verdict(run, found),
        off_by=abs(missing),
        sentence=imbalance(missing),
    )


def lines(run: Run, found: Ledger) -> Iterator[Line]:
    """Every kind of outcome has its line, be it zero; rules and reasons have one each."""

    def line(outcome: str, detail: str, count: int) -> Line:
        url = links.listing(QuarantinedCandidate, run=run.pk, reason=detail) if outcome == "quarantined" and detail else ""
        return Line(outcome, detail, count, charts.share(count, found.candidates), url)

    for name in SINGLE:
        yield line(name, "", getattr(found, name))
    for name in BY_RULE:
        counts = getattr(found, name)
        yield from (line(name, rule, count) for rule, count in sorted(counts.items()))
        if not counts:
            yield line(name, "", 0)


def verdict(run: Run, found: Ledger) -> str:
    if found.balances:
        return "balances"
    return "does not balance yet" if run.state in ACTIVE else "does not balance"


def imbalance(missing: int) -> str:
    if missing > 0:
        return f"{missing:,} of the candidates counted on the source {'has' if missing == 1 else 'have'} no outcome."
    return f"There are {-missing:,} more outcomes than candidates counted on the source." if missing else ""


# --- verification and prediction ------------------------------------------------------------------------------------


def figures(run: Run) -> Iterator[Figure]:
    """Verification's figures (reconcile.Verification); a dry run has no rows to look for, so there they are not zero but unknown."""
    found = run.verification
    if not found:
        return
    differs = found["candidates"] != found["accounted"]
    yield Figure("candidates", found["candidates"], "counted afresh on the source, by a query of its own")
    yield Figure("accounted", found["accounted"], "of the ledger: candidates with an outcome", differs)
    rows = found if run.writes else {}
    yield Figure("missing", rows.get("missing"), "candidates without a row, a live row or another outcome", bool(rows.get("missing")))
    yield Figure("sampled", rows.get("sampled"), "candidates mapped again from scratch")
    yield Figure("differing", rows.get("differing"), "sampled rows that are not what mapping them again gives", bool(rows.get("differing")))
    yield Figure("stale", rows.get("stale"), "rows of ours that are candidates no more; counted, never removed by themselves")


def prediction(run: Run, found: Ledger) -> dict[str, Any] | None:
    """The dry run's figures beside this run's, in groups; None where there is no dry run to compare with."""
    both = reports.prediction(run, found)
    if both is None:
        return None
    predicted, actual = both["predicted"], both["actual"]
    groups = [
        ("Outcomes", pairs(outcomes(predicted), outcomes(actual))),
        ("Categories", pairs(predicted["categories"], actual["categories"])),  # type: ignore[index]
        ("Actor kinds", pairs(predicted["actor_kinds"], actual["actor_kinds"])),  # type: ignore[index]
    ]
    differing = sum(bool(pair.difference) for _, group in groups for pair in group)
    return {"run": both["run"], "url": links.address(Run, both["run"]), "agrees": both["agrees"], "groups": groups, "differing": differing}


def outcomes(figures: Any) -> dict[str, int]:
    """`reports.figures` in one level: `skipped nothing_changed` for the rule in `skipped`."""
    flat = {name: figures[name] for name in ("candidates", *SINGLE)}
    return flat | {f"{name} {rule}": count for name in BY_RULE for rule, count in figures[name].items()}


def pairs(predicted: Mapping[str, int], actual: Mapping[str, int]) -> list[Pair]:
    return [Pair(name, predicted.get(name, 0), actual.get(name, 0)) for name in [*predicted, *(name for name in actual if name not in predicted)]]


# --- chunks, quarantine, events -------------------------------------------------------------------------------------


def chunk_context(run: Run) -> dict[str, Any]:
    """Chunks by state, and the first that say why they wait or failed."""
    counted = {row["state"]: row for row in run.chunks.order_by().values("state").annotate(chunks=Count("id"), audits=Sum_("expected"), seconds=Sum_("seconds"))}
    states = [counted[state] | {"url": links.listing(Chunk, run=run.pk, state=state)} for state in ChunkState if state in counted]
    troubled = run.chunks.exclude(reason="").exclude(state=ChunkState.DONE).order_by("number")[:MOST_TROUBLED_CHUNKS]
    return {"chunks": states, "troubled_chunks": troubled, "all_chunks": links.listing(Chunk, run=run.pk)}


def quarantine(run: Run) -> list[dict[str, Any]]:
    """By reason: the count, what the reason means, and where the candidates are listed."""
    counted = run.quarantined.order_by().values("reason").annotate(count=Count("id")).order_by("-count", "reason")
    url = links.listing
    return [row | {"about": EXPLAINED[Reason(row["reason"])], "url": url(QuarantinedCandidate, run=run.pk, reason=row["reason"])} for row in counted]


def events(run: Run) -> QuerySet[Event]:
    """Newest first; those beyond the limit are on the list of events."""
    return run.events.order_by("-id")[:MOST_EVENTS]
