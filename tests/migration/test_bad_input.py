"""Wrong settings and wrong systems: one sentence that names the variable and the cure, no traceback, no password."""

import io
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection

from migration.models import Run
from tests.conftest import PASSWORD, ROLES, at, rows, run_sql

ROOT = Path(__file__).parents[2]
ID_TYPE = "ALTER TABLE audits ALTER id DROP DEFAULT, ALTER id TYPE {}"
OF_LOGS = "ALTER TABLE contact_activity_logs ALTER"
WITHOUT = "DROP INDEX contact_activity_logs_source; CREATE"
PAIR = "INDEX ON contact_activity_logs (source_audit_id, contact_id)"
NOBODY_LISTENS = "postgresql://somebody:s3cret@127.0.0.1:1/crm"


def refusal(**options) -> str:
    """What `run_account 1` says instead of running."""
    with pytest.raises(CommandError) as caught:
        call_command("run_account", "1", mode="production", inline=True, stdout=io.StringIO(), stderr=io.StringIO(), **options)
    text = str(caught.value)
    assert "\n" not in text and "Traceback" not in text and PASSWORD not in text and "s3cret" not in text
    assert caught.value.returncode == 1
    assert not Run.objects.exists()
    return text


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("CRM_DATABASE_URL", "", "CRM_DATABASE_URL is not set"),
        ("CRM_DATABASE_URL", "no url", "CRM_DATABASE_URL cannot be read as a URL"),
        ("CRM_DATABASE_URL", "mysql://a:s3cret@127.0.0.1/x", "CRM_DATABASE_URL cannot be read as a URL"),
        ("CRM_DATABASE_URL", NOBODY_LISTENS, "CRM_DATABASE_URL: nothing listens"),
        ("CRM_DATABASE_URL", "postgresql://a:s3cret@no-such-host.invalid/x", "CRM_DATABASE_URL: the host name is unknown"),
        ("CDP_DATABASE_URL", NOBODY_LISTENS, "CDP_DATABASE_URL: nothing listens"),
        ("USMAN_URL", "", "USMAN_URL is not set"),
        ("USMAN_URL", "usman.internal", "USMAN_URL cannot be read as a URL"),
        ("CRM_USER_NAME_COLUMN", "nickname", "set CRM_USER_NAME_COLUMN to the one that holds the name"),
    ],
)
def test_a_wrong_setting_is_named(console, settings, variable, value, says):
    setattr(settings, variable, value)
    assert says in refusal()


def test_a_wrong_password_and_a_wrong_database_are_told_apart(console, settings):
    url = settings.CRM_DATABASE_URL
    settings.CRM_DATABASE_URL = url.replace(PASSWORD, "s3cret")
    assert "the user or password is refused" in refusal() or urlsplit(url).hostname is None
    settings.CRM_DATABASE_URL = at(url, "no_such_database")
    assert "the database does not exist" in refusal()


def test_the_two_databases_swapped_are_found_out(console, settings):
    settings.CRM_DATABASE_URL, settings.CDP_DATABASE_URL = settings.CDP_DATABASE_URL, settings.CRM_DATABASE_URL
    assert "CRM_DATABASE_URL: there is no table audits" in refusal()


@pytest.mark.parametrize(
    ("system", "statement", "says"),
    [
        ("crm", "ALTER TABLE audits DROP COLUMN version CASCADE", "table audits has no column version"),
        ("crm", "ALTER TABLE audits RENAME TO audit_log", "there is no table audits"),
        ("crm", "ALTER TABLE audits ALTER auditable_id TYPE uuid USING gen_random_uuid()", "column audits.auditable_id is of type uuid"),
        ("crm", ID_TYPE.format("uuid USING gen_random_uuid()"), "column audits.id is of type uuid; the console reads bigint, integer"),
        ("crm", ID_TYPE.format("varchar"), "column audits.id is of type character varying"),
        ("crm", ID_TYPE.format("numeric(20)"), "column audits.id is of type numeric"),
        ("crm", f"REVOKE SELECT ON users FROM {ROLES['crm']}", "GRANT SELECT ON users TO"),
        ("cdp", "ALTER TABLE contacts RENAME source_id TO crm_id", "table contacts has no column source_id"),
        ("cdp", f"REVOKE INSERT ON contact_activity_logs FROM {ROLES['cdp']}", "GRANT INSERT ON contact_activity_logs TO"),
        (
            "crm",
            "CREATE TYPE k AS ENUM ('User'); ALTER TABLE audits ALTER associated_type TYPE k USING 'User'",
            "audits.associated_type is of type k",
        ),
        (
            "cdp",
            "ALTER TABLE contacts ALTER source_id TYPE text",
            "contacts.source_id is of type text; the console needs bigint or integer",
        ),
        ("cdp", f"{OF_LOGS} occurred_at TYPE timestamp", "contact_activity_logs.occurred_at is of type timestamp without time zone"),
        ("cdp", f"{OF_LOGS} occurred_at TYPE timestamptz(3)", "keeps 3 digits of a second, and the CRM's audits have 6"),
        (
            "cdp",
            f"{OF_LOGS} context DROP DEFAULT, ALTER context TYPE json",
            "contact_activity_logs.context is of type json; the console needs jsonb",
        ),
        ("cdp", f"{OF_LOGS} category TYPE char(40)", "contact_activity_logs.category is of type bpchar"),
        ("cdp", f"{OF_LOGS} inserted_at DROP DEFAULT", "column contact_activity_logs.inserted_at takes no NULL, has no default"),
        ("cdp", "DROP INDEX contact_activity_logs_source", "has no unique index on (source_audit_id, contact_id)"),
        ("cdp", f"{WITHOUT} {PAIR}", "ADD UNIQUE (source_audit_id, contact_id)"),
        ("cdp", f"{WITHOUT} UNIQUE {PAIR} WHERE origin = 'live'", "ADD UNIQUE (source_audit_id, contact_id)"),
        ("cdp", "ALTER TABLE contact_activity_logs DROP CONSTRAINT contact_activity_logs_pkey", "ADD PRIMARY KEY (id)"),
        (
            "cdp",
            f"DO $$ BEGIN EXECUTE format('REVOKE TEMP ON DATABASE %I FROM PUBLIC, {ROLES['cdp']}', current_database()); END $$",
            "GRANT TEMP ON DATABASE",
        ),
    ],
)
def test_a_missing_table_column_or_right_is_named_with_its_cure(console, system, statement, says):
    run_sql(getattr(console, system), statement)
    assert says in refusal()


