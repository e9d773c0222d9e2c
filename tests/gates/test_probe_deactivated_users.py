"""Gate D's probe: real calls to a USMAN over HTTP, for users of a real CRM; what it must fail, and every way a CRM may mark its users."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from gates import evidence, policies
from gates.catalogue import BY_LETTER
from gates.models import Evidence, SignOff
from gates.probes import Finding, by_index, deactivated_users
from migration.doors import Misconfigured, Outage
from migration.usman import Usman
from tests.conftest import Systems, rows, serve_usman
from tests.gates.conftest import NOON, sign

COUNTS = {
    "deactivated": {"asked": 9, "ACTIVE": 0, "DEACTIVATED": 9, "absent": 0},
    "deleted": {"asked": 6, "ACTIVE": 0, "DEACTIVATED": 4, "absent": 2},
    "active": {"asked": 10, "ACTIVE": 7, "DEACTIVATED": 3, "absent": 0},
}
SHOWN = Finding(True, "Of 9 deactivated users of the CRM, 9 came back as DEACTIVATED, 0 as ACTIVE, and 0 did not come back.")
DELETED = Finding(None, "Of 6 deleted users of the CRM, 4 came back as DEACTIVATED, 0 as ACTIVE, and 2 did not come back.")
ACTIVE = Finding(None, "Of 10 active users of the CRM, 3 came back as DEACTIVATED, 7 as ACTIVE, and 0 did not come back.")
ALL_ACTIVE = "UPDATE users SET deactivated_at = NULL, deleted_at = NULL"


@pytest.fixture
def directory(tmp_path: Path, settings) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """Points the console at a USMAN that knows the given users."""
    file = tmp_path / "users.json"
    file.write_text('{"users": []}')
    server = serve_usman(file)
    url = next(server)

    def knows(users: list[dict[str, Any]]) -> None:
        settings.USMAN_URL = url
        file.write_text(json.dumps({"users": users}))

    yield knows
    next(server, None)


@pytest.fixture
def answering(settings) -> Iterator[Callable[[int, bytes], list[bytes]]]:
    """Points the console at a server that gives one answer to everything; what it was asked is told."""
    servers = []

    def serve(status: int, body: bytes) -> list[bytes]:
        asked: list[bytes] = []

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Nothing."""

        server = HTTPServer(("127.0.0.1", 0), Answer)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        servers.append((server, thread))
        settings.USMAN_URL = f"http://127.0.0.1:{server.server_address[1]}"
        return asked

    yield serve
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def user(email: str, status: str) -> dict[str, Any]:
    return {"id": f"usm_{email}", "email": email, "name": "Somebody", "status": status}


def emails(systems: Systems, where: str) -> list[str]:
    return [email for (email,) in rows(systems.crm, f"SELECT DISTINCT email FROM users WHERE {where}")]


# --- the sample -----------------------------------------------------------------------------------------------------


def test_the_sample_passes_with_all_its_users_side_by_side(systems):
    found = deactivated_users.measure(None)
    assert found.passes
    assert found.findings == [SHOWN, DELETED, ACTIVE]
    assert found.facts["counts"] == COUNTS
    known = {u["email"].lower(): u for u in json.loads((Path("calm_console/demo/data/sample_usman_users.json")).read_text())["users"]}
    query = "SELECT id::text, lower(email), deactivated_at::text, deleted_at::text FROM users ORDER BY users.id DESC"
    expected: dict[str, list[dict[str, Any]]] = {"deactivated": [], "deleted": [], "active": []}
    for key, email, deactivated, deleted in rows(systems.crm, query):
        kind = "deleted" if deleted else "deactivated" if deactivated else "active"
        usman = {name: known[email][name] for name in ("id", "status")} if email in known else None
        crm = {"deactivated": deactivated, "deleted": deleted, "acted": True}
        expected[kind].append({"kind": kind, "user_id": key, "email": email, "crm": crm, "usman": usman})
    assert found.facts["cases"] == [case for cases in expected.values() for case in cases]


# --- what it must fail ----------------------------------------------------------------------------------------------


