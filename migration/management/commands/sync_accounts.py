from django.core.management.base import BaseCommand
from django.utils import timezone

from migration import accounts
from migration.management.output import Output, refusals_as_sentences


class Command(BaseCommand):
    help = "Read the CDP's accounts into the console. Accounts that left the CDP are kept and marked."

    def add_arguments(self, parser):
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    @refusals_as_sentences
    def handle(self, **options):
        found = accounts.sync(now=timezone.now())
        out = Output(self, options["json"])
        out.json(vars(found))
        out.line(f"{found.total} accounts in the CDP: {found.new} new, {found.changed} changed, {found.gone} gone.")
