"""Sends what outbox.py wrote: by e-mail through Django's settings, and to a webhook. A failed attempt is tried again by a later tick.

At least once: whoever dies between sending and saying so leaves the message to be sent again, under the same id.
"""

import json
import smtplib
from datetime import datetime, timedelta

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import transaction
from django.db.models import F, Q

from migration import events, webhook
from migration.models import Notification
from migration.models.notification import EMAIL, GIVEN_UP, SENT, WAITING
from migration.webhook import Undelivered

MOST_ATTEMPTS = 10  # about four hours, as the pauses grow
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=1)
MOST_AT_ONCE = 100  # to a tick
IN_ORDER = ("kind", "at", "run", "batch", "account", "mode", "state", "reason_code", "accounts", "candidates", "quarantined")


def due(*, now: datetime) -> list[int]:
    """The notifications that may be tried now, the oldest first; those whose attempts are spent are given up on the way."""
    ready = Notification.objects.filter(state=WAITING, not_before__lte=now)
    for spent in ready.filter(attempts__gte=MOST_ATTEMPTS).select_related("run", "batch"):
        give_up(spent, now=now)
    return list(ready.filter(attempts__lt=MOST_ATTEMPTS).order_by("pk").values_list("pk", flat=True)[:MOST_AT_ONCE])


def send(pk: int, *, now: datetime) -> None:
    """Try one notification, if it is due and nobody else is at it."""
    found = claimed(pk, now=now)
    if found is None:
        return
    try:
        if found.channel == EMAIL:
            by_email(found)
        else:
            by_webhook(found, now=now)
    except Undelivered as error:
        Notification.objects.filter(pk=pk, state=WAITING).update(error=str(error))
        if found.attempts >= MOST_ATTEMPTS:
            give_up(found, now=now)
        return
    Notification.objects.filter(pk=pk, state=WAITING).update(state=SENT, error="")


def claimed(pk: int, *, now: datetime) -> Notification | None:
    """The notification with this attempt counted, and put off so that nobody else tries meanwhile; None where it is not due."""
    with transaction.atomic():
        ready = Q(pk=pk, state=WAITING, not_before__lte=now, attempts__lt=MOST_ATTEMPTS)
        found = Notification.objects.select_for_update(skip_locked=True, of=("self",)).select_related("run", "batch").filter(ready).first()
        if found is None:
            return None
        Notification.objects.filter(pk=pk).update(attempts=F("attempts") + 1, not_before=now + pause_after(found.attempts + 1))
        found.attempts += 1
    return found


def pause_after(attempts: int) -> timedelta:
    return min(FIRST_PAUSE * 2 ** (attempts - 1), LONGEST_PAUSE)


def give_up(found: Notification, *, now: datetime) -> None:
    with transaction.atomic():
        if Notification.objects.filter(pk=found.pk, state=WAITING).update(state=GIVEN_UP):
            found.refresh_from_db(fields=["error"])
            sentence = (
                f"{found} was given up after {found.attempts} attempts: {found.error or 'nobody knows whether the last one arrived.'}"
            )
            events.record("notification given up", sentence, now=now, by="notify", run=found.run, batch=found.batch)


def by_email(found: Notification) -> None:
    """Raises Undelivered where the mail server does not take it."""
    if not settings.NOTIFY_EMAIL_TO:
        raise Undelivered("NOTIFY_EMAIL_TO is not set any more.")
    message = EmailMessage(
        subject=subject(found), body=text(found), to=settings.NOTIFY_EMAIL_TO, headers={"Message-ID": f"<{found.uuid}@calm-console>"}
    )
    try:
        message.send()
    except (OSError, smtplib.SMTPException) as error:
        code = f" {error.smtp_code}" if isinstance(error, smtplib.SMTPResponseException) else ""
        raise Undelivered(f"EMAIL_URL: the mail server did not take it ({type(error).__name__}{code}).") from error


def subject(found: Notification) -> str:
    about = f"run {found.body['run']}, organisation {found.body['account']}" if found.run_id else f"batch {found.body['batch']}"
    return f"CALM console: {about}: {found.body['state']}"


def text(found: Notification) -> str:
    """The body's figures as lines, and where to look."""
    figures = [(name, found.body.get(name)) for name in IN_ORDER]
    lines = [f"{name.replace('_', ' ')}: {said(value)}" for name, value in figures if value not in ("", None)]
    page = f"/admin/migration/run/{found.run_id}/change/" if found.run_id else f"/admin/migration/batch/{found.batch_id}/change/"
    return "\n".join([*lines, "", f"The console's page {page} has the rest."])


def said(value: object) -> str:
    return ", ".join(f"{number} {name}" for name, number in value.items()) if isinstance(value, dict) else str(value)


def by_webhook(found: Notification, *, now: datetime) -> None:
    """Raises Undelivered where the receiver does not take it."""
    if not settings.NOTIFY_WEBHOOK_URL:
        raise Undelivered("NOTIFY_WEBHOOK_URL is not set any more.")
    body = json.dumps(found.body, separators=(",", ":")).encode()
    webhook.post(
        settings.NOTIFY_WEBHOOK_URL,
        settings.NOTIFY_WEBHOOK_SECRET,
        str(found.uuid),
        body,
        now=now,
        allow_private=settings.NOTIFY_WEBHOOK_ALLOW_PRIVATE,
    )
