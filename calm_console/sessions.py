"""What a session of a PostgreSQL server is set to once it is open. By a statement, since poolers refuse the options that come with a login.

A session of ours bears a mark. One that bears another's when it begins, or later, is not its opener's alone: a pooler in transaction mode hands it
on between two statements, with its settings, its locks, and a temporary table full of another account's rows.
"""

import psycopg
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

MARK = "calm_console.session"
# The mark as it was found, and all settings, the mark last; another's mark stays.
SET = """
    SELECT current_setting(%(mark)s, true),
           set_config(name, CASE WHEN name = %(mark)s THEN coalesce(nullif(current_setting(name, true), ''), value) ELSE value END, false)
    FROM unnest(%(names)s::text[], %(values)s::text[]) WITH ORDINALITY AS given(name, value, place) ORDER BY place"""
SHARED = (
    "a pooler in between hands one session on to several of the console: put it in session mode, where it empties each (DISCARD ALL); "
    "sessions that it has open already must be closed"
)

# What cannot keep every character. SQL_ASCII keeps the bytes that it is given.
WRONG_ENCODING = (
    "the database's encoding is {}, and names are written in every script: make one of encoding UTF8 (CREATE DATABASE … TEMPLATE template0 "
    "ENCODING 'UTF8'), and restore a dump of this one into it"
)

# Of the console's own database; what the server, the database or the role prefers would else hold.
CONSOLE = {
    "idle_in_transaction_session_timeout": "60s",  # a process that is frozen in the middle of a transaction must not hold its locks: all need them
    "default_transaction_isolation": "read committed",  # what one transaction waited for, it then sees
    "DateStyle": "ISO, YMD",  # psycopg reads times and intervals in no other form
    "IntervalStyle": "postgres",
}


def set_up(connection: psycopg.Connection, settings: dict[str, str]) -> bool:
    """Apply the settings, and the mark, for as long as the session lasts; False where it bears another's mark, which stays."""
    marked = settings | {MARK: mark_of(connection)}
    row = connection.execute(SET, {"mark": MARK, "names": list(marked), "values": list(marked.values())}).fetchone()
    return row is not None and row[0] in (None, "", mark_of(connection))


def is_shared(connection: psycopg.Connection) -> bool:
    """Whether what was set up is another session by now, or another's: it bears no mark, or not this one's."""
    row = connection.execute("SELECT current_setting(%s, true)", (MARK,)).fetchone()
    return row != (mark_of(connection),)


def mark_of(connection: psycopg.Connection) -> str:
    """The number by which the server, or the pooler, knows this connection of ours."""
    return str(connection.info.backend_pid)


def set_up_console(connection: BaseDatabaseWrapper, **_: object) -> None:
    """Django has opened a connection to the console's database."""
    encoding = connection.connection.info.parameter_status("server_encoding")
    if encoding not in (None, "UTF8", "SQL_ASCII"):
        connection.close()
        raise OperationalError(WRONG_ENCODING.format(encoding))
    with connection.wrap_database_errors:
        given = connection.settings_dict["OPTIONS"].get("options", "")  # by whoever wrote DATABASE_URL: it stays
        if not set_up(connection.connection, {name: value for name, value in CONSOLE.items() if name not in given}):
            connection.close()
            raise OperationalError(SHARED)
