"""The benchmark's data: the sample's shapes scaled up, made by the server itself, the same for the same number of rows.

One account is measured. Its contacts differ in weight by the hundred (rank ** -0.8), one activity in ten comes through a deal, and half as
many audits again belong to eight other accounts, whose contacts' ids lie between its own.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
from django.conf import settings

from migration.bench.server import Scratch, connected

ORGANISATION = 1
USERS = 300
SQL = Path(__file__).parent / "sql"


@dataclass(frozen=True)
class Built:
    """What was built, as the audits themselves say: what the pipeline must come to."""

    activities: int
    skipped: int  # updates that changed nothing
    beyond: int  # audits after the live sync began
    persons: int
    audits: int  # of all accounts
    links: int  # activities that come through a deal
    average_bytes: int  # of audited_changes, as text
    live_since: str


def build(scratch: Scratch, rows: int, *, now: datetime) -> Built:
    """Make the databases "crm" and "cdp_empty" with about `rows` activities of the measured account."""
    scratch.create("crm")
    scratch.create("cdp_empty")
    persons = max(12, rows // 30)
    values = {
        "direct": rows - rows // 10,
        "deals": max(1, rows // 107),  # 10.7 activities each on average
        "others": rows // 2,
        "persons": persons,
        "users": USERS,
        "live_since": (now - timedelta(days=30)).replace(tzinfo=None),
    }
    with connected(scratch.of("crm")) as crm, connected(scratch.of("cdp_empty")) as cdp:
        run(crm, "crm.sql", values)
        cdp.execute((settings.BASE_DIR / "calm_console" / "demo" / "data" / "cdp_schema.sql").read_bytes())
        run(cdp, "cdp.sql", values)
        copy_live_rows(crm, cdp)
        vacuum(crm, cdp)
        return told(crm, values)


def run(connection: psycopg.Connection, name: str, values: dict[str, object]) -> None:
    """Run one file's statements; psycopg puts the values in, since a statement that makes a table takes no parameters."""
    with psycopg.ClientCursor(connection) as cursor:
        cursor.execute((SQL / name).read_text(), values)


def copy_live_rows(crm: psycopg.Connection, cdp: psycopg.Connection) -> None:
    columns = "id, account_id, contact_id, category, actor_kind, occurred_at, changes, context, origin, source_audit_id"
    with crm.cursor().copy("COPY (SELECT * FROM live_row) TO STDOUT") as out:
        with cdp.cursor().copy(f"COPY contact_activity_logs ({columns}) FROM STDIN") as into:
            for block in out:
                into.write(block)
    crm.execute("DROP TABLE live_row")


def vacuum(*connections: psycopg.Connection) -> None:
    """So that no autovacuum comes in the middle of a piece for what building left."""
    for connection in connections:
        connection.execute("VACUUM ANALYZE")


def told(crm: psycopg.Connection, values: dict) -> Built:
    row = crm.execute("SELECT activities, skipped, beyond, audits, links, average_bytes FROM expected").fetchone() or (0,) * 6
    crm.execute("DROP TABLE expected")
    activities, skipped, beyond, audits, links, average = map(int, row)
    return Built(activities, skipped, beyond, values["persons"], audits, links, average, values["live_since"].isoformat())


def users_file(folder: Path) -> Path:
    """What USMAN knows of the built users: seven in ten are active, two deactivated, one is unknown to it."""
    users = [
        {"id": f"usm_{n:06}", "email": f"user{n}@bench.example", "name": f"User {n}", "status": "ACTIVE" if n % 10 < 7 else "DEACTIVATED"}
        for n in range(1, USERS + 1)
        if n % 10 != 9
    ]
    path = folder / "users.json"
    path.write_text(json.dumps({"users": users}))
    return path
