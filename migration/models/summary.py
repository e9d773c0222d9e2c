from datetime import timedelta

from django.db import models
from django.db.models import F, Q

from migration.models.account import Account
from migration.models.run import Run
from migration.states import RunState


class Summary(models.Model):
    """What an account's customer is told, kept beside the runs so that the status endpoint reads this one row. summaries.py alone writes it.

    `run` is the production run that the customer sees; without one, nothing was moved yet.
    """

    account = models.OneToOneField(Account, on_delete=models.CASCADE, primary_key=True, related_name="summary")
    run = models.ForeignKey(Run, null=True, on_delete=models.CASCADE, related_name="+")
    run_state = models.CharField(max_length=16, blank=True)
    done = models.PositiveBigIntegerField(default=0, help_text="Candidates with an outcome other than quarantined.")
    total = models.PositiveBigIntegerField(null=True, help_text="The run's candidates; null until they were counted.")
    history_from = models.DateTimeField(null=True, help_text="When the earliest activity happened that is in the CDP.")
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    progress_at = models.DateTimeField(null=True, help_text="When the run last took a step.")
    worked = models.DurationField(default=timedelta, help_text="Time spent at chunks, without the waiting: what the ETA is reckoned from.")
    waiting_since = models.DateTimeField(null=True, help_text="Since when the run would go on but cannot.")
    window_from = models.DateTimeField(null=True, help_text="The announced window.")
    window_to = models.DateTimeField(null=True)
    updated_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "summaries"
        constraints = [
            models.CheckConstraint(condition=Q(run_state__in=["", *RunState]), name="summary_state_known"),
            models.CheckConstraint(
                condition=Q(run__isnull=True, run_state="") | Q(run__isnull=False, progress_at__isnull=False) & ~Q(run_state=""),
                name="summary_run_whole",
            ),
            models.CheckConstraint(
                condition=Q(window_from__isnull=True, window_to__isnull=True)
                | Q(window_from__isnull=False, window_to__isnull=False, window_from__lte=F("window_to")),
                name="summary_window_whole",
            ),
        ]

    def __str__(self) -> str:
        return f"Summary of {self.account}"
