"""The door to the CRM's replica: read-only by setting, SELECT on `audits` and `users` only. Nothing else connects there."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from django.conf import settings
from psycopg import sql

from migration.doors import Misconfigured, Outage, check_idle, connect, is_outage, translated
from migration.tables import INTEGERS, TEXTS, Columns, Need, checked

VARIABLE = "CRM_DATABASE_URL"
NEEDED = {
    "audits": Need(
        (
            "id", "auditable_id", "auditable_type", "associated_id", "associated_type", "user_id", "user_type", "username", "action",
            "audited_changes", "version", "comment", "created_at",
        )
    ),
    "users": Need(("id", "email")),
}  # fmt: skip
NAMES = TEXTS | {"citext"}
INTEGER_TEXT = re.compile(r"-?[0-9]{1,19}")
UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")

# For a question about many contacts at once: pages are read in the order in which they lie, each once, and a server with disks to wait for
# fetches ahead. The planner would go row by row, since it takes a long list of ids for dear to check again.
BY_SETS = """
    SELECT set_config('enable_indexscan', 'off', true), set_config('enable_bitmapscan', 'on', true), set_config('enable_sort', 'off', true),
           set_config('work_mem', '16MB', true)"""

# For the next few of many in the order of an index, from where the last ones ended: where a condition lets few through by the planner's guess, it would
# read all and sort them, for each few again.
IN_ORDER = "SELECT set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true)"

# A primary that writes nothing sends nothing: the time of the last replayed transaction then grows, though nothing is missing. One that was started again
# and has replayed none since tells no such time: it is as old as the checkpoint that it began from.
LAG = """
    SELECT CASE WHEN NOT pg_is_in_recovery() THEN NULL
                WHEN EXISTS (SELECT FROM pg_stat_wal_receiver) AND pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
                ELSE extract(epoch FROM clock_timestamp() - coalesce(pg_last_xact_replay_timestamp(), (SELECT checkpoint_time FROM pg_control_checkpoint())))
           END"""


@dataclass(frozen=True)
class Shape:
    """What the CRM's tables look like, as far as a query or a reader depends on it. Types are information_schema's names."""

    changes: str  # jsonb, json, or text (then it holds Ruby YAML)
    record_id: str  # auditable_id
    associated_id: str
    user_id: str
    created_at: str
    has_request: bool  # request_uuid came with gem 4.0


class Crm:
    """One read-only session. `tables` (the columns of each) and `shape` are looked at once, when the session opens.

    Raises Outage where the server does not answer, Misconfigured where URL, encoding, tables, columns or rights are not as needed.
    """

    def __init__(self) -> None:
        self.connection = connect(
            VARIABLE,
            settings.CRM_DATABASE_URL,
            application="calm-console read",
            timeout=settings.CONNECT_TIMEOUT_SECONDS,
            settings={
                "default_transaction_read_only": "on",
                "statement_timeout": f"{settings.CRM_STATEMENT_TIMEOUT_SECONDS}s",
                "idle_in_transaction_session_timeout": "10min",
                # Every query here goes through the gem's indexes by contact; on a table of any size a scan would be a mistake of the planner.
                "enable_seqscan": "off",
                "enable_hashjoin": "off",
                "enable_mergejoin": "off",
                "jit": "off",
                "max_parallel_workers_per_gather": "0",  # a session takes one core of the CRM's, and starts no processes for some thousand rows
            },
        )
        try:
            with translated(VARIABLE):
                self.tables = look_at(self.connection)
                self.shape = shape_of(self.tables["audits"])
        except BaseException:
            self.connection.close()
            raise

    def close(self) -> None:
        self.connection.close()

    @contextmanager
    def snapshot(self) -> Iterator[psycopg.Connection]:
        """One repeatable-read, read-only transaction: all that is read in it is of one moment."""
        with translated(VARIABLE):
            self.connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            try:
                yield self.connection
            finally:
                if self.connection.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                    self.connection.close()  # left in the middle of a COPY: no use to anybody
                elif not self.connection.closed:
                    self.connection.rollback()

    def rows(self, query: sql.Composed | str, parameters: tuple[object, ...] = ()) -> list[tuple]:
        """The answer to one small query, outside any snapshot."""
        check_idle(self.connection)
        with translated(VARIABLE):
            return self.connection.execute(query, parameters or None).fetchall()

    def rows_by_sets(self, query: sql.Composed) -> list[tuple]:
        """The answer to a query about hundreds or thousands of contacts, outside any snapshot; see BY_SETS."""
        return self.rows_planned(BY_SETS, query)

    def rows_in_order(self, query: sql.Composed) -> list[tuple]:
        """The answer to a query for the next few in an index's order, outside any snapshot; see IN_ORDER."""
        return self.rows_planned(IN_ORDER, query)

    def rows_planned(self, settings: str, query: sql.Composed) -> list[tuple]:
        check_idle(self.connection)
        with translated(VARIABLE), self.connection.transaction():
            self.connection.execute(settings)
            return self.connection.execute(query).fetchall()

    def refusal(self, statement: sql.Composed) -> tuple[str | None, str]:
        """Try a write that must be refused, in a transaction that is always taken back: (SQLSTATE, the server's words); None where it went through.

        The transaction may write as far as the session's own setting goes; a standby allows none.
        """
        check_idle(self.connection)
        standby = self.rows("SELECT pg_is_in_recovery()")[0][0]
        with translated(VARIABLE):
            self.connection.execute("BEGIN" if standby else "BEGIN READ WRITE")
            try:
                self.connection.execute("SET LOCAL lock_timeout = '2s'")
                return None, self.connection.execute(statement).statusmessage or ""
            except psycopg.errors.LockNotAvailable as error:
                raise Outage(f"{VARIABLE}: another session holds a lock, so no write could be tried ({error}): wait for it.") from error
            except psycopg.Error as error:
                takes_no_writes = isinstance(error, psycopg.errors.ReadOnlySqlTransaction)  # elsewhere an outage, here the refusal
                if not takes_no_writes and (is_outage(error) or isinstance(error, psycopg.errors.QueryCanceled)):
                    raise
                return error.sqlstate, error.diag.message_primary or ""
            finally:
                if not self.connection.closed:
                    self.connection.rollback()

    def users(self, ids: list[str]) -> dict[str, tuple[str | None, str | None]]:
        """CRM users by id, as text: (e-mail, name). Ids that the table does not hold are absent."""
        if not ids:
            return {}
        query = sql.SQL("SELECT id::text, email, {name} FROM users WHERE id = ANY(%s::text[]::{type}[])").format(
            name=sql.Identifier(settings.CRM_USER_NAME_COLUMN), type=sql.SQL(self.tables["users"]["id"])
        )
        return {key: (email, name) for key, email, name in self.rows(query, (self.storable_ids(ids),))}

    def lag(self) -> float | None:
        """Seconds that the replica is behind its primary; None where this is no replica. One that has replayed all it was sent is not behind."""
        with translated(VARIABLE):
            row = self.connection.execute(LAG).fetchone()
        return None if row is None or row[0] is None else max(0.0, float(row[0]))

    def storable_ids(self, ids: list[str]) -> list[str]:
        """Those ids that users.id could hold: a foreign type of key must not fail the query."""
        kind = self.tables["users"]["id"]
        if kind in INTEGERS:
            bits = {"smallint": 15, "integer": 31, "bigint": 63}[kind]
            return [i for i in ids if INTEGER_TEXT.fullmatch(i) and -(2**bits) <= int(i) < 2**bits]
        if kind == "uuid":
            return [i for i in ids if UUID_TEXT.fullmatch(i)]
        return ids


