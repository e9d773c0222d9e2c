from django.db import models
from django.db.models import F, Q


class LinkIndex(models.Model):
    """The deal-contact links of one CRM under one set of join classes, over time; built by links.py, read by planning and workers."""

    key = models.CharField(max_length=64, unique=True, help_text="Digest of the CRM's address and the join roles.")
    cursor = models.BigIntegerField(default=-1, help_text="Last join-row id of the first build; -1 before it.")
    built = models.BooleanField(default=False)
    covers_to = models.BigIntegerField(null=True, help_text="Highest audit id that the last build or extension had seen.")
    covered_at = models.DateTimeField(null=True, help_text="When it looked; younger audits may have committed behind its back.")
    settled_to = models.BigIntegerField(
        default=0, help_text="Audit ids under this one were older than any transaction that could still be open."
    )
    pages = models.JSONField(
        default=dict,
        db_default={},
        help_text="First audit id of each page from there on: what it told at the last look; see link_source.Page.",
    )
    settled_audits = models.BigIntegerField(
        default=0, help_text="Audits of join rows among them; a later count that differs has the index built again."
    )
    counted_at = models.DateTimeField(
        null=True, help_text="When they were last counted; where that is slow they are not counted each time."
    )
    counting_seconds = models.FloatField(default=0.0, db_default=0.0)
    building_to = models.BigIntegerField(null=True, help_text="Highest audit id when the first build began.")
    building_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "link indexes"
        constraints = [
            models.CheckConstraint(condition=Q(covers_to__isnull=True, covered_at__isnull=True) | Q(covers_to__isnull=False, covered_at__isnull=False),
                                   name="linkindex_covers_whole")
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"Links up to audit {self.covers_to}" if self.built else "Links, being built"


class DealLink(models.Model):
    """A contact linked to a deal after one audit and before another; see link_history.Link."""

    index = models.ForeignKey(LinkIndex, on_delete=models.CASCADE)
    join_row = models.BigIntegerField("join row's id in the CRM")
    person_id = models.BigIntegerField("CRM person id")
    deal_id = models.BigIntegerField("CRM deal id")
    from_audit = models.BigIntegerField()
    to_audit = models.BigIntegerField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(to_audit__isnull=True) | Q(to_audit__gt=F("from_audit")), name="deallink_forward")
        ]
        indexes = [
            models.Index(fields=["index", "person_id"], name="deallink_person"),
            models.Index(fields=["index", "join_row"], name="deallink_row"),
        ]

    def __str__(self) -> str:
        return f"Person {self.person_id} in deal {self.deal_id}, audits {self.from_audit} to {self.to_audit or 'now'}"


class JoinConcern(models.Model):
    """A join row's audit and what it concerns: of deal-contact rows a contact (rule 3), of deal-company rows a deal's contacts (rule 5)."""

    index = models.ForeignKey(LinkIndex, on_delete=models.CASCADE)
    join_row = models.BigIntegerField("join row's id in the CRM")
    audit_id = models.BigIntegerField()
    person_id = models.BigIntegerField("CRM person id", null=True)
    deal_id = models.BigIntegerField("CRM deal id", null=True)
    company_id = models.BigIntegerField("CRM company id", null=True)
    moved = models.CharField(max_length=12, blank=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(person_id__isnull=False) | Q(deal_id__isnull=False), name="joinconcern_has_end")]
        indexes = [
            models.Index(fields=["index", "person_id"], name="joinconcern_person", condition=Q(person_id__isnull=False)),
            models.Index(fields=["index", "deal_id"], name="joinconcern_deal", condition=Q(person_id__isnull=True)),
            models.Index(fields=["index", "join_row"], name="joinconcern_row"),
            models.Index(fields=["index", "audit_id"], name="joinconcern_audit"),
        ]

    def __str__(self) -> str:
        return f"Audit {self.audit_id} of join row {self.join_row}"


class LinkOddity(models.Model):
    """A join row's audit that names no contact, or the end of a link whose start no audit tells: for the source, no account has it."""

    index = models.ForeignKey(LinkIndex, on_delete=models.CASCADE, related_name="oddities")
    join_row = models.BigIntegerField("join row's id in the CRM")
    audit_id = models.BigIntegerField()
    kind = models.CharField(max_length=12)

    class Meta:
        verbose_name_plural = "link oddities"
        constraints = [models.CheckConstraint(condition=Q(kind__in=["contactless", "startless"]), name="linkoddity_kind_known")]
        indexes = [
            models.Index(fields=["index", "join_row"], name="linkoddity_row"),
            models.Index(fields=["index", "audit_id"], name="linkoddity_audit"),
        ]

    def __str__(self) -> str:
        return f"Audit {self.audit_id}: {self.kind}"
