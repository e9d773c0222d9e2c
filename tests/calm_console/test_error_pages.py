"""What people see when something is not found, not allowed, or broken: a page of the console, under its own policy and without the database."""

import re
from html import unescape

import pytest
from django.conf import settings
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import OperationalError, connection
from django.http import Http404, HttpRequest, HttpResponse
from django.middleware.csrf import REASON_CSRF_TOKEN_MISSING
from django.test import Client
from django.urls import reverse
from django.views import csrf, defaults
from playwright.sync_api import expect

from calm_console import errors
from migration.admin import overview
from tests import factories
from tests.browsing import browser, context, opened_for, seen, site  # noqa: F401 - fixtures

SENT_AGAIN = "Nothing was done: go back, load the page again and send it once more."
PAGES = {
    400: (lambda request: defaults.bad_request(request, SuspiciousOperation("x")), "Nothing was done: the console does not take"),
    403: (
        lambda request: defaults.permission_denied(request, PermissionDenied()),
        "Nothing was done: your login does not have the permission",
    ),
    "403 of a form": (lambda request: csrf.csrf_failure(request, REASON_CSRF_TOKEN_MISSING), SENT_AGAIN),
    404: (lambda request: defaults.page_not_found(request, Http404()), "There is nothing at this address."),
    500: (errors.server_error, "The console met an error, which is in its log."),
    503: (lambda request: answer_to(OperationalError("gone"), request), "The console's own database does not answer at the moment"),
}


def answer_to(error: Exception, request: HttpRequest) -> HttpResponse:
    """As Django asks for it."""
    try:
        raise error
    except Exception:  # noqa: BLE001 - whatever it is
        return errors.server_error(request)


def told(markup: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", markup)).split())


@pytest.mark.parametrize("name", PAGES)
def test_each_stands_in_the_consoles_frame_without_database_scripts_and_inline_styles(rf, name):
    """No database is there: the test does not ask for one."""
    view, says = PAGES[name]
    answer = view(rf.get("/admin/x/"))
    markup = answer.content.decode()
    assert f"{answer.status_code}" == f"{name}"[:3]
    assert says in told(markup) and 'id="site-name"' in markup and told(markup).count("CALM console") == 2
    assert not re.search(r"<script|<style|style=| on\w+=", markup)


@pytest.mark.django_db
def test_they_are_what_django_answers_with(client, monkeypatch):
    assert settings.DEBUG is False
    client.force_login(factories.viewer("account"))
    assert "There is nothing at this address." in client.get("/nothing/").content.decode()
    assert "There is nothing at this address." in client.get("/admin/migration/nothing/").content.decode()
    assert "does not have the permission" in client.get(reverse("admin:migration_run_changelist")).content.decode()
    unsure = Client(enforce_csrf_checks=True)
    assert SENT_AGAIN in unsure.post(reverse("admin:login"), {"username": "x"}).content.decode()
    assert "the console does not take" in client.get("/admin/", headers={"host": "elsewhere.example"}).content.decode()
    client.raise_request_exception = False
    monkeypatch.setattr(overview, "of", lambda user: 1 / 0)
    broken = client.get(reverse("admin:index"))
    assert broken.status_code == 500 and "The console met an error" in broken.content.decode()


@pytest.mark.django_db(transaction=True)
def test_a_console_without_its_database_is_not_available(client, monkeypatch):
    client.force_login(factories.viewer("account"))
    client.raise_request_exception = False
    connection.close()
    with monkeypatch.context() as patched:
        patched.setitem(connection.settings_dict, "PORT", "1")
        answers = [client.get(reverse(name)) for name in ("admin:index", "admin:login", "admin:migration_run_changelist")]
        connection.close()
    assert [(answer.status_code, answer["Retry-After"]) for answer in answers] == [(503, "30")] * 3
    assert all("What you asked for may be done or not" in answer.content.decode() for answer in answers)
    assert client.get(reverse("admin:index")).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_a_console_whose_database_takes_no_writes_is_not_available(client):
    """As a standby answers after a failover, and a server that was made read-only since its disk is full."""
    user = factories.superuser()
    user.set_password("x")
    user.save()
    client.raise_request_exception = False
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
    answer = client.post(reverse("admin:login"), {"username": user.username, "password": "x"})
    connection.close()
    assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "30")


@pytest.mark.django_db
def test_the_status_endpoint_answers_as_before(client):
    answer = client.get(reverse("migration-status"))
    assert (answer.status_code, answer["Content-Type"]) == (401, "application/json")


@pytest.mark.django_db(transaction=True)
def test_a_browser_refuses_nothing_of_them(context, seen):  # noqa: F811 - fixtures
    page = opened_for(factories.viewer("account"), context, seen)
    for address, says in (("/nothing/", "Not found"), ("/admin/migration/run/", "Not allowed")):
        page.goto(address)
        expect(page.locator("h1")).to_have_text(says)
        assert page.evaluate("[...refused, ...executed]") == []
        page.get_by_role("link", name="To the overview").click()
        expect(page).to_have_url(f"{seen.origin}/admin/")
