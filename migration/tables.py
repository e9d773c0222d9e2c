"""What a door looks at when it opens: whether the tables are there, have the columns that are needed, and may be used. One question for all of them."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import psycopg

from migration.doors import Misconfigured

LOOK = """
    SELECT name, coalesce((SELECT json_object_agg(attname, coalesce(nullif(format_type(type, NULL), 'character'), 'bpchar') ORDER BY attnum)
                           FROM pg_attribute JOIN pg_type t ON t.oid = atttypid, LATERAL (SELECT coalesce(nullif(typbasetype, 0), t.oid)) of(type)
                           WHERE attrelid = to_regclass(name) AND attnum > 0 AND NOT attisdropped), '{}'),
           ARRAY(SELECT wanted FROM unnest(string_to_array(rights, ', ')) wanted WHERE NOT has_table_privilege(to_regclass(name)::oid, wanted)),
           current_user::text
    FROM unnest(%s::text[], %s::text[]) AS needed(name, rights)"""

# Of the tables those under row security for this session, and whether a policy shows it every row all the same.
ROW_SECURITY = """
    SELECT format('%%I.%%I', n.nspname, c.relname), quote_ident(current_user),
           coalesce(bool_or(p.polpermissive AND everything), false) AND coalesce(bool_and(p.polpermissive OR everything), true)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN LATERAL (
        SELECT q.polpermissive, pg_get_expr(q.polqual, q.polrelid) = 'true' AS everything FROM pg_policy q
        WHERE q.polrelid = c.oid AND q.polcmd IN ('r', '*')
          AND EXISTS (SELECT FROM unnest(q.polroles) r(oid) WHERE r.oid = 0 OR pg_has_role(r.oid, 'USAGE'))) p ON true
    WHERE c.oid IN (SELECT to_regclass(name) FROM unnest(%s::text[]) AS asked(name)) AND row_security_active(c.oid)
    GROUP BY 1 ORDER BY 1"""

INTEGERS = frozenset({"smallint", "integer", "bigint"})
TEXTS = frozenset({"character varying", "text"})

# Name -> type, in the table's order: as information_schema calls it, a domain's own, but bpchar where a cast to "character" would keep one letter.
Columns = dict[str, str]


class Need(NamedTuple):
    """What is needed of a table."""

    columns: Iterable[str]
    rights: str = "SELECT"


def checked(connection: psycopg.Connection, variable: str, needed: Mapping[str, Need], cure: str) -> dict[str, Columns]:
    """Table -> its columns, of the tables that unqualified names reach. Raises Misconfigured for the first that is not as needed.

    `cure`: what is to be done where a column is missing.
    """
    rights = [need.rights for need in needed.values()]
    found: dict[str, Columns] = {}
    for table, columns, lacking, role in connection.execute(LOOK, (list(needed), rights)).fetchall():
        if not columns:
            raise Misconfigured(f"{variable}: there is no table {table}: check which database it names, and its search_path.")
        if missing := [name for name in needed[table].columns if name not in columns]:
            raise Misconfigured(f"{variable}: table {table} has no column {', '.join(missing)}: {cure}.")
        for right in lacking:
            may_not = f"may not read table {table}" if right == "SELECT" else f"lacks {right} on table {table}"
            raise Misconfigured(f"{variable}: role {role} {may_not}: GRANT {right} ON {table} TO {role}.")
        found[table] = columns
    return found


def hides_rows(connection: psycopg.Connection, tables: list[str]) -> list[tuple[str, str, bool]]:
    """Of these tables those under row security for this session: (table, role, whether a policy shows it every row all the same)."""
    return connection.execute(ROW_SECURITY, (tables,)).fetchall()
