from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils import timezone
from django.utils.html import format_html

from migration.admin import filters, links, quarantine_work, raw_audit
from migration.admin.display import NOTHING, moment, pill, visible, words
from migration.admin.lost import NOT_SENT
from migration.admin.work import WorkAdmin, note_of
from migration.models import QuarantinedCandidate
from migration.runs import Refused
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
class QuarantineAdmin(WorkAdmin):
    plural = "Quarantine"
    may = "migration.change_quarantinedcandidate"
    actions = ("retry_selected", "waive_selected")
    list_display = ("audit", "person", "shown_contact", "shown_reason", "shown_detail", "shown_account", "shown_run")
    list_filter = (filters.one_of("reason", Reason), Waived, filters.ByAccount, filters.ByRun)
    list_select_related = ("account", "run__mapping_revision", "chunk", "waiver")
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

    def get_urls(self) -> list[URLPattern]:
        acts = [self.work_url("retry/", self.retry, "retry"), self.work_url("waive/", self.waive, "waive")]
        return [*acts, *super().get_urls()]

    def has_work_permission(self, request: HttpRequest) -> bool:
        return self.may_work(request)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> HttpResponse:
        candidate, may = context["original"], self.may_work(request)
        # People's names and addresses stand in it: it is for those whose work needs it, not for everybody who may look.
        context |= {"audit": raw_audit.of(candidate) if may else None, "permission": self.may, "may_work": may and not candidate.waiver_id}
        return super().render_change_form(request, context, *args, **kwargs)

    # --- pages of work ----------------------------------------------------------------------------------------------

    @admin.action(description="Try the selected candidates again…", permissions=["work"])
    def retry_selected(self, request: HttpRequest, queryset: QuerySet[QuarantinedCandidate]) -> HttpResponse:
        return self.confirm(request, queryset, retries=True)

    @admin.action(description="Waive the selected candidates…", permissions=["work"])
    def waive_selected(self, request: HttpRequest, queryset: QuerySet[QuarantinedCandidate]) -> HttpResponse:
        return self.confirm(request, queryset, retries=False)

    def confirm(self, request: HttpRequest, queryset: QuerySet[QuarantinedCandidate], *, retries: bool) -> HttpResponse:
        try:
            choice = quarantine_work.by_ids(list(queryset.order_by("pk").values_list("pk", flat=True)[: quarantine_work.MOST_CHOSEN + 1]))
        except Refused as error:
            return self.back(request, None, said=str(error), level=messages.ERROR)
        return self.act_page(request, choice, retries=retries)

    def retry(self, request: HttpRequest) -> HttpResponse:
        """Asked with GET it shows what would be tried again; POST does it."""
        self.check_may(request)
        if is_lost(request):
            return self.back(request, None, said=NOT_SENT, level=messages.WARNING)
        try:
            choice = quarantine_work.chosen(request)
            if request.method != "POST":
                return self.act_page(request, choice, retries=True)
            for said in quarantine_work.retry(choice, by=request.user.get_username(), now=timezone.now()):
                self.message_user(request, said, messages.SUCCESS)
        except Refused as error:
            return self.back(request, None, said=str(error), level=messages.ERROR)
        return self.back(request, None)

    def waive(self, request: HttpRequest) -> HttpResponse:
        """Asked with GET it shows what would be waived; POST does it, with a note."""
        self.check_may(request)
        if is_lost(request):
            return self.back(request, None, said=NOT_SENT, level=messages.WARNING)
        note = note_of(request)
        try:
            choice = quarantine_work.chosen(request)
        except Refused as error:
            return self.back(request, None, said=str(error), level=messages.ERROR)
        if request.method != "POST":
            return self.act_page(request, choice, retries=False)
        try:
            said = quarantine_work.waive(choice, by=request.user.get_username(), note=note, now=timezone.now())
        except Refused as error:
            return self.act_page(request, choice, retries=False, problem=str(error), note=note)
        return self.back(request, None, said=said)

    def act_page(
        self, request: HttpRequest, choice: quarantine_work.Choice, *, retries: bool, problem: str = "", note: str = ""
    ) -> HttpResponse:
        outlook = quarantine_work.outlook(choice, retries=retries)
        title = "Try again" if retries else "Waive"
        action = self.address("retry" if retries else "waive")
        fields = choice.fields | {"shown": str(outlook.total)}
        context = {"outlook": outlook, "fields": fields, "retries": retries, "action": action, "problem": problem, "note": note}
        return self.page(request, "quarantinedcandidate/act.html", title, original=None, **context)

    # --- columns ----------------------------------------------------------------------------------------------------

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


def is_lost(request: HttpRequest) -> bool:
    """Whether the address says of no candidate: the form did, and a login in between lost it."""
    return request.method != "POST" and not request.GET
