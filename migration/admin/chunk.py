from typing import Any

from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest, HttpResponse

from migration.admin import filters, links, samples
from migration.admin.display import NOTHING, duration, moment, number, pill, visible, words
from migration.admin.records import RecordAdmin
from migration.models import Chunk
from migration.pipeline.records import Receipt
from migration.planning import LAST_PERSON
from migration.states import ChunkState


@admin.register(Chunk)
class ChunkAdmin(RecordAdmin):
    plural = "Chunks"
    list_display = ("name", "shown_run", "range", "shown_state", "attempts", "shown_reason", "shown_expected", "took")
    list_filter = (filters.one_of("state", ChunkState), filters.ByRun, filters.ByAccountOfRun)
    list_select_related = ("run__account",)
    search_fields = ("run__account__name",)
    number_fields = ("run__account__crm_organization_id",)
    search_help_text = "Account, CRM organisation id, or a CRM person id (finds the chunks that hold the person)."
    ordering = ("-run_id", "number")
    fieldsets = (
        (None, {"fields": ("shown_run", "range", "shown_state", "shown_reason", "shown_expected", "outcome", "took")}),
        ("Lease and fence", {"fields": ("attempts", "generation", "waits_until", "token", "owner", "lease_ends", "uuid")}),
    )

    def numbered(self, number: int) -> Q:
        return super().numbered(number) | Q(person_from__lte=number, person_to__gte=number)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> HttpResponse:
        extra = {"samples": samples.of(Chunk.objects.filter(pk=context["original"].pk))}
        return super().render_change_form(request, context | extra, *args, **kwargs)

    @admin.display(description="chunk", ordering="number")
    def name(self, chunk: Chunk) -> str:
        return f"Chunk\N{NO-BREAK SPACE}{chunk.number}"

    @admin.display(description="run", ordering="run")
    def shown_run(self, chunk: Chunk) -> str:
        return links.link(links.page(chunk.run), chunk.run)

    @admin.display(description="CRM persons", ordering="person_from")
    def range(self, chunk: Chunk) -> str:
        """Person ids; for a part of a heavy contact its audit ids too, and for a retry how many single candidates."""
        if chunk.pairs is not None:
            candidates = "1 candidate" if len(chunk.pairs) == 1 else f"{number(len(chunk.pairs))} candidates"
            return f"{chunk.person_from} to {chunk.person_to}, {candidates} again"
        if chunk.person_from != chunk.person_to:
            return f"{chunk.person_from} to {'the last' if chunk.person_to == LAST_PERSON else chunk.person_to}"
        first = "" if chunk.audit_from is None else f", audits from {chunk.audit_from}"
        last = "" if chunk.audit_to is None else f", audits before {chunk.audit_to}"
        return f"{chunk.person_from}{first}{last}"

    @admin.display(description="state", ordering="state")
    def shown_state(self, chunk: Chunk) -> str:
        return pill(chunk.state)

    @admin.display(description="reason")
    def shown_reason(self, chunk: Chunk) -> str:
        return visible(chunk.reason) if chunk.reason else NOTHING

    @admin.display(description="expected", ordering="expected")
    def shown_expected(self, chunk: Chunk) -> str:
        return number(chunk.expected)

    @admin.display(description="seconds", ordering="seconds")
    def took(self, chunk: Chunk) -> str:
        return duration(chunk.seconds)

    @admin.display(description="outcome")
    def outcome(self, chunk: Chunk) -> str:
        """The receipt's counts, those that are not zero."""
        if chunk.receipt is None:
            return NOTHING
        receipt = Receipt.from_json(chunk.receipt)
        counts = {name: getattr(receipt, name) for name in ("written", "corrected", "unchanged", "already_live")}
        counts |= {"skipped": receipt.skipped.total(), "quarantined": len(receipt.quarantined), "waived": receipt.waived.total()}
        return ", ".join(f"{number(count)} {words(name)}" for name, count in counts.items() if count) or "no candidates"

    @admin.display(description="waits until")
    def waits_until(self, chunk: Chunk) -> str:
        return moment(chunk.not_before)

    @admin.display(description="lease held by")
    def owner(self, chunk: Chunk) -> str:
        return visible(chunk.lease_owner) if chunk.lease_owner else NOTHING

    @admin.display(description="lease ends")
    def lease_ends(self, chunk: Chunk) -> str:
        return moment(chunk.lease_expires_at)
