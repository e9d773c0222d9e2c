from typing import Any

from django.contrib import admin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils import timezone

from migration import decisions
from migration.admin import filters, links
from migration.admin.display import NOTHING, moment, pill, visible
from migration.admin.draft_report import by
from migration.admin.work import WorkAdmin, note_of
from migration.models import NameCollision
from migration.runs import Refused


class Decided(admin.SimpleListFilter):
    title = "decision"
    parameter_name = "decided"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [("no", "undecided"), ("yes", "decided")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        wanted = {"no": True, "yes": False}.get(self.value() or "")
        return queryset if wanted is None else queryset.filter(decided_at__isnull=wanted)


@admin.register(NameCollision)
class NameCollisionAdmin(WorkAdmin):
    plural = "Name collisions"
    may = "migration.change_namecollision"
    list_display = ("record", "shown_class", "version", "names", "state", "shown_account", "seen")
    list_filter = (Decided, filters.ByAccount)
    list_select_related = ("account",)
    search_fields = ("class_name", "decided_name", "decided_by", "note", "account__name")
    number_fields = ("record_id", "account__crm_organization_id")
    search_help_text = "CRM record id, class, decided name, who decided, account, or CRM organisation id."
    fields = ("record", "shown_class", "version", "shown_account", "seen", "decision", "shown_note")

    def get_urls(self) -> list[URLPattern]:
        return [self.act_url("<int:pk>/decide/", self.decide, "decide"), *super().get_urls()]

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> HttpResponse:
        return super().render_change_form(request, context | self.choices(request, context["original"]), *args, **kwargs)

    def decide(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Store which name stood."""
        self.check_may(request)
        collision, audit, note = self.found(request, pk), request.POST.get("audit", ""), note_of(request)
        try:
            chosen = int(audit) if audit.isascii() and audit.isdecimal() and len(audit) < 20 else -1
            with transaction.atomic():
                collision = NameCollision.objects.select_for_update(of=("self",)).get(pk=pk)
                if not is_decided_so(collision, chosen, request.user.get_username(), note):
                    check_seen(request, collision)
                    decisions.decide_name(collision, chosen, by=request.user.get_username(), note=note, now=timezone.now())
        except Refused as error:
            again = self.choices(request, collision) | {"chosen": audit, "note": note, "problem": str(error)}
            return self.page(request, "namecollision/decide.html", "Decide", **again | {"original": collision})
        return self.back(request, collision, said="The decision is stored. The account's next run heeds it.")

    def choices(self, request: HttpRequest, collision: NameCollision) -> dict[str, Any]:
        """What the form of the decision shows."""
        names = [{"audit": str(audit), "name": name, "is_decided": name == collision.decided_name} for audit, name in collision.candidates]
        decided = next((each["audit"] for each in names if each["is_decided"]), "")
        return {"names": names, "chosen": decided, "note": "", "may_decide": self.may_work(request), "seen": as_shown(collision)}

    @admin.display(description="record", ordering="record_id")
    def record(self, collision: NameCollision) -> str:
        return f"{collision.role} {collision.record_id}"

    @admin.display(description="class", ordering="class_name")
    def shown_class(self, collision: NameCollision) -> str:
        return visible(collision.class_name)

    @admin.display(description="names")
    def names(self, collision: NameCollision) -> str:
        return visible(" · ".join(str(name) for _, name in collision.candidates))

    @admin.display(description="state")
    def state(self, collision: NameCollision) -> str:
        return pill("undecided" if collision.decided_at is None else "decided")

    @admin.display(description="account", ordering="account")
    def shown_account(self, collision: NameCollision) -> str:
        return links.link(links.page(collision.account), collision.account)

    @admin.display(description="first seen", ordering="first_seen_at")
    def seen(self, collision: NameCollision) -> str:
        return moment(collision.first_seen_at)

    @admin.display(description="decision")
    def decision(self, collision: NameCollision) -> str:
        return by(moment(collision.decided_at), collision.decided_by) if collision.decided_at else pill("undecided")

    @admin.display(description="note")
    def shown_note(self, collision: NameCollision) -> str:
        return visible(collision.note) if collision.note else NOTHING


def as_shown(collision: NameCollision) -> str:
    """The decision that a page shows, for its form to carry."""
    return collision.decided_at.isoformat() if collision.decided_at else ""


def check_seen(request: HttpRequest, collision: NameCollision) -> None:
    """Raise Refused where somebody decided after the form was shown."""
    if request.POST.get("seen", as_shown(collision)) != as_shown(collision):
        raise Refused(
            f"{collision.decided_by} decided meanwhile that it was called {collision.decided_name!r} (“{collision.note}”). "
            "Nothing was stored: look at that, then decide anew if it is wrong."
        )


def is_decided_so(collision: NameCollision, audit: int, by: str, note: str) -> bool:
    """Whether this person has just decided the same: the second of two clicks."""
    names = dict(collision.candidates)
    return audit in names and (collision.decided_name, collision.decided_by, collision.note) == (names[audit] or "", by, note)
