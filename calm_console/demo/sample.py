"""Loads the sample dumps with psycopg alone, into databases that hold nothing else of the same name.

A loaded sample is known by a comment on its tables; a table of that name without the comment is somebody's real data, and is never touched.
"""

import gzip
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import psycopg
from psycopg import sql

from calm_console import roles

DATA = Path(__file__).parent / "data"
MARK = "CALM console demo sample: "
CDP_TABLES = ("accounts", "contacts", "contact_activity_logs")
CRM_TABLES = ("audits", "users")  # of the CRM's tables those that the console may read


class NotTheSample(Exception):
    """The database holds something else than the sample; the text says what, and what to do."""


def load_crm(url: str, dump: str = "crm_sample", reader: str | None = None) -> bool:
    """Load the CRM sample `dump` ("crm_sample" or "crm_sample_yaml") as the owner of the database; False if it is there already.

    `reader` is a role that may then read `audits` and `users` and nothing else. All in one transaction. Raises NotTheSample.
    """
    with _transaction(url) as connection:
        new = _is_new(connection, dump, "audits")
        if new:
            load(connection, parts(gzip.decompress((DATA / f"{dump}.sql.gz").read_bytes())))
            _mark(connection, dump, CRM_TABLES)
        if reader:
            roles.grant(connection, roles.CRM, role=reader)
    return new


def load_cdp(url: str, role: str | None = None) -> bool:
    """Load the CDP sample as the owner of the database; False if it is there already.

    `role` may then read accounts and contacts, write contact_activity_logs and remove rows from it; schema calm is there for it. All in one
    transaction. Raises NotTheSample.
    """
    with _transaction(url) as connection:
        new = _is_new(connection, "sample_cdp", "accounts")
        if new:
            load(connection, parts((DATA / "cdp_schema.sql").read_bytes()))
            load(connection, parts(gzip.decompress((DATA / "sample_cdp.sql.gz").read_bytes())))
            _mark(connection, "sample_cdp", CDP_TABLES)
        if role:
            roles.grant(connection, roles.CDP, role=role)
            roles.grant(connection, roles.CDP_DELETE, role=role)
    return new


@contextmanager
def _transaction(url: str) -> Iterator[psycopg.Connection]:
    """One transaction on a connection of its own. One loader at a time, and names without a schema mean `public`."""
    with psycopg.connect(url, connect_timeout=10) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('calm_console.demo.sample', 0))")
        connection.execute("SET LOCAL search_path = public")
        yield connection


def _is_new(connection: psycopg.Connection, dump: str, table: str) -> bool:
    """Whether the sample is still to be loaded; NotTheSample where something else is in its place."""
    found = connection.execute(
        """SELECT n.nspname || '.' || c.relname, c.relname, coalesce(obj_description(c.oid, 'pg_class'), '')
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE c.relname = ANY(%s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
           ORDER BY 1""",
        [[*CRM_TABLES, *CDP_TABLES]],
    ).fetchall()
    for name, _, comment in found:
        if not comment.startswith(MARK):
            raise NotTheSample(
                f"Database {connection.info.dbname} holds a table {name} that is not the demo's sample, so the demo leaves it alone:"
                " name an empty database, or unset the URL to use the embedded one."
            )
    here = [comment for _, relation, comment in found if relation == table]
    if here and here != [MARK + dump]:
        raise NotTheSample(
            f"Database {connection.info.dbname} holds another sample ({here[0].removeprefix(MARK)}): name an empty database."
        )
    return not here


def load(connection: psycopg.Connection, parts: Iterable[tuple[bytes, bytes | None]]) -> None:
    for statement, block in parts:
        if block is None:
            connection.execute(_for_this_transaction(statement))
        else:
            with connection.cursor().copy(statement) as copy:
                copy.write(block)
    connection.execute("SET LOCAL search_path = public")


def parts(dump: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    r"""The statements of a plain dump, each with its data block where it is `COPY ... FROM stdin` (which ends with `\.`).

    A statement ends with the line that ends with a semicolon: so pg_dump writes tables, and these dumps hold no functions.
    """
    lines = BytesIO(dump)
    statement = b""
    for line in lines:
        if not line.strip() or line.startswith(b"--"):
            continue
        statement += line
        if line.rstrip().endswith(b";"):
            is_copy = statement.startswith(b"COPY ")
            yield statement, b"".join(iter(lambda: next(lines), b"\\.\n")) if is_copy else None
            statement = b""


def _for_this_transaction(statement: bytes) -> bytes:
    """pg_dump sets the session up, with an empty search_path among others: behind a pooler that would outlive our connection."""
    if statement.startswith(b"SET "):
        return statement.replace(b"SET ", b"SET LOCAL ", 1)
    if statement.startswith(b"SELECT pg_catalog.set_config("):
        return statement.replace(b", false)", b", true)")
    return statement


def _mark(connection: psycopg.Connection, dump: str, tables: Iterable[str]) -> None:
    for table in tables:
        connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(sql.Identifier("public", table), sql.Literal(MARK + dump)))
        # Fresh statistics now, not when autovacuum comes by: gate B looks at plans.
        connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier("public", table)))
