from typing import Any

from django.contrib import admin
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils import timezone
from django.utils.html import format_html

from migration import batch_limits, batch_plans, batches
from migration.admin import batch_report, filters
from migration.admin.batch_form import PlanForm, zone_names
from migration.admin.display import NOTHING, moment, number, pill, visible
from migration.admin.records import whole
from migration.admin.work import WorkAdmin, check_stop_seen, last_stop
from migration.batch_plans import window_of
from migration.models import Batch, BatchItem
from migration.runs import Busy, Refused
from migration.states import OPEN_ITEM, BatchState, IllegalMove, ItemState, Verb

PLAN = "migration.add_batch"
DONE = {Verb.PAUSE: "is paused", Verb.RESUME: "goes on with the next tick", Verb.CANCEL: "is cancelled"}


@admin.register(Batch)
class BatchAdmin(WorkAdmin):
    plural = "Batches"
    may = "migration.change_batch"
    list_display = ("shown_name", "shown_state", "progress", "shown_window", "shown_reason", "planned")
    list_filter = (filters.one_of("state", BatchState),)
    search_fields = ("name", "planned_by")
    number_fields = ("pk",)
    search_help_text = "Name, who planned it, or the CRM organisation id of an account in it."
    fields = ("planned",)
    change_list_template = "admin/migration/batch/change_list.html"

    def get_urls(self) -> list[URLPattern]:
        return [
            self.work_url("plan/", self.plan, "plan"),
            self.work_url("<int:pk>/act/<slug:verb>/", self.act, "act"),
            *super().get_urls(),
        ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Batch]:
        items = BatchItem.objects.filter(batch=OuterRef("pk")).order_by().values("batch")
        total, ended = Count("pk"), Count("pk", filter=~Q(state__in=OPEN_ITEM))
        counts = {"total": Subquery(items.values(n=total)), "ended": Subquery(items.values(n=ended))}
        return super().get_queryset(request).annotate(**counts)

    def numbered(self, number: int) -> Q:
        """Its own number, or one of its accounts: not by a join, which would list the batch once for each of them."""
        items = BatchItem.objects.filter(account__crm_organization_id=number)
        return super().numbered(number) | Q(pk__in=items.values("batch"))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"may_plan": self.may_work(request, PLAN)} | (extra_context or {}))

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> HttpResponse:
        context |= {"report": batch_report.of(context["original"], now=timezone.now())}
        context |= {"may_act": self.may_work(request), "may_plan": self.may_work(request, PLAN)}
        return super().render_change_form(request, context, *args, **kwargs)

    # --- pages of work ----------------------------------------------------------------------------------------------

    def plan(self, request: HttpRequest) -> HttpResponse:
        """Plan a batch: the form, accounts found by name, what would start when, and then the planning."""
        self.check_may(request, PLAN)
        if request.method != "POST":
            return self.plan_page(request, PlanForm(initial={"accounts": "\n".join(map(str, undone_before(request)))}))
        form = PlanForm(request.POST)
        if "search" in request.POST:
            form, said = PlanForm.with_found(request.POST)
            return self.plan_page(request, form, said=said)
        if not form.is_valid():
            return self.plan_page(request, form)
        if "look" in request.POST:
            return self.plan_page(request, form, outlook=batch_report.outlook(form.plan, now=timezone.now()))
        try:
            batch = batch_plans.plan(form.plan, by=request.user.get_username(), now=timezone.now())
        except Refused as error:
            return self.plan_page(request, form, problem=str(error))
        return self.back(request, batch, said="The batch is planned. It begins by itself when its window opens.")

    def plan_page(self, request: HttpRequest, form: PlanForm, **context: Any) -> HttpResponse:
        return self.page(request, "batch/plan.html", "Plan a batch", form=form, zones=zone_names(), **context)

    def act(self, request: HttpRequest, pk: int, verb: str) -> HttpResponse:
        """Pause, resume or cancel: what it would do, and then the doing."""
        self.check_may(request)
        if verb not in list(DONE):
            raise Http404
        batch, problem = self.found(request, pk), ""
        if request.method == "POST":
            try:
                self.acted(request, batch, Verb(verb))
                return self.back(request, batch, said=f"{batch} {DONE[Verb(verb)]}.")
            except (Refused, Busy, IllegalMove) as error:
                problem = str(error)
                batch.refresh_from_db()
        items = batches.items_of(batch)
        context = {
            "verb": verb,
            "fits": Verb(verb) in batches.possible(batch),
            "stop": last_stop(batch),
            "under_way": [item for item in items if batch_limits.is_under_way(item)],
            "undone": [item for item in items if item.state in (ItemState.FAILED, ItemState.REFUSED, ItemState.CANCELLED)],
            "waiting": sum(item.state == ItemState.WAITING for item in items),
        }
        return self.page(request, "batch/act.html", f"{verb.capitalize()} the batch", original=batch, problem=problem, **context)

    def acted(self, request: HttpRequest, batch: Batch, verb: Verb) -> None:
        by, now = request.user.get_username(), timezone.now()
        if verb == Verb.PAUSE:
            batches.pause(batch, by=by, now=now)
        elif verb == Verb.RESUME:
            if verb in batches.possible(batch):
                check_stop_seen(request, batch)
            batches.resume(batch, by=by, now=now, again="again" in request.POST)
        else:
            batches.cancel(batch, by=by, now=now, end_runs=request.POST.get("runs") == "end")

    # --- columns ----------------------------------------------------------------------------------------------------

    @admin.display(description="batch", ordering="pk")
    def shown_name(self, batch: Batch) -> str:
        return format_html("{}: {}", f"Batch\N{NO-BREAK SPACE}{batch.pk}", visible(batch.name))

    @admin.display(description="state", ordering="state")
    def shown_state(self, batch: Batch) -> str:
        return pill(batch.state)

    @admin.display(description="accounts ended")
    def progress(self, batch: Any) -> str:
        bar = '<progress max="{}" value="{}" aria-label="accounts ended"></progress>'
        return format_html(
            '<span class="progress">' + bar + " {} of {}</span>", batch.total, batch.ended, *map(number, (batch.ended, batch.total))
        )

    @admin.display(description="window")
    def shown_window(self, batch: Batch) -> str:
        return str(window_of(batch))

    @admin.display(description="reason")
    def shown_reason(self, batch: Batch) -> str:
        return visible(batch.reason) if batch.reason else NOTHING

    @admin.display(description="planned", ordering="planned_at")
    def planned(self, batch: Batch) -> str:
        return format_html("{} by {}", moment(batch.planned_at), visible(batch.planned_by))


def undone_before(request: HttpRequest) -> list[int]:
    """The accounts not done of the batch that the address names. (By themselves they would not fit: gunicorn takes 4,094 characters of it.)"""
    found = Batch.objects.filter(pk=whole(request.GET.get("again", "")) or 0).first()
    return batch_report.undone(batches.items_of(found)) if found else []
