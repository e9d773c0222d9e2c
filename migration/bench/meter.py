"""Wall clock, CPU seconds and memory: of this process, and of the PostgreSQL server where it runs on this machine (Linux)."""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Reading:
    """Seconds since some moment; `server` is None where the server's processes cannot be seen from here."""

    wall: float
    client: float
    server: float | None

    def since(self, start: "Reading") -> dict[str, float | None]:
        server = self.server - start.server if self.server is not None and start.server is not None else None
        return {"wall": self.wall - start.wall, "client_cpu": self.client - start.client, "server_cpu": server}


class Meter:
    """Reads the clocks. The server is all of its processes together, background writers included."""

    def __init__(self, postmaster: int | None) -> None:
        self.postmaster = postmaster

    def read(self) -> Reading:
        return Reading(time.monotonic(), time.process_time(), None if self.postmaster is None else tree_cpu(self.postmaster))


def postmaster_of(connection: psycopg.Connection) -> int | None:
    """The process that the session's backend is a child of; None where the server runs elsewhere."""
    found = stat(connection.info.backend_pid)
    name = Path(f"/proc/{connection.info.backend_pid}/comm")
    return int(found[1]) if found and name.exists() and name.read_text().startswith("postgres") else None


def tree_cpu(postmaster: int) -> float | None:
    """CPU seconds of the postmaster, of its children that ended, and of those that live."""
    while (own := stat(postmaster)) is not None:
        ticks = sum(map(int, own[11:15])) + sum(int(each[11]) + int(each[12]) for each in children(postmaster))
        if stat(postmaster) == own:  # else a child ended meanwhile: counted twice, or not at all
            return ticks / TICKS
    return None


def children(parent: int) -> Iterator[list[str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        found = stat(int(folder.name))
        if found and int(found[1]) == parent:
            yield found


def stat(pid: int) -> list[str] | None:
    """/proc/PID/stat from the state on: 1 is the parent, 11 to 14 the ticks: user, system, and both of children that ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def peak_megabytes() -> float | None:
    """This process's greatest resident size so far."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else None
