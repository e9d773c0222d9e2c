"""The console's settings for processes of the fault tests: open gates, short waits, and the named points."""

from tests.open_gates import *  # noqa: F403
from tests.open_gates import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.faults.points.Points"]
