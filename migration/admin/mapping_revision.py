from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from migration.admin.display import NOTHING, moment, visible
from migration.admin.document_diff import changes, lines
from migration.admin.records import RecordAdmin
from migration.models import MappingRevision

MOST_REVISIONS = 100  # to choose from for a comparison


@admin.register(MappingRevision)
class MappingRevisionAdmin(RecordAdmin):
    plural = "Mapping revisions"
    list_display = ("name", "shown_digest", "published", "by", "shown_note")
    search_fields = ("note", "published_by", "digest")
    number_fields = ("number",)
    search_help_text = "Number, note, who published it, or digest."
    fields = ("published", "by", "shown_note", "digest")

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> HttpResponse:
        revision = context["original"]
        others = MappingRevision.objects.exclude(pk=revision.pk)
        other = compared_with(request, revision)
        extra = {
            "document": lines(revision.document),
            "other": other,
            "changes": changes(other.document, revision.document) if other else [],
            "others": others.only("number", "published_at")[:MOST_REVISIONS],
        }
        return super().render_change_form(request, context | extra, *args, **kwargs)

    @admin.display(description="revision", ordering="number")
    def name(self, revision: MappingRevision) -> str:
        return f"Revision {revision.number}"

    @admin.display(description="digest")
    def shown_digest(self, revision: MappingRevision) -> str:
        return revision.digest[:12]

    @admin.display(description="published", ordering="published_at")
    def published(self, revision: MappingRevision) -> str:
        return moment(revision.published_at)

    @admin.display(description="by", ordering="published_by")
    def by(self, revision: MappingRevision) -> str:
        return visible(revision.published_by)

    @admin.display(description="note")
    def shown_note(self, revision: MappingRevision) -> str:
        return visible(revision.note) if revision.note else NOTHING


def compared_with(request: HttpRequest, revision: MappingRevision) -> MappingRevision | None:
    """The revision that the address asks for, `?with=NUMBER`; else the one before."""
    wanted = request.GET.get("with", "")
    if wanted.isascii() and wanted.isdecimal() and len(wanted) < 10:
        return MappingRevision.objects.exclude(pk=revision.pk).filter(number=int(wanted)).first()
    return MappingRevision.objects.filter(number__lt=revision.number).first()
