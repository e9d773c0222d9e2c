import difflib
import json
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from migration.admin.display import NOTHING, moment, visible
from migration.admin.records import RecordAdmin
from migration.models import MappingRevision


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
        before = MappingRevision.objects.filter(number__lt=revision.number).first()
        extra = {"document": lines(revision), "before": before, "changes": changes(before, revision) if before else []}
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


def lines(revision: MappingRevision) -> list[str]:
    """The document as indented JSON; every override on its own lines."""
    return json.dumps(revision.document, indent=2, sort_keys=True, ensure_ascii=False).splitlines()


def changes(before: MappingRevision, after: MappingRevision) -> list[tuple[str, str]]:
    """What the later revision adds ("+"), drops ("-") and leaves around them (" "), line by line; "@" where lines are left out."""
    compared = list(difflib.unified_diff(lines(before), lines(after), lineterm="", n=3))[2:]
    return [(line[0], line[1:] if line[0] != "@" else "") for line in compared]
