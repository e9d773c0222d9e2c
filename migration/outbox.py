"""What is to be told to people and programs outside, written in the transaction of what it tells of: the message is lost only with the change.

Nothing is written while no channel is set. notify.py sends.
"""

from datetime import datetime
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.db.models import Count

from migration.models import Batch, Notification, Run
from migration.models.notification import EMAIL, WEBHOOK
from migration.states import BatchState, RunState

TOLD_OF_RUNS = (RunState.SUCCEEDED, RunState.PARTIAL, RunState.FAILED)
TOLD_OF_BATCHES = (BatchState.STOPPED, BatchState.DONE)


def run_moved(pk: int, *, now: datetime) -> None:
    """Tell that a run has ended, where it has; in the transaction of the move."""
    if not channels():
        return
    run = Run.objects.select_related("account").get(pk=pk)
    if run.state not in TOLD_OF_RUNS:
        return
    figures = {
        "run": run.pk,
        "account": run.account.crm_organization_id,
        "mode": run.mode,
        "state": run.state,
        "reason_code": run.reason_code,
        "candidates": run.candidates,
        "quarantined": run.quarantined.filter(waiver__isnull=True).count(),
    }
    write(f"run.{run.state}", figures, run=run, now=now)


def batch_moved(batch: Batch, *, now: datetime) -> None:
    """Tell that a batch is done or stopped, where it is; in the transaction of the move."""
    if not channels() or batch.state not in TOLD_OF_BATCHES:
        return
    accounts = dict(batch.items.order_by().values_list("state").annotate(Count("id")))
    write(f"batch.{batch.state}", {"batch": batch.pk, "state": batch.state, "accounts": accounts}, batch=batch, now=now)


def channels() -> list[str]:
    """Those that are set."""
    return [EMAIL] * bool(settings.NOTIFY_EMAIL_TO) + [WEBHOOK] * bool(settings.NOTIFY_WEBHOOK_URL)


def write(kind: str, figures: dict[str, Any], *, now: datetime, run: Run | None = None, batch: Batch | None = None) -> None:
    body = {"kind": kind, "at": now.isoformat(timespec="seconds"), **figures}
    for channel in channels():
        Notification.objects.create(uuid=uuid4(), at=now, kind=kind, channel=channel, body=body, run=run, batch=batch, not_before=now)
