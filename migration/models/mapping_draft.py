from django.db import models
from django.db.models import Q

from migration.models.mapping_revision import MappingRevision


class MappingDraft(models.Model):
    """A mapping that staff are working on. Its effect is counted before it can be published; an edit makes the count stale."""

    name = models.CharField(max_length=120)
    document = models.JSONField()
    based_on = models.ForeignKey(MappingRevision, null=True, on_delete=models.PROTECT, related_name="drafts")
    edited_at = models.DateTimeField()
    edited_by = models.TextField()

    effect = models.JSONField(null=True, blank=True, help_text="By account, as effects.py counts it; null: not counted.")
    effect_digest = models.CharField(max_length=64, blank=True, help_text="Digest of what was counted.")
    effect_reason = models.TextField(blank=True, help_text="Why it is not counted, or how far the counting is.")
    effect_at = models.DateTimeField(null=True)

    published = models.OneToOneField(MappingRevision, null=True, blank=True, on_delete=models.PROTECT, related_name="draft")

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.CheckConstraint(
                condition=Q(effect__isnull=True) | ~Q(effect_digest="") & Q(effect_at__isnull=False), name="draft_effect_whole"
            )
        ]

    def __str__(self) -> str:
        return self.name
