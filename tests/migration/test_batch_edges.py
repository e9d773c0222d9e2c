"""Batches at their edges: accounts that are in another batch by now, days at the calendar's ends, thousands of accounts."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta

import pytest
from django.urls import reverse

from migration import batch_limits, batch_plans, batches, beats, forecast
from migration.batch_plans import Plan
from migration.models import Batch, BatchItem, Event
from migration.runs import Refused
from migration.states import AtClose, BatchState, ItemState, RunMode, RunState
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


def test_a_run_that_its_account_is_no_longer_at_stops_nothing(stopped):
    """It had failed and was taken for granted; a person has it tried again by hand, and an outage meets it."""
    second = batches.items_of(stopped)[1]
    BatchItem.objects.filter(batch=stopped).update(is_accepted=True)
    run = factories.run(RunState.INTERRUPTED, account=second.account, reason="The CRM is away.")
    BatchItem.objects.filter(pk=second.pk).update(state=ItemState.FAILED, production=run)
    assert batch_limits.reason_to_stop(stopped, batches.items_of(stopped)) == ""
    BatchItem.objects.filter(pk=second.pk).update(state=ItemState.RUNNING)
    assert batch_limits.reason_to_stop(stopped, batches.items_of(stopped)) == f"{run} is interrupted: The CRM is away."


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


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Of this process's own time, so that others on the machine do not count."""
    began = time.process_time()
    yield
    assert time.process_time() - began < seconds


def test_what_thousands_of_accounts_take_is_reckoned_in_seconds():
    """The page on which a batch is planned asks it of each account, and so does the tick that announces it."""
    recent = tuple((size, 100.0) for size in range(1000, 1000 + forecast.RECENT_RUNS))
    known = forecast.Paces(recent, recent)
    with within(2):
        takes = [known.takes(RunMode.PRODUCTION, number) for number in range(1, batch_plans.MOST_ACCOUNTS + 1)]
    assert takes[:2] == [timedelta(seconds=0.01), timedelta(seconds=0.02)]
    terms = forecast.Terms(NIGHTS, 2, 1, AtClose.PAUSE)
    with within(2):
        places = forecast.places([timedelta(minutes=7)] * batch_plans.MOST_ACCOUNTS, terms, now=NOON)
    assert all(place.end for place in places)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n".join(f"{number} PT-{number}" for number in range(1, 30_001)), r"No CRM organisation ids: 'PT-1', .* and 29990 more"),
        ("\n".join(map(str, [*range(1, 30_001), 1])), "No account has these CRM organisation ids: 1, .* and 29990 more"),
    ],
)
def test_a_whole_sheet_that_is_pasted_is_read_in_a_moment(text, says):
    with within(2), pytest.raises(Refused, match=says):
        batch_plans.accounts_of(text)


def test_accounts_named_twice_among_many_are_named():
    accounts = [factories.account() for _ in range(3)]
    assert batch_plans.account_problems([*accounts, accounts[1], accounts[1]]) == [f"Named twice: {accounts[1].crm_organization_id}."]
    with within(2):
        assert len(batch_plans.account_problems(accounts[:1] * 20_000)) == 2
