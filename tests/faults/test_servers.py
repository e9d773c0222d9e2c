"""PostgreSQL stopped in immediate mode under load, the console's, the CDP's and the CRM's, and started again."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from django.core.management import call_command
from django.db import connection

from calm_console.demo import sample
from migration import accounts, revisions
from migration.states import RunState
from tests.conftest import PASSWORD, ROLES, Systems, at, rows
from tests.faults.processes import assert_undisturbed, at_chunk, finish_by_ticks, is_over, start, tick, until, worker
from tests.faults.servers import Own, console_at
from tests.migration.conftest import mapping_document, now

pytestmark = [pytest.mark.slow, pytest.mark.fault]
SMALL = 10
SLOW = {"FAULT_SLOW_READ": "0.2", "TURN_SECONDS": "1"}


@contextmanager
def moved(system: str, console: Systems, settings, server: Own) -> Iterator[Systems]:
    """The same systems, one of them on the server of its own."""
    url = server.new_database(system)
    if system == "console":
        with console_at(url):
            call_command("migrate", verbosity=0)
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
            for number in (2, 8, 14):
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
    WHERE datname = split_part(%s, '/', 4) AND pid <> pg_backend_pid() AND pid <> %s"""


@pytest.mark.parametrize("system", ["console", "cdp", "crm"])
def test_every_session_is_cut_again_and_again_while_the_server_goes_on(console, settings, broker, system):
    """As a failover or a pooler that restarts does it: whoever asks again at once is answered."""
    run = start(SMALL)
    name = connection.settings_dict["NAME"]
    database = f"postgresql:///{name}" if system == "console" else getattr(console, system)
    with worker(settings, REDIS_URL=broker.url(), **SLOW):
        tick(settings, REDIS_URL=broker.url())
        for number in range(1, 40):
            until(lambda number=number: at_chunk(number) or is_over(run))
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                rows(console.cdp, CUT, (database, cursor.fetchone()[0]))
            time.sleep(0.05)
        finish_by_ticks(settings, run, REDIS_URL=broker.url())
    assert run.state == RunState.PARTIAL, run.reason
    assert_undisturbed(console)
