import sys

from django.core.management.base import BaseCommand, CommandError

from migration import boundary, budget, ledger, reconcile, reports, withdrawal, worlds
from migration.management.output import Output, account_of, refusals_as_sentences
from migration.models import Run
from migration.pipeline.flow import World
from migration.states import COMPLETE, RunMode, RunState


class Command(BaseCommand):
    help = "Verify an account again, against its last completed production run, without loading anything."

    def add_arguments(self, parser):
        parser.add_argument("organisation", type=int, metavar="ORG", help="CRM organisation id")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    @refusals_as_sentences
    def handle(self, **options):
        account = account_of(options["organisation"])
        run = Run.objects.filter(account=account, mode=RunMode.PRODUCTION, state__in=[*COMPLETE, RunState.FAILED]).first()
        if run is None:
            raise CommandError(
                f"{account} has no finished production run to verify: run `manage.py run_account {account.crm_organization_id} --mode production`."
            )
        with worlds.opened(run) as world:
            found, seam = verified(run, world)
        run.verification, run.stale, run.boundary = found.as_json(), found.stale, seam.as_json()
        run.warnings = seam.warnings() + withdrawal.warnings_of(run)
        out = Output(self, options["json"])
        out.json(reports.as_json(run))
        for line in reports.in_words(run):
            out.line(line)
        sys.exit(1 if not found.agrees else 3 if run.quarantined.filter(waiver__isnull=True).exists() else 0)


def verified(run: Run, world: World) -> tuple[reconcile.Verification, boundary.Boundary]:
    """What the run's own verification would find now. Raises Outage as soon as nobody may read: asked again, it begins anew."""

    def heed(*_: str) -> None:
        budget.check_may_read(world.crm)

    heed()
    worlds.links_until_now(world.mapping, world.crm, heed)
    return reconcile.verify_run(run, world, ledger.of(run), heed)
