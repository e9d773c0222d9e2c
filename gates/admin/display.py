"""How the gates' pages show states, verdicts, ages and digests, on top of what all pages of the console share."""

from datetime import datetime

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince

from gates.standing import Standing, State
from migration.admin.display import icon, pill

ICON_OF_TONE = {"good": "check", "warn": "warning", "bad": "cross"}


def state_pill(state: State) -> SafeString:
    return pill("not signed" if state == State.MISSING else state)


def verdict_pill(shown: Standing) -> SafeString:
    """Of the newest evidence of a gate that has a probe."""
    if shown.evidence is None:
        return pill("not measured")
    if not shown.evidence.passes:
        return pill("fails")
    return pill("stale" if shown.stale else "passes")


def open_pill(is_open: bool) -> SafeString:
    return pill("open" if is_open else "closed")


def toned(text: str, tone: str) -> SafeString:
    """A word of our own as a pill: good, warn or bad."""
    return format_html('<span class="pill pill-{}">{}{}</span>', tone, icon(ICON_OF_TONE[tone]), text)


def ago(moment: datetime, now: datetime) -> str:
    """The age in its largest unit: `3 days ago`, `just now`."""
    return f"{timesince(moment, now, depth=1)}\N{NO-BREAK SPACE}ago" if (now - moment).total_seconds() >= 60 else "just now"


def short(digest: str) -> str:
    """The first twelve digits, as people compare them."""
    return digest[:12]
