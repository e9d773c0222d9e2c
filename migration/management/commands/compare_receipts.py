import sys
from contextlib import closing

from django.core.management.base import BaseCommand

from migration import receipts
from migration.cdp import Cdp
from migration.management.output import Output, refusals_as_sentences


class Command(BaseCommand):
    help = (
        "List what the receipts in the CDP tell that this console does not know, as after its database was restored from an older copy. "
        "Changes nothing. Exit code 3 where there is something."
    )

    def add_arguments(self, parser):
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    @refusals_as_sentences
    def handle(self, **options):
        out = Output(self, options["json"])
        with closing(Cdp()) as cdp:
            found = list(receipts.differences(cdp)) if cdp.rows("SELECT to_regclass('calm.receipts') IS NOT NULL")[0][0] else []
        out.json({"differences": [each.as_json() for each in found]})
        for each in found:
            out.line(f"{f'Run {each.number}' if each.number else f'A run ({each.run})'} of {each.account}. {each.sentence}")
        if not found:
            out.line("The console knows every receipt in the CDP.")
        sys.exit(3 if found else 0)
