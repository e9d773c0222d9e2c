from django.db import models

from migration.models.run import Run


class ActorAnswer(models.Model):
    """What USMAN said of one e-mail during one run, so that all its workers and its verification see the same person.

    Kept for each run, not for longer: a person deactivated since is then corrected by the next run.
    """

    run = models.ForeignKey(Run, on_delete=models.CASCADE)
    email = models.TextField("e-mail, in lower case")
    usman_id = models.TextField(null=True)
    name = models.TextField(null=True)
    status = models.TextField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "email"], name="actoranswer_once"),
            # Unknown people are answers too: then all three are null together.
            models.CheckConstraint(
                condition=models.Q(usman_id__isnull=True, status__isnull=True) | models.Q(usman_id__isnull=False, status__isnull=False),
                name="actoranswer_known_or_not",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.usman_id or 'unknown'} ({self.status or 'not in USMAN'})"