def test_no_answer_is_failing_evidence_and_is_asked_for_once(systems, settings):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        settings.USMAN_URL = f"http://127.0.0.1:{unused.getsockname()[1]}"  # nobody listens there
        found = deactivated_users.measure(None)
    assert found.findings == [
        Finding(
            False,
            "No answer for deactivated users. USMAN_URL: USMAN did not answer 3 attempts (ConnectError): wait for it, or correct USMAN_URL.",
        ),
        Finding(False, "None of 9 deactivated users of the CRM is known to be shown as DEACTIVATED."),
    ]
    assert found.facts == {"cases": [], "counts": {"deactivated": {"asked": 9}, "deleted": {"asked": 6}, "active": {"asked": 10}}}


def test_a_silent_usman_closes_the_gate_until_it_is_measured_again(systems, people, monkeypatch):
    """As docs/gates.md says."""
    evidence.probe(BY_LETTER["D"], None, by="ana", now=NOON)
    sign("D", "Platform", people["Platform"])

    def silent(self: Usman, emails: list[str]) -> object:
        raise Outage("USMAN_URL: USMAN did not answer")

    with monkeypatch.context() as patched:
        patched.setattr(Usman, "ask", silent)
        assert not evidence.probe(BY_LETTER["D"], None, by="ana", now=NOON).passes
    assert Evidence.objects.count() == 2 and not policies.is_open("D", now=NOON)
    evidence.probe(BY_LETTER["D"], None, by="ana", now=NOON)
    assert policies.is_open("D", now=NOON) and SignOff.objects.count() == 1
    page = " ".join(Path("docs/gates.md").read_text().split())
    assert "no answer of USMAN is stored as evidence that fails, and the sign-off lapses. Measure D again once USMAN is back" in page


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (503, b"", "No answer for deactivated users. USMAN_URL: USMAN did not answer 3 attempts (it answered 503): wait for it, or correct USMAN_URL."),
        (404, b"", "No answer for deactivated users. USMAN_URL: USMAN answered 404 to GetUsersByEmails: check its URL and its log."),
        (200, b"<html>", "No answer for deactivated users. USMAN_URL: USMAN's answer is not JSON: check that USMAN_URL names USMAN."),
        (200, b"[" * 200_000, "No answer for deactivated users. USMAN_URL: USMAN's answer is not JSON: check that USMAN_URL names USMAN."),
    ],
)  # fmt: skip
def test_an_answer_that_is_none(systems, answering, status, body, told):
    asked = answering(status, body)
    found = deactivated_users.measure(None)
    assert found.findings[0] == Finding(False, told)
    assert not found.passes
    assert len(set(asked)) == 1  # the other kinds were not asked


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ([], 'USMAN_URL: USMAN\'s answer has no list "users": check that USMAN_URL names USMAN.'),
        ({"code": "unavailable", "message": "try again"}, 'USMAN_URL: USMAN\'s answer has no list "users": check that USMAN_URL names USMAN.'),
        ({"users": [{"id": "1", "status": "ACTIVE"}]}, "USMAN_URL: USMAN's answer holds a user without id or e-mail; nobody can be told apart by it."),
        ({"users": [{"id": "a\0", "email": "x@y"}]}, "USMAN_URL: USMAN's answer holds an id that no column can keep; nobody can be told apart by it."),
        ({"users": [{"id": "\ud800", "email": "x@y"}]}, "USMAN_URL: USMAN's answer holds an id that no column can keep; nobody can be told apart by it."),
    ],
)  # fmt: skip
def test_an_answer_that_the_contract_does_not_have(systems, answering, body, told):
    asked = answering(200, json.dumps(body).encode())
    found = deactivated_users.measure(None)
    assert [(each.ok, each.sentence) for each in found.findings] == [
        *[(False, f"An answer for {kind} users that cannot be read. {told}") for kind in ("deactivated", "deleted", "active")],
        (False, "None of 9 deactivated users of the CRM is known to be shown as DEACTIVATED."),
    ]
    assert len(asked) == 3


def test_a_status_that_is_not_documented_fails_even_beside_one_that_is(systems, directory):
    deactivated = emails(systems, "deactivated_at IS NOT NULL AND deleted_at IS NULL")
    directory([user(each, "DEACTIVATED") for each in deactivated] + [user("ayu.santoso583@sample.example", "SUSPENDED")])
    found = deactivated_users.measure(None)
    assert not found.passes
    assert found.findings == [
        Finding(
            False,
            "An answer for active users that cannot be read. USMAN_URL: USMAN gave a status that its contract does not have ('SUSPENDED').",
        ),
        SHOWN,
        Finding(None, "Of 6 deleted users of the CRM, 0 came back as DEACTIVATED, 0 as ACTIVE, and 6 did not come back."),
    ]
    assert found.facts["counts"]["active"] == {"asked": 10}
    assert {each["kind"] for each in found.facts["cases"]} == {"deactivated", "deleted"}


