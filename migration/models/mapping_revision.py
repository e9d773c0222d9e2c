from django.db import models


class MappingRevision(models.Model):
    """All class roles, id-sets, secrets and overrides, frozen. Its number names it to people, its digest to machines."""

    number = models.PositiveIntegerField(unique=True)
    digest = models.CharField(max_length=64, db_index=True)
    document = models.JSONField()
    published_at = models.DateTimeField()
    published_by = models.TextField()
    note = models.TextField(blank=True)

    class Meta:
        ordering = ("-number",)
        get_latest_by = "number"

    def __str__(self) -> str:
        return f"Mapping revision {self.number}"
