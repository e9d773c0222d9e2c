from django.db import models
from django.db.models import F, Q

from migration.models.run import Run
from migration.states import ChunkState


class Chunk(models.Model):
    """A range of CRM person ids (for a heavy contact: of its audit ids) of about `Run.chunk_size` candidates.

    This table is the queue of record: chunks.py alone writes it, and a Celery message only nudges.
    """

    uuid = models.UUIDField(unique=True, help_text="What the fence and the receipt in the CDP are kept under.")
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="chunks")
    number = models.PositiveIntegerField()
    person_from = models.BigIntegerField()
    person_to = models.BigIntegerField(help_text="Inclusive.")
    audit_from = models.BigIntegerField(null=True, help_text="Inclusive; set for a heavy contact only.")
    audit_to = models.BigIntegerField(null=True, help_text="Exclusive.")
    pairs = models.JSONField(null=True, help_text="Single candidates to try again: [[CRM person id, audit id, reason], ...].")
    parent = models.ForeignKey("self", null=True, on_delete=models.CASCADE, related_name="parts", help_text="The chunk it was split from.")
    expected = models.PositiveBigIntegerField(
        help_text="Audits of these contacts when the run was planned; a split chunk's are its parts'."
    )

    state = models.CharField(max_length=16, default=ChunkState.PENDING)
    reason = models.TextField(blank=True)
    attempts = models.PositiveSmallIntegerField(default=0, help_text="Data errors and dead processes; an outage does not count.")
    generation = models.PositiveSmallIntegerField(default=1, help_text="Raised when verification sends the chunk back.")
    not_before = models.DateTimeField(null=True, help_text="An outage waits until then.")

    token = models.PositiveBigIntegerField(default=0)
    lease_owner = models.TextField(blank=True)
    lease_expires_at = models.DateTimeField(null=True)

    sessions = models.JSONField(null=True, help_text="The worker's in the CRM and the CDP: {system: [[process id, its start], ...]}.")
    ended_at = models.DateTimeField(null=True, help_text="When it was done, failed or split; the database's clock.")

    receipt = models.JSONField(null=True, help_text="Counts as committed in the CDP; see pipeline/records.py.")
    seconds = models.FloatField(null=True)

    class Meta:
        ordering = ("run", "number")
        constraints = [
            models.UniqueConstraint(fields=["run", "number"], name="chunk_numbered_once"),
            models.CheckConstraint(condition=Q(state__in=[*ChunkState]), name="chunk_state_known"),
            models.CheckConstraint(condition=Q(person_from__lte=F("person_to")), name="chunk_range_forward"),
            models.CheckConstraint(
                condition=Q(state=ChunkState.LEASED, lease_expires_at__isnull=False) & ~Q(lease_owner="")
                | ~Q(state=ChunkState.LEASED) & Q(lease_expires_at__isnull=True, lease_owner=""),
                name="chunk_lease_whole",
            ),
            models.CheckConstraint(condition=~Q(state=ChunkState.DONE) | Q(receipt__isnull=False), name="chunk_done_has_receipt"),
            models.CheckConstraint(condition=Q(audit_to__isnull=True) | Q(person_from=F("person_to")), name="chunk_split_is_one_contact"),
        ]
        indexes = [
            models.Index(fields=["run", "state", "number"], name="chunk_queue"),
            models.Index(fields=["run", "-ended_at"], name="chunk_last_ended"),
        ]

    def __str__(self) -> str:
        return f"Chunk {self.number} of run {self.run_id}"
