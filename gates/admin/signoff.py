from django.contrib import admin

from gates.admin.addresses import gate_page
from gates.admin.filters import ByGate
from gates.models import Decision, Evidence, SignOff
from migration.admin import filters, links
from migration.admin.display import NOTHING, moment, pill, visible
from migration.admin.records import RecordAdmin


@admin.register(SignOff)
class SignOffAdmin(RecordAdmin):
    plural = "Sign-offs"
    list_display = ("when", "shown_gate", "shown_account", "shown_group", "shown_decision", "who", "shown_evidence", "shown_note")
    list_filter = (ByGate, filters.one_of("decision", Decision), filters.ByAccount)
    list_select_related = ("gate", "account")
    search_fields = ("note", "decided_by", "group", "account__name")
    number_fields = ("evidence_id", "account__crm_organization_id")
    search_help_text = "Words of the note, a person, a group, account, CRM organisation id, or number of the evidence."
    fields = (
        "when",
        "shown_gate",
        "shown_account",
        "shown_group",
        "shown_decision",
        "who",
        "shown_statement",
        "shown_evidence",
        "shown_note",
    )

    @admin.display(description="at", ordering="pk")
    def when(self, signoff: SignOff) -> str:
        return moment(signoff.decided_at)

    @admin.display(description="gate", ordering="gate")
    def shown_gate(self, signoff: SignOff) -> str:
        return links.link(gate_page(signoff.gate_id, signoff.account), signoff.gate)

    @admin.display(description="account", ordering="account")
    def shown_account(self, signoff: SignOff) -> str:
        return links.link(links.page(signoff.account), signoff.account) if signoff.account else NOTHING

    @admin.display(description="for group", ordering="group")
    def shown_group(self, signoff: SignOff) -> str:
        return visible(signoff.group)

    @admin.display(description="decision", ordering="decision")
    def shown_decision(self, signoff: SignOff) -> str:
        return pill(signoff.decision)

    @admin.display(description="by", ordering="decided_by")
    def who(self, signoff: SignOff) -> str:
        return visible(signoff.decided_by)

    @admin.display(description="what was signed")
    def shown_statement(self, signoff: SignOff) -> str:
        return visible(signoff.statement)

    @admin.display(description="evidence", ordering="evidence_id")
    def shown_evidence(self, signoff: SignOff) -> str:
        if signoff.evidence_id is None:
            return NOTHING
        return links.link(links.address(Evidence, signoff.evidence_id), f"Evidence {signoff.evidence_id}")

    @admin.display(description="note")
    def shown_note(self, signoff: SignOff) -> str:
        return visible(signoff.note)
