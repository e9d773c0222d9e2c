"""Adds up what chunks report, so that a scrape reads two rows and not every receipt. The only writer of Tally."""

from django.db import transaction
from django.db.models import F

from migration.models import Tally
from migration.pipeline.records import Receipt

PLAIN = ("written", "corrected", "unchanged", "already_live")
COUNTED = ("skipped", "waived")
OUTCOMES = (*PLAIN, *COUNTED, "quarantined")


def count(mode: str, receipt: Receipt) -> None:
    """Add a chunk that is done; the row is locked until the transaction that finishes the chunk ends, which is short."""
    found = {name: getattr(receipt, name) for name in PLAIN}
    found |= {name: getattr(receipt, name).total() for name in COUNTED}
    found["quarantined"] = len(receipt.quarantined)
    added = {name: F(name) + number for name, number in found.items() if number}
    with transaction.atomic():
        if added and not Tally.objects.filter(pk=mode).update(**added):
            Tally.objects.get_or_create(pk=mode)
            Tally.objects.filter(pk=mode).update(**added)
