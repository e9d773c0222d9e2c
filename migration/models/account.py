from django.db import models


class Account(models.Model):
    """A customer of the CDP, and the CRM organisation whose history belongs to it. Written by `sync_accounts` only."""

    cdp_id = models.UUIDField("CDP account id", unique=True)
    crm_organization_id = models.BigIntegerField("CRM organisation id", unique=True)
    name = models.TextField()
    synced_at = models.DateTimeField()
    gone = models.BooleanField("no longer in the CDP", default=False)

    class Meta:
        ordering = ("crm_organization_id",)

    def __str__(self) -> str:
        return f"{self.name} (organisation {self.crm_organization_id})"
