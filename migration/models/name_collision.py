from django.db import models
from django.db.models import Q

from migration.models.account import Account


class NameCollision(models.Model):
    """Audits of one record, class and version that give different names: two writers. Staff decide which name stood; the next run heeds it."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT)
    role = models.CharField(max_length=24)
    record_id = models.BigIntegerField("CRM record id")
    class_name = models.TextField()
    version = models.IntegerField()
    candidates = models.JSONField(help_text="[[audit id, name], ...]")
    first_seen_at = models.DateTimeField()
    decided_name = models.TextField(null=True, blank=True)
    decided_at = models.DateTimeField(null=True)
    decided_by = models.TextField(blank=True)
    note = models.TextField(blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(fields=["account", "role", "record_id", "class_name", "version"], name="collision_once"),
            models.CheckConstraint(
                condition=Q(decided_name__isnull=True, decided_at__isnull=True, decided_by="")
                | Q(decided_name__isnull=False, decided_at__isnull=False) & ~Q(decided_by=""),
                name="collision_decision_whole",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role} {self.record_id}, version {self.version}: {len(self.candidates)} names"
