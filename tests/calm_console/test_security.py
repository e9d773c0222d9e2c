"""What every answer tells the browser, and what stands behind TLS."""

import os
import subprocess
import sys

import pytest
from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client

from calm_console import security
from tests import factories

POLICY = {"default-src 'self'", "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'", "object-src 'none'"}
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": security.PERMISSIONS_POLICY,
    "X-Frame-Options": "DENY",
}
ADDRESSES = [
    "/admin/",
    "/admin/login/",
    "/admin/password_change/",
    "/admin/auth/user/",
    "/admin/auth/group/1/change/",
    "/admin/badge/",
    "/admin/badge/paused",
    "/api/openapi.yaml",
    "/api/v1/migration-status",
    "/static/migration/console.css",
    "/admin/migration/run/4711/change/",
    "/nowhere",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_answer_has_every_header(admin_client, address):
    assert told(admin_client.get(address)) == HEADERS


def told(answer: HttpResponse) -> dict[str, object]:
    """Our headers of an answer; the directives of the policy come in any order."""
    answer.close()  # a file of the static ones
    found: dict[str, object] = {name: answer.get(name) for name in HEADERS}
    return found | {"Content-Security-Policy": {*answer["Content-Security-Policy"].split("; ")}}


@pytest.mark.parametrize("debug", [False, True])
def test_pages_of_refusals_and_errors_have_them_too(settings, db, debug):
    settings.DEBUG = debug
    client = Client(raise_request_exception=False, enforce_csrf_checks=True)
    client.force_login(factories.viewer("run"))
    refused = client.get("/admin/auth/user/")
    forged = client.post("/admin/password_change/")
    bad_host = client.get("/admin/", headers={"host": "elsewhere.example"})
    assert (refused.status_code, forged.status_code, bad_host.status_code) == (403, 403, 400)
    for answer in (refused, forged, bad_host):
        assert told(answer) == HEADERS


def test_only_the_api_page_is_allowed_more(admin_client):
    answer = admin_client.get("/api/docs/")
    assert told(answer) == HEADERS | {"Content-Security-Policy": POLICY | {"img-src 'self' data:"}}


def test_cookies(settings, db):
    client = Client()
    user = factories.superuser()
    user.set_password("of-the-test")
    user.save()
    answer = client.get("/admin/login/")
    csrf = answer.cookies["csrftoken"]
    answer = client.post("/admin/login/", {"username": user.username, "password": "of-the-test"})
    session = answer.cookies["sessionid"]
    assert session["max-age"] == 12 * 3600
    for cookie in (csrf, session):
        assert (cookie["httponly"], cookie["samesite"], cookie["secure"]) == (True, "Lax", "")


def test_behind_tls():
    told = security.settings(behind_tls=True)
    assert all(told[name] is True for name in ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_SSL_REDIRECT"))
    assert (told["SECURE_HSTS_SECONDS"], told["SECURE_PROXY_SSL_HEADER"]) == (31_536_000, ("HTTP_X_FORWARDED_PROTO", "https"))
    told = security.settings(behind_tls=False)
    assert not any(told[name] for name in ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_SSL_REDIRECT", "SECURE_HSTS_SECONDS"))
    assert told["SECURE_PROXY_SSL_HEADER"] is None


def test_http_is_sent_on_to_https_but_for_what_is_asked_from_within(settings):
    for name, value in security.settings(behind_tls=True).items():
        setattr(settings, name, value)
    client = Client()
    assert client.get("/admin/").url == "https://testserver/admin/"
    assert client.get("/healthz").status_code != 301
    answer = client.get("/nowhere", headers={"x-forwarded-proto": "https"})
    assert (answer.status_code, answer["Strict-Transport-Security"]) == (404, "max-age=31536000")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, False),
        ({"ALLOWED_HOSTS": "localhost"}, False),
        ({"ALLOWED_HOSTS": "calm.example.com"}, True),
        ({"ALLOWED_HOSTS": "*"}, True),
        ({"ALLOWED_HOSTS": "calm.example.com", "DEBUG": "1"}, False),
        ({"ALLOWED_HOSTS": "calm.example.com", "BEHIND_TLS": "0"}, False),
        ({"BEHIND_TLS": "1"}, True),
    ],
)
def test_tls_is_the_default_where_others_are_let_in(given, expected):
    """In a process of its own: settings are read once."""
    script = "from calm_console import settings; print(settings.SECURE_SSL_REDIRECT)"
    environment = {name: value for name, value in os.environ.items() if name not in ("ALLOWED_HOSTS", "DEBUG", "BEHIND_TLS")}
    done = subprocess.run([sys.executable, "-c", script], env=environment | given, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == str(expected)


def test_deployed_settings_pass_djangos_own_checks(settings, capsys):
    for name, value in security.settings(behind_tls=True).items():
        setattr(settings, name, value)
    call_command("check", deploy=True, tags=["security"], fail_level="WARNING")
