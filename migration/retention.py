"""What old runs keep of people is blanked: details of quarantined candidates, samples of dry runs, what USMAN answered. Counts, ids and digests stay."""

from datetime import datetime

from django.db import connection

from migration.models import ActorAnswer, QuarantinedCandidate, Run
from migration.states import FINISHED

# A receipt without its samples (rows of dry runs, before and after) and without the details of what it put aside: [person, audit, contact, reason,
# detail, error class].
BLANK_RECEIPTS = """
    UPDATE migration_chunk SET receipt = receipt || jsonb_build_object('samples', '[]'::jsonb, 'quarantined', (
        SELECT coalesce(jsonb_agg(jsonb_set(q, '{4}', '""') ORDER BY at), '[]') FROM jsonb_array_elements(receipt -> 'quarantined') WITH ORDINALITY e(q, at)))
    WHERE run_id = ANY(%s) AND """
# `strict`: each of the quarantined is an array itself, which a lax path would take apart before the filter sees it.
HAS_BODY = """(receipt -> 'samples' <> '[]' OR jsonb_path_exists(receipt, 'strict $.quarantined[*] ? (@[4] != "")'))"""


def old_runs(before: datetime) -> list[int]:
    return list(Run.objects.filter(state__in=FINISHED, finished_at__lt=before).values_list("pk", flat=True))


def count(before: datetime) -> dict[str, int]:
    """What `blank` would do."""
    runs = old_runs(before)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM migration_chunk WHERE run_id = ANY(%s) AND {HAS_BODY}", [runs])  # noqa: S608 - constants only
        receipts = cursor.fetchone()[0]
    return {
        "quarantine_details": QuarantinedCandidate.objects.filter(run__in=runs).exclude(detail="").count(),
        "receipts": receipts,
        "usman_answers": ActorAnswer.objects.filter(run__in=runs).count(),
    }


def blank(before: datetime) -> dict[str, int]:
    """Do it, for runs that ended before that moment; how many of each. The caller has a transaction, and records the Event."""
    runs = old_runs(before)
    details = QuarantinedCandidate.objects.filter(run__in=runs).exclude(detail="").update(detail="")
    with connection.cursor() as cursor:
        cursor.execute(BLANK_RECEIPTS + HAS_BODY, [runs])
        receipts = cursor.rowcount
    answers, _ = ActorAnswer.objects.filter(run__in=runs).delete()
    return {"quarantine_details": details, "receipts": receipts, "usman_answers": answers}
