"""A worker that stops at each named point: killed there, or frozen and thawed once another has done its work."""

import pytest

from tests.faults.points import POINTS
from tests.faults.processes import PARTIAL, assert_undisturbed, ended, kill, reach, run_account, thaw

pytestmark = pytest.mark.slow
ONCE = ("planning", "verifying")  # passed by no more than once in a run
IN_CI = ("staging", "before commit", "committed")  # the short part; `make faults` has all


def each_point(*in_ci: str) -> list:
    return [pytest.param(point, marks=[] if point in in_ci else [pytest.mark.fault]) for point in POINTS]


@pytest.mark.parametrize("point", each_point(*IN_CI))
def test_killed_there(console, settings, point):
    with run_account(settings, point=point, skip=0 if point in ONCE else 2) as child:
        reach(child)
        kill(child)
    with run_account(settings) as child:
        assert ended(child) == PARTIAL
    assert_undisturbed(console)


@pytest.mark.parametrize("point", each_point("before commit"))
def test_frozen_there_and_thawed_when_all_is_done(console, settings, point):
    with run_account(settings, point=point, skip=0 if point in ONCE else 2) as frozen:
        reach(frozen)
        with run_account(settings) as other:
            assert ended(other) == PARTIAL
        thaw(frozen)
        assert ended(frozen) == PARTIAL
    assert_undisturbed(console)
