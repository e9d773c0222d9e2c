"""The server that the benchmark runs on, and its scratch databases there. The configured CRM and CDP are never touched."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

import psycopg
from django.conf import settings
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from calm_console import embedded
from migration.doors import Misconfigured

PREFIX = "calm_bench_"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def chosen(given: str | None) -> str:
    """The URL whose server and role make the scratch databases: the one given, else DATABASE_URL's, else the embedded server's owner.

    Raises Misconfigured where the role may not create databases.
    """
    url = given or settings.DATABASE_URL
    role, may = rights(url)
    if not may and not given and is_embedded(url):
        return embedded.admin_url()
    if not may:
        raise Misconfigured(
            f"{'--server' if given else 'DATABASE_URL'}: role {role} may not create databases, and the benchmark needs scratch databases of its own: "
            f"ALTER ROLE {role} CREATEDB, or name a server where a role may with --server postgresql://user:password@host:5432/postgres."
        )
    return url


def rights(url: str) -> tuple[str, bool]:
    """The role's name, and whether it may create databases."""
    with connected(url) as connection:
        row = connection.execute("SELECT rolname, rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    return (row[0], row[1]) if row else ("?", False)


def is_embedded(url: str) -> bool:
    parts = conninfo_to_dict(url)
    return parts.get("host") in LOOPBACK and int(parts.get("port") or 5432) == embedded.running().get("postgres", {}).get("port")


@contextmanager
def connected(url: str) -> Iterator[psycopg.Connection]:
    """An autocommit session in UTC, closed at the end. Raises Misconfigured where there is no way in."""
    try:
        connection = psycopg.connect(url, autocommit=True, connect_timeout=10, options="-c TimeZone=UTC", application_name="calm bench")
    except psycopg.OperationalError as error:
        address = conninfo_to_dict(url)
        raise Misconfigured(
            f"The benchmark's server {address.get('host')}:{address.get('port', 5432)} does not let it in ({type(error).__name__}): "
            "check --server, or DATABASE_URL."
        ) from error
    with connection:
        yield connection


@dataclass
class Scratch:
    """Scratch databases by short name ("crm", "cdp", ...)."""

    url: str
    tag: str = field(default_factory=lambda: token_hex(4))
    names: set[str] = field(default_factory=set)

    def database(self, name: str) -> str:
        return f"{PREFIX}{self.tag}_{name}"[:63]

    def of(self, name: str) -> str:
        """The URL of a scratch database."""
        return make_conninfo(self.url, dbname=self.database(name))

    def create(self, name: str, template: str | None = None) -> None:
        """Make the database afresh: empty and UTF8, or as a copy of another scratch database."""
        self.drop(name)
        self.names.add(name)
        source = sql.Identifier(self.database(template)) if template else sql.SQL("template0 ENCODING 'UTF8'")
        self.run(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(self.database(name)), source))

    def drop(self, name: str) -> None:
        self.run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self.database(name))))
        self.names.discard(name)

    def rename(self, old: str, new: str) -> None:
        self.drop(new)
        self.run(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*(sql.Identifier(self.database(name)) for name in (old, new))))
        self.names = self.names - {old} | {new}

    def run(self, statement: sql.Composed) -> None:
        with connected(self.url) as connection:
            connection.execute(statement)

    def checkpoint(self) -> None:
        """Write out what earlier pieces left dirty, where the role may: none shall pay for another."""
        with connected(self.url) as connection:
            row = connection.execute(
                "SELECT rolsuper OR pg_has_role(current_user, 'pg_checkpoint', 'MEMBER') FROM pg_roles WHERE rolname = current_user"
            )
            if row.fetchone() == (True,):
                connection.execute("CHECKPOINT")


@contextmanager
def scratch(url: str) -> Iterator[Scratch]:
    """Scratch databases that are dropped whatever happens."""
    found = Scratch(url)
    try:
        yield found
    finally:
        for name in sorted(found.names):
            found.drop(name)


def describe(url: str) -> dict[str, Any]:
    """The server's version and the settings that speed depends on."""
    wanted = ("server_version", "shared_buffers", "fsync", "synchronous_commit", "full_page_writes", "wal_level", "max_wal_size")
    with connected(url) as connection:
        return {name: connection.execute("SELECT current_setting(%s)", (name,)).fetchone()[0] for name in wanted}  # type: ignore[index]
