from django.db import models
from django.db.models import Q


class SetWatermark(models.Model):
    """A watermark that staff set by hand for one entity of an account; the newest one counts, the older ones tell the story."""

    account = models.ForeignKey("migration.Account", on_delete=models.PROTECT)
    entity = models.CharField(max_length=16, choices=[(e, e) for e in ("contact", "deal", "task", "ticket", "note")])
    moment = models.DateTimeField(null=True, blank=True, help_text="Empty: back to what the live rows say.")
    note = models.TextField()
    set_at = models.DateTimeField()
    set_by = models.TextField()

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.CheckConstraint(condition=Q(entity__in=["contact", "deal", "task", "ticket", "note"]), name="setwatermark_entity_known"),
            models.CheckConstraint(condition=~Q(note="") & ~Q(set_by=""), name="setwatermark_says_who_and_why"),
        ]

    def __str__(self) -> str:
        return f"{self.entity}: {self.moment or 'by the live rows'}"
