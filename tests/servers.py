"""A pytest plugin, loaded before Django reads its settings: which PostgreSQL server the tests use."""

import os

from calm_console import embedded


def server_url() -> str:
    """A PostgreSQL server on which the tests may make databases and roles."""
    given = os.environ.get("DATABASE_URL", "").strip()
    if given:
        return given
    embedded.start(os.environ)
    return embedded.admin_url()


os.environ["DATABASE_URL"] = server_url()  # before Django reads its settings: the embedded console role may not make test databases
for variable in ("CRM_DATABASE_URL", "CDP_DATABASE_URL", "USMAN_URL", "IAG_URL"):
    os.environ[variable] = "unset://for-tests"  # each test says which it means; nothing real can be reached by mistake