def look_at(connection: psycopg.Connection) -> dict[str, Columns]:
    """Check encoding, tables, columns and rights; return each table's columns."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding == "SQL_ASCII":
        raise Misconfigured(
            f"{VARIABLE}: the database's encoding is SQL_ASCII, so its text has no known meaning: serve it from a UTF8 database."
        )
    found = checked(connection, VARIABLE, NEEDED, "it must be as the audited gem (4.0 or later) makes it")
    if settings.CRM_USER_NAME_COLUMN not in found["users"]:
        raise Misconfigured(
            f"{VARIABLE}: table users has no column {settings.CRM_USER_NAME_COLUMN}: set CRM_USER_NAME_COLUMN to the one that holds the name "
            f"({', '.join(sorted(found['users']))})."
        )
    return found


def shape_of(audits: Columns) -> Shape:
    """Raises Misconfigured for a type of column that no reader of ours knows."""
    shape = Shape(
        changes="text" if audits["audited_changes"] in TEXTS else audits["audited_changes"],
        record_id=audits["auditable_id"],
        associated_id=audits["associated_id"],
        user_id=audits["user_id"],
        created_at=audits["created_at"],
        has_request="request_uuid" in audits,
    )
    for column, found, known in (
        ("id", audits["id"], INTEGERS),  # its order is that of events, and a row's id is made of it
        ("audited_changes", shape.changes, {"jsonb", "json", "text"}),
        ("auditable_type", audits["auditable_type"], NAMES),  # an enum would refuse to be compared with a class that it does not have
        ("associated_type", audits["associated_type"], NAMES),
        ("auditable_id", shape.record_id, INTEGERS | TEXTS),
        ("associated_id", shape.associated_id, INTEGERS | TEXTS),
        ("created_at", shape.created_at, {"timestamp without time zone", "timestamp with time zone"}),
    ):
        if found.rpartition(".")[2] not in known:  # an extension's type comes with its schema where no search_path reaches it
            raise Misconfigured(f"{VARIABLE}: column audits.{column} is of type {found}; the console reads {', '.join(sorted(known))}.")
    return shape
