"""The one way to write an Event; called inside the transaction of the change it tells of."""

from datetime import datetime

from migration.models import Account, Batch, Event, Run


def record(
    kind: str, sentence: str, *, now: datetime, by: str, run: Run | None = None, account: Account | None = None, batch: Batch | None = None
) -> None:
    """Append what happened. `by` is a username, or the worker's name."""
    about = account or (run.account if run else None)
    Event.objects.create(kind=kind, sentence=sentence, at=now, by=by, run=run, account=about, batch=batch)
