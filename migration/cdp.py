"""The door to the CDP: accounts and contacts to read, contact_activity_logs to write, and our own schema `calm` for receipts."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from uuid import UUID

import psycopg
from django.conf import settings

from migration import cdp_shape
from migration.doors import Misconfigured, check_idle, check_unshared, connect, translated
from migration.tables import Columns, Need, checked

VARIABLE = "CDP_DATABASE_URL"
NEEDED = {
    "accounts": Need(("id", "crm_organization_id", "name")),
    "contacts": Need(("id", "account_id", "source", "source_id")),
    "contact_activity_logs": Need(
        (
            "id", "account_id", "contact_id", "category", "actor_kind", "actor_id", "actor_name", "occurred_at", "changes", "context", "origin",
            "source_audit_id", "run_id",
        ),
        rights="SELECT, INSERT, UPDATE",
    ),
}  # fmt: skip
# One row for each chunk: the fence (the highest fencing token seen) and, once the chunk is committed, its receipt.
SCHEMA = """\
CREATE SCHEMA IF NOT EXISTS calm;
CREATE TABLE IF NOT EXISTS calm.receipts (
    chunk        uuid PRIMARY KEY,
    run_id       uuid NOT NULL,
    account_id   uuid NOT NULL,
    token        bigint NOT NULL,
    generation   integer NOT NULL,
    receipt      jsonb,
    committed_at timestamptz
);
CREATE INDEX IF NOT EXISTS receipts_run ON calm.receipts (run_id);
"""
CLAIMS = """
    SELECT source_id, array_agg(id::text ORDER BY id) FROM contacts
    WHERE account_id = %s AND source = 'crm' AND source_id {} GROUP BY source_id ORDER BY source_id"""
# Moments that Python can tell: beyond are infinity, years before Christ, and those of five digits.
TELLABLE = "BETWEEN '0001-01-02' AND '9999-12-30'"


class Cdp:
    """One session, autocommit. Raises Outage where the server does not answer, Misconfigured where something must be changed."""

    def __init__(self) -> None:
        self.connection = connect(
            VARIABLE,
            settings.CDP_DATABASE_URL,
            application="calm-console load",
            timeout=settings.CONNECT_TIMEOUT_SECONDS,
            settings={
                "statement_timeout": f"{settings.CDP_STATEMENT_TIMEOUT_SECONDS}s",
                "idle_in_transaction_session_timeout": "60s",  # a frozen client must not hold row locks
                "jit": "off",
                "enable_mergejoin": "off",  # a chunk's temporary tables have no statistics: its wide rows would be sorted once more for a join
                "temp_buffers": "32MB",  # a chunk's staging stays in memory; PostgreSQL's own 8 MB would write it to a file
                "work_mem": "16MB",  # sorting a chunk too
            },
        )
        self.has_staging = False  # whether the session has the loader's temporary tables
        try:
            with translated(VARIABLE):
                self.tables = look_at(self.connection)  # the columns of each
        except BaseException:
            self.connection.close()
            raise

    def close(self) -> None:
        self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection]:
        with translated(VARIABLE), self.connection.transaction():
            yield self.connection

    def check_unshared(self) -> None:
        """Raise Misconfigured where another session has been let into this one, and so to its temporary tables."""
        with translated(VARIABLE):
            check_unshared(self.connection, VARIABLE)

    def rows(self, query: object, parameters: Sequence[object] | Mapping[str, object] = ()) -> list[tuple]:
        check_idle(self.connection)
        with translated(VARIABLE):
            return self.connection.execute(query, parameters or None).fetchall()  # type: ignore[call-overload]

    def prepare(self) -> bool:
        """Make schema calm where it is missing; True if it was. Raises Misconfigured with the cure where the role may not."""
        if self.rows("SELECT to_regclass('calm.receipts') IS NOT NULL")[0][0]:
            return False
        try:
            with self.transaction() as connection:
                connection.execute("SELECT pg_advisory_xact_lock(hashtext('calm.receipts'))")
                connection.execute(SCHEMA)
        except Misconfigured as error:
            raise Misconfigured(
                f"{VARIABLE}: schema calm is missing and the role may not make it: have its owner run what `manage.py prepare_cdp --sql` prints."
            ) from error
        return True

    def accounts(self) -> list[tuple[UUID, int, str]]:
        """Every account: (id, CRM organisation id, name)."""
        return self.rows("SELECT id, crm_organization_id, name FROM accounts ORDER BY crm_organization_id")

    def contacts_by_account(self) -> list[tuple[UUID, int, str, int]]:
        """Every account: (id, CRM organisation id, name, contacts with a source_id), most contacts first. Reads `contacts` once."""
        return self.rows(
            """SELECT a.id, a.crm_organization_id, a.name, count(c.id) FROM accounts a
               LEFT JOIN contacts c ON c.account_id = a.id AND c.source = 'crm' AND c.source_id >= 0
               GROUP BY a.id, a.crm_organization_id, a.name ORDER BY 4 DESC, 2"""
        )

    def persons(self, account: UUID) -> "array[int]":
        """The CRM person ids that contacts of the account claim, ascending, each once; 8 bytes each, since there may be a million."""
        query = "SELECT DISTINCT source_id FROM contacts WHERE account_id = %s AND source = 'crm' AND source_id >= 0 ORDER BY 1"
        check_idle(self.connection)
        with translated(VARIABLE), self.connection.cursor() as cursor:
            return array("q", (row[0] for row in cursor.stream(query, (account,), size=1000)))

    def contacts(self, account: UUID, first: int, last: int) -> dict[int, list[str]]:
        """CRM person id -> ids of the account's contacts that claim it, for persons from `first` to `last`."""
        return dict(self.rows(CLAIMS.format("BETWEEN %s AND %s"), (account, first, last)))

    def contacts_of(self, account: UUID, persons: list[int]) -> dict[int, list[str]]:
        """The same for single persons."""
        return dict(self.rows(CLAIMS.format("= ANY(%s)"), (account, persons)))

    def contacts_without_source_id(self, account: UUID) -> int:
        return self.rows(
            "SELECT count(*) FROM contacts WHERE account_id = %s AND source = 'crm' AND (source_id IS NULL OR source_id < 0)", (account,)
        )[0][0]

    def rival_claims(self, account: UUID) -> list[tuple[int, int]]:
        """(CRM person id, organisation id of the other account), for this account's persons that another account claims too.

        The CDP has no index on source_id alone, so this reads `contacts` once: it is asked once for each run.
        """
        query = """SELECT DISTINCT theirs.source_id, a.crm_organization_id
                   FROM contacts ours JOIN contacts theirs USING (source_id) JOIN accounts a ON a.id = theirs.account_id
                   WHERE ours.account_id = %s AND ours.source = 'crm' AND theirs.source = 'crm' AND theirs.account_id <> ours.account_id"""
        return self.rows(query, (account,))

    def live_since(self, account: UUID) -> dict[str, datetime]:
        """Entity -> earliest occurred_at of the account's live rows of that entity, by way of the contacts' timeline index."""
        query = f"""SELECT split_part(l.category, '/', 1), min(l.occurred_at)
                   FROM contact_activity_logs l
                   WHERE l.contact_id IN (SELECT id FROM contacts WHERE account_id = %s) AND l.account_id = %s AND l.origin = 'live'
                         AND l.occurred_at {TELLABLE}
                   GROUP BY 1"""  # noqa: S608 - a constant only
        return dict(self.rows(query, (account, account)))


def look_at(connection: psycopg.Connection) -> dict[str, Columns]:
    """Check encoding, tables, columns and rights; return each table's columns."""
    if connection.info.parameter_status("server_encoding") != "UTF8":
        encoding = connection.info.parameter_status("server_encoding")
        raise Misconfigured(f"{VARIABLE}: the database's encoding is {encoding}: history holds every script, so the CDP must be UTF8.")
    found = checked(connection, VARIABLE, NEEDED, "see docs/operations.md for the schema it needs")
    cdp_shape.check(connection, VARIABLE, found)
    row = connection.execute("SELECT has_database_privilege(current_database(), 'TEMP'), current_user, current_database()").fetchone()
    if row and not row[0]:
        raise Misconfigured(f"{VARIABLE}: role {row[1]} may not make temporary tables: GRANT TEMP ON DATABASE {row[2]} TO {row[1]}.")
    return found
