"""`manage.py run_account`: the one object that --json prints, and what the exit code says."""

import json
from io import StringIO

import pytest
from django.core.management import call_command

from migration.models import Run
from migration.states import RunState
from migration.watermark import ENTITIES
from tests.migration.hard_rows import NOBODYS, few_contacts


def run_account(organisation: int, mode: str) -> tuple[object, dict]:
    """The exit code and the object, which is all that stands on standard output."""
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("run_account", organisation, mode=mode, inline=True, json=True, stdout=out, stderr=StringIO())
    return ended.value.code, json.loads(out.getvalue())


def test_the_object_has_the_keys_of_the_specification(console):
    code, told = run_account(3, "dry-run")
    run = Run.objects.get()
    assert (code, run.state) == (3, RunState.PARTIAL)
    assert told.pop("categories")["deal/won"] == 17
    assert told.pop("actor_kinds") == {
        "deactivated_user": 213, "integration": 17, "label": 10, "system": 12, "unknown_user": 66, "user": 294,
    }  # fmt: skip
    assert told.pop("seconds") == (run.finished_at - run.started_at).total_seconds() > 0
    assert told.pop("production_takes") == pytest.approx((run.finished_at - run.started_at).total_seconds()), (
        "at the one pace that is known"
    )
    assert told["watermark"].keys() == told["boundary"].keys() == set(ENTITIES)
    assert told == {
        "run": run.pk,
        "account": 3,
        "mode": "dry_run",
        "state": "partial",
        "reason": "1 candidate is quarantined.",
        "watermark": run.watermark,
        "mapping_revision": 1,
        "ledger": {
            "candidates": 613,
            "written": 612,
            "corrected": 0,
            "unchanged": 0,
            "already_live": 0,
            "skipped": {},
            "quarantined": {"contact_ambiguous": 1},
            "waived": {},
            "balances": True,
        },
        "recategorised": {},
        "verification": run.verification,
        "beyond_watermark": {},
        "boundary": run.boundary,
        "warnings": [],
        "prediction": None,
        "contacts_without_source_id": 3,
        "stale": 0,
    }


def test_production_is_told_beside_what_its_dry_run_foresaw(console):
    _, foreseen = run_account(1, "dry-run")
    _, told = run_account(1, "production")
    of_dry = foreseen["ledger"] | {"categories": foreseen["categories"], "actor_kinds": foreseen["actor_kinds"]}
    del of_dry["balances"]
    assert told["prediction"] == {"run": foreseen["run"], "agrees": True, "predicted": of_dry, "actual": of_dry}
    assert told["beyond_watermark"] == foreseen["beyond_watermark"] == {"contact/create": 26, "contact/update": 11}


def test_complete_is_0_and_failed_is_1(console):
    few_contacts(console, 9)
    code, told = run_account(1, "production")
    assert (code, told["state"]) == (0, "succeeded")
    console.change_cdp(NOBODYS)
    code, told = run_account(1, "production")
    assert (code, told["state"], told["verification"]["misfits"]) == (1, "failed", 1)
