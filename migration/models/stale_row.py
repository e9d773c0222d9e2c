from django.db import models

from migration.models.run import Run


class StaleRow(models.Model):
    """A row of ours in the CDP that should not stand there any more, as a run's verification found it. It is never removed by itself."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="stale_rows")
    row_id = models.UUIDField("row id in the CDP")
    person_id = models.BigIntegerField("CRM person id")
    audit_id = models.BigIntegerField()

    class Meta:
        ordering = ("-run", "person_id", "audit_id")
        permissions = [("remove_stalerow", "Can remove stale rows from the CDP")]
        constraints = [models.UniqueConstraint(fields=["run", "row_id"], name="stalerow_once")]

    def __str__(self) -> str:
        return f"Row {self.row_id} (audit {self.audit_id}, CRM person {self.person_id})"
