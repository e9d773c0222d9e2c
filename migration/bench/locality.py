"""What the order of ids costs as the table grows: the pipeline's UUIDs, which rise with the person, beside ones made by a hash.

Three tables with the CDP's indexes grow in turn by a chunk each, so that what disturbs the machine disturbs all. CPU is the session's own.
"""

import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import psycopg
from django.conf import settings

from migration.bench import meter
from migration.bench.server import Scratch, connected

CHUNK = 10_000
ORDERED = "(lpad(to_hex(n / 30), 12, '0') || '80008' || lpad(to_hex(abs(hashint8(n))::bigint << 8 | n %% 30), 15, '0'))::uuid"
HASHED = "md5('id ' || n)::uuid"
KINDS = {"ordered": (ORDERED, "id"), "hashed": (HASHED, "n"), "hashed, chunks sorted": (HASHED, "id")}
GROW = """
    EXPLAIN (ANALYZE, WAL, TIMING OFF, FORMAT JSON)
    INSERT INTO {table} (id, account_id, contact_id, category, actor_kind, occurred_at, changes, context, origin, source_audit_id, run_id)
    SELECT id, '00000000-0000-0000-0000-000000000001', md5((n / 30)::text)::uuid, 'contact/update', 'system',
           timestamptz '2024-01-01 00:00 UTC' + (abs(hashint8(n)) %% 63000000) * interval '1 second', changes, '{{}}', 'crm_migration',
           abs(hashint8(n + 1))::bigint << 24 | n, '00000000-0000-0000-0000-000000000002'
    FROM (SELECT n, {id} AS id, jsonb_build_object('body', repeat(md5(n::text), 10)) AS changes FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
          ORDER BY {order} OFFSET 0) made
    ON CONFLICT (id) DO NOTHING"""


def measured(scratch: Scratch, rows: int, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """By kind of id: µs of CPU and bytes of WAL a row, in the first and the last tenth, and megabytes of the primary key."""
    scratch.create("ids")
    spent: dict[str, list[tuple[float, int]]] = defaultdict(list)
    with connected(scratch.of("ids")) as connection:
        connection.execute((settings.BASE_DIR / "calm_console" / "demo" / "data" / "cdp_schema.sql").read_bytes())
        tables = {kind: f"logs_{number}" for number, kind in enumerate(KINDS)}
        for table in tables.values():
            connection.execute(f"CREATE TABLE {table} (LIKE contact_activity_logs INCLUDING ALL)")
        for first in range(0, rows, CHUNK):
            for kind, (id_of, order) in KINDS.items():
                statement = GROW.format(table=tables[kind], id=id_of, order=order)
                spent[kind].append(grown(connection, statement, {"first": first, "last": first + CHUNK - 1}))
            if first % 500_000 == 0:
                say(f"  {first + CHUNK:,} rows in each table")
        return {kind: told(connection, table, spent[kind]) for kind, table in tables.items()}


def grown(connection: psycopg.Connection, statement: str, values: dict[str, Any]) -> tuple[float, int]:
    """Seconds of CPU and bytes of WAL of one chunk."""
    before = cpu(connection)
    row = connection.execute(statement, values).fetchone()
    plan = row[0] if row else []
    plan = json.loads(plan) if isinstance(plan, str) else plan
    return cpu(connection) - before, plan[0]["Plan"]["WAL Bytes"]


def cpu(connection: psycopg.Connection) -> float:
    found = meter.stat(connection.info.backend_pid) or []
    return sum(map(int, found[11:13])) / meter.TICKS


def told(connection: psycopg.Connection, table: str, spent: list[tuple[float, int]]) -> dict[str, float]:
    tenth = max(1, len(spent) // 10)
    size = connection.execute("SELECT pg_relation_size(%s::regclass)", (f"{table}_pkey",)).fetchone()
    found: dict[str, float] = {"rows": len(spent) * CHUNK, "primary_key_megabytes": round((size[0] if size else 0) / 1e6, 1)}
    for name, some in (("first", spent[:tenth]), ("last", spent[-tenth:])):
        found[f"{name}_cpu_us_per_row"] = round(1e6 * sum(each for each, _ in some) / (len(some) * CHUNK), 2)
        found[f"{name}_wal_bytes_per_row"] = round(sum(each for _, each in some) / (len(some) * CHUNK), 1)
    return found
