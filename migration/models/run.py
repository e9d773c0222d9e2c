from django.db import models
from django.db.models import Exists, OuterRef, Q

from migration.models.account import Account
from migration.models.link_index import LinkIndex
from migration.models.mapping_revision import MappingRevision
from migration.states import ACTIVE, COMPLETE, FINISHED, WORKABLE, RunMode, RunReason, RunState


class RunQuerySet(models.QuerySet["Run"]):
    def active(self) -> "RunQuerySet":
        return self.filter(state__in=ACTIVE)

    def workable(self) -> "RunQuerySet":
        return self.filter(state__in=WORKABLE)

    def standing(self) -> "RunQuerySet":
        """Those that ran to their end and whose rows are all there still, as far as is known here.

        What a run found right and left in place is the earlier run's: it goes when that one is withdrawn.
        """
        begun = Q(state=RunState.WITHDRAWING)
        removed = Q(finished_at__gt=OuterRef("finished_at"), withdrawal__isnull=False) & ~Q(withdrawal__removed={})
        earlier = Run.objects.filter(begun | removed, account=OuterRef("account"), mode=OuterRef("mode"), pk__lt=OuterRef("pk"))
        return self.filter(~Exists(earlier), state__in=COMPLETE)


class Run(models.Model):
    """One attempt to move an account: what it was asked to do, under which mapping, and how it ended. runs.py alone writes it."""

    uuid = models.UUIDField(unique=True, help_text="What `run_id` in the CDP's rows and receipts names.")
    account = models.ForeignKey(Account, on_delete=models.PROTECT)
    mode = models.CharField(max_length=16)
    state = models.CharField(max_length=16, default=RunState.PLANNED)
    reason_code = models.CharField(max_length=32, blank=True)
    reason = models.TextField(blank=True)

    mapping_revision = models.ForeignKey(MappingRevision, on_delete=models.PROTECT)
    pipeline_version = models.PositiveIntegerField()
    capabilities = models.JSONField(default=list, help_text="Gates D, E, F as they were when the run was planned.")
    systems = models.CharField(max_length=64, help_text="Digest of the CRM's and the CDP's host, port and database.")
    settings = models.JSONField(
        null=True, help_text="What its rows depend on beside the mapping, by variable; null where an older release planned it."
    )
    chunk_size = models.PositiveIntegerField()
    watermark = models.JSONField(null=True, help_text="ISO 8601 by entity; set by the planning.")
    link_index = models.ForeignKey(LinkIndex, null=True, on_delete=models.PROTECT)
    contacts_without_source_id = models.PositiveIntegerField(null=True)
    candidates = models.PositiveBigIntegerField(null=True, help_text="From the counting query: at planning, then afresh by verification.")
    stale = models.PositiveBigIntegerField(null=True)
    verification = models.JSONField(null=True)
    boundary = models.JSONField(null=True, help_text="Both systems at the seam; see boundary.py.")
    warnings = models.JSONField(default=list, help_text="What staff should know before they trust the run, in sentences.")
    withdrawal = models.JSONField(null=True, help_text="Rows removed so far, by category; see withdrawal.py.")

    planned_at = models.DateTimeField()
    planned_by = models.TextField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    # Planning and verification are work of the run itself, leased like a chunk.
    token = models.PositiveBigIntegerField(default=0)
    lease_owner = models.TextField(blank=True)
    lease_expires_at = models.DateTimeField(null=True)

    objects = RunQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        permissions = [("withdraw_run", "Can withdraw a run: remove its rows from the CDP")]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=[*RunState]), name="run_state_known"),
            models.CheckConstraint(condition=Q(mode__in=[*RunMode]), name="run_mode_known"),
            models.CheckConstraint(condition=Q(reason_code__in=[*RunReason]), name="run_reason_known"),
            models.UniqueConstraint(fields=["account"], condition=Q(state__in=[*ACTIVE]), name="run_one_active_per_account"),
            models.CheckConstraint(condition=~Q(state__in=[*FINISHED]) | Q(finished_at__isnull=False), name="run_finished_has_time"),
            models.CheckConstraint(condition=Q(chunk_size__gte=1), name="run_chunk_size_positive"),
            models.CheckConstraint(
                condition=Q(lease_owner="", lease_expires_at__isnull=True) | Q(lease_expires_at__isnull=False) & ~Q(lease_owner=""),
                name="run_lease_whole",
            ),
        ]
        indexes = [models.Index(fields=["state"], name="run_state")]

    def __str__(self) -> str:
        return f"Run {self.pk} ({self.get_mode()}, {self.account})"

    def get_mode(self) -> str:
        return self.mode.replace("_", " ")

    @property
    def removed(self) -> int:
        """Rows of it that were removed from the CDP again."""
        return sum((self.withdrawal or {}).get("removed", {}).values())

    @property
    def writes(self) -> bool:
        return self.mode == RunMode.PRODUCTION
