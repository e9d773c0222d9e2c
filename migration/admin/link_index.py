from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from migration import link_source
from migration.admin import links
from migration.admin.display import NOTHING, duration, moment, number, pill
from migration.admin.filters import ByNumber
from migration.admin.records import RecordAdmin
from migration.models import LinkIndex, LinkOddity

ODD = {
    "contactless": "It is of a join row whose contact no audit tells.",
    "startless": "It ends a link whose start no audit tells.",
}


@admin.register(LinkIndex)
class LinkIndexAdmin(RecordAdmin):
    plural = "Link indexes"
    list_display = ("name", "state", "covers", "covered", "odd")
    search_fields = ("key",)
    search_help_text = "Its key: a digest of the CRM's address and the join classes."
    number_fields = ("pk",)
    fields = ("state", "covers", "covered", "settled", "audits", "counted", "odd", "key")

    def get_queryset(self, request: HttpRequest) -> QuerySet[LinkIndex]:
        return super().get_queryset(request).annotate(odd=Count("oddities"))

    @admin.display(description="link index")
    def name(self, index: LinkIndex) -> str:
        return str(index)

    @admin.display(description="state")
    def state(self, index: LinkIndex) -> str:
        return pill("built" if index.built else "being built")

    @admin.display(description="covers audits to", ordering="covers_to")
    def covers(self, index: LinkIndex) -> str:
        return NOTHING if index.covers_to is None else str(index.covers_to)

    @admin.display(description="last looked", ordering="covered_at")
    def covered(self, index: LinkIndex) -> str:
        return moment(index.covered_at)

    @admin.display(description="settled to audit")
    def settled(self, index: LinkIndex) -> str:
        return str(index.settled_to)

    @admin.display(description="join rows' audits settled")
    def audits(self, index: LinkIndex) -> str:
        return number(index.settled_audits)

    @admin.display(description="last counted")
    def counted(self, index: LinkIndex) -> str:
        return format_html("{}, in {}", moment(index.counted_at), duration(index.counting_seconds)) if index.counted_at else NOTHING

    @admin.display(description="oddities")
    def odd(self, index: Any) -> str:
        """Audits of join rows that name no contact, or end what never began."""
        return links.link(links.listing(LinkOddity, index=index.pk), number(index.odd)) if index.odd else "none"


class ByIndex(ByNumber):
    title = "link index"
    parameter_name = path = "index"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [(str(index.pk), f"{index.pk}: {index}") for index in LinkIndex.objects.order_by("-pk")[:20]]


class ByKind(admin.SimpleListFilter):
    title = parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [(kind, kind) for kind in ODD]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(kind=self.value()) if self.value() else queryset


@admin.register(LinkOddity)
class LinkOddityAdmin(RecordAdmin):
    plural = "Link oddities"
    list_display = ("audit", "row", "shown_kind", "shown_index")
    list_filter = (ByKind, ByIndex)
    list_select_related = ("index",)
    number_fields = ("audit_id", "join_row")
    search_fields = ("kind",)
    search_help_text = "Audit id, or the join row's id in the CRM."
    ordering = ("-id",)
    fields = ("audit", "row", "shown_kind", "shown_index")

    @admin.display(description="audit", ordering="audit_id")
    def audit(self, oddity: LinkOddity) -> str:
        return str(oddity.audit_id)

    @admin.display(description="join row in the CRM", ordering="join_row")
    def row(self, oddity: LinkOddity) -> str:
        return str(oddity.join_row) if oddity.join_row < link_source.ODD else "id is no number"

    @admin.display(description="kind", ordering="kind")
    def shown_kind(self, oddity: LinkOddity) -> str:
        return format_html('{} <span class="quiet">{}</span>', oddity.kind, ODD.get(oddity.kind, ""))

    @admin.display(description="link index", ordering="index")
    def shown_index(self, oddity: LinkOddity) -> str:
        return links.link(links.page(oddity.index), oddity.index)
