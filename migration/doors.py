"""What the three doors out (crm.py, cdp.py, usman.py) have in common: two kinds of refusal, and how PostgreSQL's become one."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.conf import settings as configured
from django.db import Error as ConsoleError
from django.db import connection as console

from calm_console import sessions
from calm_console.faults import REFUSED_FOR_NOW, sentence

# Connection, resources, shutdown, system, recovery conflict or deadlock, a lock that somebody else holds, what is refused for now.
GOES_AWAY = ("08", "53", "57P", "58", "40", "55P03", *REFUSED_FOR_NOW)

# The connection went, a conflict with recovery, a statement or a transaction took too long or was cancelled, the session was ended.
BROKEN_OFF = (None, "40001", "25P04", "57014", "57P01")

UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # what JSON can hold in a string, and PostgreSQL neither in a text nor in jsonb


class Outage(RuntimeError):
    """A system outside does not answer. Nothing is wrong with the data: waiting cures it."""


class BrokenOff(Outage):
    """The server ended a statement, or the connection, in the middle: a replica does so where replay must go on."""

    def __init__(self, sentence: str, variable: str) -> None:
        super().__init__(sentence)
        self.variable = variable


class Misconfigured(RuntimeError):
    """A URL, a right, a table or a column is not as it must be. Somebody has to change something."""


@contextmanager
def translated(variable: str) -> Iterator[None]:
    """Turn psycopg's errors about the server into Outage or Misconfigured, naming `variable`; errors about data pass as they are."""
    try:
        yield
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise Misconfigured(sentence(variable, error)) from error
    except psycopg.Error as error:
        if error.sqlstate in BROKEN_OFF and not isinstance(error, psycopg.DataError):  # psycopg's own, of a value that it cannot read
            raise BrokenOff(sentence(variable, error), variable) from error
        if is_outage(error):
            raise Outage(sentence(variable, error)) from error
        raise


@contextmanager
def console_translated() -> Iterator[None]:
    """The same for the console's own database: where it went away or dropped the session, an Outage, and the next question opens another."""
    try:
        yield
    except ConsoleError as error:
        if not (isinstance(error.__cause__, psycopg.Error) and is_outage(error.__cause__)):
            raise
        console.close()
        raise Outage(sentence("DATABASE_URL", error)) from error


def check_idle(connection: psycopg.Connection) -> None:
    """Raise RuntimeError where the session is in the middle of a COPY: psycopg would wait for its end, and so for ever."""
    if connection.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
        raise RuntimeError("this session is in the middle of a COPY and cannot be asked anything else")


def check_unshared(connection: psycopg.Connection, variable: str) -> None:
    """Raise Misconfigured where the session is no longer this one's alone: temporary tables and settings would be somebody else's."""
    if sessions.is_shared(connection):
        raise Misconfigured(f"{variable}: {sessions.SHARED}.")


def is_outage(error: psycopg.Error) -> bool:
    """Whether the server or the way to it failed, as against the statement or its data."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(GOES_AWAY)


def connect(variable: str, url: str, *, application: str, timeout: int, settings: dict[str, str]) -> psycopg.Connection:
    """An autocommit connection with `settings` applied; raises Outage or Misconfigured with a sentence that names `variable`."""
    if not url:
        raise Misconfigured(f"{variable} is not set: set it to postgresql://user:password@host:5432/name.")
    try:
        given = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # its text quotes the whole URL, so it may not be seen in a traceback either
        raise Misconfigured(f"{variable} cannot be read as a URL: write postgresql://user:password@host:5432/name.") from None
    patience: dict[str, Any] = {name: value for name, value in configured.TCP_PATIENCE.items() if name not in given}
    try:
        connection = psycopg.connect(
            url, autocommit=True, connect_timeout=timeout, application_name=application, prepare_threshold=None, **patience
        )
    except psycopg.OperationalError as error:
        raise (Outage if is_transient(error) else Misconfigured)(sentence(variable, error)) from error
    session = {
        "TimeZone": "UTC",
        "DateStyle": "ISO, YMD",
        "IntervalStyle": "postgres",
        "default_transaction_isolation": "read committed",  # a load sees what it waited for
        "client_encoding": "UTF8",
        "standard_conforming_strings": "on",  # off where a server's settings are older than PostgreSQL 9.1: '\N' would be N
        "quote_all_identifiers": "off",  # types are known by their names
        "lock_timeout": "10s",
        "idle_session_timeout": "10min",  # one session waits while another is asked
    } | settings
    try:
        with translated(variable):
            if not sessions.set_up(connection, session):
                raise Misconfigured(f"{variable}: {sessions.SHARED}.")
    except BaseException:
        connection.close()
        raise
    return connection


def is_transient(error: psycopg.OperationalError) -> bool:
    """A refused password, role or database name is a mistake in the URL; everything else may pass."""
    text = str(error).lower()
    return not ("authentication failed" in text or "does not exist" in text or "no password supplied" in text or "pg_hba" in text)
