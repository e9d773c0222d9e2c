"""What a whole estate would take, on paper: from the figures that `manage.py bench --json` measured. Pure; docs/performance.md says what it assumes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

Figures = dict[str, Any]  # as migration.bench.report.as_json
WEEK = 7 * 24


@dataclass(frozen=True)
class Estate:
    """What is to be moved, and with what."""

    audits: int
    accounts: int
    readers: int  # chunks that may be read at once, the read budget
    cores: int  # of the CRM's and the CDP's server together
    window_hours: float  # that it may work, in a week


@dataclass(frozen=True)
class Line:
    """One number of workers: hours of work, weeks in the window, and what sets the pace."""

    workers: int
    hours: float
    weeks: float
    limit: str


@dataclass(frozen=True)
class Model:
    """Seconds of an account for one worker: fixed + rows * each, for a production run; and what one row costs the servers' CPU."""

    fixed: float
    each: float
    dry_run: float  # seconds of a dry run to one of a production run
    server_cpu: float  # a row, dry run and production

    def takes(self, rows: float) -> float:
        return self.fixed + rows * self.each

    def both(self, estate: Estate) -> float:
        """Seconds for one worker: a dry run and a production run of every account."""
        return (estate.accounts * self.fixed + estate.audits * self.each) * (1 + self.dry_run)


def fitted(figures: Figures) -> Model:
    """By the measured account and the first half of the smaller ones; the other half is what the prediction is tried on."""
    large, small = measured(figures)[0], measured(figures)[1]
    each = max(0.0, (large[1] - small[1]) / (large[0] - small[0]))
    pieces = figures["pieces"]
    production, dry_run = pieces["pipeline"], pieces["dry run"]
    return Model(
        fixed=max(0.0, small[1] - small[0] * each),
        each=each,
        dry_run=median(dry_run["wall"]) / median(production["wall"]),
        server_cpu=sum(piece["cpu_us_per_row"] - piece["client_cpu_us_per_row"] for piece in (production, dry_run)) / 1e6,
    )


def measured(figures: Figures) -> tuple[tuple[float, float], tuple[float, float]]:
    """(rows, seconds) of the measured account, and of the smaller ones that the model is fitted to, on average."""
    production, some = figures["pieces"]["pipeline"], half(figures, 0)
    return (
        (production["rows"], median(production["wall"])),
        (sum(each["rows"] for each in some) / len(some), sum(each["wall"] for each in some) / len(some)),
    )


def half(figures: Figures, which: int) -> list[dict[str, float]]:
    """Every other of the smaller accounts, less the first one: it builds the LinkIndex, which a source needs once."""
    return figures["accounts"][1:][which::2]


def errors(figures: Figures) -> dict[str, float]:
    """How far the prediction is off what was measured and not fitted to, as a share of that: + is too long."""
    model = fitted(figures)
    found = {
        f"an account of {each['rows']:,.0f} activities, one worker": model.takes(each["rows"]) / each["wall"] - 1
        for each in half(figures, 1)
    }
    two = figures["pieces"]["two workers"]
    parts = figures["phases"]
    whole = sum(parts.values())
    shared = parts["running"] / whole  # planning and verification stay one worker's
    cores = figures["machine"]["cores"]
    busy = figures["one_worker_uses"] * min(cores, 2) / cores
    pace = min(2.0, 1 / busy if busy else 2.0)
    predicted = model.takes(two["rows"]) * (1 - shared + shared / pace)
    return found | {f"the account of {two['rows']:,} activities, two workers": predicted / median(two["wall"]) - 1}


def lines(figures: Figures, estate: Estate, workers: list[int]) -> Iterator[Line]:
    """The estate by number of workers. Accounts are moved side by side, so that workers are all busy but for the limits named."""
    model = fitted(figures)
    alone = model.both(estate)
    server = estate.audits * model.server_cpu / estate.cores
    for number in workers:
        limits = {
            "workers": alone / number,
            "the read budget": alone / estate.readers,
            "the servers' CPU": server,
        }
        limit = max(limits, key=lambda name: limits[name])
        hours = limits[limit] / 3600
        yield Line(number, hours, hours / estate.window_hours, limit)


def rounded(value: float) -> float:
    """Two significant digits: more would say more than is known."""
    return round(value, 1 - math.floor(math.log10(abs(value)))) if value else 0.0
