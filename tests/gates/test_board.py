"""The readiness board: each row's state and who can do what next, milestones that follow from the data, and the same cost for any number of accounts."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from gates import board, by_account, milestones, policies, signoffs, standing
from gates.catalogue import BY_LETTER, GATES
from gates.models import Milestone
from gates.next_acts import Kind
from gates.policies import CannotDecide
from migration.models import Account
from migration.states import RunMode, RunState
from tests import factories
from tests.gates.conftest import LATER, NOON, found, member, open_all, sign
from tests.migration.test_admin import HOSTILE, SHOWN, html, queries, rows, text, unmarked

pytestmark = pytest.mark.django_db

C = BY_LETTER["C"]
INDEX, READINESS = reverse("admin:index"), reverse("admin:gates_gate_changelist")


@pytest.fixture
def accounts() -> list[Account]:
    return [factories.account(name=name, crm_organization_id=number) for number, name in enumerate(("Andalas", "Borneo", "Celebes"), 1)]


@pytest.fixture
def client_of():
    def logged_in(user) -> Client:
        client = Client()
        client.force_login(user)
        return client

    return logged_in


def row(shown: board.Board, letter: str) -> board.Row:
    return next(each for each in shown.rows if each.letter == letter)


def acts(user, now=LATER) -> list[tuple[Kind, str, str, list[str]]]:
    """What a person can do next, with the accounts that it concerns."""
    shown = board.of(user, now=now)
    return [(act.kind, act.rule.letter, act.sentence, [each.account.name for each in act.standings if each.account]) for act in shown.acts]


# --- the matrix -----------------------------------------------------------------------------------------------------


def test_every_gate_has_its_row_and_nothing_is_open_at_first(accounts, people):
    shown = board.of(people["CDP"], now=LATER)
    assert [each.letter for each in shown.rows] == list("ABCDEFGH")
    assert [each.is_open for each in shown.rows] == [False] * 8
    assert [each.expires for each in shown.rows] == [None] * 8
    assert (row(shown, "C").tally.total, row(shown, "C").tally.open) == (3, 0)


def test_open_gates_say_when_the_first_signature_expires(accounts, people):
    open_all(people, *accounts)
    found("A", now=NOON + timedelta(days=5))
    sign("A", "CRM Squad", people["CRM Squad"], now=NOON + timedelta(days=5))
    shown = board.of(people["CDP"], now=NOON + timedelta(days=6))
    assert [each.is_open for each in shown.rows] == [True] * 8
    assert row(shown, "A").expires == NOON + timedelta(days=30)
    assert (row(shown, "C").tally.total, row(shown, "C").tally.open, row(shown, "C").tally.lacking) == (3, 3, [])


def test_gate_c_counts_accounts_and_names_those_that_lack_it(accounts, people):
    open_all(people, accounts[0], letters="C")
    found("C", accounts[2], passes=False, says="Too few.")
    tally = by_account.tally(C, now=LATER)
    assert (tally.total, tally.open, tally.closed, tally.more) == (3, 1, 2, 0)
    assert [each.account for each in tally.lacking] == accounts[1:]


def test_an_account_that_is_gone_from_the_cdp_is_not_waited_for(accounts, people):
    open_all(people, accounts[0], letters="C")
    Account.objects.exclude(pk=accounts[0].pk).update(gone=True)
    tally = by_account.tally(C, now=LATER)
    assert (tally.total, tally.open, tally.lacking) == (1, 1, [])
    assert row(board.of(people["CDP"], now=LATER), "C").is_open


def test_without_an_account_gate_c_is_not_open(people):
    assert not row(board.of(people["CDP"], now=LATER), "C").is_open


def test_of_many_accounts_only_the_first_twenty_are_named(people):
    for number in range(1, 24):
        factories.account(crm_organization_id=number)
    tally = by_account.tally(C, now=LATER)
    assert (tally.total, len(tally.lacking), tally.more) == (23, 20, 3)
    assert [each.account.crm_organization_id for each in tally.lacking] == list(range(1, 21))


def lapsed_by(cause: str, account: Account, people) -> None:
    """Gate C of the account, signed, and then brought down in one way."""
    open_all(people, account, letters="C")
    given = {"group": "CDP", "user": people["CDP"], "note": "no", "now": LATER}
    if cause == "measured again, it fails":
        found("C", account, passes=False, now=LATER)
    if cause == "another CDP account":
        Account.objects.filter(pk=account.pk).update(cdp_id=factories.account().cdp_id.__class__(int=7))
    if cause == "rejected":
        signoffs.reject("C", account, **given)
    if cause == "withdrawn":
        signoffs.withdraw("C", account, **given)


@pytest.mark.parametrize(
    "cause", ["nothing", "measured again, it passes", "measured again, it fails", "another CDP account", "rejected", "withdrawn", "expired"]
)
def test_the_count_agrees_with_how_each_account_stands(cause, accounts, people):
    """by_account says in SQL what standing.py says in words; for every cause both must come to the same."""
    lapsed_by(cause, accounts[0], people)
    if cause == "measured again, it passes":
        found("C", accounts[0], now=LATER)
    account = Account.objects.get(pk=accounts[0].pk)
    now = NOON + timedelta(days=30) if cause == "expired" else LATER
    is_open = standing.of("C", account, now=now).is_open
    assert is_open is (cause in ("nothing", "measured again, it passes"))
    assert by_account.tally(C, now=now).open == is_open


def test_another_cdp_closes_gate_c_for_all(accounts, people, settings):
    open_all(people, *accounts, letters="C")
    settings.CDP_DATABASE_URL = "postgresql://calm_cdp:x@other.test/cdp"
    assert by_account.tally(C, now=LATER).open == 0


# --- next for me ----------------------------------------------------------------------------------------------------


def test_who_can_sign_is_told_so_and_the_policy_agrees(people):
    found("A")
    assert acts(people["Platform"]) == [
        (Kind.SIGN, "A", "Sign for Platform.", []),
        (Kind.MEASURE, "D", "Nothing was measured yet: measure it.", []),
    ]
    shown = standing.of("A", now=LATER)
    policies.check_can_sign(people["Platform"], shown, "Platform", shown.evidence)


def test_a_gate_without_probe_can_be_signed_at_once(people):
    assert acts(people["Design"]) == [(Kind.SIGN, "G", "Sign for Design.", [])]


def test_whoever_signed_for_one_group_needs_somebody_else_for_the_other(people):
    both = member("CRM Squad", "Platform", name="both")
    found("A")
    assert (Kind.SIGN, "A", "Sign for CRM Squad or Platform.", []) in acts(both)
    sign("A", "CRM Squad", both)
    barred = "You signed for CRM Squad, so somebody else must sign for Platform (in it: both, of Platform)."
    assert (Kind.ASK, "A", barred, []) in acts(both)
    shown = standing.of("A", now=LATER)
    with pytest.raises(CannotDecide):
        policies.check_can_sign(both, shown, "Platform", shown.evidence)


def test_accounts_that_need_the_same_are_one_act(accounts, people):
    for account in accounts[:2]:
        found("C", account)
    found("C", accounts[2], passes=False)
    mine = [act for act in acts(people["CDP"]) if act[1] == "C"]
    assert mine == [
        (Kind.SIGN, "C", "Sign for CDP.", ["Andalas", "Borneo"]),
        (Kind.MEASURE, "C", "The evidence fails: have the cause mended, then measure it again.", ["Celebes"]),
    ]


def test_an_operator_measures_what_is_closed_and_an_owner_only_what_is_theirs(people):
    operator = member("operator", name="op")
    found("B", passes=False)
    assert [(kind, letter) for kind, letter, *_ in acts(operator)] == [(Kind.MEASURE, letter) for letter in "ABDEF"]
    assert [(kind, letter) for kind, letter, *_ in acts(people["CRM DBA"])] == [(Kind.MEASURE, "B")]


def test_whoever_may_not_measure_asks_an_operator(people):
    people["CRM DBA"].groups.get().permissions.clear()
    assert acts(people["CRM DBA"]) == [(Kind.ASK, "B", "Nothing was measured yet: have an operator measure it.", [])]


def test_a_viewer_has_nothing_to_do(people):
    assert acts(member("viewer")) == []


@pytest.mark.parametrize(
    ("days", "told"),
    [
        (22, []),
        (24, [(Kind.RENEW, "G", "The sign-off of Design expires within a week: sign again.", [])]),
        (31, [(Kind.SIGN, "G", "The sign-off of Design lapsed: sign again.", [])]),
    ],
)
def test_a_signature_is_renewed_in_time(people, days, told):
    sign("G", "Design", people["Design"])
    assert acts(people["Design"], now=NOON + timedelta(days=days)) == told


def test_measured_gates_are_measured_before_a_signature_is_renewed(people):
    found("B")
    sign("B", "CRM DBA", people["CRM DBA"])
    soon = NOON + timedelta(days=24)
    assert acts(people["CRM DBA"], now=soon) == [
        (Kind.RENEW, "B", "The sign-off of CRM DBA expires within a week: measure again, then sign.", [])
    ]
    found("B", now=soon)
    assert acts(people["CRM DBA"], now=soon) == [(Kind.RENEW, "B", "The sign-off of CRM DBA expires within a week: sign again.", [])]


def test_after_a_rejection_the_group_signs_once_it_will_do(people):
    signoffs.reject("G", None, group="Design", user=people["Design"], note="no", now=NOON)
    assert acts(people["Design"]) == [(Kind.SIGN, "G", "Design decided against it: sign once it will do.", [])]


# --- milestones -----------------------------------------------------------------------------------------------------


def statuses(now=LATER) -> dict[str, tuple[str, str]]:
    shown = {letter: standing.of(letter, now=now) for letter in "AB"}
    steps = milestones.of([shown["A"], shown["B"]], by_account.tally(C, now=now))
    return {step.milestone.name: (step.status.state, step.status.sentence) for step in steps}


def test_fixed_milestones_are_as_the_plan_has_them(people):
    shown = statuses()
    assert len(shown) == Milestone.objects.count() == 7
    assert shown["PRD v2.1 finalized"] == ("done", "")
    assert shown["Task breakdown expanded to 9 chunks"] == ("done", "R3 delta review not run")
    assert shown["Development"] == ("", "")


def test_nothing_has_begun(people):
    shown = statuses()
    assert shown["Stage-0 operational gates"] == (
        "not begun", "0 of 3 gates open: A lacks CRM Squad and Platform; B lacks CRM DBA; C has no account yet",
    )  # fmt: skip
    assert shown["Migration dry run"] == ("not begun", "0 of 0 accounts rehearsed")
    assert shown["Production migration"] == ("not begun", "0 of 0 accounts complete")


def test_stage_0_follows_from_the_gates(accounts, people):
    open_all(people, accounts[0], letters="ABC")
    assert statuses()["Stage-0 operational gates"] == ("in progress", "2 of 3 gates open: C lacks 2 of 3 accounts")
    for account in accounts[1:]:
        open_all(people, account, letters="C")
    assert statuses()["Stage-0 operational gates"] == ("done", "3 of 3 gates open")


def test_dry_run_and_production_follow_from_the_runs(accounts):
    factories.run(RunState.PARTIAL, RunMode.DRY_RUN, account=accounts[0])
    factories.run(RunState.SUCCEEDED, RunMode.DRY_RUN, account=accounts[1])
    factories.run(RunState.FAILED, RunMode.DRY_RUN, account=accounts[2])
    factories.run(RunState.PARTIAL, account=accounts[0])
    factories.run(RunState.SUCCEEDED, account=accounts[1])
    factories.run(RunState.WITHDRAWN, account=accounts[2])
    shown = statuses()
    assert shown["Migration dry run"] == ("in progress", "2 of 3 accounts rehearsed")
    assert shown["Production migration"] == ("in progress", "1 of 3 accounts complete, 1 partial")


def test_all_accounts_partial_is_not_done(accounts):
    for account in accounts:
        factories.run(RunState.PARTIAL, account=account)
    assert statuses()["Production migration"] == ("in progress", "0 of 3 accounts complete, 3 partial")
    for account in accounts:
        factories.run(RunState.SUCCEEDED, account=account)
    assert statuses()["Production migration"] == ("done", "3 of 3 accounts complete")


# --- the page -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [INDEX, READINESS])
def test_the_board_is_on_the_first_page_and_on_its_own(address, accounts, people, client_of):
    now = timezone.now()
    found("A", now=now)
    sign("A", "CRM Squad", people["CRM Squad"], now=now)
    found("C", accounts[0], passes=False, now=now)
    markup = html(client_of(people["Platform"]), address)
    shown = {line[0][:1]: line for line in rows(markup) if line and line[0][1:2] == " "}
    assert shown["A"][1] == "closed"
    assert "CRM Squad signed of CRM Squad" in shown["A"][2] and "Platform not signed" in shown["A"][2]
    assert "0 of 3 accounts open" in shown["C"][2]
    assert "Andalas (organisation 1) fails not signed" in shown["C"][2]
    assert "Next for you A The CRM is read only Sign for Platform." in text(markup)
    assert "Stage-0 operational gates in progress 0 of 3 gates open: A lacks Platform" in text(markup)


def test_whoever_may_not_see_gates_sees_no_board(client_of):
    client = client_of(factories.viewer("account"))
    assert 'id="board"' not in html(client, INDEX)
    assert client.get(READINESS).status_code == 403


def test_a_stranger_is_asked_to_log_in(client):
    assert client.get(READINESS).url.startswith("/admin/login/")


def grow(accounts: list[Account], people) -> None:
    """Something of everything for each account."""
    for account in accounts:
        open_all(people, account, letters="C", now=timezone.now())
        found("C", account, passes=False, now=timezone.now())
        factories.run(RunState.PARTIAL, account=account)


@pytest.mark.parametrize("address", [INDEX, READINESS])
def test_the_board_costs_the_same_with_one_account_and_with_three(address, people, client_of):
    client = client_of(people["CDP"])
    grow([factories.account()], people)
    with_one = queries(client, address)
    grow([factories.account(), factories.account()], people)
    assert queries(client, address) == with_one
    assert with_one <= (30 if address == INDEX else 20)


def test_signed_evidence_of_many_accounts_is_not_read_with_its_facts(accounts, people):
    """The tally reads digests only: facts are long, and there may be 20,000 accounts."""
    open_all(people, *accounts, letters="C")
    with CaptureQueriesContext(connection) as captured:
        by_account.tally(C, now=LATER)
    assert len(captured) == 2
    assert not [query["sql"] for query in captured if "facts" in query["sql"]]


def test_hostile_text_is_shown_as_text(people, client_of):
    account = factories.account(name=HOSTILE)
    found("C", account)
    signoffs.reject("C", account, group="CDP", user=people["CDP"], note=HOSTILE, now=NOON)
    Milestone.objects.filter(position=1).update(name=HOSTILE, status=HOSTILE, effort=HOSTILE, confidence=HOSTILE, target=HOSTILE)
    markup = unmarked(html(client_of(people["CDP"]), READINESS))
    assert markup.count(SHOWN) >= 7 and "<script>alert" not in markup


def test_every_gate_of_the_catalogue_names_its_page(accounts, people, client_of):
    client = client_of(people["CDP"])
    markup = html(client, READINESS)
    for gate in GATES:
        address = reverse("admin:gates_gate_change", args=[gate.letter])
        assert f'href="{address}"' in markup
        html(client, address)
