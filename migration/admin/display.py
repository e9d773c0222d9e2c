"""How the console's pages show text that may be hostile, states, numbers and times."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from django.db.models import Model
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from migration.states import ChunkState, RunState
from migration.unseen import mark, unseen

NOTHING = "—"
MOST_CHARACTERS = 1000  # of one text on a page; the rest is counted

ICONS = {
    "clock": "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2ZM8 5v3.2l2.2 1.3",
    "play": "M5 3.2v9.6L12.8 8Z",
    "pause": "M5.5 3.5v9M10.5 3.5v9",
    "bolt": "M9 1.8 4 9h3.6L7 14.2 12 7H8.4Z",
    "lens": "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9ZM10.3 10.3 14 14",
    "check": "M3 8.5 6.5 12 13 4.5",
    "warning": "M8 2.2 14.6 13.6H1.4ZM8 6.4v3.4M8 11.5v.4",
    "cross": "M4 4l8 8M12 4l-8 8",
    "stop": "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2ZM3.8 3.8l8.4 8.4",
    "undo": "M6 3 2.5 6.5 6 10M2.5 6.5H10a3.5 3.5 0 0 1 0 7H7",
}
# State (or verdict) -> tone, icon. The text is always there too: nothing is told by colour alone.
PILLS = {
    RunState.PLANNED: ("quiet", "clock"),
    RunState.RUNNING: ("busy", "play"),
    RunState.PAUSING: ("busy", "pause"),
    RunState.PAUSED: ("quiet", "pause"),
    RunState.INTERRUPTED: ("warn", "bolt"),
    RunState.VERIFYING: ("busy", "lens"),
    RunState.SUCCEEDED: ("good", "check"),
    RunState.PARTIAL: ("warn", "warning"),
    RunState.FAILED: ("bad", "cross"),
    RunState.CANCELLING: ("quiet", "stop"),
    RunState.CANCELLED: ("quiet", "stop"),
    RunState.WITHDRAWING: ("busy", "undo"),
    RunState.WITHDRAWN: ("quiet", "undo"),
    ChunkState.PENDING: ("quiet", "clock"),
    ChunkState.LEASED: ("busy", "play"),
    ChunkState.SPLIT: ("warn", "warning"),
    ChunkState.DONE: ("good", "check"),
    "stopped": ("bad", "stop"),
    "sent": ("good", "check"),
    "given_up": ("bad", "cross"),
    "agrees": ("good", "check"),
    "disagrees": ("bad", "cross"),
    "balances": ("good", "check"),
    "does not balance": ("bad", "cross"),
    "does not balance yet": ("busy", "clock"),
    "differs": ("warn", "warning"),
    "differs so far": ("busy", "clock"),
    "warning": ("warn", "warning"),
    "waived": ("quiet", "check"),
    "gone": ("warn", "warning"),
    "published": ("good", "check"),
    "counted": ("good", "check"),
    "counting": ("busy", "clock"),
    "not counted": ("quiet", "clock"),
    "new": ("good", "check"),
    "kept": ("quiet", "check"),
    "removed": ("warn", "cross"),
    "wrong": ("bad", "cross"),
    "refused": ("bad", "cross"),
    "decided": ("good", "check"),
    "undecided": ("warn", "warning"),
    "built": ("good", "check"),
    "waiting": ("warn", "pause"),
    "reading allowed": ("good", "check"),
    "being built": ("busy", "clock"),
    "signed": ("good", "check"),
    "not signed": ("quiet", "clock"),
    "rejected": ("bad", "cross"),
    "lapsed": ("warn", "bolt"),
    "passes": ("good", "check"),
    "fails": ("bad", "cross"),
    "for judgement": ("quiet", "lens"),
    "not measured": ("quiet", "clock"),
    "stale": ("warn", "clock"),
    "open": ("good", "check"),
    "closed": ("warn", "stop"),
    "in progress": ("busy", "play"),
    "not begun": ("quiet", "clock"),
    "excess": ("bad", "warning"),
    "needed": ("good", "check"),
}


def visible(text: object) -> SafeString:
    """Text of any origin as HTML: escaped, kept apart from the writing direction around it, and what cannot be seen shown as ⟨U+202E⟩.

    What a record is called is ours to say, in English, whatever name it begins with: `شركة (organisation 12)` reads as it is written here.
    """
    pieces = visible_pieces(str(text))
    shown = format_html_join("", "{}", ((format_html('<span class="unseen">{}</span>', p) if marked else p,) for p, marked in pieces))
    return format_html('<bdi dir="ltr">{}</bdi>' if isinstance(text, Model) else "<bdi>{}</bdi>", shown)


def visible_text(text: object) -> str:
    """The same without HTML, for titles and the choices of filters; not escaped."""
    return "".join(piece for piece, _ in visible_pieces(str(text)))


def visible_pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Runs of plain characters, and marks for single ones that a reader would not see; the flag tells marks."""
    shown, plain = text[:MOST_CHARACTERS], ""
    for character in shown:
        if not unseen(character):
            plain += character
            continue
        if plain:
            yield plain, False
        yield mark(character), True
        plain = ""
    if plain:
        yield plain, False
    if len(text) > len(shown):
        yield f"… and {len(text) - len(shown):,} more characters", True


def words(identifier: object) -> str:
    """`already_live` as people write it."""
    return str(identifier).replace("_", " ")


def number(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def moment(value: datetime | str | None) -> SafeString | str:
    """A time in UTC, to the second; ISO 8601 text (with its offset) is read first."""
    if value is None or value == "":
        return NOTHING
    at = (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone(UTC)
    return format_html('<time datetime="{}">{}</time>', at.isoformat(), f"{at:%Y-%m-%d %H:%M:%S} UTC")


def duration(value: timedelta | float | None) -> str:
    """Seconds, or a timedelta, in the two units that matter: `0.34 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if value is None:
        return NOTHING
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds < 10:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def pill(state: str, about: object = "") -> SafeString:
    """A state or verdict as a coloured pill: icon and text; `about` is put behind the text."""
    tone, name = PILLS.get(state, ("quiet", "clock"))
    text = f"{words(state)} {about}" if about else words(state)
    return format_html('<span class="pill pill-{}">{}{}</span>', tone, icon(name), visible(text))


def icon(name: str) -> SafeString:
    """An icon beside a text that says the same, hence hidden from screen readers."""
    return format_html('<svg class="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false"><path d="{}"/></svg>', ICONS[name])


def progress_bar(done: int | None, total: int | None, about: str = "") -> SafeString:
    """Audits done of audits to do, as a bar and in words; 100 % only once nothing is left."""
    if total is None:
        return format_html('<span class="quiet">{}</span>', "no chunks yet")
    percent = 100 * (done or 0) // total if total else 100
    bar = '<progress max="100" value="{}" aria-label="audits done"></progress>'
    return format_html('<span class="progress">' + bar + " {} % {}</span>", percent, percent, about)
