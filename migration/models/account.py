from django.db import models
from django.db.models import Q


class Account(models.Model):
    """A customer of the CDP, and the CRM organisation whose history belongs to it. Written by `sync_accounts` only."""

    cdp_id = models.UUIDField("CDP account id", unique=True)
    crm_organization_id = models.BigIntegerField("CRM organisation id", db_index=True)
    name = models.TextField()
    synced_at = models.DateTimeField()
    gone = models.BooleanField("no longer in the CDP", default=False)

    class Meta:
        ordering = ("crm_organization_id", "id")
        constraints = [
            # The CDP may give the organisation of an account that is gone to another one.
            models.UniqueConstraint(fields=["crm_organization_id"], condition=Q(gone=False), name="account_organization_once"),
        ]

    def __str__(self) -> str:
        return f"{self.name} (organisation {self.crm_organization_id})"
