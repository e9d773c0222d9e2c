"""For how long a sign-off stands, who says so, and the milestones that people keep."""

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from gates import by_account, policies, standing, validity
from gates.catalogue import BY_LETTER
from gates.models import Gate, Milestone, SignOff
from gates.policies import CannotDecide
from migration.models import Event
from tests import factories
from tests.gates.conftest import NOON, found, member, open_all, sign

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


def client_of(user) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_fewer_days_end_what_is_signed_and_more_bring_nothing_back(people):
    account = factories.account()
    open_all(people, account, letters="CG")

    def stand(after: timedelta) -> tuple[bool, bool, int]:
        now = NOON + after
        return policies.is_open("G", now=now), policies.is_open("C", account, now=now), by_account.tally(BY_LETTER["C"], now=now).open

    for letter in "CG":
        validity.set_days(letter, "7", by="ana", note="shorter", now=NOON)
    assert stand(7 * DAY - timedelta(seconds=1)) == (True, True, 1)
    assert stand(7 * DAY) == (False, False, 0)
    for letter in "CG":
        validity.set_days(letter, "90", by="ana", note="longer", now=NOON)
    assert stand(29 * DAY) == (True, True, 1)  # what was signed for
    assert stand(30 * DAY) == (False, False, 0)  # and not what was said since
    why = standing.of("G", now=NOON + 30 * DAY).groups[0].why
    assert why == "the sign-off of of Design for Design lapsed: it expired 30 days after 2026-03-02 12:00 UTC"
    sign("G", "Design", people["Design"], now=NOON + 30 * DAY)
    assert policies.is_open("G", now=NOON + 119 * DAY)
    assert not policies.is_open("G", now=NOON + 120 * DAY)


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "366", "99999", "٣", "ten"])
def test_days_that_are_none_are_refused(text):
    with pytest.raises(CannotDecide, match="a whole number from 1 to 365"):
        validity.set_days("G", text, by="ana", note="why", now=NOON)
    assert Gate.objects.get(letter="G").valid_days == 30


def test_the_page_sets_them_for_whoever_may(people):
    root = client_of(factories.superuser())
    page, act = reverse("admin:gates_gate_change", args=["G"]), reverse("admin:gates_gate_days", args=["G"])
    assert "How long a sign-off stands" in root.get(page).content.decode()
    answer = root.post(act, {"days": "14", "note": "the frames move"}, follow=True)
    assert "stands for 14 days (before: 30); that holds for what is signed already too." in answer.content.decode()
    event = Event.objects.get()
    assert (event.kind, event.by) == ("gate days set", "root")
    assert event.sentence.endswith("the frames move")
    assert "A note is needed: why." in root.post(act, {"days": "20", "note": " "}, follow=True).content.decode()
    assert "a whole number" in root.post(act, {"days": "x", "note": "y"}, follow=True).content.decode()
    signer = client_of(member("Design"))
    assert "How long a sign-off stands" not in signer.get(page).content.decode()
    assert signer.post(act, {"days": "20", "note": "mine"}).status_code == 403
    assert Gate.objects.get(letter="G").valid_days == 14


def test_a_sign_off_keeps_the_days_that_it_was_given_for(people):
    found("A")
    validity.set_days("A", "3", by="ana", note="short", now=NOON)
    sign("A", "Platform", people["Platform"])
    assert SignOff.objects.get().valid_days == 3


def test_milestones_are_kept_by_whoever_may_and_what_follows_from_data_by_nobody():
    root = client_of(factories.superuser())
    plan, dry = Milestone.objects.get(name="Development"), Milestone.objects.get(name="Migration dry run")
    fields = {"effort": "BE 17, FE 1, QA 6.5", "confidence": "medium", "target": "2026-Q4", "status": "in progress"}
    page = root.get(reverse("admin:gates_milestone_change", args=[plan.pk])).content.decode()
    assert all(f'name="{name}"' in page for name in (*fields, "_save")) and 'value="2026-Q3"' in page
    assert root.post(reverse("admin:gates_milestone_change", args=[plan.pk]), fields).status_code == 302
    plan.refresh_from_db()
    assert (plan.effort, plan.target, plan.status) == ("BE 17, FE 1, QA 6.5", "2026-Q4", "in progress")
    event = Event.objects.get()
    assert event.sentence == "Development: target 2026-Q3 to 2026-Q4; status nothing to in progress"
    assert abs(event.at - timezone.now()) < timedelta(minutes=1)
    assert root.post(reverse("admin:gates_milestone_change", args=[dry.pk]), {"target": "2026-12-01", "status": "done"}).status_code == 302
    dry.refresh_from_db()
    assert (dry.target, dry.status) == ("2026-12-01", "")
    viewer = client_of(member("viewer"))
    assert viewer.post(reverse("admin:gates_milestone_change", args=[plan.pk]), fields | {"target": "never"}).status_code == 403
    board = viewer.get(reverse("admin:index")).content.decode()
    assert "2026-12-01" in board and reverse("admin:gates_milestone_change", args=[plan.pk]) not in board
    assert reverse("admin:gates_milestone_change", args=[plan.pk]) in root.get(reverse("admin:index")).content.decode()
