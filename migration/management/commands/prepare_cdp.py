from contextlib import closing

from django.core.management.base import BaseCommand

from migration.cdp import SCHEMA, Cdp
from migration.management.output import refusals_as_sentences


class Command(BaseCommand):
    help = "Make schema calm in the CDP (fences and receipts), where it is missing. --sql only prints the statements, for the CDP's owner."

    def add_arguments(self, parser):
        parser.add_argument("--sql", action="store_true", help="print the SQL and do nothing")

    @refusals_as_sentences
    def handle(self, **options):
        self.stdout.write(SCHEMA)
        if options["sql"]:
            return
        with closing(Cdp()) as cdp:
            self.stdout.write("Made." if cdp.prepare() else "Already there.")
