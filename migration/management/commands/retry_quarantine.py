from contextlib import closing

from django.core.management.base import BaseCommand, CommandError
from django.db.models import QuerySet

from migration import quarantine, tasks, ticks
from migration.cdp import Cdp
from migration.management.output import Output, account_of, refusals_as_sentences, who
from migration.models import QuarantinedCandidate, Run
from migration.runs import Refused
from migration.states import Reason, RunState


class Command(BaseCommand):
    help = (
        "Try again what is quarantined, in the latest production run of one account or of all. The workers do it; --inline does it here. "
        "Exit code 4 where an account is refused (the others are tried again), 1 where a run fails here."
    )

    def add_arguments(self, parser):
        parser.add_argument("--account", type=int, metavar="ORG", help="CRM organisation id (default: every account)")
        parser.add_argument("--reason", choices=[str(reason) for reason in Reason], help="only this reason")
        parser.add_argument("--inline", action="store_true", help="do the work in this process")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    @refusals_as_sentences
    def handle(self, **options):
        found, refused = tried_again(chosen_candidates(options["account"], options["reason"]))
        out = Output(self, options["json"])
        for run in found:
            if options["inline"]:
                tasks.work_here(run)
            else:
                tasks.nudge_all(run)
        left = {run.pk: run.quarantined.filter(waiver__isnull=True).count() for run in found}
        out.json({"tried_again": {run.pk: number for run, number in found.items()}, "quarantined_now": left, "refused": refused})
        for run, number in found.items():
            after = (
                f"; {left[run.pk]:,} {'is' if left[run.pk] == 1 else 'are'} quarantined now, the run is {run.state}"
                if options["inline"]
                else ", by the workers"
            )
            out.line(f"{run}: {number:,} candidate{' is' if number == 1 else 's are'} tried again{after}.")
        if not found and not refused:
            out.line("Nothing is quarantined that fits.")
        if failed := [run for run in found if run.state == RunState.FAILED]:
            raise CommandError(" ".join(f"{run} is failed: {run.reason}" for run in failed))
        if refused:
            raise Refused(" ".join(refused))


def tried_again(chosen: list[QuerySet[QuarantinedCandidate]]) -> tuple[dict[Run, int], list[str]]:
    """Have each run's candidates tried again; how many, by run, and the refusals: of many accounts one keeps no other from it."""
    found: dict[Run, int] = {}
    refused = []
    with closing(Cdp()) as cdp:
        for candidates in chosen:
            try:
                found |= quarantine.retry(candidates, cdp, by=who(), now=ticks.now())
            except Refused as error:
                refused.append(str(error))
    return found, refused


def chosen_candidates(organisation: int | None, reason: str | None) -> list[QuerySet[QuarantinedCandidate]]:
    """Candidates of each account's latest production run, run by run; asked for all accounts in the CDP, where that run is partial."""
    if organisation is not None:
        run = quarantine.latest_run(account_of(organisation))
        if run is None:
            raise Refused(f"Organisation {organisation} has no production run yet.")
        runs = [run]
    else:
        runs = [run for run in Run.objects.filter(state=RunState.PARTIAL, account__gone=False) if quarantine.latest_run(run.account) == run]
    wanted = {"reason": reason} if reason else {}
    return [QuarantinedCandidate.objects.filter(run=run, **wanted) for run in runs]
