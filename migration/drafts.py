"""Mapping drafts: edit, have the effect counted, publish. The only writer of MappingDraft."""

import copy
from datetime import datetime

from django.db import transaction

from migration import effects, events, revisions
from migration import mapping as mappings
from migration.doors import Misconfigured, Outage
from migration.models import Account, MappingDraft, MappingRevision
from migration.runs import Refused, gate_decision
from migration.states import RunMode

EMPTY = {"class_roles": {"contact": ["Contact"]}}
COUNTING = "Counting…"


def start(name: str, *, by: str, now: datetime) -> MappingDraft:
    """A new draft, equal to the current revision."""
    base = revisions.current()
    document = copy.deepcopy(base.document) if base else EMPTY
    return MappingDraft.objects.create(name=name, document=document, based_on=base, edited_at=now, edited_by=by)


def edit(draft: MappingDraft, document: dict, *, by: str, now: datetime) -> None:
    """Replace the draft's document; what was counted of the old one counts no more. Raises MappingError, Refused."""
    if draft.published_id:
        raise Refused(f"Draft {draft} is published as revision {draft.published.number if draft.published else ''}: start a new draft.")
    mappings.digest_of_new(document)
    draft.document, draft.edited_at, draft.edited_by = document, now, by
    draft.effect, draft.effect_digest, draft.effect_reason, draft.effect_at = None, "", "", None
    draft.save(update_fields=["document", "edited_at", "edited_by", "effect", "effect_digest", "effect_reason", "effect_at"])


def begin_count(draft: MappingDraft, *, now: datetime) -> None:
    """Say that a worker was asked to count, and since when (`effect_at`). Raises Refused for a published draft."""
    if draft.published_id:
        raise Refused(f"Draft {draft} is published already.")
    keep(draft, {"effect": None, "effect_digest": "", "effect_reason": COUNTING, "effect_at": now})


def not_asked(draft: MappingDraft, reason: str) -> None:
    """No worker could be asked, and why; unless one has counted all the same."""
    values = {"effect_reason": f"Not counted: {reason}", "effect_at": None}
    MappingDraft.objects.filter(pk=draft.pk, effect_reason=COUNTING).update(**values)


def count_effect(draft: MappingDraft, *, now: datetime) -> None:
    """Count what publishing would change, for every account; the answer, or why there is none, is kept on the draft."""
    digest = mappings.digest(draft.document)
    base = revisions.current()
    try:
        found = [e.as_json() for e in effects.count(draft.document, Account.objects.filter(gone=False), now=now, pulse=lambda: None)]
    except Refused as error:  # gates A and B come after the mapping, so the first one is published without a count
        keep(draft, {"effect": None, "effect_digest": digest, "effect_reason": f"Not counted: {error}", "effect_at": None})
        return
    except (Outage, Misconfigured) as error:
        keep(draft, {"effect": None, "effect_digest": "", "effect_reason": f"Not counted: {error}", "effect_at": None})
        return
    since = f"against revision {base.number}" if base else "against nothing published"
    keep(draft, {"effect": found, "effect_digest": digest, "effect_reason": f"Counted {since}.", "effect_at": now})


def keep(draft: MappingDraft, values: dict) -> None:
    for name, value in values.items():
        setattr(draft, name, value)
    draft.save(update_fields=list(values))


def check_can_publish(draft: MappingDraft, *, now: datetime) -> None:
    """Raise Refused with the sentence that says what is missing."""
    if draft.published_id:
        raise Refused(f"Draft {draft} is published already.")
    if draft.based_on != revisions.current():
        raise Refused("Another revision was published since this draft was started: start a new draft from it.")
    if mappings.digest(draft.document) == (draft.based_on.digest if draft.based_on else ""):
        raise Refused("The draft is equal to the current revision: there is nothing to publish.")
    try:
        mappings.digest_of_new(draft.document)
    except mappings.MappingError as error:  # it was saved when less was asked of a mapping
        raise Refused(f"The draft holds what can no longer be published: {' '.join(error.problems)}") from error
    if draft.effect_digest != mappings.digest(draft.document):
        raise Refused("The draft's effect is not counted yet: count it first, so that you know what you publish.")
    if draft.effect is None and may_count(now=now):
        raise Refused("The draft's effect was not counted while gates A and B were closed. They are open now: count it first.")


def may_count(*, now: datetime) -> bool:
    """Whether the gates let an effect be counted; they are the same for every account."""
    account = Account.objects.filter(gone=False).first()
    return account is None or not gate_decision(account, RunMode.DRY_RUN, now=now).refusals


def publish(draft: MappingDraft, *, by: str, note: str, now: datetime) -> MappingRevision:
    """Publish the draft as the next revision. Raises Refused."""
    with transaction.atomic():
        revisions.alone()  # first: of two drafts that are published at one moment the second is looked at when the first is current
        check_can_publish(draft, now=now)
        if not note.strip():
            raise Refused("Say why: publishing needs a note.")
        published = revisions.publish(draft.document, by=by, note=note, now=now)
        keep(draft, {"published": published.revision})
        events.record("draft published", f"draft {draft} as revision {published.revision.number}: {note}", now=now, by=by)
    return published.revision
