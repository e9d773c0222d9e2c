from django.db import models
from django.db.models import Q

from migration.states import RunMode


class Tally(models.Model):
    """Outcomes that chunks have reported since the console began, one row for each mode. tallies.py alone writes it.

    It only ever grows: a chunk that is done twice counts twice. What a run has achieved says its ledger.
    """

    mode = models.CharField(max_length=16, primary_key=True)
    written = models.PositiveBigIntegerField(default=0)
    corrected = models.PositiveBigIntegerField(default=0)
    unchanged = models.PositiveBigIntegerField(default=0)
    already_live = models.PositiveBigIntegerField(default=0)
    skipped = models.PositiveBigIntegerField(default=0)
    quarantined = models.PositiveBigIntegerField(default=0)
    waived = models.PositiveBigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "tallies"
        constraints = [models.CheckConstraint(condition=Q(mode__in=[*RunMode]), name="tally_mode_known")]

    def __str__(self) -> str:
        return f"Tally of {self.mode.replace('_', ' ')}"
