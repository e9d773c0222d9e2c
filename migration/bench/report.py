"""What the pieces came to: one object for `--json`, and the same as a table."""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from statistics import median
from typing import Any

from migration.bench.pieces import Bench, Result
from migration.bench.server import describe

GOALS = (  # key, in words, the goal, whether more is better
    ("ratio_to_floor", "end to end, share of the floor's speed", 0.75, True),
    ("cpu_ratio_to_floor", "end to end, CPU seconds per row beside the floor's", 1.5, False),
    ("floor_to_anchor", "floor, share of the anchor's speed", 0.6, True),
    ("two_workers_to_one", "two workers beside one", 1.3, True),
    ("last_tenth_to_first", "last tenth of the chunks, cost beside the first tenth", 1.1, False),
    ("second_run_to_first", "second, converging run, time beside the first", 1.0, False),
    ("verification_share", "verification, share of the load's time", 0.1, False),
    ("peak_megabytes", "a worker's peak memory, MB", 150.0, False),
)
VERIFYING = ("verify chunk", "verify run", "boundary audit")
PLANNING = ("plan", "link index")
BUSY = 0.85  # one worker that already uses so much of two cores leaves a second nothing to add


def as_json(bench: Bench, repeat: int) -> dict[str, Any]:
    """The figures: medians over the repeats, ratios made within each repeat first. Times are seconds."""
    one, two, floor = bench.results["pipeline"], bench.results["two workers"], bench.results["floor"]
    cores = os.cpu_count() or 1
    found: dict[str, Any] = {
        "ratio_to_floor": ratio(one, floor, speed),
        "cpu_ratio_to_floor": ratio(one, floor, cpu_per_row),
        "ratio_to_anchor": ratio(one, bench.results["anchor"], speed),
        "floor_to_anchor": ratio(floor, bench.results["anchor"], speed),
        "two_workers_to_one": ratio(two, one, speed),
        "one_worker_uses": round(median(cpu(each) / each["cost"]["wall"] for each in one) / min(cores, 2), 3),
        "last_tenth_to_first": round(median(map(last_to_first, one)), 3),
        "second_run_to_first": round(1 / ratio(bench.results["second run"], one, speed), 3),
        "verification_share": verification_share(bench),
        "peak_megabytes": round(
            max(each["peak_megabytes"] for name in ("pipeline", "second run", "two workers") for each in bench.results[name]), 1
        ),
        "judge_by": "cpu" if spread([each["cost"]["wall"] for each in floor]) > 1.5 else "wall",
    }
    found |= {
        "goals": [goal(found, *each) for each in GOALS],
        "pieces": {name: piece(results) for name, results in bench.results.items()},
        "phases": {
            name: round(median(each["phases"].get(name, {}).get("wall", 0.0) for each in one), 3)
            for name in ("planned", "running", "verifying")
        },
        "steps": steps(bench.results["by step"]),
        "accounts": accounts(bench.results["other accounts"]),
        "data": asdict(bench.built) | {"chunk_size": bench.chunk_size, "repeat": repeat},
        "machine": {"cores": cores} | describe(bench.scratch.url),
    }
    return found


def accounts(results: list[Result]) -> list[dict[str, float]]:
    """Rows and seconds of each of the smaller accounts."""
    return [
        {"rows": each[0]["rows"], "wall": round(median(one["cost"]["wall"] for one in each), 3)}
        for each in zip(*(result["accounts"] for result in results), strict=True)
    ]


def speed(result: Result) -> float:
    """Rows a second."""
    return result["rows"] / result["cost"]["wall"]


def cpu(result: Result) -> float:
    """CPU seconds of the processes and, where it can be seen, of the server."""
    return result["cost"]["client_cpu"] + (result["cost"]["server_cpu"] or 0.0)


def cpu_per_row(result: Result) -> float:
    return cpu(result) / result["rows"]


