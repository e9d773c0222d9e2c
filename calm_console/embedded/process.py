"""Daemons: start one, know it again, stop it. A process is ours only if its command line says so, for process ids are reused."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from calm_console.embedded.state import ROOT, EmbeddedError, private

START_SECONDS = 60.0
STOP_SECONDS = 60.0
TRIES = 5  # right after a crash a start can fail while the dead server's children are still going away


@dataclass(frozen=True)
class User:
    """Whom to run as where that is not ourselves."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Server:
    """One daemon."""

    name: str
    home: Path
    port: int
    markers: tuple[str, ...]  # its command line holds one of these, and no other process's does
    command: Callable[[], list[str]]  # makes what is missing (data, configuration) and returns the command line
    answers: Callable[[], bool]  # is it ready to serve? raises EmbeddedError where waiting is no use
    user: Callable[[], User | None] = lambda: None
    stop_signal: signal.Signals = signal.SIGTERM
    drop_signal: signal.Signals = signal.SIGTERM  # where its data goes away too, so that nothing need be saved

    @property
    def log(self) -> Path:
        return self.home / f"{self.name}.log"

    @property
    def pid_file(self) -> Path:
        return self.home / f"{self.name}.pid"


def bring_up(servers: Iterable[Server]) -> None:
    """Start those that do not run, all at once, and wait until each answers. Call it under the lock."""
    waiting = list(servers)
    for server in waiting:
        if pid(server) is None:
            spawn(server)
    for server in waiting:
        _await(server)


def stop(server: Server, *, drop: bool = False) -> bool:
    """Ask it to end and wait for that; False where it does not run. With `drop` its data need not survive."""
    found = pid(server)
    if found is None:
        return False
    os.kill(found, server.drop_signal if drop else server.stop_signal)
    deadline = time.monotonic() + STOP_SECONDS
    while pid(server) is not None:
        if time.monotonic() > deadline:
            raise EmbeddedError(f"{server.name} (process {found}) did not end within {STOP_SECONDS:.0f} s: {server.log} says more.")
        time.sleep(0.02)
    server.pid_file.unlink(missing_ok=True)
    return True


def pid(server: Server) -> int | None:
    """The process id while it runs."""
    try:
        found = int(server.pid_file.read_text() or 0)
    except (FileNotFoundError, ValueError):
        return None
    return found if found and is_running(found, server.markers) else None


def is_running(process_id: int, markers: tuple[str, ...]) -> bool:
    """Whether that process lives, is no zombie, and carries one of the markers in its command line."""
    command = _command_line(process_id)
    return any(marker in command for marker in markers)


def spawn(server: Server) -> None:
    """Start it as a daemon: a session of its own, no stream of ours, and adopted by process 1 so that it is never our zombie."""
    try:
        command = server.command()
        with private(server.log, "ab") as log, private(server.pid_file, "wb") as pid_file:
            # The shell's own standard output is the pid file: it is written even if we are killed right here.
            run(["/bin/sh", "-c", 'exec "$@" >&2 & echo $!', "sh", *command], server.user(), stdout=pid_file, stderr=log)
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedError(f"{server.name} cannot be started ({error}): {server.log} may say more.") from error


def run(
    command: list[str], user: User | None = None, stdout: int | IO[bytes] = subprocess.DEVNULL, stderr: int | IO[bytes] = subprocess.DEVNULL
) -> None:
    """Run a command to its end, as `user` where given. It inherits the search paths and nothing else (no secrets, no PG* variables)."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        cwd="/",
        env=kept | {"LC_ALL": "C", "PYTHONPATH": str(ROOT)},
        user=user.uid if user else None,
        group=user.gid if user else None,
        extra_groups=[] if user else None,
        start_new_session=True,
        check=True,
        timeout=120,
    )


def _await(server: Server) -> None:
    deadline, tries = time.monotonic() + START_SECONDS, TRIES
    while pid(server) is None or not server.answers():
        died = pid(server) is None
        if (died and tries == 0) or time.monotonic() > deadline:
            raise EmbeddedError(f"{server.name} does not come up on port {server.port}: {server.log} says why.")
        if died:
            tries -= 1
            time.sleep(0.5)
            spawn(server)
        time.sleep(0.02)


def _command_line(process_id: int) -> str:
    """The command line, its arguments joined by blanks; '' for a process that is gone or a zombie."""
    try:
        return os.fsdecode(Path(f"/proc/{process_id}/cmdline").read_bytes().replace(b"\0", b" "))
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self").exists():
            return ""
    # A system without /proc (macOS).
    return subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(process_id)], check=False, capture_output=True, text=True, timeout=10
    ).stdout
