from datetime import timedelta

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

import gates.retention
import migration.retention
from migration import events
from migration.management.output import Output, refusals_as_sentences, who

MOST_DAYS = 36_500  # the calendar has a beginning
WORDS = {
    "evidence": "bodies of evidence",
    "quarantine_details": "details of quarantined candidates",
    "receipts": "chunks' receipts with samples or details",
    "usman_answers": "answers of USMAN",
}


class Command(BaseCommand):
    help = (
        "Blank what the console keeps of people and needs no more: bodies of old evidence, and of runs that ended long ago quarantine details, "
        "samples and USMAN's answers. Digests, counts and ids stay. Without --yes it only counts."
    )

    def add_arguments(self, parser):
        parser.add_argument("--days", type=int, default=365, help=f"older than this, {gates.retention.LEAST_DAYS} at least (default: 365)")
        parser.add_argument("--yes", action="store_true", help="do it")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    @refusals_as_sentences
    def handle(self, **options):
        days, really = options["days"], options["yes"]
        if days < gates.retention.LEAST_DAYS:
            raise CommandError(
                f"--days must be {gates.retention.LEAST_DAYS} at least: younger evidence the database itself keeps.", returncode=2
            )
        if days > MOST_DAYS:
            raise CommandError(f"--days may be {MOST_DAYS:,} at most, a hundred years.", returncode=2)
        out, now = Output(self, options["json"]), timezone.now()
        before = now - timedelta(days=days)
        found = (
            done(before, days, now=now) if really else {"evidence": gates.retention.old(before).count()} | migration.retention.count(before)
        )
        out.json({"days": days, "blanked": really} | found)
        for name, number in found.items():
            out.line(f"{number:>10,} {WORDS[name]}")
        out.line("Blanked." if really else f"Older than {days} days. Nothing is blanked yet: --yes does it.")


def done(before, days, *, now):
    with transaction.atomic():
        found = {"evidence": gates.retention.blank(before)} | migration.retention.blank(before)
        told = ", ".join(f"{number} {WORDS[name]}" for name, number in found.items())
        events.record("retention", f"Blanked what is older than {days} days: {told}.", now=now, by=who())
    return found
