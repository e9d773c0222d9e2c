"""What one process of the benchmark does, by name: each gets ready at once and returns the work that is timed."""

import json
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.management import call_command
from django.utils import timezone

from migration import accounts, ledger, revisions, runs, steps
from migration.bench import estate, floor, timers
from migration.bench.build import ORGANISATION
from migration.bench.meter import Meter
from migration.bench.server import connected
from migration.models import Account, Run
from migration.pipeline.records import Receipt
from migration.states import FINISHED, ChunkState, RunMode

Options = dict[str, Any]
Work = Callable[[], dict[str, Any]]


def prepare(options: Options, clock: Meter) -> Work:
    """The console's own database: tables, accounts, the demo's mapping."""

    def work() -> dict[str, Any]:
        call_command("migrate", verbosity=0)
        accounts.sync(now=timezone.now())
        document = json.loads((settings.BASE_DIR / "calm_console" / "demo" / "mapping.json").read_text())
        revisions.publish(document, by="bench", note="", now=timezone.now())
        return {}

    return work


def move(options: Options, clock: Meter) -> Work:
    """A run of the measured account, or a share of one where another process works on it too, as any worker does it."""
    wish = wished(ORGANISATION, options)

    def work() -> dict[str, Any]:
        settings.READ_AHEAD = settings.READ_AHEAD and not options.get("timed")  # the clock by step knows one lane
        with timers.installed(options.get("timed", False)) as by_step:
            run, phases = worked_through(wish, clock)
        return {"phases": phases, "steps": by_step} | story(run)

    return work


def others(options: Options, clock: Meter) -> Work:
    """Runs of other, smaller accounts, one after another, each with its own time."""
    wishes = [wished(organisation, options) for organisation in options["organisations"]]

    def work() -> dict[str, Any]:
        found = []
        for wish in wishes:
            begun = clock.read()
            run, _ = worked_through(wish, clock)
            found.append(story(run) | {"cost": clock.read().since(begun)})
        return {"rows": sum(each["rows"] for each in found), "accounts": found}

    return work


def wished(organisation: int, options: Options) -> runs.Wish:
    mode = RunMode(options.get("mode", RunMode.PRODUCTION))
    return runs.Wish(Account.objects.get(crm_organization_id=organisation), mode, options["chunk_size"])


def worked_through(wish: runs.Wish, clock: Meter) -> tuple[Run, dict[str, dict[str, float]]]:
    """The run at its end, and what each of its phases cost."""
    owner = f"bench-{uuid4()}"
    run = runs.start(wish, by="bench", now=timezone.now())
    phases: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    while run.state not in FINISHED:
        state, begun = run.state, clock.read()
        if steps.step(run, owner=owner) == steps.Step.WAITING:
            time.sleep(0.1)  # each look costs CPU, which would be counted as work
        run.refresh_from_db()
        for name, spent in clock.read().since(begun).items():
            phases[state][name] += spent or 0.0
    return run, phases


def story(run: Run) -> dict[str, Any]:
    """How the run ended, and what each chunk took."""
    found = ledger.of(run)
    done = run.chunks.filter(state=ChunkState.DONE).order_by("number")
    chunks = [(Receipt.from_json(chunk.receipt or {}), chunk.seconds or 0.0) for chunk in done]
    return {
        "state": run.state,
        "reason": run.reason,
        "candidates": run.candidates,
        "rows": found.loaded,
        "written": found.written,
        "unchanged": found.unchanged,
        "skipped": found.skipped.total(),
        "quarantined": found.quarantined.total(),
        "beyond": found.beyond.total(),
        "chunks": [(receipt.written + receipt.corrected + receipt.unchanged, seconds) for receipt, seconds in chunks],
    }


def anchor(options: Options, clock: Meter) -> Work:
    """COPY | COPY, binary, of finished rows into the indexed table."""

    def work() -> dict[str, Any]:
        with connected(options["finished"]) as source, connected(settings.CDP_DATABASE_URL) as target:
            with source.cursor().copy(
                "COPY (SELECT * FROM contact_activity_logs WHERE origin = 'crm_migration') TO STDOUT (FORMAT binary)"
            ) as out:
                cursor = target.cursor()
                with cursor.copy("COPY contact_activity_logs FROM STDIN (FORMAT binary)") as into:
                    for block in floor.blocks(out):
                        into.write(block)
        return {"rows": cursor.rowcount}

    return work


def orm(options: Options, clock: Meter) -> Work:
    """Finished rows by the Django ORM: iterator() here, bulk_create there."""
    from migration.bench.orm import copy_rows

    return lambda: {"rows": copy_rows(options["finished"], options["rows"])}


def dlt(options: Options, clock: Meter) -> Work:
    """Finished rows by dlt: dicts here, append there."""
    from migration.bench.plain_dlt import copy_rows

    return lambda: {"rows": copy_rows(options["finished"], settings.CDP_DATABASE_URL, options["rows"])}


TASKS: dict[str, Callable[[Options, Meter], Work]] = {
    "prepare": prepare,
    "move": move,
    "others": others,
    "floor": floor.floor,
    "anchor": anchor,
    "orm": orm,
    "dlt": dlt,
    "estate": estate.estate,
}
