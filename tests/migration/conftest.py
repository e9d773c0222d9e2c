"""Shortcuts through the console's own commands and functions, used by the tests of the main job."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from migration import accounts, revisions, runs, steps
from migration.models import Account, Run
from migration.states import FINISHED, RunMode

DEMO = Path(__file__).parents[2] / "calm_console" / "demo"
OWNER = "test:1"


def now() -> datetime:
    return datetime.now(UTC)


def mapping_document() -> dict:
    """The demo's mapping: SPEC section 8's classes and id-sets."""
    return json.loads((DEMO / "mapping.json").read_text())


def run_account(organisation: int, mode: RunMode = RunMode.PRODUCTION, chunk_size: int | None = None) -> Run:
    """Start a run and work on it here until it ends."""
    run = runs.start(runs.Wish(Account.objects.get(crm_organization_id=organisation), mode, chunk_size), by="tester", now=now())
    while run.state not in FINISHED:
        steps.step(run, owner=OWNER)
        run.refresh_from_db()
    return run


@pytest.fixture
def console(systems, settings):
    """The sample systems with accounts synced and the demo's mapping published; no gate refuses, D and E are open."""
    settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"
    accounts.sync(now=now())
    revisions.publish(mapping_document(), by="tester", note="", now=now())
    return systems
