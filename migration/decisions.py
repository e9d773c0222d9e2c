"""What staff decide by hand: which of two names stood, and from when on the live sync has an entity. Each decision writes its Event."""

from datetime import UTC, datetime

from django.db import transaction

from migration import events
from migration.models import Account, NameCollision, SetWatermark
from migration.runs import Refused
from migration.watermark import ENTITIES

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)  # before Rails, and so before any audit


def decide_name(collision: NameCollision, audit_id: int, *, by: str, note: str, now: datetime) -> NameCollision:
    """The name that this candidate's audit gives stood; a later decision takes the place of an earlier one. Raises Refused."""
    names: dict[int, str] = dict(collision.candidates)
    if audit_id not in names:
        raise Refused("Choose one of the names.")
    if not note.strip():
        raise Refused("Say why: a decision needs a note.")
    with transaction.atomic():
        collision = NameCollision.objects.select_for_update(of=("self",)).select_related("account").get(pk=collision.pk)
        before = f", in the place of {collision.decided_name!r}" if collision.decided_name is not None else ""
        # An empty name is a decision too (it had none then); null would mean that nothing is decided.
        collision.decided_name, collision.decided_at, collision.decided_by, collision.note = names[audit_id] or "", now, by, note
        collision.save(update_fields=["decided_name", "decided_at", "decided_by", "note"])
        sentence = f"{collision.role} {collision.record_id} was called {names[audit_id]!r} (audit {audit_id}){before}: {note}"
        events.record("name decided", sentence, now=now, by=by, account=collision.account)
    return collision


def set_watermark(account: Account, entity: str, moment: datetime | None, *, by: str, note: str, now: datetime) -> SetWatermark:
    """Set the watermark that the account's next runs have for an entity; None: back to what the live rows say. Raises Refused."""
    if entity not in ENTITIES:
        raise Refused("Choose an entity.")
    if not note.strip():
        raise Refused("Say why: a watermark set by hand needs a note.")
    if moment is not None and moment > now:
        raise Refused("A watermark cannot lie in the future: audits that are still to come would be neither ours nor the live sync's.")
    if moment is not None and moment < EARLIEST:
        raise Refused(
            f"A watermark of the year {moment.year} would leave all of the history to the live sync: write the year with its four digits, "
            f"from {EARLIEST.year} on."
        )
    with transaction.atomic():
        made = SetWatermark.objects.create(account=account, entity=entity, moment=moment, note=note, set_at=now, set_by=by)
        to = f"set to {moment.isoformat()}" if moment else "left to the live rows again"
        events.record("watermark set", f"{entity} {to}: {note}", now=now, by=by, account=account)
    return made
