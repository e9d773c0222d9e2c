"""Whether the CRM's audits have the indexes that the extraction goes through, table by table where it is partitioned, or a view."""

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from gates.probes import Finding
from migration.crm import Crm

MOST_MISSING = 50  # tables without one index; a partitioned table may have hundreds
NAMED = 3

# The tables that hold the rows of `audits`: itself, its partitions and children, or what a view of that name reads.
TABLES = """
    WITH RECURSIVE parts(oid) AS (
        SELECT to_regclass('audits')::oid
        UNION
        SELECT next.oid FROM parts CROSS JOIN LATERAL (
            SELECT inhrelid AS oid FROM pg_inherits WHERE inhparent = parts.oid
            UNION ALL
            SELECT d.refobjid FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
            WHERE w.ev_class = parts.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> parts.oid) next)
    SELECT n.nspname, c.relname, c.relkind::text, c.relispartition,
           ARRAY(SELECT t.relname::text FROM pg_class t WHERE t.relnamespace = n.oid AND t.relname = ANY(%s)), i.name, i.usable, i.columns
    FROM parts JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN LATERAL (
        SELECT ic.relname AS name, x.indisvalid AND x.indisready AND x.indislive AS usable,
               ARRAY(SELECT a.attname::text FROM unnest(x.indkey::int2[]) WITH ORDINALITY k(attnum, place)
                     LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum AND a.attnum > 0
                     WHERE k.place <= x.indnkeyatts ORDER BY k.place) AS columns
        FROM pg_index x JOIN pg_class ic ON ic.oid = x.indexrelid JOIN pg_am m ON m.oid = ic.relam
        WHERE x.indrelid = c.oid AND x.indpred IS NULL AND m.amname = 'btree') i ON true
    WHERE c.relkind IN ('r', 'm', 'f')
      AND (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname IN ('auditable_type', 'auditable_id')) = 2
    ORDER BY n.nspname, c.relname, i.name"""


@dataclass(frozen=True)
class Wanted:
    """An index as the gem makes it. Another one serves too, if its first columns are `key`, in whatever order."""

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]


WANTED = (
    Wanted("auditable_index", ("auditable_type", "auditable_id"), ("auditable_type", "auditable_id", "version")),
    Wanted("associated_index", ("associated_type", "associated_id"), ("associated_type", "associated_id")),
    Wanted("audits_pkey", ("id",), ("id",)),
)


@dataclass(frozen=True)
class Table:
    """A table that holds audits: its btree indexes without a condition, as (name, usable, columns; None for an expression)."""

    schema: str
    name: str
    kind: str
    is_partition: bool
    taken: list[str]  # of the gem's names those that something in the schema has
    indexes: list[tuple[str, bool, list[str | None]]]

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def quoted(self) -> str:
        return sql.Identifier(self.schema, self.name).as_string(None)

    def found(self, wanted: Wanted, *, usable: bool = True) -> str | None:
        """The first index that serves; or, not `usable`, that would, were it not invalid."""
        width = len(wanted.key)
        return next((n for n, is_usable, names in self.indexes if is_usable is usable and set(names[:width]) == set(wanted.key)), None)


def tables(crm: Crm) -> list[Table]:
    """The tables that hold audits, by name."""
    found: dict[tuple[str, str], Table] = {}
    for schema, name, kind, is_partition, taken, index, usable, columns in crm.rows(TABLES, ([wanted.name for wanted in WANTED],)):
        table = found.setdefault((schema, name), Table(schema, name, kind, is_partition, taken, []))
        if index is not None:
            table.indexes.append((index, usable, columns))
    return list(found.values())


def look(crm: Crm) -> tuple[list[Finding], list[dict[str, object]]]:
    """(findings, facts): each wanted index once where it is there, and every table (up to MOST_MISSING) that lacks it."""
    held = tables(crm)
    if not held:
        return [Finding(None, "What audits reads from is no table that the probe could look at for indexes: the plans alone tell.")], []
    findings, facts = [], []
    for wanted in WANTED:
        lacking = [table for table in held if table.found(wanted) is None]
        findings.append(missing(wanted, lacking) if lacking else Finding(True, there(wanted, held)))
        facts += [fact(wanted, table) for table in (lacking[:MOST_MISSING] or held[:1])]
    return findings, facts


def fact(wanted: Wanted, table: Table) -> dict[str, object]:
    found = table.found(wanted)
    return {"table": str(table), "columns": list(wanted.columns), "found": found, "create": None if found else create(wanted, table)}


def create(wanted: Wanted, table: Table) -> str | None:
    """The statement that mends it; None for a foreign table, whose indexes are on another server."""
    if table.kind == "f":
        return None
    if broken := table.found(wanted, usable=False):
        return f"REINDEX INDEX CONCURRENTLY {sql.Identifier(table.schema, broken).as_string(None)};"
    name = "" if table.is_partition or wanted.name in table.taken else f"{wanted.name} "
    return f"CREATE INDEX CONCURRENTLY {name}ON {table.quoted} ({', '.join(wanted.columns)});"


def missing(wanted: Wanted, lacking: list[Table]) -> Finding:
    where = ", ".join(map(str, lacking[:NAMED])) + (f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else "")
    statements = [statement for table in lacking[:NAMED] if (statement := create(wanted, table))]
    cure = f"run on the primary: {' '.join(statements)}" if statements else "make it on the server that holds the table"
    if any(table.is_partition for table in lacking):
        cure += " CONCURRENTLY works on each partition by itself, not on the partitioned table"
    elif statements:
        cure = cure.rstrip(";")
    broken = ", but one that is not valid" if any(table.found(wanted, usable=False) for table in lacking) else ""
    return Finding(False, f"{where} has no index by {', '.join(wanted.key)}{broken}: {cure}.")


def there(wanted: Wanted, held: list[Table]) -> str:
    names: Iterator[str] = (f"{table.schema}.{table.found(wanted)}" for table in held[:1])
    more = f", and as much on {len(held) - 1} more tables" if len(held) > 1 else ""
    return f"Index {next(names)} leads to audits by {', '.join(wanted.key)}{more}."
