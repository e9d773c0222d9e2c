"""One process of the benchmark: `python -m migration.bench.worker`, with its order as a line of JSON on standard input.

It gets everything ready, says so, waits for a line, works, and prints one line of JSON. So that start-up is nobody's time, and two workers
begin at the same moment.
"""

import gc
import json
import sys
from typing import Any

import django
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict


def main() -> None:
    order = json.loads(sys.stdin.readline())
    configure(order)
    django.setup()
    from migration.bench import meter, server, tasks

    with server.connected(order["server"]) as connection:
        clock = meter.Meter(meter.postmaster_of(connection))
    work = tasks.TASKS[order["task"]](order.get("options") or {}, clock)
    gc.collect()
    gc.freeze()  # as a Celery worker's process does
    print("ready", flush=True)
    sys.stdin.readline()
    start = clock.read()
    result = work()
    print(json.dumps(result | {"cost": clock.read().since(start), "peak_megabytes": meter.peak_megabytes()}, default=str), flush=True)


def configure(order: dict[str, Any]) -> None:
    """This process's systems are the scratch databases, and its gates are open for them."""
    parts = conninfo_to_dict(order["console"])
    console = {
        key: parts.get(name, "")
        for key, name in (("NAME", "dbname"), ("USER", "user"), ("PASSWORD", "password"), ("HOST", "host"), ("PORT", "port"))
    }
    settings.DATABASES = {"default": settings.DATABASES["default"] | console}
    settings.GATE_POLICY = "migration.bench.policy.decide"
    for name, value in order["settings"].items():
        setattr(settings, name, value)


if __name__ == "__main__":
    main()
