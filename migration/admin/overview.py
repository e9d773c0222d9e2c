"""The first page: how many accounts, runs by state, what is being worked on, what is quarantined, what happened last."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery

from migration.admin import links
from migration.admin.queries import with_progress
from migration.models import Account, Event, QuarantinedCandidate, Run
from migration.states import COMPLETE, RunMode, RunState

MOST_ACTIVE = 10
MOST_EVENTS = 8


@dataclass
class Overview:
    """For one user: None where the user may not see the records."""

    accounts: dict[str, Any] | None
    runs: dict[str, Any] | None
    quarantine: dict[str, Any] | None
    events: dict[str, Any] | None

    @property
    def shows_anything(self) -> bool:
        return any((self.accounts, self.runs, self.quarantine, self.events))


def of(user: Any) -> Overview:
    """`user` as the request has it."""

    def may_see(model: str) -> bool:
        return bool(user.has_perm(f"migration.view_{model}"))

    return Overview(
        accounts=accounts() if may_see("account") else None,
        runs=runs() if may_see("run") else None,
        quarantine=quarantine() if may_see("quarantinedcandidate") else None,
        events=events() if may_see("event") else None,
    )


def accounts() -> dict[str, Any]:
    """`moved`: with a production run that ran to its end and stands; `partial` of them, since the newest such run left candidates behind."""
    reached = Run.objects.standing().filter(account=OuterRef("pk"), mode=RunMode.PRODUCTION).order_by("-pk").values("state")[:1]
    counts = {"total": Count("pk"), "moved": Count("reached"), "partial": Count("pk", filter=Q(reached=RunState.PARTIAL))}
    return Account.objects.annotate(reached=Subquery(reached)).aggregate(**counts) | {"url": links.listing(Account)}


def runs() -> dict[str, Any]:
    """By state, in the order of a run's life, and those that are not finished."""
    counted = dict(Run.objects.order_by().values_list("state").annotate(Count("id")))
    states = [{"state": state, "count": counted[state], "url": links.listing(Run, state=state)} for state in RunState if state in counted]
    active = with_progress(Run.objects.active().select_related("account"))[:MOST_ACTIVE]
    return {"total": sum(counted.values()), "states": states, "active": active, "url": links.listing(Run)}


def quarantine() -> dict[str, Any]:
    """`latest`, of `accounts`: what is quarantined now, that is in each account's latest run that came to its end; `total`: in all runs. Without the waived."""
    latest = latest_complete_runs().values("pk")
    found = QuarantinedCandidate.objects.filter(waiver__isnull=True)
    now = found.filter(run__in=latest).aggregate(latest=Count("id"), accounts=Count("account", distinct=True))
    return now | {"total": found.count(), "url": links.listing(QuarantinedCandidate)}


def latest_complete_runs() -> QuerySet[Run]:
    newest = Run.objects.filter(account=OuterRef("account"), state__in=COMPLETE).order_by("-pk").values("pk")[:1]
    return Run.objects.filter(pk=Subquery(newest)).order_by()


def events() -> dict[str, Any]:
    return {"last": Event.objects.select_related("run__account")[:MOST_EVENTS], "url": links.listing(Event)}
