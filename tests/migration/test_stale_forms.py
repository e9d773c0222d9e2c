"""What a form showed is what it does, though others changed things while it was open."""

import copy

import pytest
from django.test import Client

from migration import drafts, revisions
from migration import mapping as mappings
from migration.models import MappingDraft, QuarantinedCandidate, Run, Waiver
from migration.pipeline import flow
from migration.states import RunState
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


# --- quarantine by run and reason -----------------------------------------------------------------------------------


def candidates(run: Run, number: int) -> list[QuarantinedCandidate]:
    chunk = factories.chunk(run)
    return [factories.quarantined(chunk) for _ in range(number)]


def of_run(name: str, run: Run) -> str:
    return url(f"migration_quarantinedcandidate_{name}", run=run.pk, reason="time_missing")


def test_only_those_are_waived_that_were_shown(staff):
    run = factories.run(RunState.RUNNING)
    shown = candidates(run, 1)
    form = form_of(staff, of_run("waive", run))
    candidates(run, 5)
    assert "1 candidate is waived." in said(staff, staff.post(url("migration_quarantinedcandidate_waive"), form | {"note": "lost"}))
    assert [each.audit_id for each in Waiver.objects.all()] == [shown[0].audit_id]


def test_a_chunk_that_ended_late_is_looked_at_before_its_candidates_are_waived(staff):
    run = factories.run(RunState.RUNNING)
    late, *_ = candidates(run, 2)
    QuarantinedCandidate.objects.filter(pk=late.pk).delete()
    form = form_of(staff, of_run("waive", run)) | {"note": "lost"}
    late.save(force_insert=True)
    address = url("migration_quarantinedcandidate_waive")
    again = staff.post(address, form).content.decode()
    assert "There are 2 of them by now and the page showed 1, so nothing was done: look again." in text(again)
    assert "2 candidates would be waived for good" in text(again) and not Waiver.objects.exists()
    assert "2 candidates are waived." in said(staff, staff.post(address, form | {"shown": "2"}))


def test_those_that_another_person_waived_meanwhile_are_in_nobodys_way(staff):
    run = factories.run(RunState.RUNNING)
    first, _ = candidates(run, 2)
    form = form_of(staff, of_run("waive", run)) | {"note": "lost"}
    factories.waived(first)
    assert "1 candidate is waived." in said(staff, staff.post(url("migration_quarantinedcandidate_waive"), form))


def test_no_more_are_tried_again_than_were_shown(staff, console):
    revision = revisions.current()
    run = factories.run(RunState.PARTIAL, mapping_revision=revision, pipeline_version=flow.VERSION)
    late, *_ = candidates(run, 2)
    QuarantinedCandidate.objects.filter(pk=late.pk).delete()
    form = form_of(staff, of_run("retry", run))
    late.save(force_insert=True)
    assert "There are 2 of them by now and the page showed 1" in said(staff, staff.post(url("migration_quarantinedcandidate_retry"), form))
    assert Run.objects.get().state == RunState.PARTIAL


@pytest.mark.parametrize("name", ["retry", "waive"])
def test_a_form_that_does_not_say_what_it_showed_does_nothing(staff, name):
    run = factories.run(RunState.PARTIAL)
    candidates(run, 1)
    form = {"run": run.pk, "reason": "time_missing", "note": "lost"}
    assert "does not name candidates" in said(staff, staff.post(url(f"migration_quarantinedcandidate_{name}"), form))
    assert not Waiver.objects.exists()
