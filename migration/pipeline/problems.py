"""What can become of a candidate other than a row: skipped, or quarantined for a reason."""

from dataclasses import dataclass

from migration.states import Reason

NOTHING_CHANGED = "nothing_changed"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a candidate is quarantined; `detail` is for staff and never holds the audit's text."""

    reason: Reason
    detail: str = ""
    error_class: str = ""


class Unreadable(ValueError):
    """`audited_changes` is not what the gem writes; the sentence says where it stops making sense."""


class Unstorable(RuntimeError):
    """Staging met a value that jsonb refuses; which one, only asking row by row will tell."""


class Fenced(RuntimeError):
    """Another worker holds this chunk with a higher fencing token: nothing of ours may be written."""


class LiveRowSlippedIn(RuntimeError):
    """A live row took a key of ours between classification and upsert: the chunk starts again."""


class RowsDisagree(RuntimeError):
    """What was committed is not what was mapped."""


def failure(error: Exception) -> Problem:
    """The problem for a candidate that broke the code: its class is kept, its text is not (it may quote the audit)."""
    return Problem(Reason.PROCESSING_FAILED, error_class=type(error).__name__)
