"""What is recorded of gates. Evidence and sign-offs are append-only: triggers refuse UPDATE, DELETE and TRUNCATE to every program.

One change they allow: the body of old evidence gives way to its SHA-256 (retention.py).
"""

from datetime import datetime, timedelta

from django.conf import settings
from django.db import models
from django.db.models import Q

from migration.models import Account


class Decision(models.TextChoices):
    """What a person of an owner group decides; the latest one of a group counts."""

    SIGNED = "signed"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"


class Gate(models.Model):
    """One of the eight gates, seeded by a schema migration; gates/catalogue.py says what it does."""

    letter = models.CharField(max_length=1, primary_key=True)
    title = models.TextField()
    statement = models.TextField("what is signed")
    question = models.TextField(blank=True)
    owners = models.JSONField(help_text="Names of the groups that must sign, all of them.")
    scope = models.CharField(max_length=16)
    until_open = models.TextField()
    valid_days = models.PositiveSmallIntegerField(default=30, help_text="How long a sign-off stands.")

    class Meta:
        ordering = ("letter",)
        constraints = [
            models.CheckConstraint(condition=Q(scope__in=["global", "account"]), name="gate_scope_known"),
            models.CheckConstraint(condition=Q(valid_days__gte=1), name="gate_valid_some_days"),
        ]

    def __str__(self) -> str:
        return f"Gate {self.letter}"


class Evidence(models.Model):
    """What a probe measured, once. Written by evidence.py only, never changed."""

    gate = models.ForeignKey(Gate, on_delete=models.PROTECT, related_name="evidence")
    account = models.ForeignKey(Account, null=True, on_delete=models.PROTECT, related_name="evidence")
    passes = models.BooleanField()
    findings = models.JSONField(help_text="[{ok: true, false or null (for the signers to judge), sentence}].")
    facts = models.JSONField(help_text="What was found, as the probe's module describes it.")
    configuration = models.JSONField(help_text="What it was measured against; part of the digest.")
    digest = models.CharField(max_length=64, help_text="SHA-256 over configuration and verdict, never over timings or drifting counts.")
    seconds = models.FloatField()
    measured_at = models.DateTimeField()
    measured_by = models.TextField()

    class Meta:
        ordering = ("-id",)
        verbose_name_plural = "evidence"
        indexes = [models.Index(fields=["gate", "account", "-id"], name="evidence_newest")]

    def __str__(self) -> str:
        return f"Evidence {self.pk} of {self.gate}"


class SignOff(models.Model):
    """One decision of one person for one owner group. Written by signoffs.py only, never changed."""

    gate = models.ForeignKey(Gate, on_delete=models.PROTECT, related_name="signoffs")
    account = models.ForeignKey(Account, null=True, on_delete=models.PROTECT, related_name="signoffs")
    group = models.TextField()
    decision = models.CharField(max_length=16, choices=Decision.choices)
    evidence = models.ForeignKey(Evidence, null=True, on_delete=models.PROTECT, related_name="signoffs")
    statement = models.TextField(help_text="The words that were signed, as they stood.")
    note = models.TextField()
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    valid_days = models.PositiveSmallIntegerField(db_default=30, help_text="How long it stands at most: the gate's days as they were then.")
    decided_at = models.DateTimeField()
    decided_by = models.TextField(help_text="The username, as it was then.")

    class Meta:
        ordering = ("-id",)
        verbose_name = "sign-off"
        indexes = [models.Index(fields=["gate", "account", "group", "-id"], name="signoff_newest")]
        constraints = [
            models.CheckConstraint(condition=Q(decision__in=Decision.values), name="signoff_decision_known"),
            models.CheckConstraint(condition=~Q(note=""), name="signoff_has_note"),
        ]

    @property
    def stands_until(self) -> datetime:
        """Fewer days for the gate end it sooner; more days never bring back what was signed for fewer."""
        return self.decided_at + timedelta(days=self.days)

    @property
    def days(self) -> int:
        return min(self.valid_days, self.gate.valid_days)

    def __str__(self) -> str:
        return f"{self.gate} {self.decision} by {self.decided_by} for {self.group}"


class Milestone(models.Model):
    """One step of the delivery plan. What its status follows from is in milestones.py; an empty `status` follows from the data."""

    position = models.PositiveSmallIntegerField(unique=True)
    name = models.TextField()
    effort = models.TextField(blank=True)
    confidence = models.TextField(blank=True)
    target = models.TextField(blank=True)
    status = models.TextField(blank=True)
    follows = models.CharField(max_length=16, blank=True, help_text="Which data the status follows from: gates, dry_runs or runs.")

    class Meta:
        ordering = ("position",)
        constraints = [
            models.CheckConstraint(condition=Q(follows__in=["", "gates", "dry_runs", "runs"]), name="milestone_follows_known"),
        ]

    def __str__(self) -> str:
        return self.name
