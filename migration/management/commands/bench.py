import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from calm_console.demo import stand_ins
from migration.bench import build, pieces, report, server
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
        parser.add_argument("--server", metavar="URL", help="a PostgreSQL where the role may create databases (default: DATABASE_URL's)")
        parser.add_argument("--json", action="store_true", help="print one JSON object on standard output and nothing else")

    def handle(self, **options):
        out = Output(self, options["json"])
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # on the way out the scratch databases are dropped
        try:
            found = measured(options, out)
        except Misconfigured as error:
            raise CommandError(str(error), returncode=2) from error
        except pieces.BenchFailed as error:
            raise CommandError(str(error)) from error
        out.json(found)
        for line in report.in_words(found):
            out.line(line)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


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
