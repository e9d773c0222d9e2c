from django.contrib import admin

from migration.admin import filters, links
from migration.admin.display import NOTHING, moment, visible
from migration.admin.records import RecordAdmin
from migration.models import Event


@admin.register(Event)
class EventAdmin(RecordAdmin):
    plural = "Events"
    list_display = ("when", "shown_kind", "shown_sentence", "shown_account", "shown_run", "who")
    list_filter = (("at", admin.DateFieldListFilter), "kind", filters.ByAccount, filters.ByRun)
    list_select_related = ("account", "run__account")
    search_fields = ("sentence", "kind", "by", "account__name")
    number_fields = ("account__crm_organization_id",)
    search_help_text = "Words of the sentence or kind, a person, account, or CRM organisation id."
    fields = ("when", "shown_kind", "shown_sentence", "shown_account", "shown_run", "who")

    @admin.display(description="at", ordering="id")
    def when(self, event: Event) -> str:
        return moment(event.at)

    @admin.display(description="kind", ordering="kind")
    def shown_kind(self, event: Event) -> str:
        return visible(event.kind)

    @admin.display(description="what happened")
    def shown_sentence(self, event: Event) -> str:
        return visible(event.sentence)

    @admin.display(description="account", ordering="account")
    def shown_account(self, event: Event) -> str:
        return links.link(links.page(event.account), event.account) if event.account else NOTHING

    @admin.display(description="run", ordering="run_id")
    def shown_run(self, event: Event) -> str:
        return links.link(links.page(event.run), f"Run {event.run_id} ({event.run.get_mode()})") if event.run else NOTHING

    @admin.display(description="by", ordering="by")
    def who(self, event: Event) -> str:
        return visible(event.by)
