"""The CRM: rows that commit late under lower ids, and a row that kills whoever reads it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from migration import splitting
from migration.models import Run
from tests.conftest import Systems, run_sql
from tests.faults.processes import (
    ORGANISATION,
    PARTIAL,
    assert_undisturbed,
    ended,
    finish_by_ticks,
    reach,
    run_account,
    start,
    thaw,
    worker,
)
from tests.migration.against_oracle import sample
from tests.migration.oracle import expected
from tests.migration.test_splitting import a_row, assert_only_one_is_aside

pytestmark = [pytest.mark.slow]
DIRECT = ("contact/", "note/", "task/", "ticket/")  # what no link is needed for


def audits(*categories: str) -> list[int]:
    rows = expected(sample(), ORGANISATION, capabilities=frozenset("DE")).rows()
    return [row[11] for row in rows if row[3].startswith(categories)]


@contextmanager
def held_back(console: Systems, ids: list[int]) -> Iterator[Callable[[], None]]:
    """These audits commit only when the block says so, by the function it is given."""
    console.change_crm(
        f"CREATE TABLE late AS SELECT * FROM audits WHERE id = ANY(ARRAY{ids}::bigint[])",
        f"DELETE FROM audits WHERE id = ANY(ARRAY{ids}::bigint[])",
    )
    yield lambda: run_sql(console.crm, "INSERT INTO audits SELECT * FROM late")
    console.change_crm("DROP TABLE late")


@pytest.mark.parametrize("point", ["claimed", pytest.param("committed", marks=pytest.mark.fault)])
def test_audits_that_commit_while_chunks_run_are_moved_all_the_same(console, settings, point):
    """Some belong to chunks that are done, some to others: verification counts afresh and has the chunks of what is missing done again."""
    ids = audits(*DIRECT)[::15]
    with held_back(console, ids) as commit, run_account(settings, point=point, skip=5) as child:
        reach(child)
        commit()
        thaw(child)
        assert ended(child) == PARTIAL
    assert Run.objects.get().chunks.filter(generation=2).exists()
    assert_undisturbed(console)


@pytest.mark.fault
def test_a_link_that_commits_while_chunks_run_is_moved_all_the_same(console, settings):
    """With everything of the deal that concerns the contact only by that link."""
    with held_back(console, audits("deal/contact_linked")[::3]) as commit, run_account(settings, point="committed", skip=5) as child:
        reach(child)
        commit()
        thaw(child)
        assert ended(child) == PARTIAL
    assert_undisturbed(console)


@pytest.mark.fault
def test_what_commits_after_verification_is_found_by_the_next_run(console, settings):
    ids = audits(*DIRECT)[::40] + audits("deal/contact_linked")[::5]
    with held_back(console, ids) as commit:
        with run_account(settings, point="verifying") as child:
            reach(child)
            commit()
            thaw(child)
            assert ended(child) == PARTIAL
        with run_account(settings) as child:
            assert ended(child) == PARTIAL
    assert_undisturbed(console)


@pytest.mark.fault
@pytest.mark.timeout(240)
def test_a_row_that_kills_its_process_is_found_and_put_aside_alone(console, settings, broker):
    """Celery's own processes die; leases run out, ticks go on."""
    poison = a_row()
    variables = {"REDIS_URL": broker.url(), "LEASE_SECONDS": "1", "FAULT_POISON": str(poison[1])}
    run = start(16)
    with worker(settings, **variables):
        finish_by_ticks(settings, run, patience=180, pause=0.5, **variables)
    assert_only_one_is_aside(console, run, poison, splitting.WORKER_DIED)
