"""What manage.py refuses before a command sees it."""

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

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


def test_a_session_that_the_server_ended_before_has_a_cure_too():
    """What is said of every statement after the one that met it."""
    error = psycopg.OperationalError("the connection is closed")
    assert faults.sentence("DATABASE_URL", error) == (
        "DATABASE_URL: the server closed the connection (the connection is closed): see the server's log."
    )
