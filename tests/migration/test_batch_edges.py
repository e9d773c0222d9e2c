"""Batches at their edges: accounts that are in another batch by now, days at the calendar's ends."""

from dataclasses import replace
from datetime import date

import pytest
from django.urls import reverse

from migration import batch_plans, batches, beats
from migration.batch_plans import Plan
from migration.models import Batch, BatchItem, Event
from migration.runs import Refused
from migration.states import BatchState, ItemState
from tests import factories
from tests.factories import NOON
from tests.migration.test_batches import ALWAYS, NIGHT, NIGHTS, NOWHERE

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def systems(settings) -> None:
    settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"
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


@pytest.mark.parametrize("day", [date.min, date(1999, 12, 31), date(2101, 1, 1), date.max])
def test_a_first_day_from_which_no_opening_can_be_reckoned_is_refused(day):
    wish = Plan(name="first", accounts=[factories.account()], window=replace(ALWAYS, first_day=day), canary=0)
    with pytest.raises(Refused, match="must be from 2000-01-01 to 2100-12-31"):
        batch_plans.plan(wish, by="ana", now=NOON)


@pytest.mark.parametrize("day", batch_plans.FIRST_DAYS)
def test_one_at_the_ends_of_the_range_is_shown_and_looked_at_by_the_tick(client, day):
    factories.mapping()
    wish = Plan(name="first", accounts=[factories.account()], window=replace(NIGHTS, first_day=day), canary=0)
    batch = batch_plans.plan(wish, by="ana", now=NIGHT)
    client.force_login(factories.superuser())
    assert client.get(reverse("admin:migration_batch_change", args=[batch.pk])).status_code == 200
    assert len(beats.advance(now=NIGHT)) == (day < NIGHT.date())