def ratio(these: list[Result], those: list[Result], of: Callable[[Result], float]) -> float:
    return round(median(of(this) / of(that) for this, that in zip(these, those, strict=True)), 3)


def spread(values: list[float]) -> float:
    return max(values) / min(values)


def last_to_first(result: Result) -> float:
    """Seconds per row of the last tenth of the chunks beside the first tenth; the very last chunk is a remainder and left out."""
    chunks = result["chunks"][:-1] or result["chunks"]
    tenth = max(1, len(chunks) // 10)

    def cost(some: list[tuple[int, float]]) -> float:
        return sum(seconds for _, seconds in some) / max(1, sum(rows for rows, _ in some))

    return cost(chunks[-tenth:]) / cost(chunks[:tenth])


def steps(timed: list[Result]) -> dict[str, float]:
    """Microseconds per row by step, the largest first."""
    names = {name for each in timed for name in each["steps"]}
    found = {name: round(1e6 * median(each["steps"].get(name, 0.0) / each["rows"] for each in timed), 2) for name in names}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def verification_share(bench: Bench) -> float:
    """Time of verifying chunks and the run, beside the rest less planning."""
    by_step = steps(bench.results["by step"])
    verifying = sum(by_step.get(name, 0.0) for name in VERIFYING)
    return round(verifying / (sum(by_step.values()) - verifying - sum(by_step.get(name, 0.0) for name in PLANNING)), 3)


def piece(results: list[Result]) -> dict[str, Any]:
    """One line of the table: medians."""
    return {
        "rows": results[0]["rows"],
        "rows_per_second": round(median(map(speed, results))),
        "wall": [round(each["cost"]["wall"], 3) for each in results],
        "cpu_us_per_row": round(1e6 * median(map(cpu_per_row, results)), 2),
        "client_cpu_us_per_row": round(1e6 * median(each["cost"]["client_cpu"] / each["rows"] for each in results), 2),
        "peak_megabytes": round(max(each["peak_megabytes"] for each in results), 1),
    }


def goal(found: dict[str, Any], key: str, words: str, wanted: float, more: bool) -> dict[str, Any]:
    """Whether a goal of SPEC section 9 is met. Two workers need not be faster where one leaves no core idle."""
    met = found[key] >= wanted if more else found[key] <= wanted
    if key == "two_workers_to_one" and not met:
        met = found["one_worker_uses"] >= BUSY
    return {"goal": words, "key": key, "value": found[key], "wanted": wanted, "met": met}


def in_words(found: dict[str, Any]) -> Iterator[str]:
    """The table for a terminal."""
    data = found["data"]
    yield f"{data['activities']:,} activities of {data['persons']:,} contacts, {data['links']:,} of them through deals, among {data['audits']:,} audits;"
    yield f"each piece {data['repeat']} times in turn."
    yield f"{'':16} {'rows/s':>9} {'CPU µs/row':>11} {'of it Python':>13} {'peak MB':>8}   seconds"
    for name, line in found["pieces"].items():
        walls = " ".join(f"{wall:.1f}" for wall in line["wall"])
        rate, cpu_time, python = line["rows_per_second"], line["cpu_us_per_row"], line["client_cpu_us_per_row"]
        yield f"{name:16} {rate:>9,} {cpu_time:>11.1f} {python:>13.1f} {line['peak_megabytes']:>8.0f}   {walls}"
    yield "Phases of a run, seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in found["phases"].items())
    yield "Steps, µs a row: " + ", ".join(f"{name} {spent:.1f}" for name, spent in found["steps"].items())
    for each in found["goals"]:
        yield f"{'reached' if each['met'] else 'missed ':7}  {each['value']:>8} {'>=' if wants_more(each['key']) else '<='} {each['wanted']:<5} {each['goal']}"
    if found["judge_by"] == "cpu":
        yield "The floor's own runs differ by more than half: the machine is busy with other things, judge by CPU."


def wants_more(key: str) -> bool:
    return next(more for name, _, _, more in GOALS if name == key)
