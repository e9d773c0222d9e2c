"""Real servers for the tests: databases of their own on the embedded PostgreSQL, or on DATABASE_URL's server where that is set.

The CRM and the CDP are loaded once into template databases; a test that asks for `systems` gets copies of its own, or the CRM's that the last
test left as it was, reached by roles that calm_console/roles/ makes, with its grants and nothing else. The console itself works by the role that
is not its tables' owner.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import hypothesis
import psycopg
import pytest

from calm_console import roles

pytest_plugins = ["tests.faults.fixtures"]
hypothesis.settings.register_profile("whatever the machine's pace", deadline=None)
hypothesis.settings.load_profile("whatever the machine's pace")

ROLES = {"crm": "calm_test_reader", "cdp": "calm_test_cdp", "console": "calm_test_console"}
PASSWORD = "calm-test"
SEEDED = ("gates_gate", "gates_milestone", "auth_group", "auth_group_permissions", "auth_permission", "django_content_type")
RECORDS = ("migration_event", "migration_mappingrevision", "gates_evidence", "gates_signoff")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files that take long first, then those with most tests: the last file of a run has one process to itself, while the others wait.

    `make faults` names its files in their order.
    """
    if "fault or" in config.option.markexpr:
        return
    number = Counter(item.path for item in items)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, -number[item.path], item.path))


def at(url: str, database: str, user: str = "", password: str = "") -> str:
    """The URL with another database, and another login where one is given."""
    parts = urlsplit(url)
    login = f"{user}:{password}@{parts.netloc.rpartition('@')[2]}" if user else parts.netloc
    return urlunsplit(parts._replace(netloc=login, path=f"/{database}"))


def run_sql(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def rows(url: str, query: str, parameters: object = None) -> list[tuple]:
    """The answer to one query, read as the database's owner."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(query, parameters).fetchall()


@dataclass
class Systems:
    """A CRM and a CDP of one test: `crm` and `cdp` are the owner's URLs, for arranging and looking; the console has the roles' ones."""

    crm_url: str
    cdp: str
    usman: str
    crm_is_as_loaded: bool = True  # nobody took its owner's URL, and the console may only read

    @property
    def crm(self) -> str:
        self.crm_is_as_loaded = False
        return self.crm_url

    def change_crm(self, *statements: str) -> None:
        run_sql(self.crm, *statements)

    def change_cdp(self, *statements: str) -> None:
        run_sql(self.cdp, *statements)

    def activities(self, where: str = "true") -> list[tuple]:
        """Whole rows of contact_activity_logs, but the time of insertion, by id."""
        return rows(
            self.cdp,
            f"""SELECT id::text, account_id::text, contact_id::text, category, actor_kind, actor_id, actor_name, occurred_at,
                       changes::text, context::text, origin, source_audit_id, run_id::text
                FROM contact_activity_logs WHERE {where} ORDER BY id""",
        )


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """The console's test database is this process's own too, so that two test runs at once do not meet."""
    from django.db import connection

    connection.settings_dict["TEST"]["NAME"] = f"calm_test_{os.getpid()}_console"
    operations = type(connection.ops)  # the class: beside a running event loop (Playwright) Django opens another connection
    operations.sql_flush = emptying_all_but_the_seeds  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def django_db_setup(postgres, django_db_setup, django_db_blocker) -> Iterator[None]:
    """Once its tables are made, the console works by the role of console.sql that does not own them."""
    from django.db import connection

    options = connection.settings_dict["OPTIONS"]
    before = options.get("options", "")
    with django_db_blocker.unblock():
        work_by_the_limited_role()
    yield
    with django_db_blocker.unblock():
        connection.close()
    options["options"] = before  # the owner drops the database


def work_by_the_limited_role() -> None:
    """The connection's owner grants what console.sql grants; from then on the console works by that role."""
    from django.db import connection

    with connection.cursor() as cursor:
        roles.grant(cursor.connection, "console", role=ROLES["console"], owner=cursor.connection.info.user)
    connection.close()
    options = connection.settings_dict["OPTIONS"]
    options["options"] = f"{options.get('options', '')} -c role={ROLES['console']}"


def emptying_all_but_the_seeds(operations: object, style: object, tables: Iterable[str], **how: bool) -> list[str]:
    """What empties the tables between tests: schema migrations seed some, which stay; records refuse it, so their triggers rest meanwhile.

    Only what holds rows is emptied, and by DELETE: TRUNCATE makes the files of every table and index anew.
    """
    filled = holding_rows([table for table in tables if table not in SEEDED])
    rest = [f'ALTER TABLE "{table}" DISABLE TRIGGER USER' for table in RECORDS if table in filled]
    again = [f'ALTER TABLE "{table}" ENABLE TRIGGER USER' for table in RECORDS if table in filled]
    # By the owner, for this transaction. Foreign keys are checked once all is deleted; a table for which such a check is still due cannot be altered.
    return ["SET LOCAL ROLE NONE", *rest, *(f'DELETE FROM "{table}"' for table in filled), "SET CONSTRAINTS ALL IMMEDIATE", *again]


def holding_rows(tables: list[str]) -> list[str]:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(f"SELECT '{table}' WHERE EXISTS (SELECT FROM \"{table}\")" for table in tables))
        return [row[0] for row in cursor.fetchall()]


