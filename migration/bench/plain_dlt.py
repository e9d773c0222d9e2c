"""The same rows by dlt, for comparison: append to a table of its own, with no index. Called only where dlt is installed (requirements.txt here)."""

import importlib
import os
import tempfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from migration.bench.server import connected

BATCH = 1000
JSON = {name: {"data_type": "json"} for name in ("changes", "context")}


def copy_rows(finished: str, target: str, number: int) -> int:
    """Read `number` finished rows as dicts and have dlt append them in the target's database; how many it says it loaded."""

    def rows() -> Iterator[list[dict[str, Any]]]:
        with connected(finished) as source, source.transaction(), source.cursor(name="finished") as cursor:
            cursor.execute("SELECT * FROM contact_activity_logs WHERE origin = 'crm_migration' LIMIT %s", (number,))
            names = [column.name for column in cursor.description or ()]
            while batch := cursor.fetchmany(BATCH):
                yield [dict(zip(names, row, strict=True)) for row in batch]

    dlt = importlib.import_module("dlt")  # by name: type checks pass without it
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        pipeline = dlt.pipeline("bench", destination=dlt.destinations.postgres(as_url(target)), dataset_name="dlt", pipelines_dir=folder)
        pipeline.run(rows(), table_name="activities", columns=JSON, write_disposition="append")
        counts = pipeline.last_trace.last_normalize_info.row_counts
    return int(counts["activities"])


def as_url(conninfo: str) -> str:
    """libpq's "host=... dbname=..." as the URL that dlt takes."""
    parts = {name: quote(str(value), safe="") for name, value in conninfo_to_dict(conninfo).items()}
    return f"postgresql://{parts['user']}:{parts.get('password', '')}@{parts.get('host', '')}:{parts.get('port', 5432)}/{parts['dbname']}"
