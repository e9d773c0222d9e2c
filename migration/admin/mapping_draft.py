from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern
from django.utils import timezone

from migration import drafts, override_csv, revisions, tasks
from migration import mapping as mappings
from migration.admin import draft_import, draft_report, links, mapping_form, password_again
from migration.admin.display import NOTHING, moment, pill, visible
from migration.admin.mapping_fields import ROWS
from migration.admin.work import WorkAdmin, note_of, within_patience
from migration.mapping import MappingError
from migration.models import MappingDraft
from migration.runs import Refused

PUBLISH = "migration.add_mappingrevision"
LONGEST_NAME = 120


@admin.register(MappingDraft)
class MappingDraftAdmin(WorkAdmin):
    plural = "Mapping drafts"
    may = "migration.change_mappingdraft"
    list_display = ("shown_name", "state", "base", "edited")
    list_select_related = ("based_on", "published")
    search_fields = ("name", "edited_by")
    number_fields = ("based_on__number",)
    search_help_text = "Name, who edited it, or the revision it was started from."
    fields = ("base", "edited", "publication")
    change_list_template = "admin/migration/mappingdraft/change_list.html"

    def get_urls(self) -> list[URLPattern]:
        return [
            self.work_url("start/", self.start, "start"),
            self.work_url("<int:pk>/edit/<slug:part>/", self.edit, "edit"),
            self.act_url("<int:pk>/count/", self.count, "count"),
            self.work_url("<int:pk>/publish/", self.publish, "publish"),
            self.work_url("<int:pk>/export/<slug:kind>/", self.export, "export"),
            self.work_url("<int:pk>/import/<slug:kind>/", self.take_csv, "import"),
            self.work_url("<int:pk>/document/", self.download, "document"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"may_start": self.may_work(request)} | (extra_context or {}))

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> HttpResponse:
        draft = context["original"]
        context |= {"report": draft_report.of(draft, now=timezone.now())}
        context |= {"may_edit": self.may_work(request) and not draft.published_id, "may_publish": self.may_work(request, PUBLISH)}
        return super().render_change_form(request, context, *args, **kwargs)

    # --- pages of work ----------------------------------------------------------------------------------------------

    def start(self, request: HttpRequest) -> HttpResponse:
        """A new draft, equal to the current revision."""
        self.check_may(request)
        name, problem = request.POST.get("name", "").strip(), ""
        if request.method == "POST":
            problem = name_problem(name)
            if not problem:
                draft = drafts.start(name, by=request.user.get_username(), now=timezone.now())
                return self.back(request, draft, said="The draft is started. Nothing changes for runs before it is published.")
        return self.page(
            request, "mappingdraft/start.html", "Start a draft", name=name, problem=problem, base=revisions.current(), most=LONGEST_NAME
        )

    def edit(self, request: HttpRequest, pk: int, part: str) -> HttpResponse:
        """One part of the document. What is wrong is shown in its place, and then nothing is saved."""
        self.check_may(request)
        draft, chosen = self.found(request, pk), mapping_form.PARTS.get(part)
        if chosen is None:
            return self.back(request, draft)
        start = page_start(request)
        if request.method != "POST":
            return self.form_page(request, draft, mapping_form.shown(chosen, draft.document, start), draft_report.seen(draft))
        with transaction.atomic():
            draft = MappingDraft.objects.select_for_update().get(pk=pk)
            form, problem = self.save(request, draft, chosen, start)
        if problem or form.wrong:
            return self.form_page(request, draft, form, request.POST.get("seen", ""), problem)
        if "stay" in request.POST:
            return redirect(f"{request.path}?from={start}")
        return self.back(request, draft)

    def save(self, request: HttpRequest, draft: MappingDraft, part: mapping_form.Part, start: int) -> tuple[mapping_form.Form, str]:
        """The form as it was sent, and why it could not be saved, if that has no place in it."""
        form, document = mapping_form.posted(part, draft.document, request.POST, start)
        if request.POST.get("seen") != draft_report.seen(draft):
            return form, f"{draft.edited_by} changed this draft meanwhile, so nothing was saved: open it again, repeat your change there."
        try:
            mappings.parse(document)
            if not form.wrong:
                self.message_user(request, self.kept(request, draft, document), messages.SUCCESS)
        except MappingError as error:
            form.place(error.problems)
        except Refused as error:
            return form, str(error)
        return form, ""

    def kept(self, request: HttpRequest, draft: MappingDraft, document: dict[str, Any]) -> str:
        """Store the document, unless it means the same: then what was counted of it still holds. Raises MappingError, Refused."""
        if draft_report.means_the_same(draft.document, document):
            return "Nothing was changed."
        drafts.edit(draft, document, by=request.user.get_username(), now=timezone.now())
        return "Saved. The effect has to be counted before the draft can be published."

    def form_page(self, request: HttpRequest, draft: MappingDraft, form: mapping_form.Form, seen: str, problem: str = "") -> HttpResponse:
        return self.page(
            request,
            "mappingdraft/edit.html",
            form.part.title,
            original=draft,
            form=form,
            seen=seen,
            problem=problem,
            form_parts=mapping_form.PARTS.values(),
            pages=draft_report.pages(draft.document, form.part, form.start, ROWS),
        )

    def count(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Ask a worker to count the effect."""
        self.check_may(request)
        draft = self.found(request, pk)
        try:
            drafts.begin_count(draft, now=timezone.now())
        except Refused as error:
            return self.back(request, draft, said=str(error), level=messages.ERROR)
        if not within_patience(lambda: tasks.nudge_count(draft.pk)):
            drafts.not_asked(draft, "the broker at REDIS_URL does not answer. Start it, then count again.")
        return self.back(request, draft)

    def publish(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The effect once more, a note, and the button."""
        self.check_may(request, PUBLISH)
        draft = self.found(request, pk)
        if asking := password_again.asked_first(request):
            return asking
        note, problem = note_of(request), ""
        if request.method == "POST":
            try:
                with transaction.atomic():
                    draft = MappingDraft.objects.select_for_update().get(pk=pk)
                    check_effect_seen(request, draft)
                    revision = drafts.publish(draft, by=request.user.get_username(), note=note, now=timezone.now())
                return self.back(request, draft, said=f"Published as revision {revision.number}. Runs started from now on use it.")
            except Refused as error:
                problem = str(error)
        shown = {"report": draft_report.of(draft, now=timezone.now()), "seen": draft_report.seen_effect(draft)}
        return self.page(request, "mappingdraft/publish.html", "Publish", original=draft, note=note, problem=problem, **shown)

    def export(self, request: HttpRequest, pk: int, kind: str) -> HttpResponse:
        """One kind of overrides as CSV."""
        draft = self.shown(request, pk)
        if kind not in override_csv.COLUMNS:
            return self.back(request, draft)
        return attachment(override_csv.export(draft.document, kind), "text/csv", f"{kind}-draft-{pk}.csv")

    def download(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The whole document, as publish_mapping reads it."""
        draft = self.shown(request, pk)
        return attachment("\n".join(draft_report.lines(draft.document)) + "\n", "application/json", f"mapping-draft-{pk}.json")

    def take_csv(self, request: HttpRequest, pk: int, kind: str) -> HttpResponse:
        """Overrides from a CSV file: a preview line by line, then applied."""
        self.check_may(request)
        draft = self.found(request, pk)
        if kind not in override_csv.COLUMNS:
            return self.back(request, draft)
        sent = draft_import.read(request, draft, kind)
        if sent.confirmed and sent.sound:
            try:
                with transaction.atomic():
                    draft = MappingDraft.objects.select_for_update().get(pk=pk)
                    sent.check_seen(draft)
                    said = self.kept(request, draft, sent.document)
                return self.back(request, draft, said=said)
            except Refused as error:
                sent.problem, sent.seen = str(error), draft_report.seen(draft)
        title = f"Import {mapping_form.PARTS[kind].title.lower()}"
        return self.page(
            request, "mappingdraft/import.html", title, original=draft, sent=sent, kind=kind, columns=override_csv.COLUMNS[kind]
        )

    def shown(self, request: HttpRequest, pk: int) -> MappingDraft:
        self.check_may(request, "migration.view_mappingdraft")
        draft: MappingDraft = self.found(request, pk)
        return draft

    # --- columns ----------------------------------------------------------------------------------------------------

    @admin.display(description="draft", ordering="name")
    def shown_name(self, draft: MappingDraft) -> str:
        return visible(draft.name)

    @admin.display(description="state")
    def state(self, draft: MappingDraft) -> str:
        return pill(draft_report.state(draft))

    @admin.display(description="started from", ordering="based_on__number")
    def base(self, draft: MappingDraft) -> str:
        return links.link(links.page(draft.based_on), f"revision {draft.based_on.number}") if draft.based_on else "nothing"

    @admin.display(description="last edited", ordering="edited_at")
    def edited(self, draft: MappingDraft) -> str:
        return draft_report.by(moment(draft.edited_at), draft.edited_by)

    @admin.display(description="published")
    def publication(self, draft: MappingDraft) -> str:
        published = draft.published
        return links.link(links.page(published), f"as revision {published.number}") if published else NOTHING


def name_problem(name: str) -> str:
    if not name:
        return "A draft needs a name, such as what it is to change."
    if len(name) > LONGEST_NAME:
        return f"The name may have {LONGEST_NAME} characters; this one has {len(name)}."
    return "The name holds a character that cannot be stored." if "\0" in name else ""


def check_effect_seen(request: HttpRequest, draft: MappingDraft) -> None:
    """Raise Refused where it could be published, but is another, or has another effect, than the form showed."""
    drafts.check_can_publish(draft, now=timezone.now())
    if request.POST.get("seen") != draft_report.seen_effect(draft):
        raise Refused(
            f"{draft.edited_by} changed this draft meanwhile, or its effect was counted anew, so nothing was published: look at it below, then publish."
        )


def page_start(request: HttpRequest) -> int:
    """The first row of a long table, a multiple of ROWS."""
    wanted = request.GET.get("from", "")
    return int(wanted) // ROWS * ROWS if wanted.isascii() and wanted.isdecimal() and len(wanted) < 9 else 0


def attachment(text: str, kind: str, name: str) -> HttpResponse:
    return HttpResponse(text, content_type=f"{kind}; charset=utf-8", headers={"Content-Disposition": f'attachment; filename="{name}"'})