@pytest.mark.parametrize(
    ("encoding", "system", "says"), [("SQL_ASCII", "crm", "encoding is SQL_ASCII"), ("LATIN1", "cdp", "the CDP must be UTF8")]
)
def test_an_encoding_that_cannot_carry_history_is_refused(console, settings, postgres, encoding, system, says):
    name = f"calm_test_{os.getpid()}_{encoding.lower()}"
    provider = "LOCALE_PROVIDER libc" if int(rows(postgres, "SHOW server_version_num")[0][0]) >= 150_000 else ""
    run_sql(
        postgres,
        f"DROP DATABASE IF EXISTS {name}",
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' {provider} LOCALE 'C'",
    )
    try:
        setattr(settings, f"{system.upper()}_DATABASE_URL", at(getattr(settings, f"{system.upper()}_DATABASE_URL"), name))
        assert says in refusal()
    finally:
        run_sql(postgres, f"DROP DATABASE {name} WITH (FORCE)")


def test_a_console_database_that_cannot_keep_every_name_is_refused(console, postgres, monkeypatch):
    name = f"calm_test_{os.getpid()}_latin1"
    provider = "LOCALE_PROVIDER libc" if int(rows(postgres, "SHOW server_version_num")[0][0]) >= 150_000 else ""
    run_sql(
        postgres, f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' {provider} LOCALE 'C'"
    )
    connection.close()
    try:
        with monkeypatch.context() as patch:
            patch.setitem(connection.settings_dict, "NAME", name)
            with pytest.raises(OperationalError, match="encoding is LATIN1"):
                Run.objects.exists()
    finally:
        connection.close()
        run_sql(postgres, f"DROP DATABASE {name} WITH (FORCE)")


def test_an_account_that_does_not_exist_names_those_that_do(console):
    with pytest.raises(CommandError, match=r"no account for CRM organisation 99 \(known are 1, 2, 3\)"):
        call_command("run_account", "99", mode="production", inline=True)


def test_usman_down_interrupts_the_run_and_maps_nobody_to_unknown(console, settings):
    good, settings.USMAN_URL = settings.USMAN_URL, "http://127.0.0.1:1"
    with pytest.raises(CommandError, match="USMAN did not answer 3 attempts"):
        call_command("run_account", "1", mode="production", inline=True, stdout=io.StringIO(), stderr=io.StringIO())
    run = Run.objects.get()
    assert (run.state, run.reason_code) == ("interrupted", "outage") and "USMAN" in run.reason
    assert console.activities("origin = 'crm_migration'") == []
    settings.USMAN_URL = good
    with pytest.raises(SystemExit) as ended:
        call_command("run_account", "1", mode="production", inline=True, stdout=io.StringIO(), stderr=io.StringIO())
    assert ended.value.code == 3
    assert Run.objects.get().state == "partial", "the same run went on"


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("DATABASE_URL", NOBODY_LISTENS, "DATABASE_URL: nothing listens"),
        ("DATABASE_URL", "nonsense", "DATABASE_URL must name a PostgreSQL database"),
        ("CHUNK_SIZE", "many", "CHUNK_SIZE must be a whole number"),
    ],
)
def test_the_consoles_own_settings_are_refused_before_anything_starts(variable, value, says):
    done = subprocess.run(
        [sys.executable, "manage.py", "migrate"],
        cwd=ROOT,
        env=os.environ | {variable: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2 and says in done.stderr
    assert "Traceback" not in done.stderr and "s3cret" not in done.stderr and done.stdout == ""
