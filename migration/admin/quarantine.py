from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from migration.admin import filters, links
from migration.admin.display import NOTHING, moment, pill, visible, words
from migration.admin.records import RecordAdmin
from migration.models import QuarantinedCandidate
from migration.states import Reason

EXPLAINED = {
    Reason.TIME_MISSING: "The audit has no created_at, so the activity would have no time.",
    Reason.CHANGES_UNREADABLE: "audited_changes is not what the gem writes.",
    Reason.CHANGES_UNSTORABLE: "audited_changes holds what jsonb refuses: a null character, a lone surrogate, a number out of range.",
    Reason.TENANT_MISMATCH: "The contact's own audits name another CRM organisation than the account's.",
    Reason.CONTACT_AMBIGUOUS: "Two contacts of the CDP claim this CRM person.",
    Reason.PROBABLE_OVERLAP: "The live sync has a row just after this audit that may be the same activity.",
    Reason.PROCESSING_FAILED: "The audit broke the code; the error's class says how.",
}


class Waived(admin.SimpleListFilter):
    title = "waived"
    parameter_name = "waived"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [("no", "still quarantined"), ("yes", "waived")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        wanted = {"no": True, "yes": False}.get(self.value() or "")
        return queryset if wanted is None else queryset.filter(waiver__isnull=wanted)


@admin.register(QuarantinedCandidate)
class QuarantineAdmin(RecordAdmin):
    plural = "Quarantine"
    list_display = ("audit", "person", "shown_contact", "shown_reason", "shown_detail", "shown_account", "shown_run")
    list_filter = (filters.one_of("reason", Reason), Waived, filters.ByAccount, filters.ByRun)
    list_select_related = ("account", "run", "chunk", "waiver")
    search_fields = ("account__name",)
    number_fields = ("audit_id", "person_id", "account__crm_organization_id")
    search_help_text = "Audit id, CRM person id, account, or CRM organisation id."
    ordering = ("-run_id", "person_id", "audit_id")
    fieldsets = (
        (
            None,
            {"fields": ("audit", "person", "shown_contact", "shown_reason", "explained", "shown_detail", "shown_error_class", "waived")},
        ),
        ("Found by", {"fields": ("shown_account", "shown_run", "shown_chunk")}),
    )

    @admin.display(description="audit", ordering="audit_id")
    def audit(self, candidate: QuarantinedCandidate) -> str:
        return str(candidate.audit_id)

    @admin.display(description="CRM person", ordering="person_id")
    def person(self, candidate: QuarantinedCandidate) -> str:
        return str(candidate.person_id)

    @admin.display(description="CDP contact", ordering="contact_id")
    def shown_contact(self, candidate: QuarantinedCandidate) -> str:
        return str(candidate.contact_id or NOTHING)

    @admin.display(description="reason", ordering="reason")
    def shown_reason(self, candidate: QuarantinedCandidate) -> str:
        reason = words(candidate.reason)
        return format_html("{} {}", reason, pill("waived")) if candidate.waiver_id else reason

    @admin.display(description="that means")
    def explained(self, candidate: QuarantinedCandidate) -> str:
        return EXPLAINED[Reason(candidate.reason)]

    @admin.display(description="detail")
    def shown_detail(self, candidate: QuarantinedCandidate) -> str:
        return visible(candidate.detail or candidate.error_class or NOTHING)

    @admin.display(description="error's class")
    def shown_error_class(self, candidate: QuarantinedCandidate) -> str:
        return visible(candidate.error_class or NOTHING)

    @admin.display(description="waived")
    def waived(self, candidate: QuarantinedCandidate) -> str:
        """By whom, when and why."""
        waiver = candidate.waiver
        return format_html("{}, {}: {}", visible(waiver.waived_by), moment(waiver.waived_at), visible(waiver.note)) if waiver else NOTHING

    @admin.display(description="account", ordering="account")
    def shown_account(self, candidate: QuarantinedCandidate) -> str:
        return links.link(links.page(candidate.account), candidate.account)

    @admin.display(description="run", ordering="run_id")
    def shown_run(self, candidate: QuarantinedCandidate) -> str:
        return links.link(links.page(candidate.run), f"Run {candidate.run_id} ({candidate.run.get_mode()})")

    @admin.display(description="chunk")
    def shown_chunk(self, candidate: QuarantinedCandidate) -> str:
        return links.link(links.page(candidate.chunk), f"Chunk {candidate.chunk.number}")