@pytest.mark.parametrize(
    ("status", "told"), [("", "0 as ACTIVE, and 9 did not come back"), ("ACTIVE", "9 as ACTIVE, and 0 did not come back")]
)
def test_deactivated_users_that_are_never_shown_as_such(systems, directory, status, told):
    directory([user(each, status) for each in emails(systems, "deactivated_at IS NOT NULL")] if status else [])
    found = deactivated_users.measure(None)
    assert [each.sentence for each in found.findings if each.ok is False] == [
        f"Of 9 deactivated users of the CRM, 0 came back as DEACTIVATED, {told}: USMAN shows no deactivated user as such, so who acted could "
        "not be told; ask Platform how it shows them."
    ]


def test_one_deactivated_user_shown_as_such_is_enough(systems, directory):
    directory([user("HENDRA.gunawan439@sample.example", "DEACTIVATED")])
    found = deactivated_users.measure(None)
    assert found.passes
    assert (
        found.findings[0].sentence == "Of 9 deactivated users of the CRM, 1 came back as DEACTIVATED, 0 as ACTIVE, and 8 did not come back."
    )


def test_two_people_under_one_email_are_nobody(systems, directory):
    directory([user("hendra.gunawan439@sample.example", "DEACTIVATED"), user("Hendra.Gunawan439@sample.example", "DEACTIVATED")])
    found = deactivated_users.measure(None)
    assert found.facts["counts"]["deactivated"] == {"asked": 9, "ACTIVE": 0, "DEACTIVATED": 0, "absent": 9}
    assert not found.passes


def test_a_crm_without_deactivated_users(systems):
    systems.change_crm(ALL_ACTIVE)
    found = deactivated_users.measure(None)
    assert [each.sentence for each in found.findings if each.ok is False] == [
        "The CRM holds no deactivated user with an e-mail, so none is known to be shown as DEACTIVATED."
    ]
    assert found.facts["counts"]["active"]["asked"] == 25


def test_users_without_an_email_are_not_asked_for(systems):
    systems.change_crm("UPDATE users SET email = CASE WHEN id % 2 = 0 THEN NULL ELSE '  ' END WHERE deactivated_at IS NOT NULL")
    found = deactivated_users.measure(None)
    assert not found.passes
    assert found.facts["counts"]["deactivated"] == {"asked": 0, "ACTIVE": 0, "DEACTIVATED": 0, "absent": 0}


# --- how the CRM marks its users ------------------------------------------------------------------------------------


def test_columns_that_are_not_there(systems, settings):
    systems.change_crm("ALTER TABLE users DROP COLUMN deactivated_at")
    settings.CRM_USER_DELETED_COLUMN = ""
    found = deactivated_users.measure(None)
    assert [(each.ok, each.sentence) for each in found.findings[:3]] == [
        (
            None,
            "The CRM's users table has no column deactivated_at, so no deactivated user could be chosen: set CRM_USER_DEACTIVATED_COLUMN to "
            "the one that marks them, or to nothing.",
        ),
        (None, "CRM_USER_DELETED_COLUMN is empty, so no deleted user could be chosen."),
        (False, "The CRM holds no deactivated user with an e-mail, so none is known to be shown as DEACTIVATED."),
    ]
    assert not found.passes


@pytest.mark.parametrize(
    ("kind", "marked", "unmarked", "shown"),
    [
        ("boolean", "true", "false", "true"),
        ("integer", "1", "0", "1"),
        ("text", "'left in May'", "''", "left in May"),
        ("date", "'2024-05-01'", "NULL", "2024-05-01"),
    ],
)
def test_every_kind_of_mark(systems, settings, kind, marked, unmarked, shown):
    settings.CRM_USER_DEACTIVATED_COLUMN = 'is "off"'
    systems.change_crm(
        f'ALTER TABLE users ADD "is ""off""" {kind}',
        f'UPDATE users SET "is ""off""" = CASE WHEN deactivated_at IS NOT NULL THEN {marked}::{kind} ELSE {unmarked}::{kind} END',
        'UPDATE users SET "is ""off""" = NULL WHERE id = 2',
        "ALTER TABLE users DROP COLUMN deactivated_at",
    )
    found = deactivated_users.measure(None)
    assert found.findings == [SHOWN, DELETED, ACTIVE]
    assert found.facts["counts"] == COUNTS
    assert {each["crm"]["deactivated"] for each in found.facts["cases"] if each["kind"] == "deactivated"} == {shown}


