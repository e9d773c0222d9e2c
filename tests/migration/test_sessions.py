"""What sessions are set to, whatever the server, the database or the role prefers; and that none is used which somebody else uses too."""

from contextlib import closing

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection

from migration import ledger
from migration.cdp import Cdp
from migration.crm import Crm
from migration.doors import Misconfigured
from migration.models import Run
from tests.conftest import run_sql
from tests.migration.conftest import run_account

PREFERENCES = {
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Jakarta",
    "default_transaction_isolation": "serializable",
    "idle_in_transaction_session_timeout": "0",
    "bytea_output": "escape",
    "quote_all_identifiers": "on",
    "extra_float_digits": "0",
}
ELSEWHERE = {"calm_console.session": "1"}  # what a session looks like that a pooler took from another process


@pytest.fixture
def prefer(postgres, console):
    """Sets what new sessions of all three databases begin with."""
    mine = connection.settings_dict["NAME"]

    def prefer(settings: dict[str, str], *databases: str) -> None:
        for name in databases or (mine, *(url.rpartition("/")[2] for url in (console.crm, console.cdp))):
            run_sql(postgres, *(f"ALTER DATABASE {name} SET {key} = '{value}'" for key, value in settings.items()))
        connection.close()

    yield prefer
    connection.close()
    run_sql(postgres, f"ALTER DATABASE {mine} RESET ALL")


def test_what_the_databases_prefer_changes_no_row(console, prefer):
    first = run_account(1)
    before = console.activities()
    console.change_cdp("DELETE FROM contact_activity_logs WHERE origin = 'crm_migration'")
    prefer(PREFERENCES)
    again = run_account(1)
    run_sql(console.cdp, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET ALL', current_database()); END $$")  # the test's own reading
    assert [row[:-1] for row in console.activities()] == [row[:-1] for row in before]
    assert (again.state, ledger.of(again).written, again.verification["agrees"]) == (first.state, ledger.of(first).written, True)
    with connection.cursor() as cursor:
        for name, value in {"transaction_isolation": "read committed", "idle_in_transaction_session_timeout": "1min"}.items():
            cursor.execute(f"SHOW {name}")
            assert cursor.fetchone() == (value,)


@pytest.mark.django_db(transaction=True)
def test_what_the_consoles_url_asks_for_stays(monkeypatch):
    connection.close()
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "options", "-c idle_in_transaction_session_timeout=7s")
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('idle_in_transaction_session_timeout'), current_setting('IntervalStyle')")
        assert cursor.fetchone() == ("7s", "postgres")
    connection.close()  # the next session is an ordinary one


@pytest.mark.parametrize("system", ["crm", "cdp"])
def test_a_session_that_is_somebody_elses_too_is_refused_before_anything_is_read(console, prefer, system):
    prefer(ELSEWHERE, getattr(console, system).rpartition("/")[2])
    with pytest.raises(CommandError, match=f"{system.upper()}_DATABASE_URL: a pooler in between hands one session on to several"):
        call_command("run_account", "1", mode="production", inline=True)
    assert not Run.objects.exists()


def test_the_consoles_own_too(console, prefer):
    prefer(ELSEWHERE, connection.settings_dict["NAME"])
    with pytest.raises(OperationalError, match="put it in session mode, where it empties each"):
        Run.objects.exists()


def test_one_that_is_shared_later_loads_nothing(console, monkeypatch):
    """Another worker is let in while a chunk is staged: what stands in staging then may be another account's."""
    own = Cdp.check_unshared
    asked = []

    def let_in(cdp: Cdp) -> None:
        asked.append(cdp)
        if len(asked) == 2:  # the first is asked before staging, the second in the loading transaction
            cdp.connection.execute("SELECT set_config('calm_console.session', '1', false)")
        own(cdp)

    monkeypatch.setattr(Cdp, "check_unshared", let_in)
    with pytest.raises(CommandError, match="a pooler in between hands one session on to several"):
        call_command("run_account", "1", mode="production", inline=True)
    assert console.activities("origin = 'crm_migration'") == []


def test_a_session_of_ours_alone_may_be_asked_as_often_as_one_likes(console):
    with closing(Cdp()) as cdp, closing(Crm()):
        cdp.check_unshared()
        cdp.connection.execute("SELECT set_config('calm_console.session', '1', false)")
        with pytest.raises(Misconfigured, match="in session mode"):
            cdp.check_unshared()
        cdp.connection.execute("DISCARD ALL")  # as a pooler empties it between two clients
        with pytest.raises(Misconfigured, match="in session mode"):
            cdp.check_unshared()
