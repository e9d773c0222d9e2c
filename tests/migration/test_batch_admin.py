"""The pages and the command with which batches are planned, watched, paused, resumed and cancelled."""

import io
import json
import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from migration import batch_plans, batches, beats, runs
from migration.batch_plans import Plan, window_of
from migration.models import Account, Batch, Run, Summary
from migration.states import AtClose, BatchState, BatchWork, RunMode, RunState
from migration.windows import Window
from tests import factories
from tests.migration.test_admin import HOSTILE, SHOWN, changelist, html, page, rows, section, text, unmarked

pytestmark = pytest.mark.django_db

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
ALWAYS = Window(frozenset(range(7)), time(0), time(0), "UTC")
NOON = factories.NOON


@pytest.fixture(autouse=True)
def policy(settings) -> None:
    settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"
    settings.CRM_DATABASE_URL = settings.CDP_DATABASE_URL = NOWHERE


@pytest.fixture
def staff(client) -> Client:
    client.force_login(factories.superuser())
    return client


def allowed(*codenames: str) -> Client:
    """Somebody who may see everything, and do what these permissions say."""
    user = factories.viewer(name=f"may {' '.join(codenames)}")
    user.user_permissions.add(*Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(User.objects.get(pk=user.pk))
    return client


def url(name: str, *arguments: object) -> str:
    return reverse(f"admin:migration_batch_{name}", args=arguments)


def sent(*accounts: Account, **fields: Any) -> dict[str, Any]:
    """The form as a browser sends it."""
    given = {
        "name": "first ones", "accounts": "\n".join(str(each.crm_organization_id) for each in accounts), "find": "", "work": "both",
        "days": ["0", "4"], "begins": "22:00", "ends": "06:00", "zone": "Asia/Jakarta", "first_day": "2026-04-01", "at_close": "finish",
        "at_once": "2", "canary": "1", "most_failures": "3", "most_quarantined": "2.5", "plan": "1",
    }  # fmt: skip
    return given | fields


def planned(number: int = 3, **fields: Any) -> Batch:
    factories.mapping()
    given: dict[str, Any] = {"name": "first", "accounts": [factories.account() for _ in range(number)], "window": ALWAYS, "canary": 0}
    return batch_plans.plan(Plan(**given | fields), by="ana", now=NOON)


def listed(markup: str) -> list[list[str]]:
    """The rows of a list, without its head."""
    return rows(markup[markup.index('id="result_list"') :])[1:]


# --- planning -------------------------------------------------------------------------------------------------------


def test_a_batch_is_planned_as_the_form_says(staff):
    three, one, two = (factories.account() for _ in range(3))
    answer = staff.post(url("plan"), sent(three, one, two))
    batch = Batch.objects.get()
    assert answer.url == page(batch)
    assert window_of(batch) == Window(frozenset({0, 4}), time(22), time(6), "Asia/Jakarta", date(2026, 4, 1))
    assert [(item.position, item.account) for item in batch.items.order_by("position")] == [(1, three), (2, one), (3, two)]
    limits = (batch.at_once, batch.canary, batch.most_failures, batch.most_quarantined)
    assert limits == (2, 1, 3, Decimal("2.50"))
    assert (batch.name, batch.work, batch.at_close, batch.planned_by) == ("first ones", BatchWork.BOTH, AtClose.FINISH, "root")
    assert "The batch is planned. It begins by itself when its window opens." in text(html(staff, page(batch)))


def test_what_is_wrong_is_said_and_what_was_typed_stays(staff):
    known = factories.account()
    answer = staff.post(
        url("plan"), sent(known, accounts=f"{known.crm_organization_id} 987654321 12x", name=HOSTILE[:60], zone="Mars/Olympus")
    )
    shown = answer.content.decode()
    assert "No CRM organisation ids: '12x'. No account has these CRM organisation ids: 987654321." in text(shown)
    assert f"{known.crm_organization_id} 987654321 12x</textarea>" in shown
    assert 'value="Mars/Olympus"' in shown
    assert "<script>alert" not in shown and not Batch.objects.exists()
    answer = staff.post(url("plan"), sent(known, known, zone="Mars/Olympus", days=[], canary="7"))
    shown = text(answer.content.decode())
    assert "This field is required." in shown and not Batch.objects.exists()
    shown = text(staff.post(url("plan"), sent(known, known, zone="Mars/Olympus", canary="7")).content.decode())
    for said in ("There is no time zone 'Mars/Olympus'", f"Named twice: {known.crm_organization_id}.", "none to all 2 of the accounts"):
        assert said in shown, said


def test_accounts_are_found_by_name_and_added_behind_those_there(staff):
    acme, other, again = factories.account(name="Acme Tbk"), factories.account(name="Other"), factories.account(name="PT ACME")
    factories.account(name="Acme of old", gone=True)
    answer = staff.post(url("plan"), sent(other, find="acme", search="1"))
    shown = answer.content.decode()
    listed = "\n".join(str(each.crm_organization_id) for each in (other, acme, again))
    assert f"{listed}</textarea>" in shown
    assert "2 accounts added." in text(shown)
    assert 'value="Asia/Jakarta"' in shown and re.findall(r'name="days" value="(\d)"[^>]* checked', shown) == ["0", "4"]
    shown = text(staff.post(url("plan"), sent(other, find="nobody", search="1")).content.decode())
    assert "0 accounts added." in shown and not Batch.objects.exists()


def test_what_would_start_when_is_shown_in_both_zones_before_anything_is_planned(staff, monkeypatch):
    monkeypatch.setattr("django.utils.timezone.now", lambda: datetime(2026, 3, 31, 12, 0, tzinfo=UTC))
    known, unknown = factories.account(name="Known"), factories.account()
    revision = factories.mapping()
    factories.run(account=known, mode=RunMode.DRY_RUN, candidates=2000, mapping_revision=revision, started_at=NOON,
                  finished_at=NOON + timedelta(hours=1))  # fmt: skip
    answer = staff.post(url("plan"), sent(known, unknown, canary="0", at_once="1", at_close="pause", plan="", look="1") | {"plan": ""})
    shown = answer.content.decode()
    shown = shown[shown.index('id="outlook"') :]
    found = rows(shown)
    # Of Mondays and Fridays from 1 April on, Friday the third is the first; 22:00 in Jakarta is 15:00 UTC.
    assert found[1] == ["Fri 03 Apr 2026 22:00", "Sat 04 Apr 2026 06:00", "2026-04-03 15:00:00 UTC", "2026-04-03 23:00:00 UTC"]
    start, end = "Fri 03 Apr 2026 22:00 2026-04-03 15:00 UTC", "Sat 04 Apr 2026 00:00 2026-04-03 17:00 UTC"
    assert found[-2] == ["1", str(known), "dry run, then production", "2 h 0 min", start, end]
    assert found[-1] == ["2", str(unknown), "dry run, then production", "not known", end, "not known"]
    assert not Batch.objects.exists() and not Summary.objects.exists()


@pytest.mark.parametrize(
    ("first_day", "says"),
    [
        (None, "The window is always open: runs start at any hour, as the limits let them."),
        (date(2026, 3, 1), "The window is always open: runs start at any hour, as the limits let them."),
        (date(2026, 4, 3), "The window opens Fri 03 Apr 2026 00:00, Asia/Jakarta (2026-04-02 17:00:00 UTC), and does not close any more."),
    ],
)
def test_a_window_that_does_not_close_is_told_in_a_sentence(staff, monkeypatch, first_day, says):
    monkeypatch.setattr("django.utils.timezone.now", lambda: datetime(2026, 3, 31, 12, 0, tzinfo=UTC))
    window = Window(frozenset(range(7)), time(0), time(0), "Asia/Jakarta", first_day)
    given = sent(factories.account(), days=[*"0123456"], begins="00:00", ends="00:00", first_day=first_day or "", canary="0", look="1")
    preview = staff.post(url("plan"), given).content.decode()
    for told in (text(preview[preview.index('id="outlook"') :]), text(html(staff, page(planned(1, window=window))))):
        assert says in told
        assert not [wrong for wrong in ("1970", "open now", "never", "Opens, ") if wrong in told]


def test_a_url_that_cannot_be_read_keeps_no_page_of_batches_away(staff, settings):
    """A start says so; see worlds.systems."""
    account = factories.account()
    factories.mapping()
    batch = batch_plans.plan(Plan("first", [account], ALWAYS), by="ana", now=factories.NOON)
    settings.CDP_DATABASE_URL = "not a URL"
    assert staff.get(page(batch)).status_code == 200
    assert "dry run, then production" in text(staff.post(url("plan"), sent(factories.account(), look="1")).content.decode())


def test_an_account_is_in_one_open_batch_only(staff):
    batch = planned(1)
    account = batch.items.get().account
    shown = text(staff.post(url("plan"), sent(account)).content.decode())
    assert f"{account} is waiting in {batch} already." in shown
    batches.cancel(batch, by="ana", now=NOON)
    assert staff.post(url("plan"), sent(account)).status_code == 302


# --- a batch's page -------------------------------------------------------------------------------------------------


def test_the_page_shows_what_became_of_each_account(staff):
    batch = planned(3, name=HOSTILE, work=BatchWork.PRODUCTION, most_failures=1, canary=1)
    beats.advance(now=NOON)
    first = Run.objects.get()
    runs.move(first, RunState.RUNNING, by="w", now=NOON, candidates=10, started_at=NOON)
    runs.move(first, RunState.FAILED, by="w", now=NOON, reason=HOSTILE)
    beats.advance(now=NOON)
    markup = html(staff, page(batch))
    assert SHOWN in unmarked(markup) and "<script>alert" not in markup
    account = batch.items.get(position=1).account
    head = text(section(markup, "head"))
    assert head.startswith(f"stopped {account} is of the canary and did not balance: {first} failed:")
    assert "Of 3 accounts 2 waiting, 1 failed." in head and "Resume… Cancel…" in head
    shown = rows(section(markup, "accounts"))
    assert [row[:4] for row in shown[1:]] == [
        ["1", f"{account} canary", "failed", f"production {first.pk} failed"],
        ["2", str(batch.items.get(position=2).account), "waiting", ""],
        ["3", str(batch.items.get(position=3).account), "waiting", ""],
    ]
    assert "account failed" in text(section(markup, "events"))


def test_a_running_batch_tells_when_the_others_start(staff):
    batch = planned(2, work=BatchWork.PRODUCTION, window=Window(frozenset(range(7)), time(0), time(0), "Asia/Jakarta"))
    factories.run(account=batch.items.get(position=1).account, candidates=3600, started_at=NOON, finished_at=NOON + timedelta(hours=1))
    beats.advance(now=NOON)
    markup = html(staff, page(batch))
    first, second = rows(section(markup, "accounts"))[1:]
    assert first[:5] == [
        "1",
        str(batch.items.get(position=1).account),
        "running",
        f"production {Run.objects.first().pk} planned",
        "1 h 0 min",
    ]
    assert second[4] == "not known" and re.fullmatch(r"\w{3} \d\d \w{3} \d{4} \d\d:\d\d \d{4}-\d\d-\d\d \d\d:\d\d UTC", second[5])
    assert 'data-live="10"' in markup
    assert "is known: in Asia/Jakarta, and below it in UTC." in text(section(markup, "accounts"))
    assert "is known: in UTC." in text(section(html(staff, page(planned(1, window=ALWAYS))), "accounts"))


def test_the_list_shows_progress_and_costs_the_same_for_three_as_for_one(staff):
    batch = planned(2)
    batches.cancel(planned(1), by="ana", now=NOON)
    with CaptureQueriesContext(connection) as one:
        shown = html(staff, changelist(Batch))
    assert [row[1:4] for row in listed(shown)] == [["cancelled", "1 of 1", "always, UTC"], ["planned", "0 of 2", "always, UTC"]]
    for _ in range(3):
        planned(2)
    with CaptureQueriesContext(connection) as more:
        html(staff, changelist(Batch))
    assert len(more) == len(one)
    organisation = batch.items.get(position=1).account.crm_organization_id
    assert [row[2] for row in listed(html(staff, f"{changelist(Batch)}?q={organisation}"))] == ["0 of 2"]


def test_a_batch_is_found_once_by_its_name_its_number_and_an_account_of_it(staff):
    accounts = [factories.account(crm_organization_id=number) for number in (777_001, 777_002, 777_003)]
    batch = planned(accounts=accounts, name="wave 777003")
    planned(accounts=[factories.account(crm_organization_id=778_000)])
    for word in ("wave", "777003", "777001", batch.pk):
        assert [row[0] for row in listed(html(staff, f"{changelist(Batch)}?q={word}"))] == [f"Batch {batch.pk}: wave 777003"], word


def test_a_page_of_many_accounts_costs_as_many_queries_as_one_of_few(staff):
    few, many = planned(2), planned(12)
    beats.advance(now=NOON)
    html(staff, page(few))  # the first page of a process asks for content types too
    with CaptureQueriesContext(connection) as one:
        html(staff, page(few))
    with CaptureQueriesContext(connection) as other:
        html(staff, page(many))
    assert len(other) == len(one)


# --- acting ---------------------------------------------------------------------------------------------------------


def test_pause_resume_cancel_are_asked_for_and_done(staff):
    batch = planned(2, work=BatchWork.PRODUCTION)
    beats.advance(now=NOON)
    run = Run.objects.get()
    assert str(run) in text(html(staff, url("act", batch.pk, "pause")))
    batch.refresh_from_db()
    assert batch.state == BatchState.RUNNING, "to look is not to do"
    answer = staff.post(url("act", batch.pk, "pause"), follow=True)
    assert f"{batch} is paused." in text(answer.content.decode())
    run.refresh_from_db()
    batch.refresh_from_db()
    assert (batch.state, batch.reason, run.state) == (BatchState.PAUSED, "root paused it.", RunState.PAUSED)
    staff.post(url("act", batch.pk, "resume"))
    beats.advance(now=NOON)
    run.refresh_from_db()
    assert run.state == RunState.PLANNED
    staff.post(url("act", batch.pk, "cancel"), {"runs": "end"})
    run.refresh_from_db()
    batch.refresh_from_db()
    assert (batch.state, run.state) == (BatchState.CANCELLED, RunState.CANCELLED)
    shown = html(staff, page(batch))
    ids = batch.items.order_by("position").values_list("account__crm_organization_id", flat=True)
    again = f"{url('plan')}?again={batch.pk}"
    assert f'href="{again}">Plan another batch with the 2 not done' in shown
    assert "\n".join(map(str, ids)) + "</textarea>" in html(staff, again)
    for odd in ("", "x", "0", "9" * 5000):
        assert re.search(r"<textarea[^>]*>\s*</textarea>", html(staff, f"{url('plan')}?again={odd}"))


def test_an_act_that_does_not_fit_is_said(staff):
    batch = planned(1)
    shown = text(staff.post(url("act", batch.pk, "resume")).content.decode())
    assert f"refused {batch} is planned: resume is for a batch that is paused or stopped. Possible now: pause, cancel." in shown
    assert staff.get(url("act", batch.pk, "explode")).status_code == 404


@pytest.mark.parametrize(("again", "states"), [(True, ["waiting", "waiting"]), (False, ["failed", "waiting"])])
def test_who_resumes_a_stopped_batch_says_whether_to_try_again(staff, again, states):
    batch = planned(2, work=BatchWork.PRODUCTION)
    beats.advance(now=NOON)
    run = Run.objects.get()
    runs.move(run, RunState.FAILED, by="w", now=NOON, reason="It broke.")
    beats.advance(now=NOON)
    shown = text(html(staff, url("act", batch.pk, "resume")))
    assert "What stopped it counts no more:" in shown and "Try it again, before the others" in shown and "It broke." in shown
    staff.post(url("act", batch.pk, "resume"), {"again": "1"} if again else {})
    assert list(batch.items.order_by("position").values_list("state", flat=True)) == states


def test_who_may_see_batches_and_who_may_work_with_them():
    batch = planned(1)
    viewer, planner, operator = allowed(), allowed("add_batch"), allowed("change_batch")
    assert "Pause…" not in html(viewer, page(batch)) and "Plan a batch" not in html(viewer, changelist(Batch))
    assert "Pause…" in html(operator, page(batch)) and "Plan a batch" in html(planner, changelist(Batch))
    for client, address in (
        (viewer, url("plan")),
        (operator, url("plan")),
        (viewer, url("act", batch.pk, "pause")),
        (planner, url("act", batch.pk, "pause")),
    ):
        assert client.get(address).status_code == 403
        assert client.post(address).status_code == 403
    batch.refresh_from_db()
    assert batch.state == BatchState.PLANNED
    assert Client().get(url("plan")).status_code == 302, "to the login"


# --- the command ----------------------------------------------------------------------------------------------------


def command(*words: object, **options: Any) -> str:
    out = io.StringIO()
    call_command("plan_batch", *map(str, words), stdout=out, stderr=io.StringIO(), **options)
    return out.getvalue()


def test_the_command_shows_what_would_start_and_plans_with_yes(tmp_path):
    factories.mapping()
    one, two = factories.account(), factories.account()
    listed = tmp_path / "accounts.txt"
    listed.write_text(f"{two.crm_organization_id}\n{one.crm_organization_id}\n")
    words = ("--name", "nightly", "--file", listed, "--days", "mon-fri", "--from", "22:00", "--to", "06:00", "--zone", "Europe/Berlin")
    shown = command(*words, "--canary", "0")
    assert "Mon to Fri 22:00 to 06:00, Europe/Berlin" in shown and "Nothing is planned yet: --yes plans it." in shown
    assert not Batch.objects.exists()
    told = json.loads(command(*words, "--canary", "2", "--at-once", "2", "--most-quarantined", "0.5", "--yes", "--json"))
    batch = Batch.objects.get()
    assert [row["account"] for row in told["accounts"]] == [two.crm_organization_id, one.crm_organization_id]
    assert (told["batch"], told["window"]) == (batch.pk, "Mon to Fri 22:00 to 06:00, Europe/Berlin")
    assert (batch.canary, batch.at_once, batch.most_quarantined, batch.days) == (2, 2, Decimal("0.50"), [0, 1, 2, 3, 4])


def test_the_command_refuses_in_sentences():
    with pytest.raises(CommandError, match="No account has these CRM organisation ids: 987654321") as caught:
        command("987654321", "--name", "x")
    assert caught.value.returncode == 4
    with pytest.raises(CommandError, match=r"^Name at least one account\.$"):
        command("--name", "x", "--yes")
    with pytest.raises(CommandError, match="cannot be read"):
        command("--name", "x", "--file", "/nowhere/at/all")
    for odd in ("nan", "inf", "x"):
        with pytest.raises(CommandError, match=f"invalid percent value: '{odd}'"):
            command("1", "--name", "x", "--most-quarantined", odd)
    for option, odd in (("--from", "22:00+05:00"), ("--to", "10:00Z")):
        with pytest.raises(CommandError, match="has an offset of its own: write HH:MM as the clocks of --zone show it"):
            command("1", "--name", "x", option, odd)
