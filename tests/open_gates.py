"""The console's settings for processes of the tests that are not about gates: none refuses, D and E are open."""

from calm_console.settings import *  # noqa: F403

GATE_POLICY = "tests.migration.policies.with_d_and_e"
