"""The customer's question over the whole of Django: whose status it is, what it may say, and what happens when something is away."""

import threading
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from migration import summaries
from migration.states import RunMode, RunState
from status_api import knowledge
from status_api.iag import gateway
from tests import factories
from tests.status_api import policies

URL = "/api/v1/migration-status"
KEYS = [
    "visible", "state", "percent", "activities_done", "activities_total", "history_from", "started_at", "finished_at", "eta", "message",
    "updated_at", "poll_after",
]  # fmt: skip
NOON = factories.NOON


@pytest.fixture(autouse=True)
def only_the_console(settings) -> None:
    """Nothing listens at port 1: whoever touched CRM, CDP, USMAN or Redis would fail."""
    settings.CRM_DATABASE_URL = settings.CDP_DATABASE_URL = "postgresql://nobody@127.0.0.1:1/none"
    settings.REDIS_URL = settings.CELERY_BROKER_URL = "redis://127.0.0.1:1/0"
    settings.USMAN_URL = "http://127.0.0.1:1"


@pytest.fixture
def account(db):
    return factories.account()


@pytest.fixture
def cookie(account, sessions) -> str:
    return sessions.add("abc", account.cdp_id)


def get(cookie: str, **headers: str):
    return Client().get(URL, headers={"cookie": cookie} | headers)


def running(account, **fields):
    """A run of ten candidates with four done, of which the customer is told."""
    run = factories.run(RunState.RUNNING, account=account, **fields)
    factories.chunk(run, result=factories.receipt(written=4, first="2019-03-02 00:00:00.5+00"))
    summaries.refresh(account, now=datetime.now(UTC))
    return run


# --- what it says ---------------------------------------------------------------------------------------------------


def test_the_whole_body(account, cookie):
    running(account)
    response = get(cookie)
    body = response.json()
    assert response.status_code == 200
    assert list(body) == KEYS
    updated = datetime.fromisoformat(body.pop("updated_at"))
    assert timedelta(0) <= datetime.now(UTC) - updated < timedelta(seconds=10)
    assert body == {
        "visible": True,
        "state": "in_progress",
        "percent": 40,
        "activities_done": 4,
        "activities_total": 10,
        "history_from": "2019-03-02T00:00:00Z",
        "started_at": "2026-03-02T12:00:01Z",
        "finished_at": None,
        "eta": None,
        "message": "Your CRM history is being brought over. Nothing for you to do.",
        "poll_after": 15,
    }


def test_an_account_that_nothing_was_begun_for(cookie):
    assert get(cookie).json() == dict.fromkeys(KEYS) | {
        "visible": True, "state": "not_started", "percent": 0, "activities_done": 0, "poll_after": 600,
        "message": "Your CRM history has not been brought over yet. Nothing for you to do.",
    }  # fmt: skip


def test_until_gate_g_is_open_nothing_is_told(account, cookie, settings):
    settings.STATUS_VISIBLE_POLICY = "tests.status_api.policies.closed"
    running(account)
    assert get(cookie).json() == dict.fromkeys(KEYS) | {"visible": False}


def test_the_gate_itself_is_asked(account, cookie, settings):
    """The product's own policy: nobody has signed gate G."""
    settings.STATUS_VISIBLE_POLICY = "gates.policies.is_open"
    assert get(cookie).json()["visible"] is False


def test_the_gate_is_asked_every_ten_seconds_at_most(cookie):
    for _ in range(5):
        get(cookie)
    assert policies.asked == ["G"]
    assert knowledge.gate.seconds == 10


def test_headers(cookie):
    response = get(cookie)
    assert {name: response[name] for name in ("Cache-Control", "X-Content-Type-Options", "Content-Type", "Content-Language")} == {
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
        "Content-Type": "application/json",
        "Content-Language": "en",
    }
    assert {each.strip().lower() for each in response["Vary"].split(",")} == {"accept-language", "cookie", "origin"}


