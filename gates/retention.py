"""The bodies of old evidence give way to their SHA-256: findings and facts may name people. The database allows evidence no other change."""

from datetime import datetime

from django.db import connection
from django.db.models import Max, QuerySet

from gates.models import Evidence, SignOff

LEAST_DAYS = 30  # younger bodies the database itself keeps
BLANK = "UPDATE gates_evidence SET facts = '{}', findings = gates_blanked(findings, facts) WHERE id = ANY(%s)"


def old(before: datetime) -> QuerySet[Evidence]:
    """Evidence whose body may go: neither the newest of its gate and account, nor what a group's latest decision there was made on."""
    newest = Evidence.objects.values("gate", "account").annotate(last=Max("pk")).values("last")
    latest = SignOff.objects.values("gate", "account", "group").annotate(last=Max("pk")).values("last")
    decided_on = SignOff.objects.filter(pk__in=latest, evidence__isnull=False).values("evidence")
    return Evidence.objects.filter(measured_at__lt=before).exclude(facts={}).exclude(pk__in=newest).exclude(pk__in=decided_on)


def blank(before: datetime) -> int:
    """How many were blanked."""
    with connection.cursor() as cursor:
        cursor.execute(BLANK, [list(old(before).values_list("pk", flat=True))])
        return cursor.rowcount
