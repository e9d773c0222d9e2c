"""What is sent once the login has ended: Django leads to the login page and from there back with GET, so that all of it is lost. It says so."""

from collections.abc import Callable

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

NOT_SENT = "Nothing was done: what is sent is lost where a login comes in between. It has to be sent again."


def middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Have the login page say that what was sent is lost; it stands within the middleware that keeps messages."""

    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if request.method == "POST" and leads_to_login(response) and not request.user.is_authenticated:
            messages.warning(request, NOT_SENT)
        return response

    return answer


def leads_to_login(response: HttpResponse) -> bool:
    return isinstance(response, HttpResponseRedirect) and response.url.startswith(reverse("admin:login"))
