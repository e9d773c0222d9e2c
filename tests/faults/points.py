"""A Django app for processes of the fault tests: at the named point the process stops itself, as if frozen by its host, and stays so.

FAULT_POINT names the point, FAULT_SKIP how often it is passed before. What becomes of the process then is the test's: a real SIGKILL,
or a SIGCONT much later. Three more mishaps: FAULT_POISON names an audit that kills whoever maps it, FAULT_CLOCK sets the process's clock
off by so many seconds, FAULT_SLOW_READ has each chunk's snapshot busy with a query that takes so many. Outages are waited out for a second
only, and FAULT_BROKER_WAIT says how many seconds a broker that is away is waited for between two tries. The product knows nothing of this.
"""

import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partialmethod
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from kombu import Connection

POINTS = (
    "planning",
    "claimed",
    "reading",
    "staging",
    "staged",
    "before receipt",
    "before commit",
    "committed",
    "finishing",
    "finished",
    "verifying",
)


class Points(AppConfig):
    name = "tests.faults.points"
    label = "fault_points"
    path = str(Path(__file__).parent)

    def ready(self) -> None:
        from migration import attempts, chunks, planning, verdicts
        from migration.pipeline import extract, flow, load

        attempts.OUTAGE_WAIT = timedelta(seconds=1)
        if audit := os.environ.get("FAULT_POISON"):
            extract.candidate = deadly(extract.candidate, audit.encode())
        if seconds := float(os.environ.get("FAULT_CLOCK", "0")):
            set_clock_off(seconds)
        if seconds := float(os.environ.get("FAULT_SLOW_READ", "0")):
            flow.extract = slow(flow.extract, seconds)
        if seconds := float(os.environ.get("FAULT_BROKER_WAIT", "0")):
            Connection._ensure_connection = partialmethod(Connection._ensure_connection, interval_start=seconds, interval_max=seconds)
        chunks.checkpoint = before(chunks.checkpoint, lambda arguments: str(arguments[1]))
        chunks.claim = after(chunks.claim, "claimed")
        chunks.replace_quarantined = before(chunks.replace_quarantined, lambda arguments: "finishing")  # within the console's transaction
        chunks.finish = after(chunks.finish, "finished")
        planning.cut = before(planning.cut, lambda arguments: "planning")
        verdicts.conclude = before(verdicts.conclude, lambda arguments: "verifying")
        load.blocks = within_staging(load.blocks)


def before(function: Callable[..., Any], name_of: Callable[[tuple], str]) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        pass_by(name_of(arguments))
        return function(*arguments, **named)

    return wrapped


def after(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        found = function(*arguments, **named)
        pass_by(name)
        return found

    return wrapped


def within_staging(blocks: Callable[..., Any]) -> Callable[..., Any]:
    """In the middle of the COPY into staging: half of the first block is sent."""

    def wrapped(found: Any) -> Any:
        for block in blocks(found):
            yield block[: len(block) // 2]
            pass_by("staging")
            yield block[len(block) // 2 :]

    return wrapped


def deadly(candidate: Callable[..., Any], audit: bytes) -> Callable[..., Any]:
    """Reading this audit kills the process, as an out-of-memory killer does."""

    def wrapped(fields: list[bytes], *arguments: Any) -> Any:
        if fields[1] == audit:
            os.kill(os.getpid(), signal.SIGKILL)
        return candidate(fields, *arguments)

    return wrapped


def set_clock_off(seconds: float) -> None:
    from django.utils import timezone

    true_now, true_time = timezone.now, time.time
    timezone.now = lambda: true_now() + timedelta(seconds=seconds)
    time.time = lambda: true_time() + seconds


def slow(extract: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """The chunk's snapshot is in the middle of a query for so long."""

    def wrapped(connection: Any, *arguments: Any) -> Any:
        connection.execute("SELECT pg_sleep(%s)", (seconds,))
        yield from extract(connection, *arguments)

    return wrapped


passed = 0


def pass_by(name: str) -> None:
    """Stop here if this is the point, and it was passed often enough."""
    global passed
    if name != os.environ.get("FAULT_POINT"):
        return
    passed += 1
    if passed == int(os.environ.get("FAULT_SKIP", "0")) + 1:
        os.kill(os.getpid(), signal.SIGSTOP)
