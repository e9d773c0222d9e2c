"""What cannot be taken back asks for the password again: a session that was left open, or taken, does not do it."""

from datetime import timedelta
from typing import cast
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme

from migration import logins
from migration.admin.login_form import address_of

HOLDS = timedelta(minutes=10)
KEY = "password_typed_at"  # in the session; seconds since 1970
NOT_DONE = "Nothing was done yet: your password is asked first. After it the page is shown again."
WITHOUT_ONE = (
    "Your login has no password here, as you log in elsewhere (single sign-on), so there is nothing to ask you for. Somebody whose login has "
    "one does this, or an administrator gives yours one."
)


def asked_first(request: HttpRequest) -> HttpResponse | None:
    """The way to the password's page where none was typed lately, else None: then the view goes on."""
    if timezone.now().timestamp() - request.session.get(KEY, 0) < HOLDS.total_seconds():
        return None
    if request.method == "POST":
        messages.warning(request, NOT_DONE)
    return redirect(f"{reverse('password-again')}?{urlencode({'next': request.path})}")


def page(request: HttpRequest) -> HttpResponse:
    """Asks for the password, then goes on to `next`. A wrong one counts as a failed login."""
    wanted = request.POST.get("next") or request.GET.get("next", "")
    is_ours = url_has_allowed_host_and_scheme(wanted, allowed_hosts={request.get_host()}, require_https=request.is_secure())
    then = wanted if is_ours else reverse("admin:index")
    may_type = cast(User, request.user).has_usable_password()  # admin_view lets nobody in who has not logged in
    problem = "" if may_type else WITHOUT_ONE
    if request.method == "POST" and not problem:
        problem = wrong(request)
        if not problem:
            request.session.cycle_key()
            request.session[KEY] = timezone.now().timestamp()
            return redirect(then)
    context = admin.site.each_context(request) | {"title": "Your password again", "then": then, "problem": problem}
    context |= {"may_type": may_type, "minutes": HOLDS // timedelta(minutes=1)}
    return TemplateResponse(request, "admin/password_again.html", context)


def wrong(request: HttpRequest) -> str:
    """Why the password that was typed does not do; '' where it does."""
    name, address = request.user.get_username(), address_of(request)
    try:
        attempt = logins.begin(name, address, now=timezone.now())
    except logins.TooMany as error:
        return str(error)
    if not request.user.check_password(request.POST.get("password", "")):
        logins.failed(name, address)
        return "That is not your password."
    logins.succeeded(attempt)
    return ""
