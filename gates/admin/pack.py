"""The evidence pack of an account: one page to print, with what was confirmed, by whom, on what, and what came of it."""

from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.decorators import permission_required
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.utils import timezone

from gates import standing
from gates.admin import exhibits
from gates.catalogue import GATES
from gates.models import SignOff
from migration import worlds
from migration.admin import run_report, samples
from migration.admin.display import visible_text
from migration.doors import Misconfigured
from migration.models import Account, Event, Run, Waiver
from migration.states import RunMode

MOST_DECISIONS = 200
MOST_WAIVERS = 200
MOST_SAMPLES = 20
MOST_EVENTS = 500
SYSTEMS = (("CRM", "CRM_DATABASE_URL"), ("CDP", "CDP_DATABASE_URL"))


@permission_required(["gates.view_evidence", "migration.view_run"], raise_exception=True)
def page(request: HttpRequest, pk: int) -> HttpResponse:
    account = get_object_or_404(Account, pk=pk)
    context = admin.site.each_context(request) | {"is_popup": True} | of(account, now=timezone.now())
    return TemplateResponse(request, "admin/gates/pack/pack.html", context | {"made_by": request.user.get_username()})


def of(account: Account, *, now: datetime) -> dict[str, Any]:
    """The page's parts, by the names that its template uses."""
    production, rehearsal = newest(account, RunMode.PRODUCTION), newest(account, RunMode.DRY_RUN)
    waivers, events = Waiver.objects.filter(account=account), Event.objects.filter(account=account)
    return {
        "title": f"Evidence pack: {visible_text(account)}",
        "account": account,
        "now": now,
        "systems": [(name, address(variable)) for name, variable in SYSTEMS],
        "gates": [gate(each) for each in standing.of_all(GATES, [account], now=now)],
        "decisions": decisions(account),
        "most_decisions": MOST_DECISIONS,
        "runs": [run_part(run, now) for run in (production, rehearsal) if run],
        "has_production": production is not None,
        "waivers": waivers[:MOST_WAIVERS],
        "waivers_total": waivers.count(),
        "samples": samples.of(rehearsal.chunks.all(), MOST_SAMPLES) if rehearsal else [],
        "rehearsal": rehearsal,
        "events": events.select_related("run")[:MOST_EVENTS],
        "events_total": events.count(),
    }


def newest(account: Account, mode: RunMode) -> Run | None:
    """The newest run that a worker has begun, or else the newest that is planned."""
    runs = Run.objects.filter(account=account, mode=mode).select_related("account", "mapping_revision")
    return runs.filter(started_at__isnull=False).first() or runs.first()


def address(variable: str) -> str:
    """Where a system is, without login; what is wrong with its variable where that cannot be read."""
    try:
        return worlds.address(variable) if getattr(settings, variable) else f"{variable} is not set"
    except Misconfigured as error:
        return str(error)


def gate(shown: standing.Standing) -> dict[str, Any]:
    return {"shown": shown, "exhibit": exhibits.of(shown.evidence) if shown.evidence else None}


def decisions(account: Account) -> Any:
    """Who decided what for this account, and for the gates that hold for all accounts; newest first."""
    return SignOff.objects.filter(Q(account=account) | Q(account__isnull=True))[:MOST_DECISIONS]


def run_part(run: Run, now: datetime) -> dict[str, Any]:
    report = run_report.of(run, now=now)
    return {"run": run, "report": report, "prefix": f"{run.mode}-", "title": f"{run.get_mode().capitalize()}: run {run.pk}"}
