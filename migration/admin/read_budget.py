"""The read budget: what the CRM is asked at most, why workers wait, and the switch that stops reading."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern
from django.utils import timezone

from migration import budget, leases
from migration.admin.records import whole
from migration.admin.work import WorkAdmin, note_of
from migration.models import ReadBudget
from migration.runs import Refused

MOST_READERS = 1000


@admin.register(ReadBudget)
class ReadBudgetAdmin(WorkAdmin):
    """One row, so its list is its page."""

    plural = "Read budget"
    may = "migration.change_readbudget"

    def get_urls(self) -> list[URLPattern]:
        return [self.act_url("set/", self.set, "set"), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return self.shown(request)

    def change_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return redirect(self.address("changelist"))

    def set(self, request: HttpRequest) -> HttpResponse:
        """Stop reading, or allow it, for so many chunks at once."""
        self.check_may(request)
        note, by, now = note_of(request), request.user.get_username(), timezone.now()
        try:
            if not note:
                raise Refused("A note is needed: why.")
            if request.POST.get("what") == "stop":
                budget.stop(by=by, note=note, now=now)
            else:
                budget.allow(by=by, most_readers=readers(request.POST.get("most", "").strip()), note=note, now=now)
        except Refused as error:
            return self.shown(request, problem=str(error), note=note, most=request.POST.get("most", ""))
        return self.back(request, None, said="The read budget is set: every worker heeds it before its next chunk.")

    def shown(self, request: HttpRequest, **typed: Any) -> HttpResponse:
        self.check_view(request)
        found, reading = budget.current(), leases.reading()
        context: dict[str, Any] = {
            "budget": found,
            "reading": reading,
            "most_now": budget.readers(found),
            "waits": budget.reason_to_wait(found, reading),
            "may_set": self.may_work(request),
            "most": str(found.most_readers or ""),
        }
        return self.page(request, "readbudget/budget.html", "What is read at once", **context | typed)


def readers(text: str) -> int | None:
    """The number that was typed; None for the setting's own. Raises Refused."""
    if not text:
        return None
    number = whole(text)
    if number is None or not 1 <= number <= MOST_READERS:
        raise Refused(f"How many chunks at once must be a whole number from 1 to {MOST_READERS}, or nothing for READ_AT_ONCE.")
    return number
