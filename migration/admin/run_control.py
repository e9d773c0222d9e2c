"""What staff do with a run: each verb has a page that shows its effect before it is done. Withdrawing, and stale rows, have their own."""

from functools import partial
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern

from migration import control, leases, runs, stale, ticks, withdrawal
from migration.admin import password_again
from migration.admin.quarantine_work import asked
from migration.admin.work import WorkAdmin, check_stop_seen, last_stop, within_patience
from migration.doors import Misconfigured, Outage
from migration.models import Run
from migration.runs import Busy, Refused
from migration.states import WORKABLE, ChunkState, RunState, Verb

WITHDRAW = "migration.withdraw_run"
REMOVE_STALE = "migration.remove_stalerow"
MOST_STALE_SHOWN = 20
NOT_DONE = (Refused, Busy, Outage, Misconfigured)

# What each verb brings about; {held} chunks are at work, {open} are still to do, {failed} failed.
EFFECTS = {
    Verb.PAUSE: "No chunk is begun any more. Chunks in hand that are ended: {held}; that wait: {open}. What is moved stays. Nobody but a person goes on "
    "with it.",
    Verb.RESUME: "Workers go on. Chunks still to do: {open}. What is done is not done again.",
    Verb.CANCEL: "Chunks in hand that are handed back: {held}; that are never begun: {open}. What is moved stays in the CDP; withdrawing the run removes it. "
    "A cancelled run cannot be taken up again; the next run of the account finds what is there.",
    Verb.RETRY: "Failed chunks that are tried three times again: {failed}; chunks still to do that are done: {open}. Then the run is verified.",
    Verb.FORCE: "Chunks in hand that are taken from their workers: {held}. These workers' sessions in the CRM and the CDP are ended. What a worker that still "
    "lives had not committed is lost to it, and done again when the run goes on.",
    Verb.ABANDON: "No more rows are removed. Rows that were, and stay so: {removed}; the others are left in the CDP; withdrawing the run again removes them. "
    "The run counts as failed: the next run of the account writes what is missing.",
}
# The same where no chunk is cut yet, and where all are done and the run is being verified.
UNCUT = {
    Verb.PAUSE: "Its chunks are not cut yet. Counting its candidates is given up, and begins anew once it is resumed. Nobody but a person goes on with it.",
    Verb.RESUME: "Its chunks are not cut yet. A worker counts its candidates first; then all chunks are done.",
    Verb.CANCEL: "Its chunks are not cut yet, so nothing is moved. A cancelled run cannot be taken up again; the account can be run again.",
}
VERIFYING = {
    Verb.PAUSE: "All its chunks are done, and what is moved stays. The verification is given up, and begins anew once it is resumed. Nobody but a "
    "person goes on with it.",
    Verb.CANCEL: "All its chunks are done, and what is moved stays in the CDP, not verified; withdrawing the run removes it. A cancelled run cannot "
    "be taken up again; the next run of the account finds what is there.",
}


