"""How a run that was worked through ends: succeeded, partial or failed, with the reason in words."""

from datetime import datetime
from typing import Any

from django.db import transaction

from migration import boundary, chunks, reconcile
from migration.models import Run, StaleRow
from migration.pipeline.rows import row_id
from migration.runs import move
from migration.states import RunReason, RunState

MOST_ROUNDS = 5  # verifications of a run


@transaction.atomic
def conclude(run: Run, found: reconcile.Verification, seam: boundary.Boundary, *, by: str, now: datetime) -> None:
    """Succeeded, partial or failed; or the chunks sent back that what disagrees lies in."""
    remember_stale(run, found)
    fields: dict[str, Any] = {
        "verification": found.as_json() | {"rounds": rounds(run) + 1},
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
    elif should_repeat(run, found) and (back := repeat(run, found)):
        reason = f"Verification found {found.candidates} candidates, the ledger {found.accounted}; {some(back, 'chunk')} done again."
        if found.lost:
            reason += f" The CDP has no receipt of {numbered(len(found.lost), 'chunk')}: it was restored, or a standby took its place."
        move(run, RunState.RUNNING, by=by, now=now, reason=reason, **fields)
    else:
        code = (
            RunReason.VERIFICATION_DISAGREES
            if found.missing or found.differing or found.misfits or found.lost
            else RunReason.LEDGER_UNBALANCED
        )
        move(run, RunState.FAILED, by=by, now=now, code=code, reason=disagreement(found), **fields)


def quarantined_sentence(number: int) -> str:
    return f"{number:,} candidates are quarantined." if number != 1 else "1 candidate is quarantined."


def remember_stale(run: Run, found: reconcile.Verification) -> None:
    """List the rows of ours that should not stand there any more; they stay until somebody has them removed."""
    StaleRow.objects.filter(run=run).delete()
    rows = (StaleRow(run=run, row_id=row_id(person, audit), person_id=person, audit_id=audit) for person, audit in found.stale_keys)
    StaleRow.objects.bulk_create(rows, batch_size=2000)


def rounds(run: Run) -> int:
    """How often the run has been verified since a person last had it tried again."""
    return run.verification.get("rounds", 1) if run.verification else 0


def should_repeat(run: Run, found: reconcile.Verification) -> bool:
    """Whether doing chunks again may help: it has not been tried, or what disagrees now is not what disagreed then.

    In a CRM at work candidates come and go while chunks are done again, which takes the less time the fewer they are.
    """
    if not run.verification:
        return found.may_be_mended
    before = tuple(run.verification.get(name, 0) for name in ("candidates", "accounted", "missing", "lost"))
    is_new = before != (found.candidates, found.accounted, found.missing, len(found.lost))
    return found.may_be_mended and not found.differing and is_new and rounds(run) + 1 < MOST_ROUNDS


def repeat(run: Run, found: reconcile.Verification) -> int:
    """Send back what disagrees; how many chunks. What was tried again stands beside the chunks that had quarantined it: all of them go together."""
    numbers = chunks_to_repeat(run, found)
    with_retries = not numbers.isdisjoint(found.tried_again)
    return chunks.send_back(run, numbers | found.tried_again if with_retries else numbers, with_retries=with_retries)


def chunks_to_repeat(run: Run, found: reconcile.Verification) -> set[int]:
    """Chunks that what is missing or counted otherwise lies in; all of them where sampled rows differ."""
    if found.differing:
        return set(run.chunks.filter(pairs__isnull=True).values_list("number", flat=True))
    numbers = found.uneven | found.lost
    ranges = run.chunks.filter(pairs__isnull=True)
    for number, first, last, audit_from, audit_to in ranges.values_list("number", "person_from", "person_to", "audit_from", "audit_to"):
        for person, audit in found.lacking:
            if first <= person <= last and (audit_from or 0) <= audit and (audit_to is None or audit < audit_to):
                numbers.add(number)
                break
    return numbers


def disagreement(found: reconcile.Verification) -> str:
    parts = [f"the source has {found.candidates} candidates, the ledger {found.accounted}"] if found.candidates != found.accounted else []
    parts += [f"{some(len(found.uneven), 'chunk')} uneven with the source"] if found.uneven and not parts else []
    parts += [f"{some(found.missing, 'candidate')} missing in the CDP"] if found.missing else []
    parts += [f"{some(len(found.lost), 'chunk')} without a receipt in the CDP"] if found.lost else []
    parts += [f"{found.differing} of {found.sampled} sampled rows differ from what mapping them again gives"] if found.differing else []
    parts += [f"{some(found.misfits, 'row')} under an id or an account that is not its own"] if found.misfits else []
    return f"Verification disagrees: {', '.join(parts)}."


def some(number: int, noun: str) -> str:
    return f"{numbered(number, noun)} {'is' if number == 1 else 'are'}"


def numbered(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