@pytest.fixture
def quick_passwords(settings) -> None:
    """Django's own hasher takes half a second for each."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(scope="session")
def postgres() -> str:
    """The owner's URL of the server; the login roles exist on it."""
    url = os.environ["DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as connection:
        for name, role in ROLES.items():
            for statement, created in roles.statements(name, role=role, owner=connection.info.user, DBNAME=connection.info.dbname):
                if created == role:
                    with suppress(psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):  # of an earlier run on this server
                        connection.execute(statement)
                        connection.execute(f"ALTER ROLE {role} PASSWORD '{PASSWORD}'")
    return url


@pytest.fixture(scope="session")
def templates(postgres: str) -> Iterator[dict[str, str]]:
    """Template databases: the samples as the demo loads them."""
    from calm_console.demo import sample

    names = {name: f"calm_test_{os.getpid()}_{name}" for name in ("crm_sample", "crm_sample_yaml", "sample_cdp")}
    for name, database in names.items():
        run_sql(postgres, f"CREATE DATABASE {database} TEMPLATE template0 ENCODING 'UTF8'")
        if name == "sample_cdp":
            sample.load_cdp(at(postgres, database), role=ROLES["cdp"])
        else:
            sample.load_crm(at(postgres, database), dump=name, reader=ROLES["crm"])
    yield names
    for database in names.values():
        run_sql(postgres, f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")


@pytest.fixture(scope="session")
def usman_url() -> Iterator[str]:
    """The USMAN stand-in over the sample's users, over real HTTP."""
    from calm_console.demo.stand_ins import DATA

    yield from serve_usman(DATA / "sample_usman_users.json")


def serve_usman(users: Path) -> Iterator[str]:
    from calm_console.demo import stand_ins

    server = stand_ins.server("usman", 0, users)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def as_loaded(postgres) -> Iterator[dict[str, str]]:
    """Databases that stand from the last test, to be used by the next: name -> template."""
    found: dict[str, str] = {}
    yield found
    for name in found:
        run_sql(postgres, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def systems(request, postgres, templates, as_loaded, usman_url, settings, transactional_db) -> Iterator[Systems]:
    """Copies of the sample CRM and CDP as they were loaded, and the console's settings pointed at them through the limited roles.

    `@pytest.mark.parametrize("systems", ["crm_sample_yaml"], indirect=True)` chooses the CRM sample.
    """
    wanted = {"crm": getattr(request, "param", "crm_sample"), "cdp": "sample_cdp"}
    names = {system: f"calm_test_{os.getpid()}_{system}" for system in wanted}
    for system, template in wanted.items():
        if as_loaded.pop(names[system], "") == template:
            run_sql(postgres, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{names[system]}'")
        else:
            copy(postgres, templates[template], names[system], system)
    settings.CRM_DATABASE_URL = at(postgres, names["crm"], ROLES["crm"], PASSWORD)
    settings.CDP_DATABASE_URL = at(postgres, names["cdp"], ROLES["cdp"], PASSWORD)
    settings.USMAN_URL = usman_url
    found = Systems(at(postgres, names["crm"]), at(postgres, names["cdp"]), usman_url)
    yield found
    if found.crm_is_as_loaded:
        as_loaded[names["crm"]] = wanted["crm"]
    else:
        run_sql(postgres, f"DROP DATABASE IF EXISTS {names['crm']} WITH (FORCE)")
    run_sql(postgres, f"DROP DATABASE IF EXISTS {names['cdp']} WITH (FORCE)")


def copy(postgres: str, template: str, name: str, system: str) -> None:
    """A copy of a template database, with the role's grants."""
    run_sql(postgres, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name} TEMPLATE {template}")
    with psycopg.connect(at(postgres, name)) as owner:  # grants on the database itself do not come with a template
        roles.grant(owner, system, role=ROLES[system])
