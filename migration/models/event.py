from django.db import models

from migration.models.account import Account
from migration.models.batch import Batch
from migration.models.run import Run


class Event(models.Model):
    """What happened, when, by whom; written in the same transaction as the change it tells of, and never changed."""

    at = models.DateTimeField()
    by = models.TextField()
    kind = models.CharField(max_length=48)
    sentence = models.TextField()
    account = models.ForeignKey(Account, null=True, on_delete=models.PROTECT)
    run = models.ForeignKey(Run, null=True, on_delete=models.PROTECT, related_name="events")
    batch = models.ForeignKey(Batch, null=True, on_delete=models.PROTECT, related_name="events")

    class Meta:
        ordering = ("-id",)
        indexes = [models.Index(fields=["run", "-id"], name="event_of_run")]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.kind}: {self.sentence}"
