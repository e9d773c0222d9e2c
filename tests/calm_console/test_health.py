"""/healthz and /readyz: what they ask, what they say where something is away, and that nothing hangs."""

import socket
import time
from datetime import timedelta

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from calm_console import health
from migration import tasks, ticks
from migration.models import Tick

READY = {name: {"ok": True, "why": ""} for name in ("database", "schema", "broker", "tick")}


@pytest.fixture
def frozen():
    """A server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def failing(response) -> dict[str, str]:
    return {name: check["why"] for name, check in response.json()["checks"].items() if not check["ok"]}


def test_healthz_asks_nobody(client, settings):
    """No database is allowed in this test; a prober calls by address, and over plain HTTP."""
    settings.ALLOWED_HOSTS, settings.SECURE_SSL_REDIRECT = ["calm.example.com"], True
    response = client.get("/healthz", headers={"host": "10.1.2.3:8000"})
    assert (response.status_code, response.json(), response["Cache-Control"]) == (200, {"ok": True}, "no-store")
    assert client.post("/healthz").status_code == 405
    assert not response.cookies


@pytest.mark.django_db(transaction=True)
def test_ready(client):
    tasks.tick()
    response = client.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"ok": True, "checks": READY})


@pytest.mark.django_db(transaction=True)
def test_a_tick_leaves_its_trace():
    before = timezone.now()
    tasks.tick()
    tasks.tick()
    (row,) = Tick.objects.all()
    assert before <= row.ticked_at <= timezone.now()
    assert row.ticked_by == tasks.worker_name()


@pytest.mark.django_db(transaction=True)
def test_an_old_tick(client):
    assert failing(client.get("/readyz")) == {"tick": "no tick has ended yet: start beat and a worker"}
    ticks.record(by="w:1", now=timezone.now() - timedelta(seconds=175))
    assert failing(client.get("/readyz")) == {}
    ticks.record(by="w:1", now=timezone.now() - timedelta(seconds=600))
    response = client.get("/readyz")
    assert response.status_code == 503
    assert failing(response) == {"tick": "the last tick ended 600 s ago: see whether beat and a worker run"}
    assert client.get("/readyz?exclude=tick").json()["checks"] == {name: READY[name] for name in ("database", "schema", "broker")}


@pytest.mark.django_db(transaction=True)
def test_schema_migrations_that_are_not_applied(client):
    recorder = MigrationRecorder(connection)
    app, name = next(leaf for leaf in health.newest_schema() if leaf[0] == "migration")
    recorder.record_unapplied(app, name)
    try:
        found = failing(client.get("/readyz?exclude=tick"))
    finally:
        recorder.record_applied(app, name)
    assert found == {"schema": f"schema migrations are not applied ({app}.{name}): run `manage.py migrate`"}


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_is_away_or_frozen(client, settings, frozen):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    settings.REDIS_URL = f"redis://:canary@127.0.0.1:{port}/0"
    assert failing(client.get("/readyz?exclude=tick")) == {"broker": "REDIS_URL: the broker does not answer (ConnectionError)"}
    settings.REDIS_URL = f"redis://:canary@127.0.0.1:{frozen}/0"
    began = time.monotonic()
    response = client.get("/readyz?exclude=tick")
    assert time.monotonic() - began < 2.5
    assert response.status_code == 503
    assert "canary" not in response.text
    assert list(failing(response)) == ["broker"]


def test_a_database_that_is_away_or_frozen(client, settings, frozen, django_db_blocker, monkeypatch):
    """Three checks ask it, each in a thread: none waits longer than its patience, and no password is told."""
    with django_db_blocker.unblock():
        monkeypatch.setitem(connection.settings_dict, "HOST", "127.0.0.1")
        monkeypatch.setitem(connection.settings_dict, "PORT", frozen)
        began = time.monotonic()
        response = client.get("/readyz")
        took = time.monotonic() - began
        assert took < 5
        assert response.status_code == 503
        assert failing(response) == dict.fromkeys(("database", "schema", "tick"), "no answer within 1 s")
        again = failing(client.get("/readyz"))
        assert again == dict.fromkeys(("database", "schema", "tick"), "an earlier check still waits for the answer")
        for check in health.CHECKS.values():  # their threads end once the connection times out
            assert check._busy.acquire(timeout=10)
            check._busy.release()


def test_no_two_checks_at_once_and_any_error_is_an_answer():
    def broken() -> str:
        raise RuntimeError("postgresql://u:canary@host/db")

    check = health.Check(broken)
    assert [check.why(), check.why()] == ["RuntimeError", "RuntimeError"]
