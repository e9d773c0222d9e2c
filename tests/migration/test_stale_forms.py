"""What a form showed is what it does, though others changed things while it was open."""

import copy

import pytest
from django.test import Client

from migration import drafts, revisions
from migration import mapping as mappings
from migration.models import MappingDraft
from tests import factories
from tests.factories import NOON
from tests.migration.conftest import mapping_document
from tests.migration.test_admin import text
from tests.migration.test_admin_work import DRAFT, form_of, said, url

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff(client) -> Client:
    client.force_login(factories.superuser())
    factories.password_typed(client)
    return client


# --- publishing a draft ---------------------------------------------------------------------------------------------


def counted(draft: MappingDraft, done: list[int], effect: list, by: str = "mapper") -> None:
    """The draft as somebody edits it and has it counted."""
    document = copy.deepcopy(revisions.current().document)
    document["id_sets"]["done"] = done
    drafts.edit(draft, document, by=by, now=NOON)
    drafts.keep(draft, {"effect": effect, "effect_digest": mappings.digest(document), "effect_reason": "Counted.", "effect_at": NOON})


def change(number: int) -> list[dict]:
    return [{"organisation": 1, "changed": number, "added": 0, "removed": 0, "loaded": number, "categories": {}, "examples": []}]


@pytest.fixture
def draft(db) -> MappingDraft:
    revisions.publish(mapping_document(), by="ana", note="", now=NOON)
    draft = drafts.start("work", by="mapper", now=NOON)
    counted(draft, [3], change(1))
    return draft


@pytest.mark.parametrize(("done", "found"), [([99], change(1)), ([3], change(2))], ids=["edited", "counted anew"])
def test_a_draft_that_was_changed_since_it_was_shown_is_shown_again_before_it_is_published(staff, draft, done, found):
    address = url(f"{DRAFT}_publish", draft.pk)
    form = form_of(staff, address)
    counted(draft, done, found, by="another")
    again = text(staff.post(address, form | {"note": "as I saw it"}).content.decode())
    assert "another changed this draft meanwhile, or its effect was counted anew, so nothing was published" in again
    assert revisions.current().number == 1
    assert "Published as revision 2." in said(staff, staff.post(address, form_of(staff, address) | {"note": "as I see it now"}))
    assert revisions.current().document["id_sets"]["done"] == done


def test_a_draft_that_was_counted_anew_with_the_same_effect_is_what_was_seen(staff, draft):
    address = url(f"{DRAFT}_publish", draft.pk)
    form = form_of(staff, address)
    counted(draft, [3], change(1))
    assert "Published as revision 2." in said(staff, staff.post(address, form | {"note": "as I saw it"}))
