from typing import Any, Protocol

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from migration import decisions
from migration.admin import links, watermark
from migration.admin.display import NOTHING, moment, pill, progress_bar, visible
from migration.admin.queries import last_run, with_progress
from migration.admin.work import WorkAdmin
from migration.models import Account, Run
from migration.runs import Refused
from migration.states import RunMode, RunState

MOST_RUNS = 20


class LastProduction(admin.SimpleListFilter):
    title = "last production run"
    parameter_name = "production"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [("none", "none yet"), *((state.value, state.value) for state in RunState)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() == "none":
            return queryset.filter(production__isnull=True)
        return queryset.filter(production__state=self.value()) if self.value() else queryset


class Listed(Protocol):
    """An account as get_queryset gives it; the runs are those of queries.last_run."""

    dry_run: dict[str, Any] | None
    production: dict[str, Any] | None


@admin.register(Account)
class AccountAdmin(WorkAdmin):
    plural = "Accounts"
    may = watermark.PERMISSION
    list_display = ("shown_name", "organisation", "last_dry_run", "last_production_run", "progress")
    list_filter = (LastProduction, "gone")
    search_fields = ("name",)
    number_fields = ("crm_organization_id",)
    search_help_text = "Name, or CRM organisation id."
    fields = ("shown_name", "organisation", "cdp_id", "read_at", "last_dry_run", "last_production_run", "progress")

    def get_urls(self) -> list[URLPattern]:
        return [self.act_url("<int:pk>/watermark/", self.set_watermark, "watermark"), *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Account]:
        accounts = super().get_queryset(request)
        return accounts.annotate(dry_run=last_run(RunMode.DRY_RUN), production=last_run(RunMode.PRODUCTION))

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> HttpResponse:
        runs = with_progress(Run.objects.filter(account=context["original"]).select_related("mapping_revision"))
        extra = {"runs": runs[:MOST_RUNS], "all_runs": links.listing(Run, account=context["original"].pk)}
        extra |= {"watermarks": watermark.of(context["original"], request)}
        return super().render_change_form(request, context | extra, *args, **kwargs)

    def set_watermark(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Set one entity's watermark by hand, or leave it to the live rows again."""
        self.check_may(request)
        account = self.found(request, pk)
        try:
            entity, moment, note = watermark.read(request)
            decisions.set_watermark(account, entity, moment, by=request.user.get_username(), note=note, now=timezone.now())
        except Refused as error:
            context = {"watermarks": watermark.of(account, request), "problem": str(error)}
            return self.page(request, "account/set_watermark.html", "Set a watermark", original=account, **context)
        return self.back(request, account, said="The watermark is set. It holds for runs that are planned from now on.")

    @admin.display(description="name", ordering="name")
    def shown_name(self, account: Account) -> SafeString:
        return format_html("{} {}", visible(account.name), pill("gone", "from the CDP")) if account.gone else visible(account.name)

    @admin.display(description="CRM organisation", ordering="crm_organization_id")
    def organisation(self, account: Account) -> str:
        return str(account.crm_organization_id)

    @admin.display(description="last read from the CDP")
    def read_at(self, account: Account) -> str:
        return moment(account.synced_at)

    @admin.display(description="last dry run")
    def last_dry_run(self, account: Listed) -> str:
        return in_short(account.dry_run)

    @admin.display(description="last production run")
    def last_production_run(self, account: Listed) -> str:
        return in_short(account.production)

    @admin.display(description="progress")
    def progress(self, account: Listed) -> str:
        """Of the newest production run; before the first one, of the newest dry run, and then it says so."""
        run = account.production or account.dry_run
        return progress_bar(run["done"], run["total"], "" if account.production else "of the dry run") if run else NOTHING


def in_short(run: dict[str, Any] | None) -> str:
    """State, with a link to the run, and when that was."""
    if run is None:
        return NOTHING
    return format_html('<a class="quiet-link" href="{}">{}</a> {}', links.address(Run, run["pk"]), pill(run["state"]), moment(run["at"]))
