"""`manage.py publish_mapping`: what it shows, what it publishes, and what it refuses."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from migration.models import MappingRevision
from tests.migration.conftest import mapping_document
from tests.migration.test_effects import changed_document


def published(folder: Path, document: dict, *options: str) -> dict:
    """What the command tells of a file that holds the document."""
    file, out = folder / "mapping.json", StringIO()
    file.write_text(json.dumps(document))
    call_command("publish_mapping", "--file", str(file), "--json", *options, stdout=out, stderr=StringIO())
    told: dict = json.loads(out.getvalue())
    return told


def revisions() -> list[tuple]:
    return list(MappingRevision.objects.order_by("number").values_list("number", "published_by", "note"))


def test_without_yes_it_only_shows_the_effect(console, tmp_path):
    told = published(tmp_path, changed_document())
    effect = told.pop("effect")
    assert told == {"revision": 2, "published": False, "sentence": "Valid. With --yes it becomes revision 2."}
    assert [each["organisation"] for each in effect] == [1, 2, 3] and all(each["changed"] > 0 == each["loaded"] for each in effect)
    assert revisions() == [(1, "tester", "")]


def test_with_yes_it_publishes_and_an_equal_file_changes_nothing(console, tmp_path):
    how = ("--yes", "--by", "ana", "--note", "pinned notes")
    told = published(tmp_path, changed_document(), *how)
    assert told == {"revision": 2, "published": True, "effect": None, "sentence": "Published as revision 2."}
    assert revisions() == [(1, "tester", ""), (2, "ana", "pinned notes")]
    same = published(tmp_path, changed_document(), *how)
    assert same == told | {"published": False, "sentence": "Equal to revision 2, which is current: nothing to publish."}
    assert MappingRevision.objects.count() == 2


def test_a_file_that_is_no_mapping_is_refused_with_every_place(console, tmp_path):
    wrong = mapping_document() | {"id_set": {}, "secrets": [""]}
    with pytest.raises(CommandError) as refused:
        published(tmp_path, wrong, "--yes")
    assert refused.value.returncode == 1
    assert "id_set" in str(refused.value) and "secrets[0]: must not be empty" in str(refused.value)
    assert MappingRevision.objects.count() == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [("{", "Expecting property name"), ("[" * 200_000, "maximum recursion depth exceeded"), ("\ufeff{}", "Unexpected UTF-8 BOM")],
)
def test_a_file_that_is_no_json_is_refused_in_words(db, tmp_path, text, why):
    file = tmp_path / "mapping.json"
    file.write_text(text)
    with pytest.raises(CommandError, match=f"mapping.json is not JSON: {why}"):
        call_command("publish_mapping", "--file", str(file))


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