@pytest.mark.parametrize(
    ("asked", "language", "begins"),
    [
        ("id", "id", "Riwayat CRM"),
        ("id-ID,id;q=0.9,en;q=0.8", "id", "Riwayat CRM"),
        ("fr", "en", "Your CRM"),
        ("x" * 500, "en", "Your CRM"),
    ],
)
def test_the_message_is_in_the_callers_language(cookie, asked, language, begins):
    response = get(cookie, accept_language=asked)
    assert response["Content-Language"] == language
    assert response.json()["message"].startswith(begins)


def test_one_select_for_the_summary_and_no_more(cookie, django_assert_num_queries):
    with django_assert_num_queries(4) as first:  # savepoint, timeout, the one SELECT, release
        get(cookie)
    selects = [query["sql"] for query in first.captured_queries if query["sql"].startswith("SELECT")]
    assert len(selects) == 1
    assert "migration_summary" in selects[0]


# --- ETag -----------------------------------------------------------------------------------------------------------


def test_an_unchanged_body_is_not_sent_again(account, cookie):
    running(account)
    first = get(cookie)
    again = get(cookie, if_none_match=first["ETag"])
    assert (again.status_code, again.content, again["ETag"]) == (304, b"", first["ETag"])
    assert again["Cache-Control"] == "private, no-store"
    assert [get(cookie, if_none_match=tag).status_code for tag in (f'"x", W/{first["ETag"]}', "*", '"x"', "x")] == [304, 304, 200, 200]


def test_the_etag_follows_the_body(account, cookie, settings):
    tags = [get(cookie)["ETag"], get(cookie, accept_language="id")["ETag"]]
    run = running(account)
    tags.append(get(cookie)["ETag"])
    chunk = factories.chunk(run, result=factories.receipt(written=1))
    summaries.progress(chunk, factories.receipt(written=1), now=datetime.now(UTC))
    tags.append(get(cookie)["ETag"])
    assert len(set(tags)) == 4
    assert get(cookie)["ETag"] == tags[-1]


# --- methods --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "trace"])
def test_other_methods(method, cookie):
    for headers in ({}, {"cookie": cookie}):
        response = getattr(Client(enforce_csrf_checks=True), method)(URL, headers=headers)
        assert (response.status_code, response["Allow"], response["Content-Type"]) == (405, "GET, HEAD, OPTIONS", "application/json")


def test_head_and_options(cookie):
    whole, head, options = get(cookie), Client().head(URL, headers={"cookie": cookie}), Client().options(URL)
    assert (head.status_code, head.content, head["ETag"], head["Content-Length"]) == (200, b"", whole["ETag"], whole["Content-Length"])
    assert (options.status_code, options.content, options["Allow"]) == (204, b"", "GET, HEAD, OPTIONS")
    assert Client().head(URL).status_code == 401


def test_no_browsable_pages(cookie):
    for asked in ({"accept": "text/html"}, {"accept": "text/html,*/*;q=0.1"}):
        assert get(cookie, **asked)["Content-Type"] == "application/json"
    assert Client().get(f"{URL}?format=api", headers={"cookie": cookie})["Content-Type"] == "application/json"


# --- who it is ------------------------------------------------------------------------------------------------------

NO_SESSION = {"detail": "Authentication credentials were not provided."}


@pytest.mark.parametrize("header", ["", "iag_session=unknown", "iag_session=old", "iag_session=abc; iag_session=abc", "Iag_Session=abc"])
def test_without_a_session_nothing_is_told(header, cookie, account, sessions):
    sessions.add("old", account.cdp_id, active=False)
    response = get(header)
    assert (response.status_code, response.json(), response["WWW-Authenticate"]) == (401, NO_SESSION, "iag_session")
    assert response["Cache-Control"] == "private, no-store"


