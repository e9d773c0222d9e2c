"""Publishing a mapping: the only way a MappingRevision comes to be."""

from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction

from migration import events
from migration import mapping as mappings
from migration.models import MappingRevision


@dataclass(frozen=True)
class Published:
    revision: MappingRevision
    is_new: bool


def current() -> MappingRevision | None:
    return MappingRevision.objects.order_by("-number").first()


def publish(document: object, *, by: str, note: str, now: datetime) -> Published:
    """Publish a mapping document as the next revision; one that means the same as the current revision changes nothing.

    Going back to an older meaning makes a new revision too: numbers only go up, and each tells what was valid from when.

    Raises mapping.MappingError with every problem found.
    """
    digest = mappings.digest_of_new(document)
    with transaction.atomic():
        alone()
        last = current()
        if last and last.digest == digest:
            return Published(last, is_new=False)
        number = last.number + 1 if last else 1
        revision = MappingRevision.objects.create(
            number=number, digest=digest, document=document, published_at=now, published_by=by, note=note
        )
        events.record("mapping published", f"revision {number}: {note}" if note else f"revision {number}", now=now, by=by)
    return Published(revision, is_new=True)


def alone() -> None:
    """Have nobody else publish before this transaction is over: what is current then stays so."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('migration_mappingrevision'))")
