"""What a log line holds: the ids of the work in hand, and nobody's name."""

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from structlog.contextvars import bound_contextvars, get_contextvars

from calm_console import logs
from migration import accounts, attempts, revisions
from migration.models import Run
from tests.conftest import rows
from tests.migration.conftest import mapping_document, now

DATA = Path(logs.__file__).parent / "demo" / "data"


@pytest.fixture
def both() -> Iterator[tuple[StringIO, StringIO]]:
    """Everything that is logged from INFO on, as plain and as JSON lines."""
    root, texts = logging.getLogger(), (StringIO(), StringIO())
    handlers = [logging.StreamHandler(text) for text in texts]
    for handler, formatter in zip(handlers, (logs.Plain(), logs.as_json()), strict=True):
        handler.setFormatter(formatter)
        root.addHandler(handler)
    yield texts
    for handler in handlers:
        root.removeHandler(handler)


def test_a_line_in_both_formats(both):
    plain, machine = both
    with bound_contextvars(run=7, account=3):
        logging.getLogger("migration.x").warning("chunk %s is free", 2)
    assert plain.getvalue().partition(" WARNING ")[2] == "migration.x: chunk 2 is free [account=3 run=7]\n"
    line = json.loads(machine.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "chunk 2 is free", "level": "warning", "logger": "migration.x", "run": 7, "account": 3}


def test_which_format(monkeypatch):
    def chosen(form: str, debug: bool = False) -> str:
        return logs.configuration("INFO", form, debug=debug)["handlers"]["stderr"]["formatter"]

    monkeypatch.setattr("sys.stderr", StringIO())
    assert [chosen(""), chosen("", debug=True), chosen("plain"), chosen("json", debug=True)] == ["json", "plain", "plain", "json"]
    terminal = StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    assert chosen("") == "plain"
    with pytest.raises(ImproperlyConfigured, match="LOG_FORMAT must be plain or json, not 'xml'"):
        chosen("xml")


@pytest.mark.parametrize(
    ("given", "taken"), [("abcd-1234", True), ("short", False), ("x" * 65, False), ("abcdefgh\r\nX: 1", False), ("<script>abc", False)]
)
def test_request_ids(given, taken):
    seen = []

    def view(request: HttpRequest) -> HttpResponse:
        seen.append(get_contextvars()["request"])
        return HttpResponse()

    request = HttpRequest()
    request.META["HTTP_X_REQUEST_ID"] = given
    response = logs.request_ids(view)(request)
    assert response.headers["X-Request-ID"] == seen[0]
    assert (seen[0] == given) is taken
    assert "request" not in get_contextvars()


def test_rows_that_postgresql_quotes_are_left_out(both, postgres):
    refused = (
        "CREATE TEMPORARY TABLE people (name text CHECK (name <> E'Budi\\n\\nSantoso')); INSERT INTO people VALUES (E'Budi\\n\\nSantoso')"
    )
    try:
        try:
            with psycopg.connect(postgres, autocommit=True) as connection:
                connection.execute(refused)
        except psycopg.Error as error:
            assert "Budi" in str(error)
            raise RuntimeError("the chunk failed") from error
    except RuntimeError:
        logging.getLogger("x").exception("it failed")
    for text in both:
        assert "Budi" not in text.getvalue() and "Santoso" not in text.getvalue()
        assert "people_name_check" in text.getvalue() and "RuntimeError: the chunk failed" in text.getvalue()


def people(systems) -> set[str]:
    """Every e-mail and name that the sample holds of people."""
    known = json.loads((DATA / "sample_usman_users.json").read_text())
    listed = known["users"] if isinstance(known, dict) else known
    found = {str(user[key]) for user in listed for key in ("email", "name") if user.get(key)}
    found |= {text for row in rows(systems.crm, "SELECT email, full_name FROM users") for text in row if text}
    fields = "audited_changes->>'name', audited_changes->>'email', audited_changes->>'first_name'"
    found |= {text for row in rows(systems.crm, f"SELECT {fields} FROM audits") for text in row if text}
    return {text for text in found if len(text) > 3}


def test_runs_log_ids_and_nobody(both, systems, settings, monkeypatch):
    """Two of the sample's accounts; each run's first attempt meets an error that is logged with its traceback."""
    settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"
    accounts.sync(now=now())
    revisions.publish(mapping_document(), by="tester", note="", now=now())
    real, calls = attempts.process_chunk, []

    def broken_once(*given):
        calls.append(given)
        if len(calls) % 2:
            raise RuntimeError("no luck")
        return real(*given)

    monkeypatch.setattr(attempts, "process_chunk", broken_once)
    for organisation in ("1", "3"):
        with suppress(SystemExit):
            call_command("run_account", organisation, mode="production", inline=True, stdout=StringIO(), stderr=StringIO())
    assert {run.state for run in Run.objects.all()} <= {"succeeded", "partial"}
    lines = [json.loads(line) for line in both[1].getvalue().splitlines()]
    failed = [line for line in lines if line["event"].startswith("chunk ")]
    run = Run.objects.order_by("pk").first()
    assert failed[0] | {"timestamp": "", "exception": ""} == {
        "event": f"chunk 1 of run {run.pk}, attempt 1",
        "level": "error",
        "logger": "migration.attempts",
        "run": run.pk,
        "account": run.account_id,
        "chunk": 1,
        "timestamp": "",
        "exception": "",
    }
    assert "RuntimeError: no luck" in failed[0]["exception"]
    names = people(systems)
    assert len(names) > 100
    for text in both:
        assert not [name for name in names if name in text.getvalue()]
        assert "@" not in text.getvalue().replace("@contextmanager", "")
