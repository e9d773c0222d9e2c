"""What manage.py refuses before a command sees it."""

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from django.db import connection

from calm_console import faults
from calm_console.commandline import execute

MANAGE = str(Path(__file__).parents[2] / "manage.py")

FOREIGN = b"gepr\xfcft".decode(errors="surrogateescape")  # Latin-1, as Python hands it on


@pytest.mark.parametrize(
    "words",
    [
        ("sign_gate", "A", "--by", "nobody", "--group", "Platform", "--note", FOREIGN),
        ("sign_gate", "A", "--by", FOREIGN, "--group", "Platform", "--note", "x"),
        ("plan_batch", "--name", FOREIGN),
    ],
)
def test_an_argument_that_is_not_utf8_is_refused_in_words(db, capsys, words):
    assert execute(["manage.py", *words]) == 2
    assert (
        capsys.readouterr().err
        == "The argument 'gepr\\xfcft' is not UTF-8: write it in UTF-8, and give a file another name where its name is meant.\n"
    )


@pytest.mark.parametrize("words", [("help",), ("spectacular",)])
def test_a_reader_that_goes_away_is_no_traceback(words):
    """As `| head -1` does: by then the command may have written, or may only have kept what it is about to write."""
    with subprocess.Popen([sys.executable, MANAGE, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
        command.stdout.close()
        said = command.stderr.read()
    assert (command.returncode, said) == (
        141,
        "Nobody reads the output any more, so the command stopped there; what was committed is kept.\n",
    )


def test_a_reader_of_errors_that_goes_away_is_none_either():
    with subprocess.Popen([sys.executable, MANAGE, "help"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as command:
        command.stdout.close()
    assert command.returncode == 141


def run_by_shell(words: str) -> subprocess.CompletedProcess:
    return subprocess.run(["sh", "-c", words, sys.executable, MANAGE], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("command", ['"$0" "$1" help', '"$0" -m calm_console.embedded status'])
def test_a_full_disk_is_no_traceback(command):
    done = run_by_shell(f"{command} > /dev/full")
    why = "The output cannot be written (No space left on device), so the command stopped there; what was committed is kept.\n"
    assert (done.returncode, done.stderr) == (1, why)
    assert run_by_shell(f"{command} > /dev/full 2>&1").returncode == 1


@pytest.mark.parametrize("command", ['"$0" "$1" help', '"$0" -m calm_console.embedded status'])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_takes_what_is_said(command, closed):
    done = run_by_shell(f"{command} {closed}")
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (closed == "2>&-")


def test_a_session_that_the_server_ended_before_has_a_cure_too():
    """What is said of every statement after the one that met it."""
    error = psycopg.OperationalError("the connection is closed")
    assert faults.sentence("DATABASE_URL", error) == (
        "DATABASE_URL: the server closed the connection (the connection is closed): see the server's log."
    )


@pytest.mark.django_db(transaction=True)
def test_a_console_whose_database_takes_no_writes_is_a_sentence(capsys):
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
    assert execute(["manage.py", "tick", "--skip-checks"]) == 2
    connection.close()
    said = capsys.readouterr().err
    assert said.startswith("DATABASE_URL: the server takes no writes (cannot execute ")
    assert said.endswith("name the primary in DATABASE_URL, or have its owner say why (a full disk, a setting).\n")


def test_a_role_that_may_open_no_more_sessions_has_a_cure():
    error = psycopg.OperationalError('connection failed: FATAL: too many connections for role "calm_console"')
    assert faults.sentence("DATABASE_URL", error) == (
        'DATABASE_URL: the server has no connection left (connection failed: FATAL: too many connections for role "calm_console"): '
        "raise max_connections, or the limit of the role or database, or stop other clients."
    )
