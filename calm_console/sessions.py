"""What a session of a PostgreSQL server is set to once it is open. By a statement, since poolers refuse the options that come with a login."""

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper

SET = "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS given(name, value)"

# Of the console's own database; what the server, the database or the role prefers would else hold.
CONSOLE = {
    "idle_in_transaction_session_timeout": "60s",  # a process that is frozen in the middle of a transaction must not hold its locks: all need them
    "default_transaction_isolation": "read committed",  # what one transaction waited for, it then sees
    "DateStyle": "ISO, YMD",  # psycopg reads times and intervals in no other form
    "IntervalStyle": "postgres",
}


def set_up(connection: psycopg.Connection, settings: dict[str, str]) -> None:
    """Apply the settings for as long as the session lasts."""
    connection.execute(SET, (list(settings), list(settings.values())))


def set_up_console(connection: BaseDatabaseWrapper, **_: object) -> None:
    """Django has opened a connection to the console's database."""
    with connection.wrap_database_errors:
        set_up(connection.connection, CONSOLE)
