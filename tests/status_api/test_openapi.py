"""The committed OpenAPI document: it is what the code says, the real server keeps to it, and staff can read it without the internet."""

from io import StringIO

import pytest
import schemathesis
import yaml
from django.core.management import call_command
from django.test import Client
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import negative_data_rejection

from migration import summaries
from migration.states import RunState
from status_api.api_docs import DOCUMENT
from status_api.status import State
from tests import factories
from tests.chromium import chromium

schema = schemathesis.openapi.from_path(DOCUMENT)


def test_the_committed_document_is_current():
    """`make openapi` says how to write it anew."""
    made = StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=made)
    assert DOCUMENT.read_text() == made.getvalue()


def test_the_document_has_the_body_of_the_specification():
    found = yaml.safe_load(DOCUMENT.read_text())["components"]["schemas"]
    keys = {
        "visible", "state", "percent", "activities_done", "activities_total", "history_from", "started_at", "finished_at", "eta", "message",
        "updated_at", "poll_after",
    }  # fmt: skip
    assert set(found["Status"]["required"]) == keys
    assert found["Status"]["properties"].keys() == keys | {"stale"}
    assert set(found["StaffStatus"]["required"]) == keys | {"run", "reasons"}
    assert set(found["StateEnum"]["enum"]) == set(State)


@pytest.mark.django_db
def test_the_document_has_what_is_answered_to_whom_asks_for_something_else_than_json(client, sessions):
    """schemathesis sends no header that the document does not name."""
    account = factories.account()
    sessions.add("abc", account.cdp_id)
    client.cookies["iag_session"] = "abc"
    paths = yaml.safe_load(DOCUMENT.read_text())["paths"]
    for path in ("/api/v1/migration-status", "/api/v1/accounts/{account}/migration-status"):
        answer = client.get(path.format(account=account.cdp_id), headers={"accept": "text/html"})
        assert (answer.status_code, answer.json()) == (406, {"detail": "Could not satisfy the request Accept header."})
        assert paths[path]["get"]["responses"]["406"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Problem"}


@pytest.fixture
def served(live_server, sessions, settings) -> tuple[str, dict[str, str]]:
    """A real server with an account half done, and cookies of its customer and of staff."""
    settings.STATUS_REQUESTS_PER_MINUTE = 100_000
    account = factories.account()
    run = factories.run(RunState.RUNNING, account=account)
    factories.chunk(run, result=factories.receipt(written=4, first="2019-03-02 00:00:00+00"))
    summaries.refresh(account, now=factories.NOON)
    sessions.add("abc", account.cdp_id)
    client = Client()
    client.force_login(factories.viewer("run"))
    return live_server.url, {"iag_session": "abc", "sessionid": client.cookies["sessionid"].value}


@schema.parametrize()
@settings(max_examples=25, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_server_keeps_to_the_document(case, served):
    url, cookies = served
    # What it leaves out on purpose, the cookie, is put back here: then an answer is right.
    case.call_and_validate(base_url=url, cookies=cookies, excluded_checks=[negative_data_rejection])


@schema.parametrize()
@settings(max_examples=10, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_server_keeps_to_the_document_without_a_session(case, served):
    case.call_and_validate(base_url=served[0])


# --- the page for staff ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/docs/", "/api/openapi.yaml"])
def test_only_staff_read_the_documents(path, db):
    assert Client().get(path)["Location"] == f"/admin/login/?next={path}"
    client = Client()
    client.force_login(factories.viewer("run"))
    assert client.get(path).status_code == 200


def test_the_document_is_served_as_committed(admin_client):
    response = admin_client.get("/api/openapi.yaml")
    assert (response.content, response["Content-Type"]) == (DOCUMENT.read_bytes(), "application/yaml")


def test_the_page_works_offline_under_its_strict_policy(live_server, admin_client):
    """In a real browser, in which every address but the server's own is refused."""
    asked, violations = [], []
    policy = admin_client.get("/api/docs/")["Content-Security-Policy"]
    assert "unsafe" not in policy
    with chromium() as browser:
        context = browser.new_context()
        context.add_cookies([{"name": "sessionid", "value": admin_client.cookies["sessionid"].value, "url": live_server.url}])
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: violations.append(message.text) if message.type in ("error", "warning") else None)
        page.goto(f"{live_server.url}/api/docs/")
        page.get_by_text("/api/v1/migration-status").first.wait_for(timeout=20_000)
    assert violations == []
    assert [url for url in asked if not url.startswith((live_server.url, "data:"))] == []
