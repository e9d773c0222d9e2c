import gc
import signal
import sys
import time

from django.core.management.base import BaseCommand, CommandError

from migration import forecast, reports, runs, steps, tasks, ticks, worlds
from migration.doors import Misconfigured, Outage
from migration.management.output import Output, account_of, refusals_as_sentences, who
from migration.management.watching import Watch, clock
from migration.models import Run
from migration.states import FINISHED, RunMode, RunReason, RunState

LAPSED = 4  # the exit code where a gate lapsed meanwhile, as where one refuses
EXIT_CODES = {RunState.SUCCEEDED: 0, RunState.PARTIAL: 3}


class Command(BaseCommand):
    help = "Move one account: plan, run, verify, print the ledger. Exit code 0 complete, 3 partial, 1 failed, 4 refused by a gate."

    def add_arguments(self, parser):
        parser.add_argument("organisation", type=int, metavar="ORG", help="CRM organisation id")
        parser.add_argument("--mode", required=True, choices=["dry-run", "production"])
        parser.add_argument("--inline", action="store_true", help="do the work in this process instead of on the workers")
        parser.add_argument("--chunk-size", type=positive, metavar="N", help="audits to a chunk (default: CHUNK_SIZE)")
        parser.add_argument("--confirm-downgrade", action="store_true", help="production may have fewer capabilities than the last one had")
        parser.add_argument("--json", action="store_true", help="print one JSON object on standard output and nothing else")

    @refusals_as_sentences
    def handle(self, **options):
        account = account_of(options["organisation"])
        out = Output(self, options["json"])
        if options["inline"]:
            worlds.check()
        mode = RunMode.DRY_RUN if options["mode"] == "dry-run" else RunMode.PRODUCTION
        wish = runs.Wish(account, mode, options["chunk_size"], downgrade_confirmed=options["confirm_downgrade"])
        run = runs.start(wish, by=who(), now=ticks.now())
        stopped = work_inline(run, out) if options["inline"] else wait_for_workers(run, out)
        run.refresh_from_db()
        takes = forecast.production_takes(run)
        out.json(reports.as_json(run) | {"production_takes": takes.total_seconds() if takes else None})
        if stopped:
            raise CommandError(stopped, returncode=LAPSED if run.reason_code == RunReason.GATE_LAPSED else 1)
        for line in reports.in_words(run):
            out.line(line)
        if takes:
            out.line(f"  production would take about {clock(takes)}, at the pace of recent runs")
        sys.exit(EXIT_CODES.get(RunState(run.state), 1))


def positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000_000:
        raise ValueError(text)
    return number


def work_inline(run: Run, out: Output) -> str | None:
    """Every step here, one after another. An outage interrupts the run and is returned in words: started again, it goes on where it stopped."""
    owner = tasks.worker_name()
    gc.freeze()  # as a Celery worker's process does
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # on the way out the chunk is handed back
    with Watch(run, out) as watch:
        try:
            while run.state not in (*FINISHED, RunState.INTERRUPTED, RunState.PAUSED):
                if steps.step(run, owner=owner, turn=1.0) == steps.Step.WAITING:
                    watch.waiting()
                    time.sleep(0.5)
                run.refresh_from_db()
                watch.show()
        except (Outage, Misconfigured) as error:
            code = RunReason.OUTAGE if isinstance(error, Outage) else RunReason.STOPPED
            runs.interrupt(run, str(error), by=owner, now=ticks.now(), code=code)
            if run.state not in FINISHED:  # this process may have slept, and others have brought the run to its end
                return f"{error} Run {run.pk} is {run.state}; the same command goes on where it stopped."
        finally:
            signal.signal(signal.SIGTERM, before)
    return run.reason if run.state == RunState.INTERRUPTED else paused(run)


def wait_for_workers(run: Run, out: Output) -> str | None:
    """Nudge the workers and show how they get on. Stopping this command does not stop the run."""
    tasks.nudge_all(run)
    with Watch(run, out) as watch:
        while run.state not in (*FINISHED, RunState.INTERRUPTED, RunState.PAUSED):
            time.sleep(0.5)
            run.refresh_from_db()
            watch.show()
            watch.renudge()
    return run.reason if run.state == RunState.INTERRUPTED else paused(run)


def paused(run: Run) -> str | None:
    """What to say of a run that a person or a gate paused meanwhile."""
    return (
        f"Run {run.pk} is paused: {run.reason} `manage.py control_run {run.pk} resume` goes on." if run.state == RunState.PAUSED else None
    )
