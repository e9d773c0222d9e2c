from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html

from migration.admin import filters, links, run_report
from migration.admin.display import NOTHING, duration, moment, number, pill, visible
from migration.admin.run_control import RunControl
from migration.models import Run
from migration.states import RunMode, RunState


@admin.register(Run)
class RunAdmin(RunControl):
    plural = "Runs"
    list_display = ("name", "shown_account", "shown_mode", "shown_state", "shown_reason", "shown_candidates", "planned", "took")
    list_filter = (filters.one_of("state", RunState), filters.one_of("mode", RunMode), filters.ByAccount)
    list_select_related = ("account",)
    search_fields = ("account__name", "planned_by")
    number_fields = ("pk", "account__crm_organization_id")
    search_help_text = "Account, CRM organisation id, run number, or who planned it."
    fieldsets = (
        ("How it was planned", {"fields": ("shown_capabilities", "shown_chunk_size", "shown_links", "pipeline_version")}),
        ("Lease and fence", {"fields": ("owner", "lease_ends", "token", "run_id_in_cdp")}),
    )

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> HttpResponse:
        run = context["original"]
        is_mendable = run.writes and run.state == RunState.PARTIAL
        may_retry = is_mendable and request.user.has_perm("migration.change_quarantinedcandidate")
        context |= {"report": run_report.of(run, now=timezone.now()), "may_retry": may_retry, "buttons": self.buttons(request, run)}
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="run", ordering="pk")
    def name(self, run: Run) -> str:
        return f"Run\N{NO-BREAK SPACE}{run.pk}"

    @admin.display(description="account", ordering="account")
    def shown_account(self, run: Run) -> str:
        return links.link(links.page(run.account), run.account)

    @admin.display(description="mode", ordering="mode")
    def shown_mode(self, run: Run) -> str:
        return run.get_mode()

    @admin.display(description="state", ordering="state")
    def shown_state(self, run: Run) -> str:
        return pill(run.state)

    @admin.display(description="reason")
    def shown_reason(self, run: Run) -> str:
        return visible(run.reason) if run.reason else NOTHING

    @admin.display(description="candidates", ordering="candidates")
    def shown_candidates(self, run: Run) -> str:
        return number(run.candidates)

    @admin.display(description="planned", ordering="planned_at")
    def planned(self, run: Run) -> str:
        return format_html("{} by {}", moment(run.planned_at), visible(run.planned_by))

    @admin.display(description="took")
    def took(self, run: Run) -> str:
        return duration(run.finished_at - run.started_at) if run.finished_at and run.started_at else NOTHING

    @admin.display(description="chunk size")
    def shown_chunk_size(self, run: Run) -> str:
        return number(run.chunk_size)

    @admin.display(description="capabilities")
    def shown_capabilities(self, run: Run) -> str:
        """The gates that were open when it was planned, of those that change rows."""
        return visible(", ".join(map(str, run.capabilities)) or "none of gates D, E, F was open")

    @admin.display(description="link index")
    def shown_links(self, run: Run) -> str:
        return visible(run.link_index) if run.link_index else NOTHING

    @admin.display(description="run id in the CDP")
    def run_id_in_cdp(self, run: Run) -> str:
        return str(run.uuid)

    @admin.display(description="lease held by")
    def owner(self, run: Run) -> str:
        return visible(run.lease_owner) if run.lease_owner else NOTHING

    @admin.display(description="lease ends")
    def lease_ends(self, run: Run) -> str:
        return moment(run.lease_expires_at)
