from django.core.management.base import BaseCommand

from migration import control, reaper, runs, tasks, ticks
from migration.doors import Misconfigured, Outage
from migration.management.output import Output, refusals_as_sentences, run_of, who
from migration.states import WORKABLE, Verb

VERBS = [verb for verb in Verb if verb != Verb.WITHDRAW]


class Command(BaseCommand):
    help = "Pause, resume or cancel a run, have its failed chunks tried again, force a pause or an end that workers do not come to, or abandon a withdrawal."

    def add_arguments(self, parser):
        parser.add_argument("run", type=int, metavar="RUN", help="the run's number")
        parser.add_argument("verb", choices=[str(verb) for verb in VERBS])
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    @refusals_as_sentences
    def handle(self, **options):
        run = run_of(options["run"])
        out = Output(self, options["json"])
        control.act(Verb(options["verb"]), run, by=who(), now=ticks.now())
        reaper.reap(run)
        try:
            runs.settle(run, by=who(), now=ticks.now())
        except (Outage, Misconfigured) as error:
            run.refresh_from_db()
            out.aside(f"{error} The next tick sees to it.")
        if run.state in WORKABLE:
            tasks.nudge_all(run)
        out.json({"run": run.pk, "state": run.state, "reason": run.reason})
        out.line(f"{run} is {run.state}{': ' + run.reason if run.reason else '.'}")
