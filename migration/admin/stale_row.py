from django.contrib import admin

from migration.admin import filters, links
from migration.admin.records import RecordAdmin
from migration.models import StaleRow


@admin.register(StaleRow)
class StaleRowAdmin(RecordAdmin):
    plural = "Stale rows"
    list_display = ("row", "audit", "person", "shown_account", "shown_run")
    list_filter = (filters.ByRun, filters.ByAccountOfRun)
    list_select_related = ("run__account",)
    search_fields = ("run__account__name",)
    number_fields = ("audit_id", "person_id", "run__account__crm_organization_id")
    search_help_text = "Audit id, CRM person id, account, or CRM organisation id."
    ordering = ("-run_id", "person_id", "audit_id")
    fields = ("row", "audit", "person", "shown_account", "shown_run")

    @admin.display(description="row in the CDP")
    def row(self, stale: StaleRow) -> str:
        return str(stale.row_id)

    @admin.display(description="audit", ordering="audit_id")
    def audit(self, stale: StaleRow) -> str:
        return str(stale.audit_id)

    @admin.display(description="CRM person", ordering="person_id")
    def person(self, stale: StaleRow) -> str:
        return str(stale.person_id)

    @admin.display(description="account", ordering="run__account")
    def shown_account(self, stale: StaleRow) -> str:
        return links.link(links.page(stale.run.account), stale.run.account)

    @admin.display(description="found by", ordering="run_id")
    def shown_run(self, stale: StaleRow) -> str:
        return links.link(links.page(stale.run), f"Run {stale.run_id} ({stale.run.get_mode()})")
