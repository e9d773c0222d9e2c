"""Trying quarantined candidates again, and waiving them: which ones are meant, what would come of it, and the act itself."""

from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import Count, Max, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from migration import quarantine, tasks
from migration.admin.work import within_patience
from migration.cdp import Cdp
from migration.doors import Misconfigured, Outage
from migration.models import QuarantinedCandidate, Run
from migration.runs import Refused
from migration.states import IllegalMove, Reason

MOST_CHOSEN = 20_000  # candidates that one form carries by their ids; by run and reason there is no limit


@dataclass(frozen=True)
class Choice:
    """The candidates that a form means: by ids, or by run and reason. `fields` are the form's hidden fields that say it again.

    By run and reason these are the ones up to the last id that the form showed, and it showed no more than `most` of them: a run that is
    at work finds others meanwhile, and those of a slow chunk have lower ids than some that were there before.
    """

    candidates: QuerySet[QuarantinedCandidate]
    fields: dict[str, str]
    most: int | None = None


def chosen(request: HttpRequest) -> Choice:
    """What the request's `ids`, or `run` and `reason` (sent, with what was shown), mean. Raises Refused where they mean nothing."""
    is_sent = request.method == "POST"
    given = request.POST if is_sent else request.GET
    ids, run, reason = given.get("ids", ""), given.get("run", ""), given.get("reason", "")
    if ids:
        return by_ids(numbers(ids.split(",")))
    if run and (not reason or reason in set(Reason)):
        return by_reason(reason, *numbers([run, *([given.get("last", ""), given.get("shown", "")] if is_sent else [])]))
    raise Refused("Choose candidates first.")


def by_reason(reason: str, run: int, last: int | None = None, shown: int | None = None) -> Choice:
    """A run's candidates up to the id `last` (None: all there are now), of one reason or ("") of any."""
    found = QuarantinedCandidate.objects.filter(run=run)
    found = found.filter(reason=reason) if reason else found
    if last is None:
        last = found.aggregate(last=Max("pk"))["last"] or 0
    return Choice(found.filter(pk__lte=last), {"run": str(run), "reason": reason, "last": str(last)}, shown)


def by_ids(ids: list[int]) -> Choice:
    if len(ids) > MOST_CHOSEN:
        raise Refused(f"{len(ids):,} candidates are too many for one form ({MOST_CHOSEN:,}): choose by reason on the run's page.")
    return Choice(QuarantinedCandidate.objects.filter(pk__in=ids), {"ids": ",".join(map(str, ids))})


def numbers(texts: list[str]) -> list[int]:
    if not all(text.isascii() and text.isdecimal() and len(text) < 19 for text in texts):
        raise Refused("The address does not name candidates.")
    return [int(text) for text in texts]


@dataclass(frozen=True)
class Group:
    run: Run
    reason: str
    count: int


@dataclass
class Outlook:
    """What an act would do: candidates by run and reason, those that are waived already left out, and the sentences that refuse it."""

    groups: list[Group] = field(default_factory=list)
    waived: int = 0
    refusals: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(group.count for group in self.groups)


def outlook(choice: Choice, *, retries: bool) -> Outlook:
    found = Outlook(waived=choice.candidates.filter(waiver__isnull=False).count())
    open_ones = choice.candidates.filter(waiver__isnull=True)
    counted = open_ones.order_by().values_list("run", "reason").annotate(Count("id")).order_by("-run", "reason")
    runs = Run.objects.select_related("account", "mapping_revision").in_bulk({run for run, *_ in counted})
    found.groups = [Group(runs[run], reason, count) for run, reason, count in counted]
    if not found.groups:
        found.refusals.append("None of them is quarantined any more.")
    for run in runs.values() if retries else ():
        try:
            quarantine.check_can_retry(run, now=timezone.now())
        except Refused as error:
            found.refusals.append(str(error))
    return found


def retry(choice: Choice, *, by: str, now: datetime) -> list[str]:
    """Have them processed again by the workers; sentences that say what was begun. Raises Refused with the sentence that says why not."""
    try:
        with closing(Cdp()) as cdp:
            found = quarantine.retry(choice.candidates, cdp, by=by, now=now, most=choice.most)
    except (Outage, Misconfigured) as error:
        raise Refused(f"Nothing is tried again: {error}") from error
    except IllegalMove as error:
        raise Refused(f"Another person or worker was faster: {error}") from error
    if not found:
        raise Refused("None of them is quarantined any more: nothing is tried again.")
    within_patience(lambda: all(asked(run) for run in found))
    return [f"{run}: {count:,} candidate{'s are' if count != 1 else ' is'} tried again by the workers." for run, count in found.items()]


def asked(run: Run) -> bool:
    """Nudge the workers; where the broker is away, the next tick asks again."""
    return tasks.nudge_all(run)


def waive(choice: Choice, *, by: str, note: str, now: datetime) -> str:
    """Give them up for good; a sentence that says how many. Raises Refused."""
    try:
        count = quarantine.waive(choice.candidates, by=by, note=note, now=now, most=choice.most)
    except IllegalMove as error:
        raise Refused(f"Another person or worker was faster: {error}") from error
    if not count:
        before = choice.candidates.filter(waiver__isnull=False).count()
        why = f"{before:,} {'are' if before != 1 else 'is'} waived already" if before else "nothing is waived"
        raise Refused(f"None of them is quarantined any more: {why}.")
    return f"{count:,} candidate{'s are' if count != 1 else ' is'} waived."
