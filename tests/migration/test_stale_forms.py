"""What a form showed is what it does, though others changed things while it was open."""

import copy

import pytest
from django.test import Client

from migration import batch_plans, batches, control, decisions, drafts, revisions, runs
from migration import mapping as mappings
from migration.batch_plans import Plan
from migration.models import Event, MappingDraft, NameCollision, QuarantinedCandidate, Run, Waiver
from migration.pipeline import flow
from migration.states import BatchState, ChunkState, RunMode, RunState
from tests import factories
from tests.factories import NOON
from tests.migration.conftest import mapping_document
from tests.migration.test_admin import page, text
from tests.migration.test_admin_work import DRAFT, form_of, said, url
from tests.migration.test_batches import ALWAYS

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


# --- resuming, deciding ---------------------------------------------------------------------------------------------


def test_a_run_that_was_stopped_anew_is_not_resumed_by_an_older_page(staff, settings):
    settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"
    run = factories.run(RunState.RUNNING, RunMode.DRY_RUN)
    factories.chunk(run, ChunkState.PENDING)
    runs.pause(run, by="ana", now=NOON)
    address = url("migration_run_resume", run.pk)
    form = form_of(staff, address)
    control.resume(run, by="ana", now=NOON)
    runs.pause(run, by="bob", now=NOON)
    again = text(staff.post(address, form).content.decode())
    assert "was resumed and stopped again since this page was opened, so nothing was done" in again and "bob" in again
    run.refresh_from_db()
    assert run.state == RunState.PAUSED
    form = form_of(staff, address)
    assert "is running" in said(staff, staff.post(address, form))
    assert "is running" in said(staff, staff.post(address, form)), "the second of two clicks"


def test_nor_is_a_batch_that_was_stopped_for_another_reason(staff, settings):
    settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"
    factories.mapping()
    batch = batch_plans.plan(Plan(name="x", accounts=[factories.account()], window=ALWAYS, canary=0), by="ana", now=NOON)
    for state in (BatchState.RUNNING, BatchState.STOPPED):
        batches.move(batch, state, by="tick", reason="Account 1 failed.", now=NOON)
    address = url("migration_batch_act", batch.pk, "resume")
    form = form_of(staff, address)
    batches.resume(batch, by="ana", now=NOON)
    batch.refresh_from_db()
    batches.move(batch, BatchState.STOPPED, by="tick", reason="Half of account 2 is quarantined.", now=NOON)
    again = text(staff.post(address, form).content.decode())
    assert "was resumed and stopped again since this page was opened" in again and "Half of account 2 is quarantined." in again
    batch.refresh_from_db()
    assert batch.state == BatchState.STOPPED
    staff.post(address, form_of(staff, address))
    batch.refresh_from_db()
    assert batch.state == BatchState.RUNNING


def test_of_two_people_who_decide_on_a_name_the_second_sees_what_the_first_did(staff):
    candidates = [[901, "Alpha"], [902, "Beta"]]
    collision = NameCollision.objects.create(
        account=factories.account(), role="deal", record_id=1, class_name="Crm::Deal", version=1, candidates=candidates, first_seen_at=NOON
    )
    shown, address = page(collision), url("migration_namecollision_decide", collision.pk)
    form = form_of(staff, shown)
    decisions.decide_name(collision, 901, by="ana", note="I asked them", now=NOON)
    again = text(staff.post(address, form | {"audit": "902", "note": "as I saw it"}).content.decode())
    assert "ana decided meanwhile that it was called 'Alpha' (“I asked them”). Nothing was stored" in again
    collision.refresh_from_db()
    assert (collision.decided_name, collision.decided_by) == ("Alpha", "ana")
    sent = form_of(staff, shown) | {"audit": "902", "note": "they were wrong"}
    for _ in range(2):
        assert "The decision is stored." in said(staff, staff.post(address, sent))
    told = list(Event.objects.filter(kind="name decided").order_by("pk").values_list("by", flat=True))
    assert told == ["ana", "root"], "the second of two clicks changes nothing"
