"""What a session of a PostgreSQL server is set to once it is open. By a statement, since poolers refuse the options that come with a login.

A session of ours bears a mark. One that bears another's when it begins, or later, is not its opener's alone: a pooler in transaction mode hands it
on between two statements, with its settings, its locks, and a temporary table full of another account's rows.
"""

import psycopg
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

MARK = "calm_console.session"
SET = "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS given(name, value)"
SHARED = (
    "a pooler in between hands one session on to several of the console: put it in session mode, where it empties each (DISCARD ALL); "
    "sessions that it has open already must be closed"
)

# Of the console's own database; what the server, the database or the role prefers would else hold.
CONSOLE = {
    "idle_in_transaction_session_timeout": "60s",  # a process that is frozen in the middle of a transaction must not hold its locks: all need them
    "default_transaction_isolation": "read committed",  # what one transaction waited for, it then sees
    "DateStyle": "ISO, YMD",  # psycopg reads times and intervals in no other form
    "IntervalStyle": "postgres",
}


def set_up(connection: psycopg.Connection, settings: dict[str, str]) -> None:
    """Apply the settings, and the mark, for as long as the session lasts."""
    marked = settings | {MARK: mark_of(connection)}
    connection.execute(SET, (list(marked), list(marked.values())))


def is_shared(connection: psycopg.Connection) -> bool:
    """Whether the session bears the mark of another one."""
    row = connection.execute("SELECT current_setting(%s, true)", (MARK,)).fetchone()
    return row is not None and row[0] not in (None, "", mark_of(connection))


def mark_of(connection: psycopg.Connection) -> str:
    """The number by which the server, or the pooler, knows this connection of ours."""
    return str(connection.info.backend_pid)


def set_up_console(connection: BaseDatabaseWrapper, **_: object) -> None:
    """Django has opened a connection to the console's database."""
    with connection.wrap_database_errors:
        if is_shared(connection.connection):
            connection.close()
            raise OperationalError(SHARED)
        set_up(connection.connection, CONSOLE)
