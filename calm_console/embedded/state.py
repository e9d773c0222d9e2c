"""What the embedded servers must remember between processes: ports, passwords, and where PostgreSQL's data lies."""

import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
SERVERS = ("postgres", "redis", "usman", "iag")
LOGINS = ("postgres", "calm_console", "crm_reader", "calm_cdp", "redis")
PORTS = range(20_000, 30_000)  # below the range that systems hand out to outgoing connections
LOCK_SECONDS = 180


class EmbeddedError(RuntimeError):
    """An embedded server cannot serve. The text tells the user why and what to do; it never holds a password."""


@dataclass
class State:
    """The content of embedded.json."""

    ports: dict[str, int]  # server -> port
    passwords: dict[str, str]  # role, or "redis" -> password
    place: str | None = None  # the folder of PostgreSQL's data, '' for the home itself; None until the first start chose
    prepared: bool = False  # the roles and databases exist


@dataclass(frozen=True)
class Home:
    """The folder that holds the state, the logs and, where nothing forbids it, the data."""

    path: Path

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Home":
        """CALM_HOME, relative to the project, or the project's `.calm`."""
        return cls(Path(os.path.normpath(ROOT / (environ.get("CALM_HOME", "").strip() or ".calm"))))

    @property
    def file(self) -> Path:
        return self.path / "embedded.json"

    @property
    def lock_file(self) -> Path:
        return self.path / "embedded.lock"

    def read(self) -> State | None:
        """The state, or None before the first use."""
        try:
            return State(**json.loads(self.file.read_text()))
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise self.unusable(error) from error
        except (ValueError, TypeError) as error:
            raise EmbeddedError(f"{self.file} is damaged: remove {self.path} and start again.") from error

    def write(self, state: State) -> None:
        """Replace the file in one step, readable by its owner only."""
        new = self.file.with_suffix(".new")
        with private(new, "w") as file:
            json.dump(asdict(state), file, indent=1)
        new.replace(self.file)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time starts, stops or changes the state."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = self._lock()
        except OSError as error:
            raise self.unusable(error) from error
        with lock:
            yield

    def _lock(self) -> IO[str]:
        deadline = time.monotonic() + LOCK_SECONDS
        while time.monotonic() < deadline:
            file = private(self.lock_file, "a")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # `clean` may have removed the file that we waited for: a lock on it would exclude nobody.
                if self.lock_file.exists() and os.path.samestat(os.fstat(file.fileno()), self.lock_file.stat()):
                    return file
            except BlockingIOError:
                time.sleep(0.02)
            file.close()
        raise EmbeddedError(f"Another process has held {self.lock_file} for {LOCK_SECONDS} s: end it, or set CALM_HOME to another folder.")

    def unusable(self, error: OSError) -> EmbeddedError:
        return EmbeddedError(
            f"{error.filename or self.path} cannot be used ({error.strerror}): run as the owner of {self.path}, or set CALM_HOME to a folder of your own."
        )


def settled(home: Home, state: State | None, foreign: set[str]) -> State:
    """A new state, or the old one with new ports for the `foreign` servers; written. Call it under the lock."""
    if state is None:
        state = State(ports={}, passwords={name: secrets.token_hex(16) for name in LOGINS})
        foreign = set(SERVERS)
    for name in sorted(foreign):
        state.ports[name] = _free_port(set(state.ports.values()))
    home.write(state)
    return state


def private(path: Path, mode: str) -> IO[Any]:
    """Open a file that only its owner may read."""
    return open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600))


def is_free(port: int) -> bool:
    """Whether nobody listens on that port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port(taken: set[int]) -> int:
    for _ in range(200):
        port = secrets.choice(PORTS)
        if port not in taken and is_free(port):
            return port
    raise EmbeddedError(f"No free port between {PORTS.start} and {PORTS.stop} on 127.0.0.1: set the URLs of servers of your own.")
