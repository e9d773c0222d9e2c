"""Stand-ins for `settings.STATUS_VISIBLE_POLICY`: gate G open or closed, and how often it was asked."""

from datetime import datetime

from migration.models import Account

asked: list[str] = []


def opened(letter: str, account: Account | None = None, *, now: datetime) -> bool:
    asked.append(letter)
    return True


def closed(letter: str, account: Account | None = None, *, now: datetime) -> bool:
    return False
