"""What a draft's pages tell: its parts, how it differs from the current revision, and what publishing it would change. Reads, never writes."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString

from migration import drafts, revisions
from migration import mapping as mappings
from migration.admin import charts
from migration.admin.display import visible
from migration.admin.document_diff import changes, lines
from migration.admin.mapping_fields import Table, at
from migration.admin.mapping_form import PARTS, Part
from migration.admin.mapping_sets import AccountSets
from migration.mapping_json import json_text
from migration.models import Account, MappingDraft
from migration.runs import Refused

SLOW = timedelta(minutes=2)  # a count that takes longer may have found no worker

__all__ = ["by", "lines", "means_the_same", "of", "pages", "seen", "seen_effect", "state"]


def of(draft: MappingDraft, *, now: datetime) -> dict[str, Any]:
    """The page's parts, by the names that its template uses."""
    current = revisions.current()
    return {
        "state": state(draft),
        "parts": [{"part": part, "says": list(contents(part, draft.document))} for part in PARTS.values()],
        "current": current,
        "changes": changes(current.document, draft.document) if current else [],
        "effect": effect(draft) if is_counted(draft) else None,
        "is_counting": is_counting(draft),
        "is_slow": is_counting(draft) and draft.effect_at is not None and now - draft.effect_at > SLOW,
        "refusal": refusal(draft, now=now),
    }


def state(draft: MappingDraft) -> str:
    """A pill of display.py."""
    if draft.published_id:
        return "published"
    if is_counting(draft):
        return "counting"
    return "counted" if is_counted(draft) else "not counted"


def is_counting(draft: MappingDraft) -> bool:
    return draft.effect is None and draft.effect_reason == drafts.COUNTING


def is_counted(draft: MappingDraft) -> bool:
    """Whether the count is of the document as it is now."""
    return draft.effect is not None and draft.effect_digest == mappings.digest(draft.document)


def refusal(draft: MappingDraft, *, now: datetime) -> str:
    """Why the draft cannot be published; '' where it can."""
    try:
        drafts.check_can_publish(draft, now=now)
    except Refused as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class Counted:
    """One account's share of the effect; see effects.Effect."""

    account: Account | None
    organisation: int
    figures: dict[str, int]
    moves: list[charts.Bar]
    examples: list[str]


def effect(draft: MappingDraft) -> dict[str, Any]:
    """`{"accounts", "quiet", "total"}`: accounts that would change, how many would not, and the sums."""
    names = ("changed", "added", "removed", "loaded")
    found = draft.effect or []
    # Of several with one organisation the one that is there comes last, and stays.
    ours = Account.objects.filter(crm_organization_id__in=[e["organisation"] for e in found]).order_by("-gone")
    accounts = {account.crm_organization_id: account for account in ours}
    counted = [
        Counted(
            accounts.get(each["organisation"]),
            each["organisation"],
            {name: each[name] for name in names},
            charts.bars(each["categories"]),
            each["examples"],
        )
        for each in found
        if any(each[name] for name in names)
    ]
    return {
        "accounts": counted,
        "quiet": len(found) - len(counted),
        "total": {name: sum(each[name] for each in found) for name in names},
    }


def contents(part: Part, document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(what, how much or which) for a part's line on the draft's page."""
    for piece in part.pieces:
        if isinstance(piece, AccountSets):
            own = document.get("account_id_sets", {})
            yield piece.label, ", ".join(f"organisation {account}" for account in own)
            continue
        value = at(document, piece.path, None)
        if isinstance(piece, Table):
            yield piece.label, ", ".join(each["class"] for each in value or []) if piece.path[0] == "class_roles" else f"{len(value or [])}"
        else:
            yield piece.label, ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")


def means_the_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Raises MappingError where the other is no mapping."""
    return mappings.digest(other) == mappings.digest(one)


def seen(draft: MappingDraft) -> str:
    """A mark of the document as a page showed it, every position in it included."""
    return hashlib.sha256(f"{draft.published_id} {json_text(draft.document)}".encode()).hexdigest()[:24]


def seen_effect(draft: MappingDraft) -> str:
    """A mark of the document together with what was counted of it, as the page of publishing showed them."""
    return hashlib.sha256(f"{seen(draft)} {json_text(draft.effect)} {draft.effect_reason}".encode()).hexdigest()[:24]


def pages(document: dict[str, Any], part: Part, start: int, size: int) -> list[dict[str, Any]]:
    """The pages of a long table: `{"start", "label", "is_here"}`; none where all is on one."""
    longest = max((piece.size(document) for piece in part.pieces if isinstance(piece, Table | AccountSets)), default=0)
    if longest <= size:
        return []
    return [
        {"start": first, "label": f"{first + 1} to {min(first + size, longest)}", "is_here": first == start}
        for first in range(0, longest, size)
    ]


def by(at: SafeString | str, who: str) -> SafeString:
    return format_html("{} by {}", at, visible(who))
