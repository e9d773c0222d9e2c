"""Workers that are killed, frozen, doubled or run by Celery: the rows are always those of an undisturbed run. All of it real processes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import pytest
import redis
from django.db import connection

from migration.models import Account, Chunk, Run
from migration.states import ChunkState, RunState
from tests.conftest import PASSWORD, ROLES
from tests.migration.against_oracle import assert_as_expected

ROOT = Path(__file__).parents[2]
ORGANISATION = 1
PARTIAL = 3  # the exit code: account 1 holds candidates that are quarantined
PATIENCE = 60.0
MEGABYTE = 1024  # of VmHWM, which counts kilobytes
REDIS_DATABASE = 9  # beside the console's own


# --- processes ------------------------------------------------------------------------------------------------------


def environment(settings, idle: str = "") -> dict[str, str]:
    """The environment of a console process that works on this test's databases by the console's own roles, with a short lease.

    `idle` is how long a frozen one keeps its locks in the console's database; without it, as long as settings say.
    """
    login = connection.settings_dict
    console = f"postgresql://{ROLES['console']}:{PASSWORD}@{quote(login['HOST'], safe='')}:{login['PORT']}/{login['NAME']}"
    console += f"?options=-c%20idle_in_transaction_session_timeout%3D{idle}" if idle else ""
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.open_gates",
        "DATABASE_URL": console,
        "CRM_DATABASE_URL": settings.CRM_DATABASE_URL,
        "CDP_DATABASE_URL": settings.CDP_DATABASE_URL,
        "USMAN_URL": settings.USMAN_URL,
        "REDIS_URL": urlunsplit(urlsplit(settings.REDIS_URL)._replace(path=f"/{REDIS_DATABASE}")),
        "LEASE_SECONDS": "2",
    }


@contextmanager
def process(settings, *command: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A console process in the background, with more environment variables; ended with the block if it still runs."""
    child = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment(settings, idle="10s") | variables,  # less than our patience
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def run_account(settings, *options: str, **variables: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return process(settings, "manage.py", "run_account", str(ORGANISATION), "--mode", "production", *options, **variables)


def exit_code(child: subprocess.Popen[bytes]) -> int:
    """How the process ended, what it said shown where the test fails."""
    _, said = child.communicate(timeout=PATIENCE)
    sys.stderr.write(said.decode())
    return child.returncode


def wait_until(condition: Callable[[], bool], child: subprocess.Popen[bytes]) -> None:
    """Return as soon as the condition holds; it must before the process ends."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert child.poll() is None, child.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- what to wait for, and what must come of it ---------------------------------------------------------------------


def planning() -> bool:
    return Run.objects.filter(state=RunState.PLANNED).exclude(lease_owner="").exists()


def at_chunk(number: int) -> bool:
    """That many chunks are done, and a worker is at another."""
    done = Chunk.objects.filter(state=ChunkState.DONE).count() >= number
    return done and Chunk.objects.filter(state=ChunkState.LEASED).exists()


def verifying() -> bool:
    return Run.objects.filter(state=RunState.VERIFYING).exclude(lease_owner="").exists()


def assert_as_undisturbed(console) -> None:
    """One run, whose rows and numbers are those of the oracle."""
    assert_as_expected(console, Run.objects.get())


# --- killed, frozen, doubled ----------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_again_and_again_leaves_the_rows_of_an_undisturbed_run(console, settings):
    """Each time at another place within a chunk, in the planning, and in the verification."""
    moments: list[Callable[[], bool]] = [planning, *(partial(at_chunk, number) for number in (0, 4, 9, 16)), verifying]
    for number, moment in enumerate(moments):
        with run_account(settings, "--inline", "--chunk-size", "20") as child:
            wait_until(moment, child)
            time.sleep(0.004 * number)
            os.kill(child.pid, signal.SIGKILL)
            assert child.wait(PATIENCE) == -signal.SIGKILL
    with run_account(settings, "--inline", "--chunk-size", "20") as child:
        assert exit_code(child) == PARTIAL
    assert_as_undisturbed(console)


def test_two_commands_at_once_share_the_work_and_end_alike(console, settings):
    command = partial(run_account, settings, "--inline", "--chunk-size", "5")
    with command() as one, command() as other:
        assert {exit_code(one), exit_code(other)} == {PARTIAL}
    assert_as_undisturbed(console)


def test_a_frozen_worker_wakes_up_to_find_its_chunk_done_by_another(console, settings):
    command = partial(run_account, settings, "--inline", "--chunk-size", "20")
    with command() as frozen:
        wait_until(partial(at_chunk, 5), frozen)
        os.kill(frozen.pid, signal.SIGSTOP)
        with command() as other:
            assert exit_code(other) == PARTIAL
        assert_as_undisturbed(console)
        os.kill(frozen.pid, signal.SIGCONT)
        assert exit_code(frozen) == PARTIAL
    assert_as_undisturbed(console)


# --- Celery ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_redis(settings) -> Iterator[None]:
    """A database of the test's own on the Redis server, empty before and after."""
    with redis.Redis.from_url(settings.REDIS_URL, db=REDIS_DATABASE) as client:
        client.flushdb()
        yield
        client.flushdb()


def celery_worker(settings) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return process(settings, "-m", "celery", "-A", "calm_console", "worker", "--concurrency", "2", "--loglevel", "WARNING")


@pytest.mark.fault
def test_celery_workers_do_the_same_though_one_is_killed_with_its_children(console, settings, own_redis):
    """The next one starts with a queue that has forgotten the nudge, and when asked to stop, stops."""
    with run_account(settings, "--chunk-size", "20") as child:
        with celery_worker(settings) as first:
            wait_until(partial(at_chunk, 6), child)
            os.killpg(first.pid, signal.SIGKILL)
        with celery_worker(settings) as second:
            assert exit_code(child) == PARTIAL
            second.terminate()
            assert second.wait(PATIENCE) == 0
    assert_as_undisturbed(console)


# --- memory ---------------------------------------------------------------------------------------------------------

OF_ONE_CONTACT = "INSERT INTO audits ({columns}) SELECT {first} + n, 'Crm::Person', 1, {rest} FROM generate_series(1, {audits}) AS n"
OF_MANY_CONTACTS = (
    "INSERT INTO audits ({columns}) SELECT {first} + n, 'Crm::Person', 100000 + n / 4, {rest} FROM generate_series(1, {audits}) AS n"
)
COLUMNS = "id, auditable_type, auditable_id, action, audited_changes, user_id, user_type, created_at"
REST = """'update', jsonb_build_object('address', jsonb_build_array(repeat('a', 200), repeat('b', 200)), 'score', jsonb_build_array(n, 0.50)),
          7, 'User', timestamp '2023-05-01' + n * interval '1 second'"""


def resident(pid: int) -> int:
    """The process's greatest resident size so far, in kilobytes. Not ru_maxrss: that begins with what the parent had at the fork."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0


def peak(console, settings, statement: str, audits: int) -> int:
    """The worker's greatest resident size, in kilobytes, over an account with that many audits more."""
    account = Account.objects.get(crm_organization_id=ORGANISATION).cdp_id
    console.change_crm("DELETE FROM audits WHERE id > 900000", statement.format(columns=COLUMNS, first=900_000, rest=REST, audits=audits))
    console.change_crm("ANALYZE audits")
    console.change_cdp(
        "DELETE FROM contacts WHERE source_id >= 100000",
        f"""INSERT INTO contacts (id, account_id, source, source_id)
            SELECT gen_random_uuid(), '{account}', 'crm', 100000 + n FROM generate_series(0, {audits // 4}) AS n""",
    )
    highest = 0
    with run_account(settings, "--inline") as child:
        while child.poll() is None:
            highest = max(highest, resident(child.pid))
            time.sleep(0.02)
        said = child.stderr.read() if child.stderr else b""
    assert child.returncode == PARTIAL, said.decode()
    assert Run.objects.filter(candidates__gt=audits).exists()
    return highest


@pytest.mark.slow
@pytest.mark.parametrize("statement", [OF_ONE_CONTACT, OF_MANY_CONTACTS], ids=["one contact", "many contacts"])
def test_a_worker_needs_no_more_memory_for_a_larger_account(console, settings, statement):
    small, large = (peak(console, settings, statement, audits) for audits in (2_000, 40_000))
    assert large < small + 25 * MEGABYTE
    assert large < 150 * MEGABYTE
