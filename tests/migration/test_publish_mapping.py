"""`manage.py publish_mapping`: what it refuses before it looks at a file."""

import pytest
from django.core.management import CommandError, call_command


@pytest.mark.parametrize(
    ("login", "says"),
    [
        ("a" * 151, "argument --by: a login name may have 150 characters; this one has 151"),
        (" ", "argument --by: it must say who publishes"),
    ],
)
def test_nobody_publishes_by_a_name_that_is_none(login, says):
    with pytest.raises(CommandError, match=says):
        call_command("publish_mapping", "--file", "/nowhere/at/all", "--by", login)


def test_the_longest_login_name_will_do(db):
    with pytest.raises(CommandError, match="/nowhere/at/all cannot be read"):
        call_command("publish_mapping", "--file", "/nowhere/at/all", "--by", "a" * 150)
