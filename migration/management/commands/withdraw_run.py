import time

from django.core.management.base import BaseCommand, CommandError

from migration import stale, steps, tasks, ticks, withdrawal
from migration.management.output import Output, refusals_as_sentences, run_of, who
from migration.models import Run
from migration.states import RunState

LONG = 3600.0  # seconds to a turn: each turn reads anew what is left


class Command(BaseCommand):
    help = (
        "Show which rows a run would lose by being withdrawn; with --yes remove them from the CDP. --stale: only the rows it found stale. "
        "Exit code 1 where somebody abandons the withdrawal meanwhile, 4 where it is refused."
    )

    def add_arguments(self, parser):
        parser.add_argument("run", type=int, metavar="RUN", help="the run's number")
        parser.add_argument(
            "--stale", action="store_true", help="the rows that this run's verification found to be candidates no more, or another tenant's"
        )
        parser.add_argument("--yes", action="store_true", help="do it")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    @refusals_as_sentences
    def handle(self, **options):
        run = run_of(options["run"])
        out = Output(self, options["json"])
        if options["stale"]:
            remove_stale(run, out, really=options["yes"])
        elif options["yes"]:
            withdraw(run, out)
        else:
            show(run, out)


def show(run: Run, out: Output) -> None:
    found = withdrawal.preview(run)
    out.json({"run": run.pk, "state": run.state} | found.as_json() | {"warnings": found.warnings})
    for line in found.in_words(run):
        out.line(line)
    out.line("Nothing is removed yet: --yes does it.")


def withdraw(run: Run, out: Output) -> None:
    """Here, step by step; workers that a tick sends to it meanwhile wait, and go on should this process end."""
    withdrawal.begin(run, by=who(), now=ticks.now())
    out.aside(run.reason)
    while run.state == RunState.WITHDRAWING:
        if steps.step(run, owner=tasks.worker_name(), turn=LONG) == steps.Step.WAITING:
            time.sleep(0.5)
        run.refresh_from_db()
    out.json({"run": run.pk, "state": run.state} | (run.withdrawal or {}))
    if run.state != RunState.WITHDRAWN:  # somebody gave it up meanwhile
        raise CommandError(f"{run} is {run.state}: {run.reason}")
    out.line(f"{run} is {run.state}: {run.reason}")


def remove_stale(run: Run, out: Output, *, really: bool) -> None:
    """Step by step, each its own transaction."""
    stale.check(run)
    removed = again = 0
    while really and run.stale_rows.exists():
        step = stale.remove(run, by=who(), now=ticks.now())
        removed, again = removed + step.removed, again + step.kept
    left = run.stale_rows.count()
    out.json({"run": run.pk, "removed": removed, "no_longer_stale": again, "left": left})
    if really:
        out.line(f"{removed:,} stale rows are removed; {again:,} were no longer stale, or not ours, and stay.")
    else:
        out.line(
            f"{left:,} rows of {run.account} are stale. Each is looked at again before it is removed. Nothing is removed yet: --yes does it."
        )