def test_an_account_that_the_console_does_not_know_is_no_session(account, sessions):
    gone = factories.account(gone=True)
    answers = [get(sessions.add("s", each)) for each in (uuid4(), gone.cdp_id, account.crm_organization_id, account.pk, "")]
    assert {(answer.status_code, answer.content) for answer in answers} == {(401, get("").content)}


def test_a_staff_login_is_no_session(account, admin_client):
    assert admin_client.get(URL).status_code == 401
    admin_client.cookies["iag_session"] = admin_client.cookies["sessionid"].value
    assert admin_client.get(URL).status_code in (401, 503)  # IAG does not know it; here nobody is IAG


TRICKS = ["HTTP_X_ACCOUNT_ID", "HTTP_X_ACCOUNT", "HTTP_ACCOUNT_ID", "HTTP_IAG_SESSION", "HTTP_X_IAG_SESSION", "HTTP_AUTHORIZATION", "HTTP_X_USER_ID",
          "HTTP_X_FORWARDED_USER", "REMOTE_USER", "HTTP_X_ORIGINAL_URL", "HTTP_X_REWRITE_URL"]  # fmt: skip


def test_two_tenants(sessions, db, settings):
    """Every way to name the one account, asked with the session of the other: the answer is the session's own, byte for byte."""
    settings.STATUS_REQUESTS_PER_MINUTE = 1000
    one, other = factories.account(), factories.account()
    running(one)
    cookies = [sessions.add("one", one.cdp_id), sessions.add("other", other.cdp_id, user="usr_2")]
    own = [get(cookie).content for cookie in cookies]
    assert own[0] != own[1]
    for mine, theirs, cookie, expected in ((one, other, cookies[0], own[0]), (other, one, cookies[1], own[1])):
        for name in (theirs.cdp_id, theirs.crm_organization_id, theirs.name):
            for query in ("account", "account_id", "accountId", "org", "iag_session", "cdp_id"):
                assert Client().get(URL, {query: str(name)}, headers={"cookie": cookie}).content == expected, (query, name)
            for header in TRICKS:
                assert Client().get(URL, headers={"cookie": cookie}, **{header: str(name)}).content == expected, (header, name)
            answer = Client().get(URL, headers={"cookie": f"account={name}; account_id={name}; {cookie}"})
            assert answer.content == expected
            nobody = Client().get(f"/api/v1/accounts/{name}/migration-status", headers={"cookie": cookie})
            unknown = Client().get(f"/api/v1/accounts/{uuid4()}/migration-status", headers={"cookie": cookie})
            assert (nobody.status_code, nobody.content) == (404, unknown.content)
        assert str(theirs.cdp_id) not in expected.decode()
        assert mine.name not in expected.decode()


def test_two_sessions_in_one_request_are_none(sessions, db):
    one, other = sessions.add("one", factories.account().cdp_id), sessions.add("other", factories.account().cdp_id)
    assert [get(f"{one}; {other}").status_code, get(f"{other}; {one}").status_code, get(f"{one};{one}").status_code] == [401] * 3


# --- IAG is away ----------------------------------------------------------------------------------------------------


def test_without_iag_nothing_is_guessed(account, cookie, settings):
    assert get(cookie).status_code == 200
    settings.IAG_URL = "http://127.0.0.1:1"
    response = get(cookie)
    assert (response.status_code, response["Retry-After"], list(response.json())) == (503, "5", ["detail"])
    assert [get(cookie).status_code for _ in range(5)] == [503] * 5
    assert int(get(cookie)["Retry-After"]) in (9, 10)
    assert gateway().breaker.wait() > 0


# --- the console's database is slow or away -------------------------------------------------------------------------


@pytest.fixture
def locked(transactional_db):
    """A function that keeps the summaries from being read, until the test is over."""
    holder = psycopg.connect(**connection.get_connection_params() | {"cursor_factory": psycopg.Cursor, "context": None})
    yield lambda: holder.execute("LOCK TABLE migration_summary")
    holder.close()


