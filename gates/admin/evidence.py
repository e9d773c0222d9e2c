from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html

from gates.admin import exhibits
from gates.admin.addresses import gate_page
from gates.admin.filters import ByGate, ByVerdict
from gates.models import Evidence
from migration.admin import filters, links
from migration.admin.display import NOTHING, duration, moment, pill, visible
from migration.admin.records import RecordAdmin


@admin.register(Evidence)
class EvidenceAdmin(RecordAdmin):
    plural = "Evidence"
    list_display = ("name", "shown_gate", "shown_account", "verdict", "measured", "took")
    list_filter = (ByGate, ByVerdict, filters.ByAccount)
    list_select_related = ("account", "gate")
    search_fields = ("measured_by", "account__name", "digest")
    number_fields = ("pk", "account__crm_organization_id")
    search_help_text = "Account, CRM organisation id, number of the evidence, digest, or who measured."
    fields = ("shown_gate", "shown_account", "verdict", "measured", "took", "digest")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Without the long columns, which only a record's own page needs."""
        return super().get_queryset(request).defer("facts", "findings", "configuration")

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> HttpResponse:
        evidence = context["original"]
        newest = Evidence.objects.filter(gate=evidence.gate_id, account=evidence.account_id).values_list("pk", flat=True).first()
        extra = {"exhibit": exhibits.of(evidence), "is_newest": newest == evidence.pk, "decisions": evidence.signoffs.all()}
        return super().render_change_form(request, context | extra, *args, **kwargs)

    @admin.display(description="evidence", ordering="pk")
    def name(self, evidence: Evidence) -> str:
        return f"Evidence\N{NO-BREAK SPACE}{evidence.pk}"

    @admin.display(description="gate", ordering="gate")
    def shown_gate(self, evidence: Evidence) -> str:
        return links.link(gate_page(evidence.gate_id, evidence.account), evidence.gate)

    @admin.display(description="account", ordering="account")
    def shown_account(self, evidence: Evidence) -> str:
        return links.link(links.page(evidence.account), evidence.account) if evidence.account else NOTHING

    @admin.display(description="verdict", ordering="passes")
    def verdict(self, evidence: Evidence) -> str:
        return pill("passes" if evidence.passes else "fails")

    @admin.display(description="measured", ordering="pk")
    def measured(self, evidence: Evidence) -> str:
        return format_html("{} by {}", moment(evidence.measured_at), visible(evidence.measured_by))

    @admin.display(description="took", ordering="seconds")
    def took(self, evidence: Evidence) -> str:
        return duration(evidence.seconds)
