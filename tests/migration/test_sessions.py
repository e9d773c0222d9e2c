"""What sessions are set to, whatever the server, the database or the role prefers."""

import pytest
from django.db import connection

from migration import ledger
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
