from django.db import models

from migration.models.run import Run


class RivalClaim(models.Model):
    """A CDP contact of another account that claims a CRM person of this run's account, as seen when the run was planned."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE)
    person_id = models.BigIntegerField("CRM person id")
    crm_organization_id = models.BigIntegerField("CRM organisation id of the other account")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "person_id", "crm_organization_id"], name="rivalclaim_once")]

    def __str__(self) -> str:
        return f"CRM person {self.person_id} is claimed by organisation {self.crm_organization_id} too"
