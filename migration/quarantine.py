"""What staff do with quarantined candidates: try them again, or waive them. The ledger moves with it."""

from datetime import datetime
from uuid import uuid4

from django.db import transaction
from django.db.models import Max, OuterRef, QuerySet, Subquery

from migration import events, runs, summaries, verdicts
from migration.cdp import Cdp
from migration.models import Account, Chunk, MappingRevision, QuarantinedCandidate, RivalClaim, Run, Waiver
from migration.pipeline.flow import VERSION
from migration.states import RunMode, RunReason, RunState

RETRIED_AT_ONCE = 5_000  # candidates to a retry chunk
WAIVED_AT_ONCE = 5_000  # candidates to a statement


def latest_run(account: Account) -> Run | None:
    """The account's last production run that ended or is under way: the one whose quarantine can still be worked on."""
    return Run.objects.filter(account=account, mode=RunMode.PRODUCTION).exclude(state=RunState.CANCELLED).first()


def check_can_retry(run: Run, *, now: datetime) -> None:
    """Raise runs.Refused with the sentence that says why this run's quarantine cannot be tried again."""
    latest = latest_run(run.account)
    if run.mode != RunMode.PRODUCTION:
        raise runs.Refused(f"{run} is a dry run: run it again once the cause is mended.")
    if latest is None or latest.pk != run.pk:
        raise runs.Refused(f"{run} is not the account's latest production run; {latest} is.")
    if run.state != RunState.PARTIAL:
        raise runs.Refused(f"{run} is {run.state}: only a partial run's candidates are tried again; otherwise run the account again.")
    active = Run.objects.active().filter(account=run.account).first()
    if active is not None:
        raise runs.Refused(f"{active} is {active.state}: wait for it, or cancel it, before candidates of {run} are tried again.")
    refusals = runs.gate_decision(run.account, RunMode.PRODUCTION, now=now, run=run).refusals
    if refusals:
        raise runs.Refused(" ".join(refusals))
    capabilities = sorted(runs.gate_decision(run.account, RunMode.DRY_RUN, now=now).capabilities)
    revision = MappingRevision.objects.order_by("-number").first()
    if (run.mapping_revision, run.pipeline_version, run.capabilities) != (revision, VERSION, capabilities):
        raise runs.Refused(f"Mapping, gates or pipeline have changed since {run}: run the account again, which tries everything again.")


def retry(candidates: QuerySet[QuarantinedCandidate], cdp: Cdp, *, by: str, now: datetime, most: int | None = None) -> dict[Run, int]:
    """Have candidates processed again, as chunks of their own run; how many, by run. Waived ones stay waived. Raises Refused.

    `most` is how many somebody was shown: with more of them by now nothing is done.
    """
    with transaction.atomic():
        # Two retries at once, or a run's start: the second sees what the first did.
        list(Account.objects.select_for_update(no_key=True).filter(pk__in=candidates.values("account")).order_by("pk"))
        found = by_run(candidates)
        check_shown(sum(map(len, found.values())), most)
        for run in found:
            check_can_retry(run, now=now)
        for run, again in found.items():
            refresh_rivals(run, cdp)
            add_chunks(run, again)
            reason = (
                f"{len(again):,} quarantined candidates are tried again." if len(again) > 1 else "1 quarantined candidate is tried again."
            )
            runs.move(run, RunState.RUNNING, by=by, now=now, reason=reason, verification=None)
    return {run: len(again) for run, again in found.items()}


def by_run(candidates: QuerySet[QuarantinedCandidate]) -> dict[Run, list[QuarantinedCandidate]]:
    """Those that nobody waived."""
    found: dict[Run, list[QuarantinedCandidate]] = {}
    waiting = candidates.filter(waiver__isnull=True).select_related("run__account", "run__mapping_revision")
    for each in waiting.order_by("run", "person_id", "audit_id"):
        found.setdefault(each.run, []).append(each)
    return found


def add_chunks(run: Run, again: list[QuarantinedCandidate]) -> None:
    """Chunks that name their candidates; they come after the run's others."""
    number = run.chunks.aggregate(last=Max("number"))["last"] or 0
    for at in range(0, len(again), RETRIED_AT_ONCE):
        part = again[at : at + RETRIED_AT_ONCE]
        number += 1
        Chunk.objects.create(
            uuid=uuid4(),
            run=run,
            number=number,
            person_from=part[0].person_id,
            person_to=part[-1].person_id,
            pairs=[[each.person_id, each.audit_id, each.reason] for each in part],
            expected=len(part),
        )


def refresh_rivals(run: Run, cdp: Cdp) -> None:
    """Look again who else claims the run's persons: that may be what was mended."""
    RivalClaim.objects.filter(run=run).delete()
    claims = [RivalClaim(run=run, person_id=person, crm_organization_id=org) for person, org in cdp.rival_claims(run.account.cdp_id)]
    RivalClaim.objects.bulk_create(claims, batch_size=1000)


def check_shown(count: int, most: int | None) -> None:
    if most is not None and count > most:
        raise runs.Refused(f"There are {count:,} of them by now and the page showed {most:,}, so nothing was done: look again.")


def waive(candidates: QuerySet[QuarantinedCandidate], *, by: str, note: str, now: datetime, most: int | None = None) -> int:
    """Give candidates up for good, by name and with a reason; how many. A run with nothing else quarantined becomes succeeded.

    `most` is how many somebody was shown. Raises Refused where there are more by now, or the reason is missing.
    """
    if not note.strip():
        raise runs.Refused("Say why: a waiver needs a note.")
    with transaction.atomic():
        chosen = list(candidates.filter(waiver__isnull=True).select_for_update(of=("self",)).select_related("account", "run"))
        check_shown(len(chosen), most)
        put_waivers(chosen, by=by, note=note, now=now)
        for run in {each.run for each in chosen}:
            number = sum(each.run == run for each in chosen)
            events.record("candidates waived", f"{number} by {by}: {note}", now=now, by=by, run=run)
            settle(run, by=by, now=now)
    return len(chosen)


def put_waivers(chosen: list[QuarantinedCandidate], *, by: str, note: str, now: datetime) -> None:
    """A waiver for each, by sets, since there may be very many; one that another run's same candidate has already is its own too."""
    key = ("account_id", "person_id", "audit_id", "reason")
    for at in range(0, len(chosen), WAIVED_AT_ONCE):
        part = chosen[at : at + WAIVED_AT_ONCE]
        wanted = [Waiver(**{name: getattr(each, name) for name in key}, note=note, waived_at=now, waived_by=by) for each in part]
        Waiver.objects.bulk_create(wanted, ignore_conflicts=True)
        same = Waiver.objects.filter(**{name: OuterRef(name) for name in key}).order_by().values("pk")
        QuarantinedCandidate.objects.filter(pk__in=[each.pk for each in part]).update(waiver=Subquery(same))


def settle(run: Run, *, by: str, now: datetime) -> None:
    """A partial run with nothing quarantined any more has succeeded; otherwise its reason says the number that is left."""
    left = run.quarantined.filter(waiver__isnull=True).count()
    if run.state == RunState.PARTIAL and not left:
        runs.move(run, RunState.SUCCEEDED, by=by, now=now)
    elif run.state == RunState.PARTIAL:
        Run.objects.filter(pk=run.pk, state=RunState.PARTIAL).update(
            reason_code=RunReason.QUARANTINED, reason=verdicts.quarantined_sentence(left)
        )
        summaries.refresh(run.account, now=now)
