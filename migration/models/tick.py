from django.db import models
from django.db.models import Q


class Tick(models.Model):
    """When the last tick ran to its end, and on which worker: one row. ticks.py alone writes it."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    began_at = models.DateTimeField(null=True)
    ticked_at = models.DateTimeField()
    ticked_by = models.TextField()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="tick_is_one")]

    def __str__(self) -> str:
        return f"Last tick, {self.ticked_at:%Y-%m-%d %H:%M:%S} UTC"
