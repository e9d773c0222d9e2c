"""Nobody waits for ever: for a peer that is gone without a word, nor a page for a lock or a statement."""

import os
import socket
import subprocess
import sys
from contextlib import closing

import psycopg
import pytest
from django.db import connection

from calm_console.celery import app
from migration.cdp import Cdp
from migration.crm import Crm
from tests.migration.test_restart import ROOT, environment

KERNEL = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
SHOWN = """
import threading, django, {module}
django.setup()

def show():
    from django.db import connection
    with connection.cursor() as cursor:
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            cursor.execute(f"SHOW {{name}}")
            print(*cursor.fetchone())

thread = threading.Thread(target=show)  # as those of gunicorn, which each have a connection of their own
thread.start()
thread.join()
"""


def patience(session: psycopg.Connection) -> tuple[int, ...]:
    """What the kernel was told of a session's socket: whether it asks after the peer, from when, how often (seconds), how many times; and
    how long what was sent may stay unconfirmed (milliseconds)."""
    with socket.socket(fileno=os.dup(session.fileno())) as of:
        asks = of.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        return (asks, *(of.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in KERNEL))


def test_a_peer_that_is_gone_is_given_up_after_a_minute(systems, settings):
    connection.ensure_connection()
    with closing(Crm()) as crm, closing(Cdp()) as cdp:
        for session in (connection.connection, crm.connection, cdp.connection):
            assert patience(session) == (1, 30, 10, 3, 60_000)
    settings.CRM_DATABASE_URL += "?keepalives_idle=7"
    with closing(Crm()) as crm:
        assert patience(crm.connection) == (1, 7, 10, 3, 60_000), "what the URL says goes first"


def test_workers_and_beat_wait_for_a_broker_for_as_long_as_it_is_away():
    assert app.conf.broker_connection_max_retries is None, "Celery's own default gives up after some 46 minutes, and 0 at once"
    assert app.conf.broker_connection_retry and app.conf.broker_connection_retry_on_startup


@pytest.mark.parametrize(
    ("module", "shown"),
    [("calm_console.wsgi", "1min\n10s\n1min\n"), ("calm_console.celery", "0\n0\n1min\n")],
)
def test_pages_are_bounded_and_work_is_not(transactional_db, settings, module, shown):
    given = environment(settings) | {"DJANGO_SETTINGS_MODULE": "calm_console.settings"}
    done = subprocess.run(
        [sys.executable, "-c", SHOWN.format(module=module)], cwd=ROOT, env=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == shown, done.stderr
