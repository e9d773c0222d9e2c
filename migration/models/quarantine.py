from django.db import models
from django.db.models import Q

from migration.models.account import Account
from migration.models.chunk import Chunk
from migration.models.run import Run
from migration.models.waiver import Waiver
from migration.states import Reason


class QuarantinedCandidate(models.Model):
    """A candidate (audit, contact) that a run put aside, with the reason. It names ids only, none of the audit's text."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="quarantined")
    chunk = models.ForeignKey(Chunk, on_delete=models.CASCADE)
    account = models.ForeignKey(Account, on_delete=models.PROTECT)
    audit_id = models.BigIntegerField()
    person_id = models.BigIntegerField("CRM person id")
    contact_id = models.UUIDField("CDP contact id", null=True)
    reason = models.CharField(max_length=32)
    detail = models.TextField(blank=True)
    error_class = models.TextField(blank=True)
    waiver = models.ForeignKey(Waiver, null=True, on_delete=models.PROTECT, help_text="Set where a named person waived it.")

    class Meta:
        verbose_name = "quarantined candidate"
        ordering = ("-run", "person_id", "audit_id")
        constraints = [
            models.UniqueConstraint(fields=["run", "audit_id", "person_id"], name="quarantine_once_per_run"),
            models.CheckConstraint(condition=Q(reason__in=[*Reason]), name="quarantine_reason_known"),
            models.CheckConstraint(
                condition=~Q(reason=Reason.PROCESSING_FAILED) | ~Q(error_class=""), name="quarantine_failure_names_its_class"
            ),
        ]
        indexes = [models.Index(fields=["account", "reason"], name="quarantine_by_reason")]

    def __str__(self) -> str:
        return f"Audit {self.audit_id} of CRM person {self.person_id}: {self.reason}"
