"""PostgreSQL stopped in immediate mode under load, the console's, the CDP's and the CRM's, and started again."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from django.db import connection

from calm_console.demo import sample
from migration import accounts, revisions
from migration.models import Run
from migration.states import RunReason, RunState
from tests.conftest import PASSWORD, ROLES, Systems, at, rows
from tests.faults.processes import (
    PARTIAL,
    assert_undisturbed,
    at_chunk,
    ended,
    finish_by_ticks,
    reach,
    run_account,
    start,
    thaw,
    tick,
    until,
    worker,
)
from tests.faults.servers import Own, console_at
from tests.migration.conftest import mapping_document, now

pytestmark = [pytest.mark.slow, pytest.mark.fault]
SMALL = 20
SLOW = {"FAULT_SLOW_READ": "0.2", "TURN_SECONDS": "1"}


@contextmanager
def moved(system: str, console: Systems, settings, server: Own) -> Iterator[Systems]:
    """The same systems, one of them on the server of its own."""
    url = server.new_database(system)
    if system == "console":
        with console_at(url):
            accounts.sync(now=now())
            revisions.publish(mapping_document(), by="tester", note="", now=now())
            yield console
        return
    role = at(url, system, ROLES[system], PASSWORD)
    if system == "cdp":
        sample.load_cdp(url, role=ROLES["cdp"])
        settings.CDP_DATABASE_URL = role
        yield Systems(console.crm, url, console.usman)
    else:
        sample.load_crm(url, dump="crm_sample", reader=ROLES["crm"])
        settings.CRM_DATABASE_URL = role
        yield Systems(url, console.cdp, console.usman)


@pytest.mark.parametrize("system", ["console", "cdp", "crm"])
def test_postgresql_is_stopped_in_immediate_mode_again_and_again(console, settings, broker, own_postgres, system):
    with moved(system, console, settings, own_postgres) as systems:
        run = start(SMALL)
        with worker(settings, REDIS_URL=broker.url(), **SLOW):
            tick(settings, REDIS_URL=broker.url())
            for number in (2, 10):
                until(partial(at_chunk, number))
                connection.close()
                own_postgres.end(signal.SIGQUIT)
                own_postgres.start()
                tick(settings, REDIS_URL=broker.url())
            finish_by_ticks(settings, run, REDIS_URL=broker.url())
        assert run.state == RunState.PARTIAL, run.reason
        assert_undisturbed(systems)


CUT = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = %s AND pid <> pg_backend_pid() AND pid <> %s"""


@pytest.mark.parametrize("system", ["console", "cdp", "crm"])
def test_every_session_is_cut_again_and_again_while_the_server_goes_on(console, settings, broker, system):
    """As a failover or a pooler that restarts does it: whoever asks again at once is answered."""
    run = start(SMALL)
    with worker(settings, REDIS_URL=broker.url(), **SLOW):
        for _ in range(4):
            tick(settings, REDIS_URL=broker.url())
            for _ in range(4):
                cut(console, system)
                time.sleep(0.15)
        finish_by_ticks(settings, run, REDIS_URL=broker.url())
    assert run.state == RunState.PARTIAL, run.reason
    assert_undisturbed(console)


@pytest.mark.parametrize("point", ["planning", "finishing", "verifying"])
def test_the_session_at_the_console_is_cut_in_the_middle_of_a_transaction(console, settings, point):
    """No error of the data: the run is not failed for it, and no attempt is counted."""
    with run_account(settings, point=point) as child:
        reach(child)
        cut(console, "console")
        thaw(child)
        assert ended(child) == 1
    run = Run.objects.get()
    assert (run.state, run.reason_code) == (RunState.INTERRUPTED, RunReason.OUTAGE), run.reason
    assert "DATABASE_URL" in run.reason
    with run_account(settings) as child:
        assert ended(child) == PARTIAL
    assert set(run.chunks.values_list("attempts", flat=True)) == {1}
    assert_undisturbed(console)


def cut(console: Systems, system: str) -> None:
    """End every session at the database but this test's."""
    name = connection.settings_dict["NAME"] if system == "console" else getattr(console, system).rpartition("/")[2]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        rows(console.cdp, CUT, (name, cursor.fetchone()[0]))
