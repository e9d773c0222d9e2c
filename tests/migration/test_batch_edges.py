"""Batches at their edges: accounts that are in another batch by now."""

import pytest
from django.urls import reverse

from migration import batch_plans, batches
from migration.batch_plans import Plan
from migration.models import Batch, BatchItem, Event
from migration.runs import Refused
from migration.states import BatchState, ItemState
from tests import factories
from tests.factories import NOON
from tests.migration.test_batches import ALWAYS, NOWHERE

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def systems(settings) -> None:
    settings.CRM_DATABASE_URL = settings.CDP_DATABASE_URL = NOWHERE


@pytest.fixture
def stopped(db) -> Batch:
    """Two accounts were refused, one waits; the first is in another batch by now."""
    factories.mapping()
    accounts = [factories.account() for _ in range(3)]
    batch = batch_plans.plan(Plan(name="first", accounts=accounts, window=ALWAYS, canary=0), by="ana", now=NOON)
    Batch.objects.filter(pk=batch.pk).update(state=BatchState.STOPPED, reason="Gate A is closed.")
    batch.items.filter(position__lte=2).update(state=ItemState.REFUSED, reason="Gate A is closed.")
    batch_plans.plan(Plan(name="second", accounts=accounts[:1], window=ALWAYS, canary=0), by="bob", now=NOON)
    batch.refresh_from_db()
    return batch


def test_an_account_that_is_in_another_batch_by_now_is_not_tried_again(client, stopped):
    client.force_login(factories.superuser())
    answer = client.post(reverse("admin:migration_batch_act", args=[stopped.pk, "resume"]), {"again": "1"}, follow=True)
    other = Batch.objects.get(name="second")
    account = other.items.get().account
    sentence = f"{account} is waiting in {other}, so it is not tried again here."
    assert Event.objects.get(kind="account left out").sentence == sentence and sentence in answer.content.decode()
    found = list(stopped.items.order_by("position").values_list("state", "is_accepted"))
    assert found == [("refused", True), ("waiting", False), ("waiting", False)]


def test_one_that_is_put_there_at_that_moment_is_said_in_a_sentence(stopped, monkeypatch):
    monkeypatch.setattr(batches, "open_elsewhere", lambda batch: {})
    with pytest.raises(Refused, match="put into another batch at this moment"):
        batches.resume(stopped, by="ana", now=NOON, again=True)
    assert BatchItem.objects.filter(batch=stopped, state=ItemState.REFUSED).count() == 2
    stopped.refresh_from_db()
    assert stopped.state == BatchState.STOPPED
