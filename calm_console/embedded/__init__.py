"""Real PostgreSQL and Redis from Python wheels, and the USMAN and IAG stand-ins, where no URL is set.

`environment` names the servers, `start` brings them up as daemons on 127.0.0.1, `stop` ends them. What they keep lies in `.calm`
in the project (CALM_HOME names another folder). This package needs the standard library only, save to start PostgreSQL, so that
settings stay cheap and `make clean` works without the virtualenv.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from calm_console.embedded import postgres, process, redis, stand_ins
from calm_console.embedded.process import Server
from calm_console.embedded.state import EmbeddedError, Home, State, is_free, settled

__all__ = ["EmbeddedError", "admin_url", "clean", "environment", "running", "start", "stop"]

SERVER_OF = {
    "DATABASE_URL": "postgres",
    "CRM_DATABASE_URL": "postgres",
    "CDP_DATABASE_URL": "postgres",
    "REDIS_URL": "redis",
    "USMAN_URL": "usman",
    "IAG_URL": "iag",
}
STAND_INS = {"USMAN_URL", "IAG_URL"}


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The URL of an embedded server for each variable that `environ` leaves unset or empty. Starts nothing.

    The stand-ins serve only where the CRM is embedded too: a real CRM's people are never mapped with made-up ones.
    """
    names = _unset(environ)
    if not names:
        return {}
    home = Home.of(environ)
    state = _state(home, {SERVER_OF[name] for name in names})
    return {name: _url(name, state) for name in names}


def start(environ: Mapping[str, str]) -> None:
    """Start the servers that `environment` names and that do not run yet; return once all of them answer.

    Safe to call from several processes at once, and cheap when all runs. Raises EmbeddedError with a sentence for the user.
    """
    names = {SERVER_OF[name] for name in _unset(environ)}
    if not names:
        return
    home = Home.of(environ)
    with home.locked():
        state = _settle(home, names)
        if "postgres" in names:
            postgres.choose_place(home, state)
        process.bring_up([server for server in _servers(home, state) if server.name in names])
        if "postgres" in names:
            postgres.prepare_once(home, state)


def stop(environ: Mapping[str, str] = os.environ) -> list[str]:
    """End what runs, in the opposite order of starting; return the names of what was stopped."""
    home = Home.of(environ)
    if not home.path.is_dir():
        return []
    with home.locked():
        return _stop(home)


def clean(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Stop the servers and remove all that they kept, wherever it lies; return what was removed."""
    home = Home.of(environ)
    if not home.path.is_dir():
        return _remove(postgres.far_places(home, None))
    with home.locked():
        places = postgres.far_places(home, home.read())
        _stop(home, drop=True)
        names = ("postgres", "postgres.new", "redis.conf", "embedded.json", "embedded.new")
        removed = _remove(places + [home.path / name for name in names] + [*home.path.glob("*.log"), *home.path.glob("*.pid")])
        home.lock_file.unlink()
    postgres.leave_far()
    return removed


def running(environ: Mapping[str, str] = os.environ) -> dict[str, dict[str, int]]:
    """What runs now: name -> {"pid", "port"}."""
    home = Home.of(environ)
    state = home.read()
    found = {server.name: (process.pid(server), server.port) for server in _servers(home, state)} if state else {}
    return {name: {"pid": pid, "port": port} for name, (pid, port) in found.items() if pid}


def admin_url(database: str = "postgres") -> str:
    """The embedded PostgreSQL superuser's URL for `database`: for the demo and the tests, never for the console itself."""
    return postgres.url(_state(Home.of(os.environ), {"postgres"}), "postgres", database)


def _unset(environ: Mapping[str, str]) -> list[str]:
    names = [name for name in SERVER_OF if not environ.get(name, "").strip()]
    return names if "CRM_DATABASE_URL" in names else [name for name in names if name not in STAND_INS]


def _state(home: Home, names: set[str]) -> State:
    """The state with usable ports. The lock is taken only where something must change, so that settings never wait for a start."""
    state = home.read()
    if state and not _foreign(home, state, names):
        return state
    with home.locked():
        return _settle(home, names)


def _settle(home: Home, names: set[str]) -> State:
    state = home.read()
    foreign = _foreign(home, state, names) if state else set()
    if state and not foreign:
        return state
    return settled(home, state, foreign)


def _foreign(home: Home, state: State, names: set[str]) -> set[str]:
    """The servers whose port somebody else took while they were down."""
    servers = [server for server in _servers(home, state) if server.name in names]
    return {server.name for server in servers if process.pid(server) is None and not is_free(server.port)}


def _servers(home: Home, state: State) -> list[Server]:
    """All servers in the order of starting."""
    return [
        postgres.server(home, state),
        redis.server(home, state),
        stand_ins.server(home, state, "usman"),
        stand_ins.server(home, state, "iag"),
    ]


def _url(name: str, state: State) -> str:
    if SERVER_OF[name] == "postgres":
        role, database = postgres.LOGINS[name]
        return postgres.url(state, role, database)
    return redis.url(state) if name == "REDIS_URL" else stand_ins.url(state, SERVER_OF[name])


def _stop(home: Home, *, drop: bool = False) -> list[str]:
    state = home.read()
    servers = _servers(home, state) if state else []
    return [server.name for server in reversed(servers) if process.stop(server, drop=drop)]


def _remove(paths: list[Path]) -> list[str]:
    there = [path for path in paths if path.exists()]
    for path in there:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return [str(path) for path in there]
