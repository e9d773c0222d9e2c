"""Accounts of shapes that are rare and heavy: what a row costs there, and a worker's memory. Options of the benchmark, no part of its table."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings

from migration.bench import build, report
from migration.bench.pieces import Bench, BenchFailed
from migration.bench.server import Scratch, connected


@dataclass(frozen=True)
class Shape:
    """Own contacts with so many audits each; one deal that links the first `linked` of them and has `of_deal` audits; others' audits."""

    contacts: int
    each: int
    linked: int = 0
    of_deal: int = 0
    others: int = 0

    @property
    def activities(self) -> int:
        return self.contacts * self.each + self.linked * (1 + self.of_deal)

    def scaled(self, share: float) -> "Shape":
        """The same, smaller: fewer audits, and as many contacts and links where they are what makes the shape."""
        return replace(self, each=max(1, int(self.each * share)), of_deal=int(self.of_deal * share), others=int(self.others * share))


SHAPES = {
    "1k": Shape(33, 30),
    "10k": Shape(333, 30),
    "100k": Shape(3_333, 30),
    "1m": Shape(33_333, 30),
    "many-contacts": Shape(1_000_000, 1),
    "heavy-contact": Shape(1, 200_000),
    "wide-deal": Shape(500, 10, linked=500, of_deal=10_000),
    "small-share": Shape(333, 30, others=10_000_000),
}


def measured(scratch: Scratch, shape: Shape, bench_of: Callable[[build.Built], Bench]) -> dict[str, Any]:
    """Build the shape's data, move its account once with one worker, and see that every activity came."""
    for name in ("crm", "cdp_empty"):
        scratch.create(name)
    values = vars(shape) | {"users": build.USERS}
    with connected(scratch.of("crm")) as crm, connected(scratch.of("cdp_empty")) as cdp:
        build.run(crm, "shape.sql", values)
        cdp.execute((settings.BASE_DIR / "calm_console" / "demo" / "data" / "cdp_schema.sql").read_bytes())
        build.run(cdp, "shape_cdp.sql", values)
        build.vacuum(crm, cdp)
    bench = bench_of(build.Built(shape.activities, 0, 0, shape.contacts, shape.activities + shape.others, 0, 0, "infinity"))
    bench.prepare()
    bench.fresh()
    bench.moved("shape")
    found = bench.results["shape"][0]
    if found["candidates"] != shape.activities:
        raise BenchFailed(f"The shape has {shape.activities} activities, the run found {found['candidates']}.")
    return vars(shape) | {
        "activities": shape.activities,
        "wall": round(found["cost"]["wall"], 2),
        "wall_us_per_row": round(1e6 * found["cost"]["wall"] / found["rows"], 1),
        "cpu_us_per_row": round(1e6 * report.cpu_per_row(found), 1),
        "last_tenth_to_first": round(report.last_to_first(found), 2),
        "chunks": len(found["chunks"]),
        "peak_megabytes": round(found["peak_megabytes"], 1),
    }
