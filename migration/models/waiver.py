from django.db import models
from django.db.models import Q

from migration.models.account import Account
from migration.states import Reason


class Waiver(models.Model):
    """A named person's word that one candidate, quarantined for one reason, will not be moved. It holds for every later run too."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT)
    person_id = models.BigIntegerField("CRM person id")
    audit_id = models.BigIntegerField()
    reason = models.CharField(max_length=32)
    note = models.TextField()
    waived_at = models.DateTimeField()
    waived_by = models.TextField()

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(fields=["account", "person_id", "audit_id", "reason"], name="waiver_once"),
            models.CheckConstraint(condition=Q(reason__in=[*Reason]), name="waiver_reason_known"),
            models.CheckConstraint(condition=~Q(note="") & ~Q(waived_by=""), name="waiver_says_who_and_why"),
        ]

    def __str__(self) -> str:
        return f"Audit {self.audit_id} of CRM person {self.person_id}, waived by {self.waived_by}"
