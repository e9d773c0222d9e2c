"""What the pages share on which staff work: who may, their frame, and that a broker which is away keeps nobody waiting."""

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import connections, models
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from migration.admin.display import visible_text
from migration.admin.lost import NOT_SENT
from migration.admin.records import RecordAdmin
from migration.runs import Refused

# What has a run or a batch stand still; a run that is pausing comes to be paused without another wish.
STOPS = {"run": ("run pausing", "pause taken over"), "batch": ("batch paused", "batch stopped")}
PATIENCE = 1.0  # seconds that a page waits for the broker; it shall answer within two

View = Callable[..., HttpResponse]


class WorkAdmin(RecordAdmin):
    """A record with pages of work beside it. `may` is the permission that its work needs; whoever has not got it sees no button."""

    may = ""

    def may_work(self, request: HttpRequest, permission: str = "") -> bool:
        return bool(request.user.has_perm(permission or self.may))

    def check_may(self, request: HttpRequest, permission: str = "") -> None:
        if not (self.may_work(request, permission) and self.has_view_permission(request)):
            raise PermissionDenied

    def check_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    def work_url(self, route: str, view: View, name: str) -> URLPattern:
        return path(route, self.admin_site.admin_view(view), name=f"{self.opts.app_label}_{self.opts.model_name}_{name}")

    def act_url(self, route: str, act: View, name: str) -> URLPattern:
        """An act that has no page of its own: asked with GET, which is what a login in between makes of it, it leads to the record's page."""

        @wraps(act)
        def view(request: HttpRequest, **which: Any) -> HttpResponse:
            if request.method == "POST":
                return act(request, **which)
            self.check_may(request)
            return self.back(request, self.found(request, **which) if which else None, said=NOT_SENT, level=messages.WARNING)

        return self.work_url(route, view, name)

    def address(self, name: str, *arguments: object) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_{name}", args=arguments)

    def found(self, request: HttpRequest, pk: int) -> Any:
        return get_object_or_404(self.get_queryset(request), pk=pk)

    def page(
        self, request: HttpRequest, template: str, title: str, *, original: models.Model | None = None, **context: Any
    ) -> TemplateResponse:
        """One page of work, in the frame of the record's own pages."""
        frame = {"opts": self.opts, "plural": self.plural, "original": original, "subtitle": visible_text(original) if original else None}
        return TemplateResponse(
            request, f"admin/{self.opts.app_label}/{template}", self.admin_site.each_context(request) | frame | {"title": title} | context
        )

    def back(self, request: HttpRequest, record: models.Model | None, *, said: str = "", level: int = messages.SUCCESS) -> HttpResponse:
        """To the record's own page (None: the list), with a message."""
        if said:
            self.message_user(request, visible_text(said), level)
        return redirect(self.address("change", record.pk) if record else self.address("changelist"))


def note_of(request: HttpRequest) -> str:
    """The note that was typed, without white space around it and without the null character, which no table takes."""
    return request.POST.get("note", "").replace("\0", "").strip()


def last_stop(record: Any) -> str:
    """The newest wish that this run or batch stand still: the form to resume it carries it."""
    kinds = STOPS[record._meta.model_name]
    return str(record.events.filter(kind__in=kinds).order_by("-pk").values_list("pk", flat=True).first() or "")


def check_stop_seen(request: HttpRequest, record: Any) -> None:
    """Raise Refused where it was stopped after the form was shown: its reason would be overruled unseen."""
    if request.POST.get("stop", last_stop(record)) != last_stop(record):
        raise Refused(
            f"{record} was resumed and stopped again since this page was opened, so nothing was done: look at the reason below first."
        )


def within_patience(send: Callable[[], bool]) -> bool:
    """Run `send` beside this request and return what it says; False where it takes longer than PATIENCE (it goes on by itself)."""
    said: list[bool] = []

    def work() -> None:
        try:
            said.append(send())
        finally:
            connections.close_all()

    thread = threading.Thread(target=work, name="nudge", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(said and said[0])
