"""What was expected beside what came: verification's figures, and the dry run's prediction."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from migration import reports
from migration.admin import links
from migration.admin.equation import BY_RULE, SINGLE
from migration.ledger import Ledger
from migration.models import Run


@dataclass(frozen=True)
class Figure:
    """One figure of verification and what it counts; None where it was not looked for. `problem` says what is wrong with it, if anything."""

    name: str
    count: int | None
    about: str
    problem: str = ""


def figures(run: Run) -> Iterator[Figure]:
    """reconcile.Verification's figures. A dry run has no rows to look for, so there those of rows are not zero but unknown."""
    found = run.verification
    if not found:
        return
    differs = "should be the candidates" if found["candidates"] != found["accounted"] else ""
    rows = found if run.writes else {}
    yield Figure("candidates", found["candidates"], "counted afresh on the source, by a query of its own")
    yield Figure("accounted", found["accounted"], "candidates that have an outcome in the ledger", differs)
    if found.get("uneven"):
        yield Figure(
            "uneven", found["uneven"], "chunks that account for more or fewer than the source has there", none_wanted(found["uneven"])
        )
    yield Figure(
        "missing", rows.get("missing"), "candidates without a row, a live row or another outcome", none_wanted(rows.get("missing"))
    )
    if found.get("lost"):
        yield Figure("lost", found["lost"], "chunks that are done, without a receipt in the CDP", none_wanted(found["lost"]))
    yield Figure("sampled", rows.get("sampled"), "candidates mapped again from scratch")
    yield Figure("differing", rows.get("differing"), "sampled rows that are not what that gives", none_wanted(rows.get("differing")))
    if "misfits" in found:  # not with runs that an earlier release verified
        yield Figure(
            "misfits", rows.get("misfits"), "rows of ours under an id or an account not their own", none_wanted(rows.get("misfits"))
        )
    yield Figure(
        "stale", rows.get("stale"), "rows of ours that are candidates no more, or another tenant's by now; never removed by themselves"
    )
    if found.get("rounds", 1) > 1:
        yield Figure("rounds", found["rounds"], "verifications; after each but the last, chunks that disagreed were done again")


def none_wanted(count: int | None) -> str:
    return "should be none" if count else ""


@dataclass(frozen=True)
class Pair:
    """One figure of the dry run beside the same of this run."""

    name: str
    predicted: int
    actual: int

    @property
    def difference(self) -> str:
        return f"{self.actual - self.predicted:+,}" if self.actual != self.predicted else ""


def prediction(run: Run, found: Ledger) -> dict[str, Any] | None:
    """The dry run's figures beside this run's, in groups; None where there is no dry run to compare with."""
    both: dict[str, Any] | None = reports.prediction(run, found)
    if both is None:
        return None
    predicted, actual = both["predicted"], both["actual"]
    groups = [
        ("Outcomes", pairs(outcomes(predicted), outcomes(actual))),
        ("Categories", pairs(predicted["categories"], actual["categories"])),
        ("Actor kinds", pairs(predicted["actor_kinds"], actual["actor_kinds"])),
    ]
    differing = sum(bool(pair.difference) for _, group in groups for pair in group)
    return {"run": both["run"], "url": links.address(Run, both["run"]), "agrees": both["agrees"], "groups": groups, "differing": differing}


def outcomes(figures: Mapping[str, Any]) -> dict[str, int]:
    """`reports.figures` in one level: `skipped nothing_changed` is the rule in `skipped`."""
    flat = {name: figures[name] for name in ("candidates", *SINGLE)}
    return flat | {f"{name} {rule}": count for name in BY_RULE for rule, count in figures[name].items()}


def pairs(predicted: Mapping[str, int], actual: Mapping[str, int]) -> list[Pair]:
    names = [*predicted, *(name for name in actual if name not in predicted)]
    return [Pair(name, predicted.get(name, 0), actual.get(name, 0)) for name in names]
