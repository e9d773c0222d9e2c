"""The trace that each tick leaves in the database, so that a web process can tell whether beat and workers are alive. The only writer of Tick."""

from datetime import datetime

from django.db import connection

from migration.models import Tick


def now() -> datetime:
    """The database's clock. Any worker may be given a tick, and one whose own clock is off would open windows an hour early."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        moment: datetime = cursor.fetchone()[0]
    return moment


def record(*, by: str, now: datetime, began: datetime | None = None) -> None:
    """A tick has run to its end on the worker `by`; without `began`, in no time."""
    Tick.objects.update_or_create(pk=1, defaults={"began_at": began or now, "ticked_at": now, "ticked_by": by})


def last() -> datetime | None:
    """When the last tick ended; None before the first."""
    return Tick.objects.values_list("ticked_at", flat=True).first()


def last_began() -> datetime | None:
    """When the last tick that ended had begun; None before the first."""
    return Tick.objects.values_list("began_at", flat=True).first()
