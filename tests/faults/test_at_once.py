"""Two of everything, a clock that is off, and a mapping that is published in between: nothing doubles, nothing changes its mind."""

import copy
from datetime import timedelta
from functools import partial

import pytest

from migration import batch_plans, revisions
from migration.batch_plans import Plan
from migration.models import Account, Run
from migration.states import BatchState, RunMode
from migration.tasks import tick_of_beat
from migration.watermark import from_json
from tests.faults.processes import (
    ORGANISATION,
    PARTIAL,
    assert_undisturbed,
    at_chunk,
    ended,
    finish_by_ticks,
    is_over,
    process,
    reach,
    run_account,
    start,
    thaw,
    tick,
    until,
    worker,
)
from tests.migration.against_oracle import assert_as_expected
from tests.migration.conftest import mapping_document, now
from tests.migration.test_admin_work import sent_to
from tests.migration.test_batches import ALWAYS

pytestmark = [pytest.mark.slow, pytest.mark.fault]
SMALL = 20
HOUR = 3600
DAY = timedelta(days=1)


def test_two_commands_and_workers_at_once(console, settings, broker):
    start(SMALL)
    with worker(settings, REDIS_URL=broker.url()):
        tick(settings, REDIS_URL=broker.url())
        with run_account(settings, chunk_size=SMALL) as one, run_account(settings, chunk_size=SMALL) as other:
            assert (ended(one), ended(other)) == (PARTIAL, PARTIAL)
    assert Run.objects.count() == 1
    assert_undisturbed(console)


@pytest.mark.parametrize("seconds", [-HOUR, HOUR])
def test_one_worker_s_clock_is_an_hour_off(console, settings, seconds):
    """It is stopped in between, so that its leases run out, and those of the other do not: by the database's clock."""
    with run_account(settings, chunk_size=SMALL, FAULT_SLOW_READ="0.1", FAULT_CLOCK=str(seconds), point="staged", skip=4) as off:
        reach(off)
        with run_account(settings, chunk_size=SMALL, FAULT_SLOW_READ="0.1") as right:
            until(partial(at_chunk, 8))
            thaw(off)
            assert (ended(off), ended(right)) == (PARTIAL, PARTIAL)
    assert Run.objects.get().chunks.order_by("-attempts")[0].attempts <= 2  # only the one that was stopped was tried again
    assert_undisturbed(console)


@pytest.mark.parametrize("seconds", [-HOUR, HOUR])
def test_the_only_worker_s_clock_is_an_hour_off(console, settings, broker, seconds):
    """It takes beat's tick and the nudges for what they are, and brings the run to its end."""
    run = start(SMALL)
    with sent_to(broker.url()):
        tick_of_beat.apply_async()
    with worker(settings, 1, REDIS_URL=broker.url(), FAULT_CLOCK=str(seconds)):
        until(partial(is_over, run))
    assert_undisturbed(console)


def test_two_beats_at_once(console, settings, broker):
    """A batch of one account, dry run and production, driven by two ticks at a time."""
    account = Account.objects.get(crm_organization_id=ORGANISATION)
    batch = batch_plans.plan(Plan("beats", [account], ALWAYS, canary=0), by="tester", now=now())
    with worker(settings, REDIS_URL=broker.url()):
        for _ in range(30):
            ticks = [process(settings, "manage.py", "tick", REDIS_URL=broker.url()) for _ in range(2)]
            with ticks[0] as one, ticks[1] as other:
                assert (ended(one), ended(other)) == (0, 0)
            batch.refresh_from_db()
            if batch.state not in (BatchState.PLANNED, BatchState.RUNNING):
                break
    assert batch.state == BatchState.DONE, batch.reason
    assert list(Run.objects.order_by("pk").values_list("mode", flat=True)) == [RunMode.DRY_RUN, RunMode.PRODUCTION]
    assert_undisturbed(console)


def test_a_mapping_that_is_published_meanwhile_changes_nothing_of_the_run(console, settings, broker):
    """Neither for the worker that began it nor for one that takes it up afterwards."""
    document = mapping_document()
    other = copy.deepcopy(document)
    other["class_roles"]["note"], other["id_sets"]["won"] = [], ["1"]
    with run_account(settings, point="committed", skip=3) as first:
        reach(first)
        revisions.publish(other, by="tester", note="", now=now())
        with worker(settings, REDIS_URL=broker.url()):
            finish_by_ticks(settings, Run.objects.get(), REDIS_URL=broker.url())
        thaw(first)
        assert ended(first) == PARTIAL
    run = Run.objects.get()
    assert_as_expected(console, run)
    assert run.mapping_revision.number == 1
    revisions.publish(document, by="tester", note="", now=now())
    assert_undisturbed(console)


@pytest.mark.parametrize("years", [-3, 3])
def test_whose_history_is_ours_does_not_hang_on_the_clock_of_whoever_plans(console, settings, years):
    """No live row tells a watermark of organisation 3, so it is a day ago, by the database's clock; so are all times of the run."""
    with process(
        settings, "manage.py", "run_account", "3", "--mode", "production", "--inline", FAULT_CLOCK=str(years * 365 * 24 * HOUR)
    ) as child:
        assert ended(child) == PARTIAL
    run = Run.objects.get()
    moments = [
        *from_json(run.watermark).values(),
        run.planned_at - DAY,
        run.finished_at - DAY,
        *(each.at - DAY for each in run.events.all()),
    ]
    assert now() - DAY - timedelta(minutes=5) < min(moments) and max(moments) < now() - DAY
    assert_as_expected(console, run)
