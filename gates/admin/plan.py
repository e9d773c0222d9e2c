"""Plan a run: what the gates say of a dry run and of production, and the start of one."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.decorators import permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.utils import timezone

from gates import policies
from gates.catalogue import BY_LETTER, CAPABILITIES
from gates.catalogue import Gate as Rule
from migration import revisions, runs, tasks, ticks
from migration.admin import links
from migration.admin.display import visible_text
from migration.admin.work import within_patience
from migration.doors import Misconfigured, Outage
from migration.models import Account, Run
from migration.states import IllegalMove, RunMode, RunState

GIVES_WAY = "another one takes its place, or is refused while a worker is at it."
STAYS = "another one is refused until it has ended: it is resumed or cancelled first."
# What becomes of a start while a run of the account is in this state; runs.continued does it.
UNFINISHED = {
    RunState.PLANNED: f"Starting the same again leaves it to the workers; {GIVES_WAY}",
    RunState.RUNNING: f"Starting the same again leaves it to the workers; {GIVES_WAY}",
    RunState.VERIFYING: f"Starting the same again leaves it to the workers; {GIVES_WAY}",
    RunState.INTERRUPTED: f"Starting the same again goes on with it where it stopped; {GIVES_WAY}",
    RunState.PAUSING: f"Starting the same again takes the pause back; {STAYS}",
    RunState.PAUSED: f"Starting the same again resumes it; {STAYS}",
    RunState.CANCELLING: "No run of the account starts before it is cancelled.",
    RunState.WITHDRAWING: "No run of the account starts before it is withdrawn, or its withdrawal is abandoned.",
}
TITLES = {RunMode.DRY_RUN: "Dry run", RunMode.PRODUCTION: "Production run"}


@dataclass(frozen=True)
class Outlook:
    """What the gates say of one mode. `downgrade` is the refusal that a confirmation lifts, "" where there is none."""

    mode: RunMode
    title: str
    refusals: list[str]
    downgrade: str
    capabilities: list[tuple[Rule, bool]]

    @property
    def may_start(self) -> bool:
        return not self.refusals


@permission_required(["migration.view_account", "migration.add_run"], raise_exception=True)
def page(request: HttpRequest, pk: int) -> HttpResponse:
    """What a run of the account would be refused or given; by POST it is asked again, with measuring, and started."""
    account = get_object_or_404(Account, pk=pk)
    problem = ""
    if request.method == "POST":
        try:
            return started(request, account, now=ticks.now())
        except (runs.Refused, runs.Busy, Outage, Misconfigured, IllegalMove) as error:
            problem = str(error)
    context = admin.site.each_context(request) | about(account, now=timezone.now())
    context |= {"problem": problem, "asked": request.POST.get("mode", ""), "confirmed": "downgrade_confirmed" in request.POST}
    return TemplateResponse(request, "admin/gates/plan.html", context)


def about(account: Account, *, now: datetime) -> dict[str, Any]:
    active = Run.objects.active().filter(account=account).first()
    return {
        "title": "Plan a run",
        "subtitle": visible_text(account),
        "opts": Account._meta,
        "plural": "Accounts",
        "original": account,
        "outlooks": [outlook(account, mode, now) for mode in RunMode],
        "active": active,
        "unfinished": UNFINISHED[RunState(active.state)] if active else "",
        "revision": revisions.current(),
        "chunk_size": settings.CHUNK_SIZE,
    }


def outlook(account: Account, mode: RunMode, now: datetime) -> Outlook:
    """By the evidence that there is; nothing is measured for looking."""
    asked = policies.decide(account, mode, now=now)
    confirmed = policies.decide(account, mode, now=now, downgrade_confirmed=True) if mode == RunMode.PRODUCTION else asked
    return Outlook(
        mode=mode,
        title=TITLES[mode],
        refusals=confirmed.refusals,
        downgrade=next((each for each in asked.refusals if each not in confirmed.refusals), ""),
        capabilities=[(BY_LETTER[letter], letter in asked.capabilities) for letter in CAPABILITIES],
    )


def started(request: HttpRequest, account: Account, *, now: datetime) -> HttpResponse:
    """Start the run that was asked for, and go to its page. Raises Refused, Busy, Outage, Misconfigured, IllegalMove."""
    mode = request.POST.get("mode", "")
    if mode not in set(RunMode):
        raise runs.Refused("Choose a dry run or a production run.")
    wish = runs.Wish(account, RunMode(mode), downgrade_confirmed="downgrade_confirmed" in request.POST)
    run = runs.start(wish, by=request.user.get_username(), now=now)
    said = f"{run} is {run.state}."
    if not within_patience(lambda: nudged(run)):
        said += " The workers could not be told at once: the next tick does that, within a minute."
    messages.success(request, visible_text(said))
    return redirect(links.page(run))


def nudged(run: Run) -> bool:
    tasks.nudge_all(run)
    return True
