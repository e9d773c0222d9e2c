"""Every state of the badge side by side, for Design's review (gate G): the real component, fed with fixed bodies by this server."""

from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.decorators import staff_member_required
from django.contrib.auth.decorators import permission_required
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone, translation

from status_api.status import MESSAGES, State

LANGUAGES = {"en": "English", "id": "Bahasa Indonesia"}
DIRECTIONS = {"ltr": "left to right", "rtl": "right to left"}
PERCENT = {State.IN_PROGRESS: 42, State.PAUSED: 61, State.PARTIAL: 97, State.COMPLETED: 100, State.DELAYED: 12}
HOURS = {State.SCHEDULED: (26.0, 34.0), State.IN_PROGRESS: (2.0, 3.0), State.DELAYED: (0.4, 0.9)}
# What is no state of its own, with the sentence that explains it to the reviewer.
OTHERS = {
    "stale": "The server, or the last request, could not refresh the figures: what was known stays, with a quiet hint in the details.",
    "unknown": "A state that this version of the badge does not know: the message alone.",
    "loading": "Before the first answer; it keeps the place that the state will take.",
    "error": "The first request failed; it goes on asking, less and less often.",
    "hidden": "Gate G is not open, or there is no session: nothing, and no space.",
}


@staff_member_required
@permission_required("migration.view_run", raise_exception=True)
def page(request: HttpRequest) -> HttpResponse:
    """The gallery; `?lang=id` and `?dir=rtl` choose the badges' language and direction."""
    context = admin.site.each_context(request) | {
        "title": "Badge gallery",
        "lang": chosen(request, "lang", LANGUAGES),
        "dir": chosen(request, "dir", DIRECTIONS),
        "languages": LANGUAGES,
        "directions": DIRECTIONS,
        "states": [*State],
        "others": OTHERS,
    }
    return render(request, "status_api/gallery.html", context)


@staff_member_required
@permission_required("migration.view_run", raise_exception=True)
def sample(request: HttpRequest, name: str) -> HttpResponse:
    """The body of one state, as the status endpoint would send it; `error` is a failing server."""
    if name == "error":
        return HttpResponse(status=503, headers={"Retry-After": "3600"})
    if name == "hidden":
        return JsonResponse(dict.fromkeys(body("paused", timezone.now())) | {"visible": False})
    if name not in {*State, "stale", "unknown"}:
        raise Http404
    with translation.override(translation.get_language_from_request(request)):
        return JsonResponse(body(name, timezone.now()), headers={"Cache-Control": "private, no-store"})


def chosen(request: HttpRequest, key: str, known: dict[str, str]) -> str:
    """The query's choice if it is known, else the first."""
    return request.GET[key] if request.GET.get(key) in known else next(iter(known))


def body(name: str, now: datetime) -> dict[str, Any]:
    """SPEC section 7's body of a state that lasts; `stale` and `unknown` are in progress but for what they show."""
    state = State(name) if name in {*State} else State.IN_PROGRESS
    done, total = PERCENT.get(state, 0) * 294, 29_400
    hours = HOURS.get(state)
    return {
        "visible": True,
        "state": "somehow_new" if name == "unknown" else state,
        "percent": PERCENT.get(state, 0),
        "activities_done": done,
        "activities_total": total,
        "history_from": "2019-03-02T00:00:00Z",
        "started_at": (now - timedelta(hours=2)).isoformat() if done else None,
        "finished_at": now.isoformat() if state in (State.COMPLETED, State.PARTIAL) else None,
        "eta": {key: (now + timedelta(hours=each)).isoformat() for key, each in zip(("earliest", "latest"), hours, strict=True)}
        if hours
        else None,
        "message": translation.gettext(MESSAGES[state]),
        "updated_at": now.isoformat(),
        "poll_after": 3600,
    } | ({"stale": True} if name == "stale" else {})
