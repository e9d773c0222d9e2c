"""Real processes of the console on a test's databases: started, stopped at a point, killed, thawed; and the one checker at the end."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from django.db import connection

from migration import ledger, runs
from migration.models import Account, Chunk, Run
from migration.states import FINISHED, ChunkState, RunMode
from tests.conftest import Systems
from tests.migration import test_restart
from tests.migration.against_oracle import assert_as_expected, assert_same, sample, written
from tests.migration.conftest import now
from tests.migration.conftest import run_account as run_here
from tests.migration.oracle import expected

ORGANISATION = test_restart.ORGANISATION
PARTIAL = test_restart.PARTIAL
PATIENCE = 60.0
CHUNK_SIZE = 60
ROOT = test_restart.ROOT


# --- processes ------------------------------------------------------------------------------------------------------


class Child(subprocess.Popen):
    """A console process; what it says on standard error goes to a file, which never fills up."""

    said: IO[bytes]


@contextmanager
def process(settings, *command: str, point: str = "", skip: int = 0, **variables: str) -> Iterator[Child]:
    """A console process in a group of its own; its whole group is killed with the block."""
    given = test_restart.environment(settings, idle="2s") | {"DJANGO_SETTINGS_MODULE": "tests.faults.settings"}
    given |= {"FAULT_POINT": point, "FAULT_SKIP": str(skip)} | variables
    with tempfile.TemporaryFile() as said:
        child = Child([sys.executable, *command], cwd=ROOT, env=given, stdout=subprocess.PIPE, stderr=said, start_new_session=True)
        child.said = said
        try:
            yield child
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            sys.stderr.write(tail(child))  # pytest shows it where the test fails


@contextmanager
def run_account(settings, *options: str, chunk_size: int = CHUNK_SIZE, **how: Any) -> Iterator[Child]:
    """The command itself, doing the work in its own process, in small chunks. `how` is `process`'s."""
    command = ["manage.py", "run_account", str(ORGANISATION), "--mode", "production", "--inline", "--chunk-size", str(chunk_size), "--json"]
    with process(settings, *command, *options, **how) as child:
        yield child


@contextmanager
def worker(settings, processes: int = 2, **variables: str) -> Iterator[Child]:
    """A Celery worker with so many processes."""
    options = ["--concurrency", str(processes), "--loglevel", "WARNING"]
    with process(settings, "-m", "celery", "-A", "calm_console", "worker", *options, **variables) as child:
        yield child


def ended(child: Child) -> int:
    """The process's exit code; what it said is shown where the test fails."""
    child.communicate(timeout=PATIENCE)
    return child.returncode


def tail(child: Child) -> str:
    child.said.seek(0)
    return child.said.read()[-6000:].decode(errors="replace")


def said(child: Child) -> str:
    """What a process that still runs has said; it writes at the file's own position, which stays where it is."""
    return os.pread(child.said.fileno(), 10_000_000, 0).decode(errors="replace")


def reach(child: Child) -> None:
    """Wait until the process has stopped itself at its point."""
    until(lambda: stopped(child.pid) or child.poll() is not None, "it did not reach its point")
    assert child.poll() is None, tail(child)


def thaw(child: Child) -> None:
    os.kill(child.pid, signal.SIGCONT)


def kill(child: Child) -> None:
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(PATIENCE) == -signal.SIGKILL


def stopped(pid: int) -> bool:
    """Whether a process is stopped (T), as SIGSTOP leaves it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


# --- runs -----------------------------------------------------------------------------------------------------------


def start(chunk_size: int = CHUNK_SIZE) -> Run:
    """A planned production run, for workers to find."""
    wish = runs.Wish(Account.objects.get(crm_organization_id=ORGANISATION), RunMode.PRODUCTION, chunk_size)
    return runs.start(wish, by="tester", now=now())


def tick(settings, **variables: str) -> None:
    """What beat would send once a minute, as a process."""
    with process(settings, "manage.py", "tick", **variables) as child:
        assert ended(child) == 0, tail(child)


def finish_by_ticks(settings, run: Run, patience: float = PATIENCE, pause: float = 2.0, **variables: str) -> None:
    """Ticks, and nothing else, until the run has ended, so many seconds between two: to start a process costs as much as a turn of work."""
    deadline = time.monotonic() + patience
    while not is_over(run):
        assert time.monotonic() < deadline, f"{run} is {run.state}: {run.reason}"
        tick(settings, **variables)
        next_one = time.monotonic() + pause
        while time.monotonic() < next_one and not is_over(run):
            time.sleep(0.05)


def is_over(run: Run) -> bool:
    run.refresh_from_db()
    return run.state in FINISHED


def at_chunk(number: int) -> bool:
    """That many chunks are done, and a worker is at another."""
    done = Chunk.objects.filter(state=ChunkState.DONE).count() >= number
    return done and Chunk.objects.filter(state=ChunkState.LEASED).exists()


def until(condition: Callable[[], object], about: str = "") -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, about
        time.sleep(0.01)


# --- the checker ----------------------------------------------------------------------------------------------------


def assert_undisturbed(console: Systems) -> None:
    """The one checker: exactly the rows of an undisturbed run, a ledger that is the table's own count, and nothing left for a second run."""
    connection.close()  # the console's server may have been another one meanwhile
    begun = [run for run in Run.objects.filter(mode=RunMode.PRODUCTION).order_by("pk") if run.chunks.exists()]
    last = begun[-1]
    if len(begun) == 1:
        assert_as_expected(console, last)
    wanted = expected(sample(), last.account.crm_organization_id, capabilities=frozenset(last.capabilities))
    assert_same(written(console, last), wanted.rows())
    assert_ledger_is_the_table(console, last)
    assert_nothing_is_left(console)


def assert_ledger_is_the_table(console: Systems, run: Run) -> None:
    found = ledger.of(run)
    assert found.balances
    assert found.written + found.corrected == len(console.activities(f"run_id = '{run.uuid}'"))


def assert_nothing_is_left(console: Systems) -> None:
    before = console.activities()
    found = ledger.of(run_here(ORGANISATION))
    assert (found.written, found.corrected) == (0, 0)
    assert console.activities() == before
