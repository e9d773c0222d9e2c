"""What publishing would change is what production then corrects."""

import copy

import pytest

from gates.policies import Decision
from migration import drafts, effects, ledger, revisions, runs
from migration import mapping as mappings
from migration.models import Account, MappingDraft
from tests.migration.conftest import mapping_document, now, run_account
from tests.migration.test_override_csv import PINNED


def changed_document() -> dict:
    """Half of the done statuses, no ticket resolved, and pinned notes called so."""
    document = copy.deepcopy(mapping_document())
    document["id_sets"] |= {"done": [4], "resolved": []}
    document["category_overrides"] = [PINNED]
    return document


def test_the_effect_is_exactly_what_the_next_production_corrects(console):
    run_account(1)
    foreseen = {e.organisation: e for e in effects.count(changed_document(), Account.objects.all(), now=now(), pulse=lambda: None)}
    loaded, unloaded = foreseen[1], foreseen[2]
    assert loaded.changed == loaded.loaded > 10 and (loaded.added, loaded.removed) == (0, 0)
    assert unloaded.changed > 5 and unloaded.loaded == 0

    before = {row[0]: row for row in console.activities("origin = 'crm_migration'")}
    revisions.publish(changed_document(), by="tester", note="", now=now())
    corrected = ledger.of(run_account(1))
    assert (corrected.corrected, corrected.written) == (loaded.changed, 0)
    assert corrected.recategorised == loaded.categories
    after = {row[0]: row for row in console.activities("origin = 'crm_migration'")}
    differing = {key for key in before if before[key][3] != after[key][3]}
    assert len(differing) == loaded.changed
    # Everything but those rows is untouched: not even the run that wrote them is another.
    assert {key: row for key, row in after.items() if key not in differing} == {
        key: row for key, row in before.items() if key not in differing
    }


def test_class_roles_taken_away_and_given_count_as_going_and_coming(console):
    document = copy.deepcopy(mapping_document())
    document["class_roles"]["note"] = []
    counted = next(iter(effects.count(document, Account.objects.filter(crm_organization_id=1), now=now(), pulse=lambda: None)))
    assert counted.removed == sum(number for move, number in counted.categories.items() if move.endswith("-> nothing")) > 40
    assert (counted.changed, counted.added) == (0, 0)


def test_a_draft_is_published_only_with_its_own_effect_counted_and_a_note(console):
    draft = drafts.start("done again", by="mapper", now=now())
    with pytest.raises(runs.Refused, match="nothing to publish"):
        drafts.publish(draft, by="mapper", note="why", now=now())
    drafts.edit(draft, changed_document(), by="mapper", now=now())
    with pytest.raises(runs.Refused, match="not counted yet"):
        drafts.publish(draft, by="mapper", note="why", now=now())
    drafts.count_effect(draft, now=now())
    with pytest.raises(runs.Refused, match="needs a note"):
        drafts.publish(draft, by="mapper", note=" ", now=now())
    revision = drafts.publish(draft, by="mapper", note="statuses confirmed", now=now())
    assert (revision.number, revision.published_by, revision.note) == (2, "mapper", "statuses confirmed")
    with pytest.raises(runs.Refused, match="is published"):
        drafts.edit(MappingDraft.objects.get(pk=draft.pk), mapping_document(), by="mapper", now=now())


def test_a_draft_whose_base_is_no_longer_current_is_not_published(console):
    draft = drafts.start("late", by="mapper", now=now())
    drafts.edit(draft, changed_document(), by="mapper", now=now())
    drafts.count_effect(draft, now=now())
    revisions.publish(mapping_document() | {"secrets": ["*_key"]}, by="another", note="", now=now())
    with pytest.raises(runs.Refused, match="Another revision was published"):
        drafts.publish(draft, by="mapper", note="why", now=now())


def test_an_outage_leaves_the_effect_uncounted_with_the_reason(console, settings):
    settings.USMAN_URL = "http://127.0.0.1:1"
    draft = drafts.start("down", by="mapper", now=now())
    drafts.edit(draft, changed_document(), by="mapper", now=now())
    drafts.count_effect(draft, now=now())
    assert draft.effect is None and "USMAN" in draft.effect_reason


@pytest.mark.django_db
def test_of_two_drafts_that_are_published_at_one_moment_the_second_is_refused(monkeypatch):
    revisions.publish(mapping_document(), by="ana", note="", now=now())
    draft = drafts.start("second", by="mapper", now=now())
    drafts.edit(draft, changed_document(), by="mapper", now=now())
    drafts.keep(draft, {"effect": [], "effect_digest": mappings.digest(draft.document), "effect_at": now()})
    alone = revisions.alone

    def waited_for_the_first():
        monkeypatch.setattr(revisions, "alone", alone)
        revisions.publish(mapping_document() | {"secrets": ["*_key"]}, by="another", note="", now=now())
        alone()

    monkeypatch.setattr(revisions, "alone", waited_for_the_first)
    with pytest.raises(runs.Refused, match="Another revision was published"):
        drafts.publish(draft, by="mapper", note="why", now=now())
    assert not MappingDraft.objects.get(pk=draft.pk).published_id


def closed(account, mode, **how):
    return Decision(frozenset(), ["Gate A is closed."])


def test_a_draft_that_was_not_counted_while_gates_were_closed_is_published_only_while_they_are(console, settings):
    draft = drafts.start("early", by="mapper", now=now())
    drafts.edit(draft, changed_document(), by="mapper", now=now())
    policy, settings.GATE_POLICY = settings.GATE_POLICY, "tests.migration.test_effects.closed"
    drafts.count_effect(draft, now=now())
    assert (draft.effect, draft.effect_reason) == (None, "Not counted: Gate A is closed.")
    drafts.check_can_publish(draft, now=now())
    settings.GATE_POLICY = policy
    with pytest.raises(runs.Refused, match="They are open now: count it first"):
        drafts.publish(draft, by="mapper", note="why", now=now())
    drafts.count_effect(draft, now=now())
    assert drafts.publish(draft, by="mapper", note="why", now=now()).number == 2