def test_a_slow_database_gives_the_last_known_state(locked, sessions):
    account, stranger = factories.account(), factories.account()
    running(account)
    cookie, unknown = sessions.add("abc", account.cdp_id), sessions.add("def", stranger.cdp_id)
    fresh = get(cookie)
    locked()
    took = []
    for _ in range(3):  # a machine that does much else may hold one up
        started = time.monotonic()
        stale = get(cookie)
        took.append(time.monotonic() - started)
        if took[-1] < 2:
            break
    assert min(took) > 0.9 and took[-1] < 2, took
    assert stale.json() == fresh.json() | {"stale": True}
    assert list(stale.json()) == [*KEYS, "stale"]
    assert stale["ETag"] != fresh["ETag"]
    never_seen = get(unknown)
    assert (never_seen.status_code, never_seen["Retry-After"]) == (503, "5")
    get(cookie)
    started = time.monotonic()  # it failed three times in a row: for some seconds nobody waits for it
    assert get(cookie).json()["stale"] is True
    assert time.monotonic() - started < 0.5


def test_a_database_that_is_away_gives_the_last_known_state(transactional_db, sessions, monkeypatch):
    account = factories.account()
    running(account)
    cookie = sessions.add("abc", account.cdp_id)
    fresh = get(cookie)
    found = []

    def ask() -> None:
        """In a thread of its own, and so with a connection of its own, to a port where nobody listens."""
        monkeypatch.setitem(connection.settings_dict, "PORT", "1")
        found.extend(get(cookie) for _ in range(5))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    monkeypatch.undo()
    assert [each.json() for each in found] == [fresh.json() | {"stale": True}] * 5


def test_hidden_stays_hidden_when_stale(locked, sessions, settings):
    settings.STATUS_VISIBLE_POLICY = "tests.status_api.policies.closed"
    cookie = sessions.add("abc", factories.account().cdp_id)
    get(cookie)
    locked()
    assert get(cookie).json() == dict.fromkeys(KEYS) | {"visible": False, "stale": True}


# --- throttle, CORS, faults -----------------------------------------------------------------------------------------


def test_an_identity_may_not_ask_too_often(cookie, account, sessions, settings):
    settings.STATUS_REQUESTS_PER_MINUTE = 3
    second = sessions.add("second", account.cdp_id)
    neighbour = sessions.add("neighbour", account.cdp_id, user="usr_2")
    namesake = sessions.add("namesake", factories.account().cdp_id)
    assert [get(each).status_code for each in (cookie, second, cookie, second, neighbour, namesake)] == [200, 200, 200, 429, 200, 200]
    refused = get(cookie)
    assert 55 <= int(refused["Retry-After"]) <= 60
    assert list(refused.json()) == ["detail"]


ORIGIN = "https://app.example.com"


def test_cors_for_configured_origins_only(cookie, settings):
    settings.CORS_ALLOWED_ORIGINS = [ORIGIN]
    allowed = get(cookie, origin=ORIGIN)
    assert (allowed["Access-Control-Allow-Origin"], allowed["Access-Control-Allow-Credentials"]) == (ORIGIN, "true")
    assert {each.strip() for each in allowed["Access-Control-Expose-Headers"].split(",")} == {"ETag", "Retry-After"}
    for origin in ("https://evil.example.com", f"{ORIGIN}.evil.com", "null", "http://app.example.com"):
        assert "Access-Control-Allow-Origin" not in get(cookie, origin=origin), origin
    assert get("", origin=ORIGIN)["Access-Control-Allow-Origin"] == ORIGIN  # so that the page can read that it is a 401
    elsewhere = Client().get(f"/api/v1/accounts/{uuid4()}/migration-status", headers={"origin": ORIGIN})
    assert "Access-Control-Allow-Origin" not in elsewhere


