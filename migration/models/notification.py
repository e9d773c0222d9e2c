from django.db import models
from django.db.models import Q

from migration.models.batch import Batch
from migration.models.run import Run

WAITING, SENT, GIVEN_UP = "waiting", "sent", "given_up"
EMAIL, WEBHOOK = "email", "webhook"


class Notification(models.Model):
    """One message for one channel, written in the transaction of what it tells of and sent later. outbox.py and notify.py write it."""

    uuid = models.UUIDField(unique=True, help_text="The message's id; the same on every attempt, so that a receiver can tell a second one.")
    at = models.DateTimeField(help_text="When what it tells of happened.")
    kind = models.CharField(max_length=32)
    channel = models.CharField(max_length=16)
    body = models.JSONField(help_text="Ids, states and counts; nothing of a person.")
    run = models.ForeignKey(Run, null=True, on_delete=models.CASCADE, related_name="+")
    batch = models.ForeignKey(Batch, null=True, on_delete=models.CASCADE, related_name="+")

    state = models.CharField(max_length=16, default=WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    not_before = models.DateTimeField(help_text="When it may be tried next.")
    error = models.TextField(blank=True, help_text="Why the last attempt failed.")

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.CheckConstraint(condition=Q(state__in=[WAITING, SENT, GIVEN_UP]), name="notification_state_known"),
            models.CheckConstraint(condition=Q(channel__in=[EMAIL, WEBHOOK]), name="notification_channel_known"),
        ]
        indexes = [models.Index(fields=["not_before"], condition=Q(state=WAITING), name="notification_due")]

    def __str__(self) -> str:
        return f"Notification {self.pk} ({self.kind} by {self.channel})"
