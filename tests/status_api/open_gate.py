"""The console's settings for a web process of the tests: gate G is open."""

from calm_console.settings import *  # noqa: F403

STATUS_VISIBLE_POLICY = "tests.status_api.policies.opened"
