from contextlib import closing

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from migration import quarantine, tasks
from migration.cdp import Cdp
from migration.management.output import Output, account_of, refusals_as_sentences, who
from migration.models import QuarantinedCandidate, Run
from migration.runs import Refused
from migration.states import Reason, RunState


class Command(BaseCommand):
    help = "Try again what is quarantined, in the latest production run of one account or of all. The workers do it; --inline does it here."

    def add_arguments(self, parser):
        parser.add_argument("--account", type=int, metavar="ORG", help="CRM organisation id (default: every account)")
        parser.add_argument("--reason", choices=[str(reason) for reason in Reason], help="only this reason")
        parser.add_argument("--inline", action="store_true", help="do the work in this process")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    @refusals_as_sentences
    def handle(self, **options):
        chosen = chosen_candidates(options["account"], options["reason"])
        with closing(Cdp()) as cdp:
            found = quarantine.retry(chosen, cdp, by=who(), now=timezone.now())
        out = Output(self, options["json"])
        for run in found:
            if options["inline"]:
                tasks.work_here(run)
            else:
                tasks.nudge_all(run)
        left = {run.pk: run.quarantined.filter(waiver__isnull=True).count() for run in found}
        out.json({"tried_again": {run.pk: number for run, number in found.items()}, "quarantined_now": left})
        for run, number in found.items():
            after = f"; {left[run.pk]} are quarantined now, the run is {run.state}" if options["inline"] else ", by the workers"
            out.line(f"{run}: {number} candidates are tried again{after}.")
        if not found:
            out.line("Nothing is quarantined that fits.")
        if failed := [run for run in found if run.state == RunState.FAILED]:
            raise CommandError(" ".join(f"{run} is failed: {run.reason}" for run in failed))


def chosen_candidates(organisation: int | None, reason: str | None):
    """Candidates of each account's latest production run, where that run is partial. Asked for one account, its refusals are said."""
    if organisation is not None:
        run = quarantine.latest_run(account_of(organisation))
        if run is None:
            raise Refused(f"Organisation {organisation} has no production run yet.")
        runs = [run]
    else:
        runs = [run for run in Run.objects.filter(state=RunState.PARTIAL) if quarantine.latest_run(run.account) == run]
    found = QuarantinedCandidate.objects.filter(run__in=runs)
    return found.filter(reason=reason) if reason else found
