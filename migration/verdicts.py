"""How a run that was worked through ends: succeeded, partial or failed, with the reason in words."""

from datetime import datetime
from typing import Any

from migration import boundary, chunks, reconcile
from migration.models import Run, StaleRow
from migration.pipeline.rows import row_id
from migration.runs import move
from migration.states import RunReason, RunState


def conclude(run: Run, found: reconcile.Verification, seam: boundary.Boundary, *, by: str, now: datetime) -> None:
    """Succeeded, partial or failed; or, once, the chunks of what is missing sent back."""
    remember_stale(run, found)
    # Chunks that tried quarantined candidates again stand beside the ones that quarantined them: done anew, the two would count twice.
    first_time = run.verification is None and not run.chunks.filter(pairs__isnull=False).exists()
    fields: dict[str, Any] = {
        "verification": found.as_json(),
        "candidates": found.candidates,
        "stale": found.stale,
        "boundary": seam.as_json(),
        "warnings": seam.warnings(),
    }
    quarantined = run.quarantined.filter(waiver__isnull=True).count()
    if found.agrees and quarantined:
        move(run, RunState.PARTIAL, by=by, now=now, code=RunReason.QUARANTINED, reason=quarantined_sentence(quarantined), **fields)
    elif found.agrees:
        move(run, RunState.SUCCEEDED, by=by, now=now, **fields)
    elif first_time and found.may_be_mended and (back := chunks.send_back(run, chunks_to_repeat(run, found.lacking))):
        reason = f"Verification found {found.candidates} candidates, the ledger {found.accounted}; {back} chunks are done again."
        move(run, RunState.RUNNING, by=by, now=now, reason=reason, **fields)
    else:
        code = RunReason.VERIFICATION_DISAGREES if found.missing or found.differing or found.misfits else RunReason.LEDGER_UNBALANCED
        move(run, RunState.FAILED, by=by, now=now, code=code, reason=disagreement(found), **fields)


def quarantined_sentence(number: int) -> str:
    return f"{number} candidates are quarantined." if number != 1 else "1 candidate is quarantined."


def remember_stale(run: Run, found: reconcile.Verification) -> None:
    """List the rows of ours that are candidates no more; they stay until somebody has them removed."""
    StaleRow.objects.filter(run=run).delete()
    rows = (StaleRow(run=run, row_id=row_id(person, audit), person_id=person, audit_id=audit) for person, audit in found.stale_keys)
    StaleRow.objects.bulk_create(rows, batch_size=2000)


def chunks_to_repeat(run: Run, lacking: list[reconcile.Key]) -> list[int]:
    """Chunks that the missing candidates lie in; all of them where only the counts differ, or sampled rows do."""
    if not lacking:
        return list(run.chunks.values_list("number", flat=True))
    numbers = set()
    for number, first, last, audit_from, audit_to in run.chunks.values_list("number", "person_from", "person_to", "audit_from", "audit_to"):
        for person, audit in lacking:
            if first <= person <= last and (audit_from or 0) <= audit and (audit_to is None or audit < audit_to):
                numbers.add(number)
                break
    return sorted(numbers)


def disagreement(found: reconcile.Verification) -> str:
    parts = [f"the source has {found.candidates} candidates, the ledger {found.accounted}"] if found.candidates != found.accounted else []
    parts += [f"{some(found.missing, 'candidate')} missing in the CDP"] if found.missing else []
    parts += [f"{found.differing} of {found.sampled} sampled rows differ from what mapping them again gives"] if found.differing else []
    parts += [f"{some(found.misfits, 'row')} under an id or an account that is not its own"] if found.misfits else []
    return f"Verification disagrees: {', '.join(parts)}."


def some(number: int, noun: str) -> str:
    return f"{number} {noun} is" if number == 1 else f"{number} {noun}s are"