def test_preflight(db, settings):
    settings.CORS_ALLOWED_ORIGINS = [ORIGIN]
    asked = {"origin": ORIGIN, "access-control-request-method": "GET", "access-control-request-headers": "if-none-match"}
    response = Client().options(URL, headers=asked)
    assert response.status_code == 200
    assert (response["Access-Control-Allow-Origin"], response["Access-Control-Allow-Methods"]) == (ORIGIN, "GET, HEAD, OPTIONS")
    assert "if-none-match" in response["Access-Control-Allow-Headers"]
    refused = Client().options(URL, headers=asked | {"origin": "https://evil.example.com"})
    assert "Access-Control-Allow-Origin" not in refused


def test_without_configured_origins_there_is_no_cors(cookie):
    assert "Access-Control-Allow-Origin" not in get(cookie, origin=ORIGIN)


def test_a_fault_of_ours_says_nothing_of_what_is_inside(cookie, settings, caplog):
    settings.STATUS_VISIBLE_POLICY = "tests.status_api.policies.missing_one"
    response = Client(raise_request_exception=False).get(URL, headers={"cookie": cookie})
    assert (response.status_code, response.json()) == (500, {"detail": "Something went wrong here."})
    assert "missing_one" in caplog.text


# --- staff ----------------------------------------------------------------------------------------------------------


def staff_url(account) -> str:
    return f"/api/v1/accounts/{account}/migration-status"


def test_staff_see_what_the_customer_sees_the_run_and_the_reasons(client, account, cookie):
    run = running(account, reason="Waiting for USMAN.", warnings=["The live sync is sparse."])
    client.force_login(factories.viewer("run"))
    response = client.get(staff_url(account.cdp_id))
    assert response.status_code == 200
    assert response.json() == get(cookie).json() | {"run": run.pk, "reasons": ["Waiting for USMAN.", "The live sync is sparse."]}
    assert response["Cache-Control"] == "private, no-store"
    assert client.get(staff_url(account.cdp_id), headers={"if-none-match": response["ETag"]}).status_code == 304
    assert client.post(staff_url(account.cdp_id)).status_code == 405


def test_staff_are_told_of_the_newest_production_run(client, account):
    factories.run(account=account, reason="the first")
    newest = factories.run(account=account, reason="the second")
    factories.run(account=account, mode=RunMode.DRY_RUN, reason="a dry run since")
    client.force_login(factories.viewer("run"))
    body = client.get(staff_url(account.cdp_id)).json()
    assert (body["run"], body["reasons"]) == (newest.pk, ["the second"])


def test_staff_see_an_account_without_a_run(client, account):
    client.force_login(factories.viewer("run"))
    body = client.get(staff_url(account.cdp_id)).json()
    assert (body["state"], body["run"], body["reasons"]) == ("not_started", None, [])


def test_unknown_and_forbidden_are_the_same(client, account, cookie):
    def seen(who: Client, name: object) -> tuple:
        response = who.get(staff_url(name))
        own = ("Set-Cookie", "X-Request-ID")  # every answer has its own, whatever was asked
        headers = sorted((key, value) for key, value in response.headers.items() if key not in own)
        return response.status_code, response.content, headers

    entitled, other = Client(), Client()
    entitled.force_login(factories.viewer("run"))
    other.force_login(factories.viewer("account", name="other"))
    outsider, inactive = Client(), Client()
    outsider.force_login(factories.viewer("run", name="not-staff"))
    User.objects.filter(username="not-staff").update(is_staff=False)
    inactive.force_login(factories.superuser("left"))
    User.objects.filter(username="left").update(is_active=False)
    customer = Client(headers={"cookie": cookie})
    found = {str(seen(who, account.cdp_id)) for who in (client, other, outsider, inactive, customer)}
    found |= {
        str(seen(entitled, name)) for name in (uuid4(), account.crm_organization_id, account.pk, str(account.cdp_id).upper(), "x", "%00")
    }
    gone = factories.account(gone=True)
    found |= {str(seen(entitled, gone.cdp_id))}
    assert len(found) == 1
    assert found.pop().startswith('(404, b\'{"detail":"Not found."}\'')
