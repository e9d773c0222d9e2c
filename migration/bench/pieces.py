"""What is timed, each in processes of its own and on databases that are fresh for it."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from migration.bench import meter
from migration.bench.build import Built
from migration.bench.server import Scratch, connected
from migration.states import RunMode

OTHERS = (2, 3, 4, 5)  # organisations of the data's smaller accounts that the forecast is fitted to, and tried on
SLOW_ROWS = 30_000  # of the ORM and dlt: enough to tell a rate; all of them would take minutes
Result = dict[str, Any]


class BenchFailed(RuntimeError):
    """A piece did not do its work; the sentence says which, and what it said."""


@dataclass
class Bench:
    """The databases and the options that every piece shares, and what was measured so far, by piece."""

    scratch: Scratch
    built: Built
    usman: str
    chunk_size: int
    say: Callable[[str], None]
    results: dict[str, list[Result]] = field(default_factory=dict)

    def measure(self, piece: str, task: str, options: dict[str, Any], workers: int = 1) -> Result:
        """Have a task done by so many processes at once; the result is the first one's, with all costs together."""
        self.scratch.checkpoint()
        with ExitStack() as stack:
            processes = [stack.enter_context(started(self.order(task, options))) for _ in range(workers)]
            for process in processes:
                line_of(process, piece)
            with connected(self.scratch.url) as connection:
                clock = meter.Meter(meter.postmaster_of(connection))
                start = clock.read()
                for process in processes:
                    tell(process, "go")
                found = [json.loads(line_of(process, piece)) for process in processes]
                spent = clock.read().since(start)
        cost = {
            "wall": max(each["cost"]["wall"] for each in found),
            "client_cpu": sum(each["cost"]["client_cpu"] for each in found),
            "server_cpu": spent["server_cpu"],
        }
        result = found[0] | {"cost": cost, "peak_megabytes": max(each["peak_megabytes"] or 0.0 for each in found)}
        self.results.setdefault(piece, []).append(result)
        self.say(f"  {piece}: {result.get('rows', 0):,} rows in {cost['wall']:.1f} s")
        return result

    def order(self, task: str, options: dict[str, Any]) -> dict[str, Any]:
        """What a process is told on its standard input."""
        return {
            "server": self.scratch.url,
            "console": self.scratch.of("console"),
            "settings": {"CRM_DATABASE_URL": self.scratch.of("crm"), "CDP_DATABASE_URL": self.scratch.of("cdp"), "USMAN_URL": self.usman},
            "task": task,
            "options": options,
        }

    def fresh(self) -> None:
        """A console that knows the account and nothing more, a CDP with live rows only."""
        self.scratch.create("console", "console_prepared")
        self.scratch.create("cdp", "cdp_empty")

    def prepare(self) -> None:
        """The console's database that every piece begins with."""
        self.scratch.create("console")
        self.scratch.create("cdp", "cdp_empty")
        self.measure("prepare", "prepare", {})
        del self.results["prepare"]
        self.scratch.rename("console", "console_prepared")

    def repeat(self) -> None:
        """Every piece once, one after another, so that what disturbs the machine disturbs all of them."""
        self.fresh()
        self.moved("dry run", mode=RunMode.DRY_RUN)
        self.fresh()
        self.moved("pipeline")
        if "finished" not in self.scratch.names:
            self.scratch.create("finished", "cdp")
        self.moved("second run")
        self.fresh()
        self.measure("other accounts", "others", {"chunk_size": self.chunk_size, "organisations": OTHERS})
        self.fresh()
        self.measure("floor", "floor", {"chunk_size": self.chunk_size, "live_since": self.built.live_since})
        self.fresh()
        self.measure("anchor", "anchor", {"finished": self.scratch.of("finished")})
        self.fresh()
        self.moved("two workers", workers=2)
        self.fresh()
        self.moved("by step", timed=True)
        self.fresh()
        some = {"finished": self.scratch.of("finished"), "rows": min(SLOW_ROWS, self.built.activities)}
        self.measure("Django ORM", "orm", some)
        if importlib.util.find_spec("dlt"):
            self.fresh()
            self.measure("dlt", "dlt", some)

    def moved(self, piece: str, workers: int = 1, *, timed: bool = False, mode: RunMode = RunMode.PRODUCTION) -> None:
        """A run of the whole account. Raises BenchFailed where it does not come to what the data are known to hold."""
        found = self.measure(piece, "move", {"chunk_size": self.chunk_size, "timed": timed, "mode": mode}, workers)
        wanted = ("succeeded", self.built.activities, self.built.skipped, self.built.beyond)
        if (found["state"], found["rows"], found["skipped"], found["beyond"]) != wanted:
            raise BenchFailed(
                f"The run of {piece!r} ended {found['state']} with {found['rows']} rows, {found['skipped']} skipped, {found['beyond']} beyond the watermark; "
                f"it had to be {wanted}. {found['reason']}"
            )


@contextmanager
def started(order: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """A process with its order; it does not outlive the block."""
    command = [sys.executable, "-m", "migration.bench.worker"]
    with subprocess.Popen(command, cwd=settings.BASE_DIR, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            tell(process, json.dumps(order, default=str))
            yield process
        except BaseException:
            process.kill()
            raise


def tell(process: subprocess.Popen[str], line: str) -> None:
    if process.stdin:
        process.stdin.write(line + "\n")
        process.stdin.flush()


def line_of(process: subprocess.Popen[str], piece: str) -> str:
    """The process's next line; BenchFailed where it ended instead."""
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise BenchFailed(f"A process of {piece!r} ended with code {process.wait()}; its own words stand above.")
    return line
