import json
from dataclasses import asdict
from pathlib import Path

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from migration.bench import forecast
from migration.management.output import Output

FIGURES = settings.BASE_DIR / "docs" / "bench.json"
MOST = 1e15  # what is more is a slip, and beyond it reckoning overflows


class Command(BaseCommand):
    help = (
        "What moving a whole estate takes, by number of workers: computed from the figures of `manage.py bench --json`. Reads no database."
    )

    def add_arguments(self, parser):
        parser.add_argument(
            "--figures", type=Path, default=FIGURES, metavar="FILE", help="what bench --json printed (default: docs/bench.json)"
        )
        parser.add_argument("--audits", type=positive, default=1_000_000_000, metavar="N", help="activities of all accounts (default: 1e9)")
        parser.add_argument("--accounts", type=positive, default=20_000, metavar="N", help="(default: 20000)")
        parser.add_argument(
            "--workers", type=positive, nargs="+", default=[1, 2, 4, 8, 16, 32], metavar="N", help="(default: 1 2 4 8 16 32)"
        )
        parser.add_argument(
            "--readers",
            type=positive,
            default=settings.READ_AT_ONCE,
            metavar="N",
            help="the read budget: chunks at once (default: READ_AT_ONCE)",
        )
        parser.add_argument("--cores", type=positive, default=8, metavar="N", help="of the two servers together (default: 8)")
        parser.add_argument(
            "--window-hours", type=float, default=float(forecast.WEEK), metavar="HOURS", help="that it may work in a week (default: 168)"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object on standard output and nothing else")

    def handle(self, **options):
        out = Output(self, options["json"])
        if not 0 < options["window_hours"] <= forecast.WEEK:
            raise CommandError(f"--window-hours: a week has {forecast.WEEK} hours.", returncode=2)
        figures = read(options["figures"])
        estate = forecast.Estate(options["audits"], options["accounts"], options["readers"], options["cores"], options["window_hours"])
        model, errors = forecast.fitted(figures), forecast.errors(figures)
        lines = list(forecast.lines(figures, estate, options["workers"]))
        out.json({"estate": asdict(estate), "model": asdict(model), "errors": errors, "lines": [asdict(line) for line in lines]})
        out.line(
            f"A run of an account takes one worker {model.fixed:.2f} s and {1e6 * model.each:.0f} µs for each activity; "
            f"a dry run {model.dry_run:.2f} of that. {estate.accounts:,} accounts with {estate.audits:,} activities, dry run and production:"
        )
        out.line(f"{'workers':>7} {'hours':>9} {'weeks':>7}   limit")
        for line in lines:
            out.line(f"{line.workers:>7} {forecast.rounded(line.hours):>9,.10g} {forecast.rounded(line.weeks):>7.10g}   {line.limit}")
        out.line("How far the prediction is off what was measured and not fitted to:")
        for name, error in errors.items():
            out.line(f"{100 * error:>+6.0f} %  {name}")


def positive(text: str) -> int:
    number = float(text)
    if not 1 <= number <= MOST:
        raise ValueError(text)
    return int(number)


def read(path: Path) -> forecast.Figures:
    try:
        figures = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CommandError(
            f"{path} cannot be read ({type(error).__name__}): give it what `manage.py bench --json` printed.", returncode=2
        ) from error
    if not isinstance(figures, dict) or not {"pieces", "accounts", "phases"} <= figures.keys():
        raise CommandError(f"{path} is not what `manage.py bench --json` printed.", returncode=2)
    return figures
