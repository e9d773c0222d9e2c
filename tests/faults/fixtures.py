"""The servers that tests may harm, one of each for a process of the tests, whichever of its files ask for them."""

from collections.abc import Iterator

import pytest

from tests.conftest import PASSWORD, ROLES, run_sql
from tests.faults.servers import Own, standby_of


@pytest.fixture(scope="session")
def own_broker() -> Iterator[Own]:
    """A Redis that may be killed and frozen."""
    server = Own("redis", "own-redis")
    server.start()
    yield server
    server.remove()


@pytest.fixture
def broker(own_broker) -> Own:
    """The same, running and empty."""
    own_broker.start()
    own_broker.empty()
    return own_broker


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[Own]:
    """A PostgreSQL that may be stopped in immediate mode; the console's two roles exist on it."""
    server = Own("postgres", "own-postgres")
    server.start()
    for role in ROLES.values():
        run_sql(server.url(), f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    yield server
    server.remove()


@pytest.fixture(scope="session")
def own_standby(own_postgres) -> Iterator[Own]:
    """A replica of the same."""
    server = standby_of(own_postgres, "own-standby")
    yield server
    server.remove()
