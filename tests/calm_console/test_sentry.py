"""What reaches Sentry, caught by a server of this machine: the error's class and place, and nothing of a person or a secret."""

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = ("budi@sample.example", "Budi Santoso", "s3cretpassword", "c4n4ry")
FAILING = """
import django, logging
django.setup()
import sentry_sdk
from django.test import Client, override_settings
from django.db import connection
from structlog.contextvars import bound_contextvars
from migration.doors import Misconfigured

def page(request):
    name = request.POST["name"]  # a local variable with a person in it
    raise ValueError(f"{name} <budi@sample.example>")

def refused(request):
    raise Misconfigured("CRM_DATABASE_URL: budi@sample.example may not read audits")

from django.urls import path
from calm_console.urls import urlpatterns as real
urlpatterns = [path("page/", page), path("refused/", refused), *real]
with override_settings(ROOT_URLCONF=__name__):
    client = Client(raise_request_exception=False, headers={"host": "localhost"})
    client.cookies["sessionid"] = "s3cretpassword"
    for address in ("/page/", "/refused/"):
        client.post(address + "?email=budi@sample.example", {"name": "Budi Santoso", "password": "s3cretpassword"}, headers={"X-Who": "Budi Santoso"})
logging.getLogger("migration.steps").info("Budi Santoso signed in")
with bound_contextvars(run=7, account=3, name="Budi Santoso"):
    logging.getLogger("migration.steps").error("run %s of %s failed", 7, "Budi Santoso", extra={"who": "Budi Santoso"})
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s::int", ["Budi Santoso"])
    except Exception:
        logging.getLogger("migration.steps").exception("a statement failed")
sentry_sdk.flush()
"""


@pytest.fixture
def sink() -> Iterator[tuple[str, list[dict]]]:
    """A DSN, and the events that came to it."""
    events: list[dict] = []

    class Sink(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            lines = [json.loads(line) for line in body.splitlines() if line]
            events.extend(line for line in lines if "event_id" in line and "sent_at" not in line)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Sink)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://c4n4ry@127.0.0.1:{server.server_address[1]}/1", events
    server.shutdown()
    server.server_close()
    thread.join()


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"DJANGO_SETTINGS_MODULE": "calm_console.settings"} | variables
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_errors_arrive_with_their_place_and_nothing_of_a_person(sink):
    dsn, events = sink
    done = python(FAILING, SENTRY_DSN=dsn)
    assert done.returncode == 0, done.stderr
    told = [
        (
            event.get("logentry", {}).get("message"),
            [(each["type"], each["value"]) for each in event.get("exception", {}).get("values", [])],
            event["tags"].get("run"),
        )
        for event in events
    ]
    assert told == [
        (None, [("ValueError", "")], None),
        (None, [("Misconfigured", "CRM_DATABASE_URL: ******** may not read audits")], None),
        ("run %s of %s failed", [], "7"),
        ("a statement failed", [("InvalidTextRepresentation", ""), ("DataError", "")], "7"),
    ]
    assert [event["exception"]["values"][-1]["stacktrace"]["frames"][-1]["function"] for event in events[:2]] == ["page", "refused"]
    assert [sorted(event["tags"]) for event in events] == [["request"], ["request"], ["account", "run"], ["account", "run"]]
    everything = json.dumps(events)
    assert [name for name in NAMED if name in everything] == []
    assert {name for event in events for name in event} <= {
        "event_id", "timestamp", "platform", "level", "logger", "transaction", "release", "environment", "server_name", "sdk",
        "tags", "logentry", "exception", "type",
    }  # fmt: skip


def test_without_a_dsn_it_is_not_even_imported():
    done = python("import django, sys; django.setup(); print('sentry_sdk' in sys.modules)", SENTRY_DSN="")
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


@pytest.mark.parametrize(
    ("code", "dsn", "said"),
    [
        (
            "import sys; sys.modules['sentry_sdk'] = None; import django; django.setup()",
            "http://k@127.0.0.1:1/1",
            "sentry-sdk is not installed",
        ),
        ("import django; django.setup()", "not-a-dsn-c4n4ry", "SENTRY_DSN cannot be read"),
    ],
)
def test_what_cannot_be_is_said(code, dsn, said):
    done = python(code, SENTRY_DSN=dsn)
    assert done.returncode != 0
    assert f"ImproperlyConfigured: {'SENTRY_DSN is set, but ' if 'installed' in said else ''}{said}" in done.stderr
