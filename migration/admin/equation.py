"""A run's ledger as an equation: candidates = the sum of all outcomes, line by line, and as one stacked bar."""

from collections.abc import Iterator
from dataclasses import dataclass

from migration.admin import charts, links
from migration.ledger import Ledger
from migration.models import QuarantinedCandidate, Run
from migration.states import ACTIVE

SINGLE = ("written", "corrected", "unchanged", "already_live")
BY_RULE = ("skipped", "quarantined", "waived")


@dataclass(frozen=True)
class Line:
    """One outcome; `detail` is the rule or reason, `url` lists the candidates where there is a list of them."""

    outcome: str
    detail: str
    count: int
    share: str
    url: str


@dataclass(frozen=True)
class Equation:
    """`candidates` = the sum of `lines`, which is `outcomes`, or it is `off_by` a number; `verdict` names a pill of display.py."""

    candidates: int
    outcomes: int
    lines: list[Line]
    slices: list[charts.Slice]
    verdict: str
    off_by: int
    sentence: str


def of(run: Run, found: Ledger) -> Equation | None:
    """None where the candidates are not counted yet."""
    if run.candidates is None:
        return None
    shown = list(lines(run, found))
    missing = found.candidates - found.outcomes
    parts = [(line.outcome, f"{line.outcome} {line.detail}".strip(), line.count) for line in shown]
    return Equation(
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
        waived = {"quarantined": "no", "waived": "yes"}.get(outcome)
        url = links.listing(QuarantinedCandidate, run=run.pk, reason=detail, waived=waived) if waived and detail else ""
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
    return f"{-missing:,} more {'outcome' if missing == -1 else 'outcomes'} than candidates counted on the source." if missing else ""
