"""calm_console/roles/: psql runs the files as they stand, they give the grants listed here and no other, and those are enough."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count

import psycopg
import pytest
import yaml
from django.conf import settings as configured
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, connection, transaction
from psycopg import sql

from calm_console import roles
from calm_console.demo import sample
from migration import cdp
from migration.models import Run
from migration.states import RunState
from tests.conftest import ROLES, at, rows, run_sql
from tests.migration.conftest import console, run_account
from tests.servers import postgres_program

__all__ = ["console"]
EXPECTED = {
    "crm": [
        ("calm_x_role", "CONNECT on database"),
        ("calm_x_role", "SELECT on public.audits"),
        ("calm_x_role", "SELECT on public.users"),
        ("calm_x_role", "USAGE on schema public"),
    ],
    "cdp": [
        ("calm_x_role", "CONNECT on database"),
        ("calm_x_role", "INSERT on calm.receipts"),
        ("calm_x_role", "INSERT on public.contact_activity_logs"),
        ("calm_x_role", "SELECT on calm.receipts"),
        ("calm_x_role", "SELECT on public.accounts"),
        ("calm_x_role", "SELECT on public.contact_activity_logs"),
        ("calm_x_role", "SELECT on public.contacts"),
        ("calm_x_role", "TEMPORARY on database"),
        ("calm_x_role", "UPDATE on calm.receipts"),
        ("calm_x_role", "UPDATE on public.contact_activity_logs"),
        ("calm_x_role", "USAGE on schema calm"),
        ("calm_x_role", "USAGE on schema public"),
    ],
    "console": [
        ("calm_x_owner", "CONNECT on database"),
        ("calm_x_owner", "CREATE on schema public"),
        ("calm_x_owner", "USAGE on schema public"),
        ("calm_x_role", "CONNECT on database"),
        ("calm_x_role", "DELETE on table made later"),
        ("calm_x_role", "INSERT on table made later"),
        ("calm_x_role", "SELECT on table made later"),
        ("calm_x_role", "UPDATE on table made later"),
        ("calm_x_role", "USAGE on schema public"),
        ("calm_x_role", "USAGE on sequence made later"),
    ],
}
GRANTS = """
    SELECT r.rolname, g.privilege_type || ' on ' || g.what FROM (
        SELECT 'database' AS what, (aclexplode(datacl)).* FROM pg_database WHERE datname = current_database()
        UNION ALL SELECT 'schema ' || nspname, (aclexplode(nspacl)).* FROM pg_namespace
        UNION ALL SELECT relnamespace::regnamespace || '.' || relname, (aclexplode(relacl)).* FROM pg_class
        UNION ALL SELECT CASE defaclobjtype WHEN 'r' THEN 'table' ELSE 'sequence' END || ' made later', (aclexplode(defaclacl)).* FROM pg_default_acl
    ) g JOIN pg_roles r ON r.oid = g.grantee WHERE r.rolname LIKE 'calm\\_x\\_%' ORDER BY 1, 2"""

NewDatabase = Callable[[str], str]


@pytest.fixture
def new_database(postgres) -> Iterator[NewDatabase]:
    """Makes a database with the sample of that system, or an empty one for the console's; its owner's URL."""
    made: list[str] = []
    numbers = count(1)

    def create(system: str) -> str:
        made.append(f"calm_test_{os.getpid()}_roles{next(numbers)}")
        run_sql(postgres, f"CREATE DATABASE {made[-1]} TEMPLATE template0 ENCODING 'UTF8'")
        url = at(postgres, made[-1])
        if system != "console":
            (sample.load_crm if system == "crm" else sample.load_cdp)(url)
        return url

    yield create
    run_sql(postgres, *(f"DROP DATABASE {name} WITH (FORCE)" for name in made), "DROP ROLE IF EXISTS calm_x_role, calm_x_owner")


def psql(url: str, *words: str) -> None:
    """As in the files' own first lines; an error ends it."""
    done = postgres_program("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", *words, url)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", EXPECTED)
def test_psql_and_we_give_exactly_these_grants(new_database, name):
    names = {"role": "calm_x_role"} | ({"owner": "calm_x_owner"} if name == "console" else {})
    first, second = new_database(name), new_database(name)
    psql(first, *(word for key, value in names.items() for word in ("-v", f"{key}={value}")), "-f", str(roles.HERE / f"{name}.sql"))
    with psycopg.connect(second) as connection:
        roles.grant(connection, name, **names)
    assert rows(first, GRANTS) == EXPECTED[name]
    assert rows(second, GRANTS) == EXPECTED[name]
    elevated = "rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls"
    assert rows(first, f"SELECT rolname FROM pg_roles WHERE rolname LIKE 'calm\\_x\\_%' AND ({elevated} OR NOT rolcanlogin)") == []


def test_what_compose_has_its_postgresql_run_makes_both_roles_with_the_passwords_in_the_files(new_database, tmp_path):
    """In the order in which the image runs what is mounted there, and with its options, but for the roles' names."""
    url = new_database("console")
    mounts = yaml.safe_load((roles.HERE.parents[1] / "compose.yaml").read_text())["services"]["postgres"]["volumes"]
    mounted = [mount.split(":") for mount in mounts if ":/docker-entrypoint-initdb.d/" in mount]
    secrets = {"calm_x_owner": "it's \\ owned", "calm_x_role": "0f5e"}
    (tmp_path / "console_owner_password").write_text(secrets["calm_x_owner"] + "\n")
    (tmp_path / "console_password").write_text(secrets["calm_x_role"])
    given = [word for name in ("owner=calm_x_owner", "role=calm_x_role", f"secrets={tmp_path}") for word in ("-v", name)]
    assert len(mounted) == 2
    for file, _, _ in sorted(mounted, key=lambda mount: mount[1]):
        psql(url, *given, "-f", str(roles.HERE.parents[1] / file))
    assert rows(url, GRANTS) == EXPECTED["console"]
    for role, password in secrets.items():
        parts = psycopg.conninfo.conninfo_to_dict(url) | {"user": role, "password": password}
        with psycopg.connect(**parts) as by_role:
            assert by_role.execute("SELECT current_user, has_schema_privilege('public', 'CREATE')").fetchone() == (
                role,
                role == "calm_x_owner",
            )