# --- which users are chosen -----------------------------------------------------------------------------------------


def many(systems: Systems) -> None:
    """300 more deactivated users, none of whom any audit names but the last 5 by e-mail order."""
    systems.change_crm(
        """INSERT INTO users (id, email, full_name, deactivated_at, created_at, updated_at)
           SELECT 1000 + g, 'many' || g || '@sample.example', 'M', now(), now(), now() FROM generate_series(1, 300) g""",
        "INSERT INTO audits (id, user_id, user_type) SELECT 800000 + g, 1000 + g, 'User' FROM generate_series(1, 5) g",
        "INSERT INTO audits (id, user_id, user_type) SELECT 800100 + g, 1000 + g, 'Integration' FROM generate_series(6, 9) g",
    )


def of_deactivated(found) -> list[tuple[str, bool | None]]:
    return [(each["user_id"], each["crm"]["acted"]) for each in found.facts["cases"] if each["kind"] == "deactivated"]


def test_at_most_100_of_each_kind_those_first_who_acted(systems):
    many(systems)
    found = deactivated_users.measure(None)
    chosen = of_deactivated(found)
    acting = [1005, 1004, 1003, 1002, 1001, 25, 22, 17, 16, 15, 12, 8, 6, 3]
    assert chosen == [(str(key), True) for key in acting] + [(str(key), False) for key in range(1300, 1300 - 86, -1)]
    assert found.facts["counts"]["deactivated"] == {"asked": 100, "ACTIVE": 0, "DEACTIVATED": 9, "absent": 91}


@pytest.mark.parametrize("kind", ["text", "bigint"])
def test_user_ids_of_other_types(systems, kind):
    many(systems)
    systems.change_crm(f"ALTER TABLE audits ALTER user_id TYPE {kind}")
    assert of_deactivated(deactivated_users.measure(None))[4:6] == [("1001", True), ("25", True)]


@pytest.mark.parametrize("change", ["DROP INDEX user_index", "ALTER TABLE users ALTER id TYPE uuid USING lpad(id::text, 32, '0')::uuid"])
def test_where_audits_cannot_be_asked_by_user_the_newest_are_chosen(systems, change):
    systems.change_crm("ALTER TABLE users ALTER id DROP DEFAULT", change)
    found = deactivated_users.measure(None)
    assert found.findings == [SHOWN, DELETED, ACTIVE]
    chosen = of_deactivated(found)
    assert [(int(key.replace("-", "")), acted) for key, acted in chosen] == [(key, None) for key in (25, 22, 17, 16, 15, 12, 8, 6, 3)]


# --- outages and mistakes elsewhere ---------------------------------------------------------------------------------


def test_an_outage_of_the_crm_is_no_evidence(systems, monkeypatch):
    def gone(crm, seconds):
        systems.change_crm(f"SELECT pg_terminate_backend({crm.connection.info.backend_pid})")

    monkeypatch.setattr(by_index, "prepare", gone)
    with pytest.raises(Outage, match="CRM_DATABASE_URL"):
        deactivated_users.measure(None)


def test_no_url_of_usman_is_a_mistake_in_the_settings(systems, settings):
    settings.USMAN_URL = ""
    for ask in (deactivated_users.measure, deactivated_users.configuration):
        with pytest.raises(Misconfigured, match="USMAN_URL is not set"):
            ask(None)


def test_the_configuration_names_no_login_of_usman(settings):
    settings.CRM_DATABASE_URL = "postgresql://reader:secret@crm.example:5433/crm"
    settings.USMAN_URL = "https://calm:secret@usman.example:8443/api/"
    settings.CRM_USER_DELETED_COLUMN = ""
    assert deactivated_users.configuration(None) == {
        "CRM_DATABASE_URL": "crm.example:5433/crm as reader",
        "USMAN_URL": "https://usman.example:8443/api",
        "CRM_USER_DEACTIVATED_COLUMN": "deactivated_at",
        "CRM_USER_DELETED_COLUMN": "none",
    }
