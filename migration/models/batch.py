from django.db import models
from django.db.models import F, Q

from migration.models.account import Account
from migration.models.run import Run
from migration.states import LIVE_BATCH, OPEN_ITEM, AtClose, BatchState, BatchWork, ItemState


class BatchQuerySet(models.QuerySet["Batch"]):
    def live(self) -> "BatchQuerySet":
        return self.filter(state__in=LIVE_BATCH)


class Batch(models.Model):
    """Accounts to be moved in order, within a window, with the limits that stop it. batches.py alone writes it."""

    name = models.CharField(max_length=120)
    work = models.CharField(max_length=16, default=BatchWork.BOTH)
    state = models.CharField(max_length=16, default=BatchState.PLANNED)
    reason = models.TextField(blank=True)

    days = models.JSONField(help_text="Days on which the window opens: 0 is Monday.")
    begins = models.TimeField()
    ends = models.TimeField(help_text="At or before the beginning: on the next day.")
    zone = models.CharField(max_length=64, help_text="A name of the IANA database, such as Asia/Jakarta.")
    first_day = models.DateField(null=True)
    at_close = models.CharField(max_length=16, default=AtClose.PAUSE)

    at_once = models.PositiveSmallIntegerField(default=1)
    canary = models.PositiveSmallIntegerField(default=1, help_text="So many accounts must balance before others start.")
    most_failures = models.PositiveSmallIntegerField(default=0, help_text="More failed or refused accounts stop it.")
    most_quarantined = models.DecimalField(
        max_digits=5, decimal_places=2, default=5, help_text="Percent of an account's candidates; more stops it."
    )

    planned_at = models.DateTimeField()
    planned_by = models.TextField()

    objects = BatchQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        verbose_name_plural = "batches"
        constraints = [
            models.CheckConstraint(condition=Q(state__in=[*BatchState]), name="batch_state_known"),
            models.CheckConstraint(condition=Q(work__in=[*BatchWork]), name="batch_work_known"),
            models.CheckConstraint(condition=Q(at_close__in=[*AtClose]), name="batch_at_close_known"),
            models.CheckConstraint(condition=Q(at_once__gte=1), name="batch_some_at_once"),
            models.CheckConstraint(condition=Q(most_quarantined__gte=0, most_quarantined__lte=100), name="batch_quarantined_is_percent"),
            models.CheckConstraint(condition=~Q(days=[]), name="batch_some_day"),
        ]

    def __str__(self) -> str:
        return f"Batch {self.pk} ({self.name})"


class BatchItem(models.Model):
    """One account of a batch, and the runs that the batch started for it. batches.py alone writes it."""

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="items")
    position = models.PositiveIntegerField(help_text="From 1: the order in which accounts start.")
    account = models.ForeignKey(Account, on_delete=models.PROTECT)
    state = models.CharField(max_length=16, default=ItemState.WAITING)
    reason = models.TextField(blank=True)
    is_accepted = models.BooleanField(default=False, help_text="A person resumed the batch after it: it counts for no limit any more.")
    dry_run = models.ForeignKey(Run, null=True, on_delete=models.PROTECT, related_name="+")
    production = models.ForeignKey(Run, null=True, on_delete=models.PROTECT, related_name="+")
    expected_from = models.DateTimeField(null=True, help_text="The window that its customer was told.")
    expected_to = models.DateTimeField(null=True)

    class Meta:
        ordering = ("batch", "position")
        constraints = [
            models.UniqueConstraint(fields=["batch", "position"], name="batch_item_placed_once"),
            models.UniqueConstraint(fields=["batch", "account"], name="batch_item_account_once"),
            models.UniqueConstraint(fields=["account"], condition=Q(state__in=[*OPEN_ITEM]), name="batch_item_open_in_one_batch"),
            models.CheckConstraint(condition=Q(state__in=[*ItemState]), name="batch_item_state_known"),
            models.CheckConstraint(
                condition=~Q(state=ItemState.RUNNING) | Q(dry_run__isnull=False) | Q(production__isnull=False),
                name="batch_item_running_has_run",
            ),
            models.CheckConstraint(
                condition=Q(expected_from__isnull=True, expected_to__isnull=True)
                | Q(expected_from__isnull=False, expected_to__isnull=False, expected_from__lte=F("expected_to")),
                name="batch_item_expected_whole",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.account} in {self.batch}"

    @property
    def run(self) -> Run | None:
        """The run that it is at, or was at last."""
        return self.production or self.dry_run
