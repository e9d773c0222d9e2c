import functools
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from calm_console.demo import stand_ins
from migration.bench import build, locality, pieces, report, server, shapes
from migration.doors import Misconfigured
from migration.management.output import Output


class Command(BaseCommand):
    help = (
        "Measure the pipeline beside what PostgreSQL itself needs, in scratch databases that are dropped at the end. "
        "Exit code 0 measured, 1 a piece failed, 2 no server to measure on."
    )

    def add_arguments(self, parser):
        parser.add_argument(
            "--rows", type=positive, default=300_000, metavar="N", help="activities of the measured account (default: 300000)"
        )
        parser.add_argument(
            "--repeat", type=positive, default=3, metavar="N", help="how often each piece is measured, in turn (default: 3)"
        )
        parser.add_argument(
            "--chunk-size", type=positive, default=settings.CHUNK_SIZE, metavar="N", help="audits to a chunk (default: CHUNK_SIZE)"
        )
        parser.add_argument(
            "--shape",
            choices=shapes.SHAPES,
            nargs="+",
            metavar="SHAPE",
            help=f"instead: move one account of each shape, and nothing beside it: {', '.join(shapes.SHAPES)}",
        )
        parser.add_argument(
            "--estate", type=positive, metavar="N", help="instead: what so many accounts ask of the console: sync, a batch's beat, pages"
        )
        parser.add_argument(
            "--ids", type=positive, metavar="N", help="instead: what the order of ids costs, in tables that grow to so many rows"
        )
        parser.add_argument(
            "--share", type=float, default=1.0, metavar="S", help="of a shape's audits, where all would take too long (default: 1.0)"
        )
        parser.add_argument("--server", metavar="URL", help="a PostgreSQL where the role may create databases (default: DATABASE_URL's)")
        parser.add_argument("--json", action="store_true", help="print one JSON object on standard output and nothing else")

    def handle(self, **options):
        out = Output(self, options["json"])
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # on the way out the scratch databases are dropped
        try:
            found = chosen(options)(options, out)
        except Misconfigured as error:
            raise CommandError(str(error), returncode=2) from error
        except pieces.BenchFailed as error:
            raise CommandError(str(error)) from error
        out.json(found)
        for line in report.in_words(found) if "pieces" in found else in_words(found):
            out.line(line)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def chosen(options: dict[str, Any]) -> Callable[[dict[str, Any], Output], dict[str, Any]]:
    return next((measure for name, measure in (("shape", shaped), ("estate", estate), ("ids", ids)) if options[name]), measured)


def measured(options: dict[str, Any], out: Output) -> dict[str, Any]:
    """Build the data, measure every piece `repeat` times in turn, and put the figures together."""
    with server.scratch(server.chosen(options["server"])) as scratch, tempfile.TemporaryDirectory() as folder:
        out.aside(f"Building {options['rows']:,} activities")
        built = build.build(scratch, options["rows"], now=timezone.now())
        with usman(build.users_file(Path(folder))) as url:
            bench = pieces.Bench(scratch, built, url, options["chunk_size"], out.aside)
            bench.prepare()
            for number in range(1, options["repeat"] + 1):
                out.aside(f"Round {number} of {options['repeat']}")
                bench.repeat()
            return report.as_json(bench, options["repeat"])


def shaped(options: dict[str, Any], out: Output) -> dict[str, Any]:
    """Each shape in scratch databases of its own."""
    found = {}
    for name in options["shape"]:
        shape = shapes.SHAPES[name].scaled(options["share"])
        out.aside(f"{name}: building {shape.activities:,} activities, {shape.others:,} audits of others")
        with server.scratch(server.chosen(options["server"])) as scratch, tempfile.TemporaryDirectory() as folder:
            with usman(build.users_file(Path(folder))) as url:
                bench_of = functools.partial(pieces.Bench, scratch, usman=url, chunk_size=options["chunk_size"], say=out.aside)
                found[name] = shapes.measured(scratch, shape, bench_of)
    return found


def estate(options: dict[str, Any], out: Output) -> dict[str, Any]:
    """Many accounts without any history."""
    with server.scratch(server.chosen(options["server"])) as scratch:
        built = build.build(scratch, 100, now=timezone.now())
        bench = pieces.Bench(scratch, built, "http://127.0.0.1:1", options["chunk_size"], out.aside)
        bench.prepare()
        bench.fresh()
        return bench.measure("estate", "estate", {"accounts": options["estate"]})["estate"]


def ids(options: dict[str, Any], out: Output) -> dict[str, Any]:
    with server.scratch(server.chosen(options["server"])) as scratch:
        return locality.measured(scratch, options["ids"], out.aside)


def in_words(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A line for each thing measured."""
    for name, figures in found.items():
        yield f"{name}: " + ", ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in figures.items())


@contextmanager
def usman(users: Path) -> Iterator[str]:
    """USMAN's stand-in over real HTTP on loopback; its URL."""
    found = stand_ins.server("usman", 0, users)
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{found.server_address[1]}"
    finally:
        found.shutdown()
        found.server_close()
        thread.join()
