"""The one way to write an Event; called inside the transaction of the change it tells of."""

from datetime import datetime

from migration.models import Account, Event, Run


def record(kind: str, sentence: str, *, now: datetime, by: str, run: Run | None = None, account: Account | None = None) -> None:
    """Append what happened. `by` is a username, or the worker's name."""
    Event.objects.create(kind=kind, sentence=sentence, at=now, by=by, run=run, account=account or (run.account if run else None))