class RunControl(WorkAdmin):
    """Pages of work of a run."""

    may = "migration.change_run"

    def get_urls(self) -> list[URLPattern]:
        acts = [self.work_url(f"<int:pk>/{verb}/", partial(self.ask, verb=verb), verb) for verb in EFFECTS]
        rows = [
            self.work_url("<int:pk>/withdraw/", self.withdraw, "withdraw"),
            self.work_url("<int:pk>/stale/", self.remove_stale, "stale"),
        ]
        return [*acts, *rows, *super().get_urls()]

    def buttons(self, request: HttpRequest, run: Run) -> list[dict[str, str]]:
        """`{"label", "url"}` of what this person may ask of the run now."""
        verbs = [verb for verb in runs.fitting(run) if self.may_work(request, permission_of(verb))]
        if run.state == RunState.WITHDRAWING:
            verbs = [verb for verb in verbs if verb != Verb.WITHDRAW]
        found = [{"label": f"{verb.capitalize()}…", "url": self.address(verb, run.pk)} for verb in verbs]
        if run.writes and run.stale and self.may_work(request, REMOVE_STALE):
            found.append({"label": "Remove stale rows…", "url": self.address("stale", run.pk)})
        return found

    def ask(self, request: HttpRequest, pk: int, verb: Verb) -> HttpResponse:
        """Asked with GET it shows what would come of the verb; POST does it."""
        self.check_may(request, permission_of(verb))
        run = self.found(request, pk)
        problem = ""
        if request.method == "POST":
            try:
                if verb == Verb.RESUME and verb in runs.fitting(run):
                    check_stop_seen(request, run)
                control.act(verb, run, by=request.user.get_username(), now=ticks.now())
                return self.acted(request, run)
            except NOT_DONE as error:
                run.refresh_from_db()
                problem = str(error)
        shown = {"verb": verb, "effect": effect(verb, run), "is_possible": verb in runs.fitting(run), "stop": last_stop(run)}
        return self.page(request, "run/act.html", verb.capitalize(), original=run, problem=problem, **shown)

    def withdraw(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Asked with GET it counts in the CDP what would be removed; POST begins it, and the workers do it."""
        self.check_may(request, WITHDRAW)
        run = self.found(request, pk)
        if asking := password_again.asked_first(request):
            return asking
        try:
            if request.method == "POST":
                withdrawal.begin(run, by=request.user.get_username(), now=ticks.now())
                return self.acted(request, run)
            found, problem = withdrawal.preview(run), ""
        except NOT_DONE as error:
            run.refresh_from_db()
            found, problem = None, str(error)
        return self.page(request, "run/withdraw.html", "Withdraw", original=run, preview=found, problem=problem)

    def remove_stale(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Asked with GET it shows the list; POST removes the next of them, up to a step's number."""
        self.check_may(request, REMOVE_STALE)
        run = self.found(request, pk)
        if asking := password_again.asked_first(request):
            return asking
        try:
            stale.check(run)
            if request.method == "POST":
                step = stale.remove(run, by=request.user.get_username(), now=ticks.now())
                removed = "1 row is" if step.removed == 1 else f"{step.removed:,} rows are"
                said = f"{removed} removed. No longer stale, or not ours, and kept: {step.kept:,}. Left on the list: {run.stale:,}."
                return self.back(request, run, said=said)
            problem = ""
        except NOT_DONE as error:
            problem = str(error)
        rows = run.stale_rows.order_by("person_id", "audit_id")
        context = {"count": rows.count(), "rows": rows[:MOST_STALE_SHOWN], "at_once": stale.KEYS_AT_ONCE, "problem": problem}
        return self.page(request, "run/stale.html", "Remove stale rows", original=run, **context)

    def acted(self, request: HttpRequest, run: Run) -> HttpResponse:
        """Back to the run, the workers nudged: should the broker be away, the next tick sees to it."""
        if run.state in WORKABLE:
            within_patience(partial(asked, run))
        return self.back(request, run, said=f"{run} is {run.state}.", level=messages.SUCCESS)


def permission_of(verb: Verb) -> str:
    return WITHDRAW if verb in (Verb.WITHDRAW, Verb.ABANDON) else RunControl.may


def effect(verb: Verb, run: Run) -> str:
    """The verb's effect on this run, in words and numbers."""
    if verb not in EFFECTS:
        raise Http404
    open_chunks = run.chunks.filter(state__in=(ChunkState.PENDING, ChunkState.LEASED)).count()
    held, failed = leases.count(run), run.chunks.filter(state=ChunkState.FAILED).count()
    numbers: dict[str, Any] = {"held": held, "open": open_chunks - held, "failed": failed, "removed": run.removed}
    others = UNCUT if not run.chunks.exists() else VERIFYING if run.state == RunState.VERIFYING else {}
    return others.get(verb, EFFECTS[verb]).format(**{name: f"{number:,}" for name, number in numbers.items()})
