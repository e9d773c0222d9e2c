"""Holds a finished production run to what the oracle expects: rows, quarantined candidates, and every number of the ledger."""

from collections.abc import Sequence
from functools import cache

from migration import ledger
from migration.models import Run
from migration.states import RunState
from tests.conftest import Systems
from tests.migration.oracle import Expected, expected
from tests.migration.oracle_sample import Sample, read_sample


@cache
def sample() -> Sample:
    """The demo's sample; nobody may change it."""
    return read_sample()


def assert_as_expected(systems: Systems, run: Run, known: Sample | None = None) -> None:
    """The first production run of an account: all its rows, whole, and nothing else."""
    wanted = expected(known or sample(), run.account.crm_organization_id, capabilities=frozenset(run.capabilities))
    assert_same(written(systems, run), wanted.rows())
    aside = set(run.quarantined.values_list("audit_id", "person_id", "reason"))
    assert aside == wanted.quarantined(), aside ^ wanted.quarantined()
    assert numbers(run) == numbers_of(wanted), (numbers(run), numbers_of(wanted))
    assert run.verification and run.verification["agrees"], run.verification
    assert run.state == (RunState.PARTIAL if wanted.quarantined() else RunState.SUCCEEDED)


def written(systems: Systems, run: Run) -> list[tuple]:
    """The rows of ours that the account has, by id, without their run."""
    return [row[:-1] for row in systems.activities(f"origin = 'crm_migration' AND account_id = '{run.account.cdp_id}'")]


def assert_same(rows: Sequence[tuple], wanted: Sequence[tuple]) -> None:
    """Whole rows, each once; the message tells where they differ."""
    found = differences(rows, wanted)
    assert not found, "\n".join(found[:20])
    assert len(rows) == len(wanted)


def differences(rows: Sequence[tuple], wanted: Sequence[tuple]) -> list[str]:
    """One line for each row that is missing, surplus or different, with the fields in question."""
    have, want = {row[0]: row for row in rows}, {row[0]: row for row in wanted}
    lines = [f"missing {want[key]}" for key in want.keys() - have] + [f"surplus {have[key]}" for key in have.keys() - want]
    for key in have.keys() & want.keys():
        fields = [f"{a!r} for {b!r}" for a, b in zip(have[key], want[key], strict=True) if a != b]
        lines += [f"audit {want[key][11]}: {', '.join(fields)}"] if fields else []
    return lines


def numbers(run: Run) -> dict[str, object]:
    """The run's ledger, and what it counts beside it."""
    found = ledger.of(run)
    counters = ("skipped", "quarantined", "waived", "categories", "actor_kinds", "beyond")
    plain = {name: getattr(found, name) for name in ("candidates", "written", "corrected", "unchanged", "already_live", "balances")}
    return plain | {name: dict(getattr(found, name)) for name in counters}


def numbers_of(wanted: Expected) -> dict[str, object]:
    """The same of a run that finds none of its rows there."""
    return {
        "candidates": len(wanted.candidates),
        "written": len(wanted.rows()),
        "corrected": 0,
        "unchanged": 0,
        "already_live": sum(wanted.count("already_live").values()),
        "balances": True,
        "skipped": wanted.count("skipped"),
        "quarantined": wanted.count("quarantined"),
        "waived": {},
        "categories": wanted.column("category"),
        "actor_kinds": wanted.column("actor_kind"),
        "beyond": dict(wanted.beyond),
    }
