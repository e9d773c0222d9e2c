"""No broker at all, and no worker: ticks by themselves bring a run to its end."""

import pytest

from tests.faults.processes import assert_undisturbed, finish_by_ticks, start

pytestmark = [pytest.mark.slow, pytest.mark.fault]
NOBODY = "redis://127.0.0.1:1/0"


def test_a_run_without_redis_and_without_workers(console, settings):
    run = start(60)
    finish_by_ticks(settings, run, pause=0, REDIS_URL=NOBODY)
    assert_undisturbed(console)
