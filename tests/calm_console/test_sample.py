"""The sample loader, against a PostgreSQL of the tests' own."""

import gzip
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from threading import Thread

import psycopg
import pytest
from psycopg import sql

from calm_console import embedded
from calm_console.demo import sample

NewDatabase = Callable[[], str]


@pytest.fixture(scope="module")
def new_database() -> Iterator[NewDatabase]:
    """Makes an empty database; gives its owner's URL."""
    above = Path(tempfile.mkdtemp(prefix="calm-test-"))
    above.chmod(0o755)
    numbers = count(1)

    def create() -> str:
        name = f"sample{next(numbers)}"
        with psycopg.connect(embedded.admin_url(), autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return embedded.admin_url(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALM_HOME", str(above / "home"))
        patch.delenv("DATABASE_URL", raising=False)
        for name in ("REDIS_URL", "USMAN_URL", "IAG_URL"):
            patch.setenv(name, "not needed")
        try:
            embedded.start(os.environ)
            yield create
        finally:
            embedded.clean()
            shutil.rmtree(above)


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def as_role(url: str, role: str) -> str:
    """The URL of another of the embedded roles for the same database."""
    own = {"crm_reader": "CRM_DATABASE_URL", "calm_cdp": "CDP_DATABASE_URL"}[role]
    return embedded.environment({"CALM_HOME": os.environ["CALM_HOME"]})[own].rpartition("/")[0] + "/" + url.rpartition("/")[2]


def granted(url: str, role: str) -> set[tuple[object, ...]]:
    return set(rows(url, f"SELECT table_name, privilege_type FROM information_schema.role_table_grants WHERE grantee = '{role}'"))


def data_lines(file: str, table: str) -> list[str]:
    """The lines of the table's data block in the dump."""
    text = gzip.decompress((sample.DATA / file).read_bytes()).decode()
    _, _, after = text.partition(f"\nCOPY {table} (") if f"\nCOPY {table} (" in text else text.partition(f"COPY {table} (")
    return after.partition("\n")[2].partition("\n\\.\n")[0].split("\n")


@pytest.mark.parametrize(("dump", "count", "last_id"), [("crm_sample", 2002, 2027), ("crm_sample_yaml", 500, 506)])
def test_the_crm_sample_arrives_as_dumped_once(new_database: NewDatabase, dump: str, count: int, last_id: int) -> None:
    url = new_database()
    assert sample.load_crm(url, dump) is True
    assert sample.load_crm(url, dump) is False
    assert rows(url, "SELECT count(*) FROM audits") == [(count,)]
    assert rows(url, "SELECT nextval('audits_id_seq')") == [(last_id + 1,)]
    assert rows(url, "SELECT count(*) FROM pg_indexes WHERE tablename = 'audits'") == [(6,)]
    with psycopg.connect(url) as connection, connection.cursor().copy("COPY audits TO STDOUT") as copy:
        assert sorted(bytes(line).decode().rstrip("\n") for line in copy) == sorted(data_lines(f"{dump}.sql.gz", "public.audits"))


def test_the_reader_reads_audits_and_users_and_nothing_else(new_database: NewDatabase) -> None:
    url = new_database()
    sample.load_crm(url, reader="crm_reader")
    assert granted(url, "crm_reader") == {("audits", "SELECT"), ("users", "SELECT")}
    reader = as_role(url, "crm_reader")
    assert rows(reader, "SELECT count(*) FROM users") == rows(url, "SELECT count(*) FROM users")
    for refused in ("SELECT 1 FROM crm_people", "DELETE FROM audits", "CREATE TABLE t ()"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            rows(reader, refused)


def test_the_cdp_sample_and_its_role(new_database: NewDatabase) -> None:
    url = new_database()
    assert sample.load_cdp(url, role="calm_cdp") is True
    assert sample.load_cdp(url, role="calm_cdp") is False
    for table in sample.CDP_TABLES:
        assert rows(url, f"SELECT count(*) FROM {table}") == [(len(data_lines("sample_cdp.sql.gz", table)),)]
    activities = {("contact_activity_logs", verb) for verb in ("SELECT", "INSERT", "UPDATE", "DELETE")}
    receipts = {("receipts", verb) for verb in ("SELECT", "INSERT", "UPDATE")}
    assert granted(url, "calm_cdp") == {("accounts", "SELECT"), ("contacts", "SELECT")} | activities | receipts
    with psycopg.connect(as_role(url, "calm_cdp")) as connection:
        connection.execute("CREATE TEMPORARY TABLE staging (LIKE contact_activity_logs)")
        connection.execute("UPDATE calm.receipts SET token = 0")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("UPDATE contacts SET name = name")


@pytest.mark.parametrize("table", ["public.audits", "crm.audits", "public.users", "public.contact_activity_logs"])
def test_somebodys_own_data_is_never_touched(new_database: NewDatabase, table: str) -> None:
    url = new_database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE SCHEMA crm")
        connection.execute(f"CREATE TABLE {table} (id int)".encode())
    for load in (sample.load_crm, sample.load_cdp):
        with pytest.raises(sample.NotTheSample, match=rf"holds a table {table} that is not the demo's sample"):
            load(url)
    tables = "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    assert rows(url, tables) == [(table,)]


def test_one_database_takes_both_samples_but_no_second_crm(new_database: NewDatabase) -> None:
    url = new_database()
    assert (sample.load_cdp(url), sample.load_crm(url), sample.load_cdp(url)) == (True, True, False)
    with pytest.raises(sample.NotTheSample, match=r"holds another sample \(crm_sample\)"):
        sample.load_crm(url, "crm_sample_yaml")


def test_a_load_that_fails_leaves_nothing(new_database: NewDatabase) -> None:
    url = new_database()
    with pytest.raises(psycopg.errors.ReservedName):
        sample.load_crm(url, reader="pg_reader")
    assert rows(url, "SELECT to_regclass('public.audits')") == [(None,)]


def test_two_loaders_at_once_load_once(new_database: NewDatabase) -> None:
    url = new_database()
    loaded: list[bool] = []
    loaders = [Thread(target=lambda: loaded.append(sample.load_cdp(url))) for _ in range(2)]
    for loader in loaders:
        loader.start()
    for loader in loaders:
        loader.join()
    assert sorted(loaded) == [False, True]


def test_the_dumps_settings_end_with_the_transaction(new_database: NewDatabase) -> None:
    with psycopg.connect(new_database()) as connection:
        before = connection.execute("SELECT name, setting FROM pg_settings WHERE source = 'session' OR name = 'search_path'").fetchall()
        connection.commit()
        sample.load(connection, sample.parts(gzip.decompress((sample.DATA / "crm_sample_yaml.sql.gz").read_bytes())))
        connection.commit()
        assert (
            connection.execute("SELECT name, setting FROM pg_settings WHERE source = 'session' OR name = 'search_path'").fetchall()
            == before
        )