def test_deleting_is_granted_apart(new_database):
    url = new_database("cdp")
    psql(url, "-v", "role=calm_x_role", "-f", str(roles.HERE / "cdp.sql"))
    psql(url, "-v", "role=calm_x_role", "-f", str(roles.HERE / "cdp_delete.sql"))
    assert set(rows(url, GRANTS)) - set(EXPECTED["cdp"]) == {("calm_x_role", "DELETE on public.contact_activity_logs")}


def test_files_name_their_own_roles():
    """Without -v: as README and the URLs of the documents have them."""
    made = {name: [created for _, created in roles.statements(name, DBNAME="x") if created] for name in EXPECTED}
    assert made == {"crm": ["calm_crm_reader"], "cdp": ["calm_loader"], "console": ["calm_console_owner", "calm_console"]}


def test_the_schema_is_the_one_that_the_console_makes():
    assert cdp.SCHEMA in (roles.HERE / "cdp.sql").read_text()


def test_a_role_that_may_makes_the_schema_itself(console):
    console.change_cdp("DROP SCHEMA calm CASCADE", f"GRANT CREATE ON DATABASE {console.cdp.rpartition('/')[2]} TO {ROLES['cdp']}")
    run = run_account(1)
    assert run.state == RunState.PARTIAL
    assert run.events.filter(kind="schema made").count() == 1


def test_production_needs_no_right_to_delete_and_withdrawing_says_that_it_does(console):
    console.change_cdp(f"REVOKE DELETE ON contact_activity_logs FROM {ROLES['cdp']}")
    run = run_account(1)
    written = console.activities("origin = 'crm_migration'")
    assert (run.state, len(written)) == (RunState.PARTIAL, 471)
    with pytest.raises(CommandError, match=f"role {ROLES['cdp']} may not remove rows"):
        call_command("withdraw_run", str(run.pk), "--yes")
    assert console.activities("origin = 'crm_migration'") == written
    with psycopg.connect(console.cdp) as owner:
        roles.grant(owner, roles.CDP_DELETE, role=ROLES["cdp"])
    call_command("withdraw_run", str(run.pk), "--yes")
    assert console.activities("origin = 'crm_migration'") == []
    assert Run.objects.get().state == RunState.WITHDRAWN


# --- the console's own: these tests, and all others, work by the role that owns nothing -----------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE gates_signoff CASCADE",
        "ALTER TABLE gates_signoff DISABLE TRIGGER USER",
        "DROP TRIGGER signoff_append_only ON gates_signoff",
        "SET session_replication_role = replica",
        "CREATE TABLE mine ()",
        "DROP TABLE migration_run CASCADE",
    ],
)
def test_the_consoles_role_may_not(db, statement):
    with pytest.raises(DatabaseError, match=r"permission denied|must be owner"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


def test_the_tests_work_by_that_role(db):
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user, rolsuper FROM pg_roles WHERE rolname = current_user")
        assert cursor.fetchone() == (ROLES["console"], False)
    assert {configured.CRM_DATABASE_URL, configured.CDP_DATABASE_URL} == {"unset://for-tests"}, "each test names its own"


def test_the_systems_of_the_tests_are_reached_by_their_roles(systems):
    for system, url in (("crm", configured.CRM_DATABASE_URL), ("cdp", configured.CDP_DATABASE_URL)):
        assert rows(url, "SELECT current_user::text, session_user::text") == [(ROLES[system], ROLES[system])]


@pytest.mark.fault
def test_the_owner_migrates_and_the_other_role_works(new_database, postgres):
    """From nothing, each by its own URL: schema migrations, then a command that writes and one that reads."""
    url = new_database("console")
    psql(url, "-v", "owner=calm_x_owner", "-v", "role=calm_x_role", "-f", str(roles.HERE / "console.sql"))
    with psycopg.connect(url, autocommit=True) as owner:
        for role in ("calm_x_owner", "calm_x_role"):
            owner.execute(sql.SQL("ALTER ROLE {} PASSWORD 'calm-test'").format(sql.Identifier(role)))

    def manage(role: str, *words: str) -> subprocess.CompletedProcess[str]:
        environ = os.environ | {
            "DATABASE_URL": at(url, url.rpartition("/")[2], role, "calm-test"),
            "DJANGO_SUPERUSER_PASSWORD": "a-long-one-9",
        }
        command = [sys.executable, "manage.py", *words]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100, check=False)

    refused = manage("calm_x_role", "migrate", "--verbosity", "0")
    assert refused.returncode != 0 and "permission denied" in refused.stderr + refused.stdout
    assert manage("calm_x_owner", "migrate", "--verbosity", "0").returncode == 0
    made = manage("calm_x_role", "createsuperuser", "--noinput", "--username", "ana", "--email", "")
    assert made.returncode == 0, made.stderr
    assert rows(url, "SELECT username FROM auth_user") == [("ana",)]
    assert manage("calm_x_role", "migrate", "--check").returncode == 0
