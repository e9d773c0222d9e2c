"""Servers of the fault tests' own, which may be killed, frozen and stopped in immediate mode without harm to any other test."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import psycopg
import redis
from django.core.management import call_command
from django.db import connection

from calm_console import embedded
from calm_console.embedded import postgres, process
from calm_console.embedded.state import Home, State, settled
from tests.conftest import ROLES, rows, run_sql, work_by_the_limited_role
from tests.servers import HOME

STANDBY = {"max_standby_streaming_delay": "100ms", "hot_standby_feedback": "off", "wal_receiver_status_interval": "1s"}


class Own:
    """One embedded server of a kind ("postgres", "redis"), in a home inside the test run's."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.path = kind, HOME / name
        others = [variable for variable, server in embedded.SERVER_OF.items() if server != kind]
        self.environ = {"CALM_HOME": str(self.path)} | dict.fromkeys(others, "unset://for-tests")

    def start(self) -> None:
        """Bring it up, after whatever happened to it; returns once it answers."""
        embedded.start(self.environ)

    def remove(self) -> None:
        embedded.clean(self.environ)

    @property
    def pid(self) -> int:
        return embedded.running(self.environ)[self.kind]["pid"]

    def end(self, number: signal.Signals) -> None:
        """Send it the signal and wait until it is gone. SIGQUIT stops PostgreSQL in immediate mode."""
        pid = self.pid
        os.kill(pid, number)
        deadline = time.monotonic() + 30
        while self.kind in embedded.running(self.environ):
            assert time.monotonic() < deadline, f"process {pid} does not end"
            time.sleep(0.01)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP, and SIGCONT at the end of the block."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def empty(self) -> None:
        """FLUSHALL."""
        with redis.Redis.from_url(self.url()) as client:
            client.flushall()

    def is_waited_at(self) -> bool:
        """Whether a worker waits for a message."""
        with redis.Redis.from_url(self.url()) as client:
            return any(each["cmd"] == "brpop" for each in client.client_list())

    def url(self, database: str = "postgres") -> str:
        """The owner's URL of a database; of Redis the server's own."""
        if self.kind == "redis":
            return embedded.environment(self.environ)["REDIS_URL"]
        return postgres.url(self.state, "postgres", database)

    def new_database(self, name: str) -> str:
        """The owner's URL of a database made afresh."""
        run_sql(
            self.url(),
            f"DROP DATABASE IF EXISTS {name} WITH (FORCE)",
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'",
        )
        return self.url(name)

    @property
    def state(self) -> State:
        found = Home(self.path).read()
        assert found, f"{self.path} was not started yet"
        return found


def standby_of(primary: Own, name: str) -> Own:
    """A hot standby of the server, made by pg_basebackup and started: it streams from it, and lets its readers wait for hardly anything."""
    standby = Own("postgres", name)
    home = Home(standby.path)
    with home.locked():
        state = settled(home, State(**asdict(primary.state)), {"postgres"})
        state.place = str(postgres.far_place(home)) if state.place else ""
        home.write(state)
    data = (Path(state.place) if state.place else home.path) / "postgres"
    user = postgres._user(data)
    data.mkdir(mode=0o700, parents=True)
    if user:
        os.chown(data, user.uid, user.gid)
    for setting, value in STANDBY.items():
        run_sql(primary.url(), f"ALTER SYSTEM SET {setting} = '{value}'")
    options = ["--pgdata", str(data), "--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--wal-method=stream"]
    with (home.path / "pg_basebackup.log").open("ab") as log:
        binary = postgres._binaries(primary.state) / "pg_basebackup"
        process.run([str(binary), "--dbname", primary.url(), *options], user, stdout=log, stderr=log)
    standby.start()
    return standby


def caught_up(primary: Own, standby: Own) -> None:
    """Wait until the standby has replayed all that the primary has written so far."""
    wanted = rows(primary.url(), "SELECT pg_current_wal_lsn()::text")[0][0]
    deadline = time.monotonic() + 30
    while not rows(standby.url(), "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (wanted,))[0][0]:
        assert time.monotonic() < deadline, "the standby does not follow"
        time.sleep(0.05)


@contextmanager
def console_at(url: str) -> Iterator[None]:
    """Django's database, for this process and those it starts, is the one at the owner's URL, with its tables made."""
    parts = psycopg.conninfo.conninfo_to_dict(url)
    there = {"NAME": parts["dbname"], "USER": parts["user"], "PASSWORD": parts["password"], "HOST": parts["host"], "PORT": parts["port"]}
    here = {name: connection.settings_dict[name] for name in (*there, "OPTIONS")}
    by_owner = here["OPTIONS"]["options"].removesuffix(f" -c role={ROLES['console']}")
    connection.close()
    connection.settings_dict.update(there | {"OPTIONS": here["OPTIONS"] | {"options": by_owner}})
    try:
        call_command("migrate", verbosity=0)
        work_by_the_limited_role()
        yield
    finally:
        connection.close()
        connection.settings_dict.update(here)
