"""What manage.py refuses before a command sees it."""

import pytest

from calm_console.commandline import execute

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
