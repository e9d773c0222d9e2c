"""Whether the CDP's tables can take what the console writes: looked at when the door opens, since else a first load succeeds and the next one fails."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import psycopg

from migration.doors import Misconfigured
from migration.tables import INTEGERS, TEXTS, Columns, hides_rows

UUID, JSONB, TEXT = frozenset({"uuid"}), frozenset({"jsonb"}), TEXTS | {"citext"}
TYPES: dict[str, dict[str, frozenset[str]]] = {
    "accounts": {"id": UUID, "crm_organization_id": INTEGERS},
    "contacts": {"id": UUID, "account_id": UUID, "source_id": INTEGERS},
    "contact_activity_logs": {
        **dict.fromkeys(("id", "account_id", "contact_id", "run_id"), UUID),
        **dict.fromkeys(("category", "actor_kind", "actor_id", "actor_name"), TEXT),
        "occurred_at": frozenset({"timestamp with time zone"}),
        "changes": JSONB,
        "context": JSONB,
        "source_audit_id": INTEGERS,
    },
}
LOGS = "contact_activity_logs"
WRITTEN = [*TYPES[LOGS], "origin"]
UNIQUE = {
    ("id",): "ADD PRIMARY KEY (id)",
    ("source_audit_id", "contact_id"): "ADD UNIQUE (source_audit_id, contact_id)",  # a live row that comes meanwhile is kept apart by it
}

# Digits of a second that occurred_at keeps (-1: all), columns that nobody fills, and the columns of each unique index, by name: whole ones, or those
# that leave only rows without an audit out.
LOOK = """
    SELECT (SELECT atttypmod FROM pg_attribute WHERE attrelid = logs AND attname = 'occurred_at'),
           ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = logs AND attnum > 0 AND NOT attisdropped AND attnotnull AND NOT atthasdef
                 AND attidentity = '' AND attname <> ALL(%(written)s) ORDER BY attnum),
           coalesce((SELECT json_agg((SELECT json_agg(attname ORDER BY attname) FROM pg_attribute
                                      WHERE attrelid = logs AND attnum = ANY((indkey::int2[])[0:indnkeyatts - 1])))
                     FROM pg_index
                     WHERE indrelid = logs AND indisunique AND indisvalid AND indimmediate AND indexprs IS NULL
                       AND (indpred IS NULL OR pg_get_expr(indpred, indrelid) = '(source_audit_id IS NOT NULL)')), '[]')
    FROM (SELECT to_regclass('contact_activity_logs')::oid AS logs) looked_at"""


def check(connection: psycopg.Connection, variable: str, tables: Mapping[str, Columns]) -> None:
    """Raise Misconfigured for the first thing that is not as it must be, with its cure."""
    (row,) = connection.execute(LOOK, {"written": WRITTEN}).fetchall()
    sentence = next(chain(wrong_types(tables), wrong_logs(*row), hidden(connection)), None)
    if sentence:
        raise Misconfigured(f"{variable}: {sentence}.")


def wrong_types(tables: Mapping[str, Columns]) -> Iterator[str]:
    for table, known in TYPES.items():
        for column, types in known.items():
            found = tables[table][column]
            if found.rpartition(".")[2] not in types:  # an extension's type comes with its schema where no search_path reaches it
                yield f"column {table}.{column} is of type {found}; the console needs {' or '.join(sorted(types))}"


def wrong_logs(digits: int, unfilled: list[str], unique: list[Any]) -> Iterator[str]:
    if 0 <= digits < 6:
        yield (
            f"column {LOGS}.occurred_at keeps {digits} digits of a second, and the CRM's audits have 6: "
            f"ALTER TABLE {LOGS} ALTER occurred_at TYPE timestamptz"
        )
    for column in unfilled:
        yield f"column {LOGS}.{column} takes no NULL, has no default, and is none that the console fills: give it a default"
    for columns, cure in UNIQUE.items():
        if sorted(columns) not in unique:
            yield f"table {LOGS} has no unique index on ({', '.join(columns)}), so rows could come twice: ALTER TABLE {LOGS} {cure}"


def hidden(connection: psycopg.Connection) -> Iterator[str]:
    """A contact or a row that a policy hides is one that is not there: its history would be missing, and nothing would say so."""
    for table, role, shows_all in hides_rows(connection, list(TYPES)):
        if not shows_all:
            yield (
                f"table {table} is under row security, which may hide rows from role {role}, and so history: "
                f"CREATE POLICY calm_console ON {table} TO {role} USING (true)"
            )
