from django.db import models
from django.db.models import Q


class ReadBudget(models.Model):
    """How much all workers together may read from the CRM: one row. budget.py alone writes it."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    most_readers = models.PositiveSmallIntegerField(null=True, help_text="Set by staff; null: READ_AT_ONCE.")
    stopped_at = models.DateTimeField(null=True, help_text="While set, no chunk is read.")
    stopped_by = models.TextField(blank=True)
    note = models.TextField(blank=True)

    chunk_audits = models.PositiveIntegerField(null=True, help_text="Audits that a chunk may have now; null: as it was cut.")
    seconds_per_1000 = models.FloatField(null=True, help_text="What reading and mapping 1,000 audits took of late.")
    lag_seconds = models.FloatField(null=True, help_text="How far the replica is behind; null: the CRM is no replica.")
    looked_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(id=1), name="read_budget_is_one"),
            models.CheckConstraint(
                condition=Q(stopped_at__isnull=True, stopped_by="") | Q(stopped_at__isnull=False) & ~Q(stopped_by=""),
                name="read_budget_stopped_by_somebody",
            ),
            models.CheckConstraint(condition=Q(most_readers__isnull=True) | Q(most_readers__gte=1), name="read_budget_some_readers"),
        ]

    def __str__(self) -> str:
        return "Read budget"
