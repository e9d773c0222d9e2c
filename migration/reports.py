"""A run as one report: the object that `--json` prints (SPEC section 8), and the same in words for a terminal."""

from collections.abc import Iterator
from typing import Any

from migration import ledger
from migration.ledger import Ledger
from migration.models import Run
from migration.states import COMPLETE, RunMode


def as_json(run: Run) -> dict[str, object]:
    """The report of a run, whatever its state."""
    found = ledger.of(run)
    seconds = (run.finished_at - run.started_at).total_seconds() if run.finished_at and run.started_at else None
    return {
        "run": run.pk,
        "account": run.account.crm_organization_id,
        "mode": run.mode,
        "state": run.state,
        "reason": run.reason,
        "watermark": run.watermark,
        "mapping_revision": run.mapping_revision.number,
        "ledger": found.as_json() | {"balances": found.balances},
        "categories": dict(sorted(found.categories.items())),
        "actor_kinds": dict(sorted(found.actor_kinds.items())),
        "recategorised": dict(sorted(found.recategorised.items())),
        "verification": run.verification,
        "beyond_watermark": dict(sorted(found.beyond.items())),
        "boundary": run.boundary,
        "warnings": run.warnings,
        "prediction": prediction(run, found),
        "contacts_without_source_id": run.contacts_without_source_id,
        "stale": run.stale,
        "seconds": seconds,
    }


def prediction(run: Run, actual: Ledger) -> dict[str, object] | None:
    """What the account's last dry run before this production run foresaw, beside what came; None where there is none to compare."""
    if run.mode != RunMode.PRODUCTION:
        return None
    same = {name: getattr(run, name) for name in ("account", "mapping_revision", "pipeline_version", "capabilities")}
    # A dry run from before the last production run foresaw that one, not this.
    last = Run.objects.filter(account=run.account, mode=RunMode.PRODUCTION, pk__lt=run.pk).exclude(started_at=None).first()
    dry = Run.objects.filter(mode=RunMode.DRY_RUN, state__in=COMPLETE, pk__lt=run.pk, pk__gt=last.pk if last else 0, **same).first()
    if dry is None:
        return None
    foreseen = ledger.of(dry)
    predicted, came = figures(foreseen), figures(actual)
    return {"run": dry.pk, "agrees": predicted == came, "predicted": predicted, "actual": came}


def figures(found: Ledger) -> dict[str, object]:
    return found.as_json() | {"categories": dict(sorted(found.categories.items())), "actor_kinds": dict(sorted(found.actor_kinds.items()))}


def in_words(run: Run) -> Iterator[str]:
    """The report as lines: the ledger as a sum, then what was loaded, then verification."""
    found = ledger.of(run)
    yield f"{run.account}: {run.get_mode()}, run {run.pk}, mapping revision {run.mapping_revision.number}"
    yield from sum_lines(found)
    yield from table("by category", found.categories)
    yield from table("by actor", found.actor_kinds)
    yield from table("corrected", found.recategorised)
    yield from table("left to the live sync", found.beyond)
    if run.contacts_without_source_id:
        yield f"  contacts without a CRM person id: {run.contacts_without_source_id}"
    if run.stale:
        yield f"  stale rows (ours, but candidates no more, or another tenant's): {run.stale}"
    yield f"  verification: {verdict(run)}"
    yield from (f"  warning: {each}" for each in run.warnings)
    yield f"  {run.state}{': ' + run.reason if run.reason else ''}"


def sum_lines(found: Ledger) -> Iterator[str]:
    """candidates = ... and whether it adds up."""
    yield f"  candidates {found.candidates:>12,}   counted on the source"
    for name in ("written", "corrected", "unchanged", "already_live"):
        yield f"  {name:<12}{getattr(found, name):>11,}"
    for name in ("skipped", "quarantined", "waived"):
        for reason, number in sorted(getattr(found, name).items()):
            yield f"  {name:<12}{number:>11,}   {reason}"
    yield f"  {'balances' if found.balances else 'DOES NOT BALANCE':<12}{found.outcomes:>11,}   outcomes"


def table(title: str, counts: dict[str, int]) -> Iterator[str]:
    if counts:
        yield f"  {title}: " + ", ".join(
            f"{name} {number:,}" for name, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        )


def verdict(run: Run) -> str:
    """What verification found, in a sentence."""
    found = run.verification
    if not found:
        return "not done yet"
    if not run.writes:
        return f"{found['candidates']:,} candidates counted afresh on the source, {found['accounted']:,} in the ledger"
    if found["agrees"]:
        return f"agrees: {found['candidates']:,} candidate keys read afresh and found, {found['sampled']:,} rows mapped again and equal"
    numbers = f"{found['candidates']:,} candidates on the source, {found['accounted']:,} in the ledger; " if is_uneven(found) else ""
    misfits = f"{found['misfits']:,} under an id or an account not their own; " if found.get("misfits") else ""
    lost = f"{found['lost']:,} chunks without a receipt in the CDP; " if found.get("lost") else ""
    counts = f"{found['missing']:,} missing, {found['differing']:,} of {found['sampled']:,} sampled rows differ; {misfits}{lost}"
    return f"DISAGREES: {numbers}{counts}{'; '.join(found['examples'])}"


def is_uneven(found: dict[str, Any]) -> bool:
    """Whether source and ledger differ in number, be it in a chunk's range only."""
    return bool(found["candidates"] != found["accounted"] or found.get("uneven"))
