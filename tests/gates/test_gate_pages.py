"""A gate's page, its forms, the evidence pack and the plan of a run: who may, what each does, that refusals are sentences and notes are kept."""

import re
import threading
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.template.loader import render_to_string
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from gates import evidence, signoffs, standing
from gates.admin import exhibits, measuring
from gates.admin.exhibits import coverage, query_plans, read_only, reading
from gates.admin.plan import UNFINISHED
from gates.catalogue import BY_LETTER, GATES
from gates.models import Evidence, SignOff
from gates.probes import Finding, Measurement
from migration import revisions, worlds
from migration.admin.lost import NOT_SENT
from migration.doors import Outage
from migration.models import Account, Event, Run, Waiver
from migration.pipeline import flow
from migration.states import ACTIVE, RunMode, RunState
from tests import factories
from tests.gates.conftest import found, member, open_all, sign
from tests.migration.conftest import console, mapping_document, now, run_account  # noqa: F401 - a fixture
from tests.migration.test_admin import HOSTILE, SHOWN, html, queries, rows, text, unmarked
from tests.migration.test_admin_work import Fields, allow, no_broker  # noqa: F401 - a fixture

pytestmark = pytest.mark.django_db

FACTS = {
    "A": {
        "server": {"version": "18.1", "in_recovery": True, "role": "reader", "database": "crm", "address": "127.0.0.1:5432/crm"},
        "attributes": ["CREATEDB"],
        "memberships": [{"role": "pg_read_all_data", "ok": False}],
        "grants": [
            {"object_type": "table", "object": "public.audits", "privilege": "SELECT", "through": "reader", "verdict": "needed"},
            {"object_type": "table", "object": "public.people", "privilege": "UPDATE", "through": "PUBLIC", "verdict": "excess"},
        ],
        "grants_total": 7,
        "write_attempts": [{"statement": "DELETE FROM audits WHERE false", "refused": False, "answer": "DELETE 0"}],
    },
    "B": {
        "accounts": [{"which": "largest", "account": "Andalas", "organisation": 1, "contacts": 104}],
        "queries": [
            {
                "which": "largest", "name": "the contacts' own audits", "rows": 28, "milliseconds": 12.5, "buffers": {"hit": 22, "read": 3},
                "plan": {
                    "Node Type": "Sort", "Total Cost": 100.0, "Actual Rows": 28, "Actual Loops": 1, "Actual Total Time": 12.5,
                    "Sort Space Type": "Disk",
                    "Plans": [
                        {"Node Type": "Index Scan", "Relation Name": "audits", "Index Name": "auditable_index", "Total Cost": 75.0,
                         "Actual Rows": 14, "Actual Loops": 2, "Actual Total Time": 5.0, "Index Cond": "(auditable_id = 1)"},
                    ],
                },
                "sql": "SELECT 1",
            },
        ],
        "indexes": [
            {"table": "public.audits", "columns": ["auditable_type", "auditable_id"], "found": "auditable_index", "create": None},
            {"table": "public.audits", "columns": ["associated_type"], "found": None, "create": "CREATE INDEX CONCURRENTLY x ON audits (y);"},
        ],
    },
    "C": {
        "numerator": 95, "denominator": 98, "percent": "96.93", "threshold": "99", "missing_total": 250,
        "missing": [{"contact": "c0ffee", "source_id": None, "created_at": "2026-01-02T03:04:05+00:00"}],
        "sources": [{"source": "crm", "contacts": 98}],
    },
    "D": {
        "cases": [
            {"kind": "active", "user_id": 8, "email": "sari@example.test", "crm": {}, "usman": {"id": "usm_8", "status": "ACTIVE"}},
            {"kind": "deleted", "user_id": 9, "email": "budi@example.test", "crm": {"deleted": "2024-01-03"}, "usman": None},
        ],
        "counts": {"active": {"asked": 2, "ACTIVE": 1, "DEACTIVATED": 0, "absent": 1}, "deleted": {"asked": 1}},
    },
    "E": {
        "roles": [{"role": "contact", "class": "Contact", "rows": 0, "counted_all": True},
                  {"role": "deal", "class": "Crm::Deal", "rows": 9000, "counted_all": False}],
        "attributes": [{"class": "Crm::Deal", "attribute": "crm_stage_id", "rows": 288}],
        "id_sets": [{"set": "won", "account": 2, "id": "4", "rows": 15}],
        "unnamed_statuses": [{"role": "deal", "value": "14", "rows": 38}],
        "unroled_classes": [{"class": "User", "rows": 62}],
        "looked_at": {"classes": 1, "all_classes": True, "audits": [{"class": "Crm::Deal", "looked_at": 397, "all_of_it": True}]},
    },
    "F": {
        "counts": {"certain": 310, "ambiguous": 2},
        "keys": [{"account": "Andalas", "role": "deal", "record_id": 31, "class": "Crm::Deal", "version": 3, "candidates": ["Old", "New"],
                  "verdict": "ambiguous"}],
        "keys_total": 5, "covered": {"accounts": 3},
    },
}  # fmt: skip
# What a reader must find of it.
SHOWS = {
    "A": ["In recovery (a replica) yes", "CREATEDB", "pg_read_all_data", "excess UPDATE table public.people PUBLIC", "and 5 more", "not refused DELETE 0"],
    "B": ["largest Andalas 1 104", "reads 28 rows", "spills to disk", "25.0 %", "75.0 %", "auditable_index", "CREATE INDEX CONCURRENTLY x ON audits (y);"],
    "C": ["96.93 %", "95 of 98 contacts", "c0ffee none 2026-01-02 03:04:05 UTC", "and 249 more"],
    "D": ["active 2 1 0 1", "budi@example.test 9 deleted deleted: 2024-01-03 absent", "ACTIVE usm_8"],
    "E": ["contact Contact 0", "deal Crm::Deal over 9,000", "won 2 4 15", "deal 14 38", "User 62", "Crm::Deal 397 all of them"],
    "F": ["certain 310", "Crm::Deal 31 deal Andalas 3 Old New ambiguous", "and 4 more", "Name collisions, where staff decide"],
}  # fmt: skip
SHOWS["B"][1] = "28 rows in 12.50 ms; 22 pages from the cache, 3 read"


def page(letter: str, account: Account | None = None, **query: object) -> str:
    query |= {"account": account.pk} if account else {}
    return reverse("admin:gates_gate_change", args=[letter], query=query or None)


def act(name: str, letter: str) -> str:
    return reverse(f"admin:gates_gate_{name}", args=[letter])


def listed(client: Client, address: str) -> list[list[str]]:
    """The rows of the page's own tables, without the navigation's."""
    return rows(html(client, address).partition('id="content-main"')[2])[1:]


def log_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def fresh(letter: str, account: Account | None = None, **given: object) -> Evidence:
    """Evidence of this moment, as pages ask the clock."""
    return found(letter, account, now=timezone.now(), **given)


def with_facts(letter: str, facts: object, account: Account | None = None) -> Evidence:
    rule = BY_LETTER[letter]
    shown = Measurement([Finding(True, "Good."), Finding(None, "Judge.")], facts)  # type: ignore[arg-type]
    return evidence.store(rule, account, evidence.configuration(rule, account), shown, 0.5, by="ana", now=timezone.now())


def form(client: Client, letter: str, account: Account | None = None) -> dict[str, str]:
    """The form of a decision as a browser would send it, with the group that is chosen."""
    markup = html(client, page(letter, account))
    found = re.search(r'<form method="post" action="[^"]+/decide/".*?</form>', markup, re.DOTALL)[0]
    chosen = re.search(r'<input type="radio" name="group" [^>]*value="([^"]+)"[^>]* checked', found)
    return Fields(found).values | {"group": chosen[1], "note": "looked at it"}


def send(client: Client, letter: str, sent: dict[str, str], **more: str):
    return client.post(act("decide", letter), sent | more)


def messages(client: Client, answer) -> str:
    assert answer.status_code == 302, text(answer.content.decode())
    return text(" ".join(re.findall(r'<ul class="messagelist">.*?</ul>', html(client, answer.url), re.DOTALL)))


def refusal(answer) -> str:
    assert answer.status_code == 200
    return text(re.search(r'<p class="problem" role="alert">(.*?)</p>', answer.content.decode(), re.DOTALL)[1])


def decisions(letter: str) -> list[tuple[str, str, str, int | None, str]]:
    return list(SignOff.objects.filter(gate=letter).order_by("id").values_list("group", "decision", "decided_by", "evidence_id", "note"))


# --- who may --------------------------------------------------------------------------------------------------------


def addresses(account: Account) -> list[str]:
    return [
        *(page(gate.letter) for gate in GATES), page("C", account), reverse("gates:pack", args=[account.pk]),
        reverse("admin:gates_evidence_changelist"), reverse("admin:gates_signoff_changelist"),
    ]  # fmt: skip


def test_every_member_and_viewer_sees_every_page(people):
    account = factories.account()
    for user in (people["CDP"], member("viewer"), factories.superuser()):
        for address in addresses(account):
            html(log_in(user), address)


def test_a_stranger_is_asked_to_log_in_and_others_are_refused(client):
    account = factories.account()
    every = [*addresses(account), reverse("gates:plan", args=[account.pk])]
    assert all(client.get(address).url.startswith("/admin/login/") for address in every)
    client.force_login(factories.viewer("account"))
    assert {client.get(address).status_code for address in every} == {403}


@pytest.mark.parametrize("name", ["decide", "measure"])
def test_a_viewer_gets_no_form_and_is_refused(people, name):
    fresh("A")
    viewer = log_in(member("viewer"))
    assert "<form method" not in html(viewer, page("A")).partition('id="content-main"')[2]
    assert viewer.post(act(name, "A"), {"act": "sign", "group": "Platform", "note": "x"}).status_code == 403
    assert (decisions("A"), Evidence.objects.count()) == ([], 1)


def test_an_owner_of_another_gate_is_told_whose_it_is(people):
    fresh("A")
    client = log_in(people["Design"])
    assert "It is for CRM Squad and Platform to decide, and you are in neither group." in text(html(client, page("A")))
    answer = send(client, "A", {"act": "sign", "group": "Platform", "note": "x", "evidence": "1", "latest": "0"})
    assert refusal(answer) == "refused of Design is not in group Platform, which must decide on Gate A: in group Platform: of Platform."


def test_a_superuser_signs_for_nobody(people):
    fresh("A")
    root = log_in(factories.superuser())
    answer = send(root, "A", {"act": "sign", "group": "Platform", "note": "x", "evidence": "1", "latest": "0"})
    assert "root is not in group Platform" in refusal(answer)


@pytest.mark.parametrize("letter", ["a", "I", "AB", "é"])
def test_a_gate_that_is_none_is_not_found(client, letter):
    client.force_login(factories.superuser())
    assert [client.get(address).status_code for address in (page(letter), act("decide", letter), act("measure", letter))] == [404] * 3


@pytest.mark.parametrize("key", ["", "x", "999999", "-1", "9" * 30, "²"])
def test_an_account_that_is_none_is_not_found(client, key):
    client.force_login(factories.superuser())
    assert client.get(f"{page('C')}?account={quote(key)}").status_code == (404 if key else 200)
    assert client.post(act("decide", "C"), {"account": key}).status_code == 404


@pytest.mark.parametrize("name", ["decide", "measure", "days"])
def test_after_a_login_in_between_the_gates_page_says_that_nothing_was_done(client, name):
    client.force_login(factories.superuser())
    answer = client.get(act(name, "A"))
    assert (answer.url, messages(client, answer)) == (page("A"), NOT_SENT)


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_head_says_what_is_confirmed_by_whom(people):
    open_all(people, letters="A", now=timezone.now())
    shown = text(html(log_in(people["Platform"]), page("A")))
    assert BY_LETTER["A"].statement in shown
    assert "open Every owner group's sign-off stands." in shown
    assert re.search(r"Platform signed by of Platform on [\d :-]+ UTC, on evidence \d+ looked at of Platform", shown)
    assert "A sign-off stands for 30 days" in shown


def test_gate_c_asks_for_which_account(people):
    andalas, borneo = (factories.account(name=name, crm_organization_id=number) for name, number in (("Andalas", 11), ("Borneo", 12)))
    fresh("C", andalas, passes=False)
    client = log_in(people["CDP"])
    shown = listed(client, page("C"))
    assert [line[:2] for line in shown] == [["Andalas (organisation 11)", "closed"], ["Borneo (organisation 12)", "closed"]]
    assert [line[2].split()[0] for line in shown] == ["fails", "not"]
    assert [line[0] for line in listed(client, page("C", q="bor"))] == ["Borneo (organisation 12)"]
    assert [line[0] for line in listed(client, page("C", q="11"))] == ["Andalas (organisation 11)"]
    assert "No account matches the search." in text(html(client, page("C", q="zzz\0")))
    assert f'href="{page("C", borneo)}"' in html(client, page("C"))


def test_many_accounts_come_in_pages(people):
    for number in range(1, 53):
        factories.account(crm_organization_id=number)
    client = log_in(people["CDP"])
    assert len(listed(client, page("C"))) == 50
    assert len(listed(client, page("C", page=2))) == 2
    assert len(listed(client, page("C", page="x" * 20))) == 50


def test_history_comes_in_pages_and_says_what_changed(people, settings):
    first = fresh("A")
    second = fresh("A")
    third = fresh("A", passes=False)
    for number in range(21):
        signoffs.reject("A", None, group="Platform", user=people["Platform"], note=f"no {number}", now=timezone.now())
    client = log_in(people["Platform"])
    shown = [line for line in rows(html(client, page("A"))) if line[0].startswith("evidence")]
    assert [(line[0], line[4].split()[-1]) for line in shown] == [
        (f"evidence\N{NO-BREAK SPACE}{third.pk}".replace("\N{NO-BREAK SPACE}", " "), "changed"),
        (f"evidence {second.pk}", "same"),
        (f"evidence {first.pk}", "first"),
    ]
    assert "no 20" in html(client, page("A")) and "no 0<" not in html(client, page("A"))
    assert "no 0" in html(client, page("A", decision_page=2))


@pytest.mark.parametrize("letter", FACTS)
def test_evidence_is_shown_for_a_reader(letter, people):
    account = factories.account() if letter == "C" else None
    made = with_facts(letter, FACTS[letter], account)
    client = log_in(factories.superuser())
    for address in (page(letter, account), reverse("admin:gates_evidence_change", args=[made.pk])):
        shown = text(html(client, address))
        assert "passes Good." in shown and "for judgement Judge." in shown
        assert [each for each in SHOWS[letter] if each not in shown] == [], shown
        assert made.digest in shown


BROKEN = [
    {},
    {"unknown": 1},
    "text",
    [],
    7,
    {"cases": 1, "queries": {}, "grants": "x", "numerator": "x", "roles": [1], "keys": [None], "counts": 5},
]


@pytest.mark.parametrize("letter", FACTS)
@pytest.mark.parametrize("facts", [*BROKEN, "nulls", "hostile"], ids=str)
def test_no_facts_break_a_page(letter, facts):
    made = {"nulls": emptied, "hostile": poisoned}.get(str(facts), lambda _: facts)(FACTS[letter])
    stored = Evidence(gate_id=letter, findings=[{}, {"ok": 3, "sentence": None}], facts=made, configuration={}, digest="0" * 64)
    render_to_string("admin/gates/exhibit.html", {"exhibit": exhibits.of(stored)})


def emptied(value: object) -> object:
    """The same shape with nothing in it."""
    if isinstance(value, dict):
        return {name: emptied(each) for name, each in value.items()}
    return [emptied(each) for each in value] if isinstance(value, list) else None


def poisoned(value: object) -> object:
    """The same shape with hostile text in place of every text."""
    if isinstance(value, dict):
        return {name: poisoned(each) for name, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each) for each in value]
    return HOSTILE if isinstance(value, str) else value


@pytest.mark.parametrize("letter", FACTS)
def test_hostile_evidence_is_shown_as_text(letter, people):
    account = factories.account(name=HOSTILE) if letter == "C" else None
    rule = BY_LETTER[letter]
    shown = Measurement([Finding(False, HOSTILE)], poisoned(FACTS[letter]))  # type: ignore[arg-type]
    evidence.store(rule, account, {HOSTILE: HOSTILE}, shown, 0.5, by=HOSTILE, now=timezone.now())
    markup = unmarked(html(log_in(factories.superuser()), page(letter, account)))
    assert markup.count(SHOWN) > 5 and "<script>alert" not in markup


def test_a_plan_is_a_tree_with_each_steps_own_share_of_the_cost():
    shown = query_plans.of(FACTS["B"])["queries"][0]["nodes"]
    assert [(node.depth, node.kind, node.rows, node.took, node.share, node.width, node.trouble) for node in shown] == [
        (0, "Sort", 28, "12.50 ms", "25.0 %", "25.000%", "spills to disk"),
        (1, "Index Scan", 28, "10.00 ms", "75.0 %", "75.000%", ""),
    ]


def test_a_plan_of_a_thousand_nodes_is_cut():
    plan: dict = {"Node Type": "Append", "Plans": [{"Node Type": "Seq Scan", "Total Cost": 1.0} for _ in range(1000)]}
    shown = query_plans.of({"queries": [{"plan": plan}]})["queries"][0]["nodes"]
    assert len(shown) == query_plans.MOST_NODES and shown[1].trouble == "reads the whole table"


def test_excess_grants_come_first():
    assert [grant["verdict"] for grant in read_only.of(FACTS["A"])["grants"]] == ["excess", "needed"]


@pytest.mark.parametrize(
    ("value", "number"), [(3, 3), (28.0, 28), (28.5, None), ("3", None), (True, None), (None, None), (float("nan"), None)]
)
def test_whole_numbers_are_read_with_care(value, number):
    assert reading.whole(value) == number


def test_coverage_without_contacts_shows_no_bar_of_a_hundred_percent():
    shown = coverage.of({"numerator": 0, "denominator": 0, "percent": None})
    assert (shown["width"], shown["percent"]) == ("0%", "")


# --- deciding -------------------------------------------------------------------------------------------------------


def test_the_second_group_opens_the_gate(people):
    made = fresh("A")
    for group in ("CRM Squad", "Platform"):
        client = log_in(people[group])
        answer = send(client, "A", form(client, "A"), act="sign")
        assert messages(client, answer) == f"Of {group} signed Gate A for {group}. It is recorded for good."
    assert decisions("A") == [(group, "signed", f"of {group}", made.pk, "looked at it") for group in ("CRM Squad", "Platform")]
    assert standing.of("A", now=timezone.now()).is_open
    assert Event.objects.filter(kind="gate signed").count() == 2


def test_a_gate_without_probe_is_signed_without_evidence(people):
    client = log_in(people["Design"])
    send(client, "G", form(client, "G"), act="sign")
    assert decisions("G") == [("Design", "signed", "of Design", None, "looked at it")]


def test_reject_and_withdraw(people):
    made = fresh("B")
    client = log_in(people["CRM DBA"])
    messages(client, send(client, "B", form(client, "B"), act="sign"))
    assert messages(client, send(client, "B", form(client, "B"), act="withdraw", note="wrong replica")) == (
        "Of CRM DBA withdrew the sign-off on Gate B for CRM DBA. It is recorded for good."
    )
    assert "Withdraw the sign-off" not in html(client, page("B"))
    send(client, "B", form(client, "B"), act="reject", note="no")
    assert [(decision, on, note) for _, decision, _, on, note in decisions("B")] == [
        ("signed", made.pk, "looked at it"), ("withdrawn", made.pk, "wrong replica"), ("rejected", made.pk, "no"),
    ]  # fmt: skip


def test_a_failing_gate_can_only_be_rejected(people):
    fresh("B", passes=False, says="No index.")
    client = log_in(people["CRM DBA"])
    markup = html(client, page("B"))
    assert 'value="sign"' not in markup and 'value="reject"' in markup
    assert "fails, so it cannot be signed: No index." in text(markup)
    answer = send(client, "B", form(client, "B"), act="sign", note="I insist")
    assert "fails, so it cannot be signed: No index." in refusal(answer)
    assert ">I insist</textarea>" in answer.content.decode()
    assert decisions("B") == []


def test_one_person_for_two_groups_is_refused_with_who_could(people):
    fresh("A")
    both = log_in(member("CRM Squad", "Platform", name="both"))
    send(both, "A", form(both, "A"), act="sign", group="CRM Squad")
    answer = send(both, "A", form(both, "A"), act="sign", group="Platform")
    assert "one person never signs for two groups. Somebody else must sign for Platform (in group Platform: both, of Platform)." in refusal(
        answer
    )
    assert len(decisions("A")) == 1


@pytest.mark.parametrize("note", ["", "  \r\n ", "\0"])
def test_a_note_is_needed(people, note):
    fresh("B")
    client = log_in(people["CRM DBA"])
    answer = send(client, "B", form(client, "B"), act="sign", note=note)
    assert refusal(answer) == "refused A note is needed: what you looked at, and why you decide so."


@pytest.mark.parametrize(("name", "value"), [("act", ""), ("act", "delete"), ("group", ""), ("group", "Nobody"), ("group", HOSTILE)])
def test_a_form_that_says_nothing_does_nothing(people, name, value):
    fresh("B")
    client = log_in(people["CRM DBA"])
    assert refusal(send(client, "B", form(client, "B") | {"act": "sign"}, **{name: value}))
    assert decisions("B") == []


@pytest.mark.parametrize("verb", ["sign", "reject"])
def test_evidence_replaced_while_the_form_is_open_is_refused_and_the_new_one_shown(people, verb):
    fresh("B")
    client = log_in(people["CRM DBA"])
    sent = form(client, "B")
    newer = fresh("B")
    answer = send(client, "B", sent, act=verb, note="of the old one")
    assert "was measured again" in refusal(answer) and f"evidence {newer.pk}" in refusal(answer)
    markup = answer.content.decode()
    assert f"evidence {newer.pk}</a>" in markup and ">of the old one</textarea>" in markup
    assert decisions("B") == []
    again = Fields(re.search(r'<form method="post" action="[^"]+/decide/".*?</form>', markup, re.DOTALL)[0]).values
    send(client, "B", again, act=verb, group="CRM DBA")
    assert [on for *_, on, _ in decisions("B")] == [newer.pk]


def test_a_form_sent_twice_signs_once(people):
    fresh("B")
    client = log_in(people["CRM DBA"])
    sent = form(client, "B")
    messages(client, send(client, "B", sent, act="sign"))
    assert messages(client, send(client, "B", sent, act="sign")) == "It was recorded already: of CRM DBA signed Gate B for CRM DBA."
    assert len(decisions("B")) == 1


def test_a_colleagues_decision_is_not_overwritten_unseen(people):
    made = fresh("B")
    client = log_in(people["CRM DBA"])
    sent = form(client, "B")
    colleague = member("CRM DBA", name="colleague")
    signoffs.reject("B", None, group="CRM DBA", user=colleague, note="no", now=timezone.now())
    answer = send(client, "B", sent, act="sign")
    assert "CRM DBA has decided meanwhile: colleague rejected Gate B on" in refusal(answer)
    assert decisions("B") == [("CRM DBA", "rejected", "colleague", made.pk, "no")]


def test_the_same_evidence_is_not_signed_twice_and_newer_evidence_is(people):
    fresh("B")
    client = log_in(people["CRM DBA"])
    send(client, "B", form(client, "B"), act="sign", note="first")
    assert "and that sign-off stands" in refusal(send(client, "B", form(client, "B"), act="sign", note="again"))
    fresh("B")
    send(client, "B", form(client, "B"), act="sign", note="renewed")
    assert [note for *_, note in decisions("B")] == ["first", "renewed"]


def test_what_is_judged_without_a_probe_is_renewed_from_a_page_that_shows_it(people):
    client = log_in(people["Design"])
    for note in ("first", "again"):
        send(client, "G", form(client, "G"), act="sign", note=note)
    assert [note for *_, note in decisions("G")] == ["first", "again"]


@pytest.mark.django_db(transaction=True)
def test_two_clicks_at_once_sign_once(people):
    fresh("B")
    client = log_in(people["CRM DBA"])
    sent = form(client, "B") | {"act": "sign"}
    answers = []

    def click() -> None:
        try:
            answers.append(log_in(people["CRM DBA"]).post(act("decide", "B"), sent).status_code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=click) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [302] * 4
    assert len(decisions("B")) == 1


# --- measuring ------------------------------------------------------------------------------------------------------


@pytest.fixture
def probe(monkeypatch):
    """Gate A's probe answers what the test says: the measuring itself is tested with the probes."""

    def answers(does) -> None:
        monkeypatch.setattr("gates.probes.read_only.measure", does)

    return answers


@pytest.mark.django_db(transaction=True)
def test_measure_again_stores_what_was_found(people, probe):
    probe(lambda account: Measurement([Finding(False, "A grant too many.")]))
    client = log_in(member("operator", name="op"))
    answer = client.post(act("measure", "A"))
    made = Evidence.objects.get()
    assert (made.measured_by, made.passes) == ("op", False)
    assert messages(client, answer) == f"Evidence {made.pk} is stored, and it fails: A grant too many."


@pytest.mark.django_db(transaction=True)
def test_an_outage_stores_nothing_and_says_so(people, probe):
    def away(account):
        raise Outage("CRM_DATABASE_URL does not answer.")

    probe(away)
    client = log_in(member("operator"))
    assert messages(client, client.post(act("measure", "A"))) == "Nothing was measured: CRM_DATABASE_URL does not answer."
    assert not Evidence.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_long_measurement_goes_on_by_itself_and_is_not_begun_twice(people, probe, monkeypatch):
    go_on = threading.Event()

    def slow(account):
        go_on.wait(20)
        return Measurement([Finding(True, "Good.")])

    probe(slow)
    monkeypatch.setattr(measuring, "PATIENCE", 0.5)
    client = log_in(member("operator"))
    assert "is still being measured" in messages(client, client.post(act("measure", "A")))
    assert messages(client, client.post(act("measure", "A"))) == "Gate A is being measured at this moment: look again in a minute."
    go_on.set()
    next(thread for thread in threading.enumerate() if thread.name == "probe").join(20)
    assert Evidence.objects.count() == 1


def test_what_has_no_probe_is_not_measured(people):
    client = log_in(member("operator"))
    assert client.post(act("measure", "G")).status_code == 404
    assert client.post(act("measure", "C")).status_code == 404
    assert "Measure" not in text(html(client, page("G"))).partition("History")[0]


@pytest.mark.django_db(transaction=True)
def test_gate_c_is_really_measured_from_its_page(console, people):  # noqa: F811 - the fixture
    short = Account.objects.get(crm_organization_id=3)
    client = log_in(people["CDP"])
    said = messages(client, client.post(act("measure", "C"), {"account": short.pk}))
    assert "it fails: 95 of the account's 98 CDP contacts" in said
    assert "96.93 %" in text(html(client, page("C", short))) or "96.94 %" in text(html(client, page("C", short)))


# --- lists ----------------------------------------------------------------------------------------------------------


def test_lists_filter_by_gate_account_and_decision(people):
    account = factories.account(name="Andalas")
    open_all(people, account, now=timezone.now())
    signoffs.reject("G", None, group="Design", user=people["Design"], note="no", now=timezone.now())
    client = log_in(factories.superuser())

    def count(model: str, **filters: object) -> int:
        return len(re.findall(r'<th class="field-', html(client, reverse(f"admin:gates_{model}_changelist", query=filters or None))))

    assert [count("signoff", **each) for each in ({}, {"gate": "A"}, {"account": account.pk}, {"decision": "rejected"}, {"q": "no"})] == [
        12,
        2,
        1,
        1,
        1,
    ]
    assert [count("evidence", **each) for each in ({}, {"gate": "A"}, {"account": account.pk}, {"verdict": "fails"})] == [6, 1, 1, 0]


@pytest.mark.parametrize("model", [SignOff, Evidence])
def test_nobody_adds_changes_or_deletes_a_record(client, people, model):
    fresh("B")
    sign("B", "CRM DBA", people["CRM DBA"], now=timezone.now())
    client.force_login(factories.superuser())
    name, record = model._meta.model_name, model.objects.get()
    add, delete = reverse(f"admin:gates_{name}_add"), reverse(f"admin:gates_{name}_delete", args=[record.pk])
    change = reverse(f"admin:gates_{name}_change", args=[record.pk])
    assert [client.post(address, {"note": "x", "post": "yes"}).status_code for address in (add, delete, change)] == [403] * 3
    assert [client.post(reverse(f"admin:gates_gate_{verb}", args=args)).status_code for verb, args in (("add", []), ("delete", ["A"]))] == [
        403
    ] * 2
    html(client, change)


def grow(account: Account, people) -> None:
    open_all(people, account, letters="BC", now=timezone.now())
    fresh("C", account)
    run = factories.run(RunState.PARTIAL, account=account)
    factories.waived(factories.quarantined(factories.chunk(run)))
    factories.event(run)


def test_pages_cost_the_same_with_one_row_and_with_three(people):
    account = factories.account()
    urls = [
        page("B"), page("C"), page("C", account), reverse("admin:gates_evidence_changelist"), reverse("admin:gates_signoff_changelist"),
        reverse("gates:pack", args=[account.pk]), reverse("gates:plan", args=[account.pk]),
    ]  # fmt: skip
    client = log_in(factories.superuser())
    factories.mapping()
    grow(account, people)
    with_one = [queries(client, url) for url in urls]
    for _ in range(2):
        grow(account, people)
        grow(factories.account(), people)
    assert [queries(client, url) for url in urls] == with_one
    assert max(with_one) <= 50


# --- the evidence pack ----------------------------------------------------------------------------------------------


def pack(client: Client, account: Account) -> str:
    return html(client, reverse("gates:pack", args=[account.pk]))


def test_the_pack_of_an_account_without_anything(people):
    shown = text(pack(log_in(people["CDP"]), factories.account(name="Andalas")))
    assert "Evidence pack: Andalas" in shown
    assert "Nobody has decided anything yet." in shown
    assert "No run of this account was planned yet." in shown
    assert "Nothing was waived." in shown
    assert "All 0 events of the account" in shown


@pytest.mark.django_db(transaction=True)
def test_the_pack_holds_the_whole_story(console, people, settings):  # noqa: F811 - the fixture
    settings.GATE_POLICY = "tests.migration.policies.with_f"
    account = Account.objects.get(crm_organization_id=1)
    open_all(people, account, now=timezone.now())
    dry, production = run_account(1, RunMode.DRY_RUN), run_account(1)
    candidate = production.quarantined.first()
    same = {name: getattr(candidate, name) for name in ("account", "person_id", "audit_id", "reason")}
    Waiver.objects.create(**same, note="the source is lost for good", waived_by="ana", waived_at=timezone.now())
    markup = pack(log_in(people["CDP"]), account)
    shown = text(markup)
    for letter in "ABCDEFGH":
        assert BY_LETTER[letter].statement in shown
    for made in Evidence.objects.all():
        assert made.digest in shown
    assert f"Production: run {production.pk}" in shown and f"Dry run: run {dry.pk}" in shown
    assert shown.count("Every one of 484 candidates has exactly one outcome.") == 2
    assert "agrees with every figure of the dry run" in shown
    assert "tenant mismatch" in shown and "the source is lost for good" in shown
    assert "At the seam" in shown and "contact/create, audit" in shown
    assert "gate signed of CDP signed Gate C" in shown and "run planned" in shown
    assert str(account.cdp_id) in shown and settings.CRM_DATABASE_URL.rpartition("/")[2] in shown
    ids = re.findall(r' id="([^"]+)"', markup)
    assert sorted(set(ids)) == sorted(ids), "an id is there twice"
    assert "<details" not in re.sub(r"<details[^>]* open", "", markup.partition('id="content-main"')[2]), "paper does not unfold"
    assert "nav-sidebar" not in markup.partition("<body")[2]


def test_the_pack_is_bounded_and_says_so(people):
    account = factories.account()
    at = timezone.now()
    Event.objects.bulk_create(Event(at=at, by="x", kind="k", sentence=f"event {n}.", account=account) for n in range(501))
    shown = text(pack(log_in(people["CDP"]), account))
    assert "The newest 500 of 501 events of the account." in shown
    assert "event 500." in shown and "event 0." not in shown


def test_the_pack_says_which_variable_is_wrong(people, settings):
    settings.CRM_DATABASE_URL = "nonsense"
    assert "CRM_DATABASE_URL cannot be read as a URL" in text(pack(log_in(people["CDP"]), factories.account()))


# --- plan a run -----------------------------------------------------------------------------------------------------


def plan(account: Account) -> str:
    return reverse("gates:plan", args=[account.pk])


def operator(name: str = "op") -> Client:
    return log_in(member("operator", name=name))


def test_the_account_page_offers_it_to_whom_it_is_for(people):
    account = factories.account()
    address = reverse("admin:migration_account_change", args=[account.pk])
    for client, offered in ((operator(), True), (log_in(member("viewer")), False)):
        assert (plan(account) in html(client, address)) is offered
        assert reverse("gates:pack", args=[account.pk]) in html(client, address)
    assert log_in(people["CDP"]).get(plan(account)).status_code == 403


def test_refusals_are_shown_in_full_and_nothing_can_be_started(people):
    account = factories.account(name="Andalas", crm_organization_id=9)
    revisions.publish(mapping_document(), by="tester", note="", now=now())
    markup = html(operator(), plan(account))
    shown = text(markup)
    assert shown.count("Gate A (The CRM is read only) is closed: nothing was measured yet") == 2
    assert shown.count("Gate C (Contacts carry their CRM id) for Andalas (organisation 9) is closed") == 1
    assert 'name="mode"' not in markup
    assert "closed E Classes and id-sets are right: won, done, resolved" in shown


def test_without_a_mapping_nothing_can_be_started(people):
    account = factories.account()
    open_all(people, account, now=timezone.now())
    markup = html(operator(), plan(account))
    assert "No mapping revision is published yet" in text(markup) and 'name="mode"' not in markup


@pytest.fixture
def ready(console, people, settings):  # noqa: F811 - the fixture
    """Account 1 of the sample, with every gate open by real evidence where it can be had."""
    settings.GATE_POLICY = "gates.policies.decide"
    account = Account.objects.get(crm_organization_id=1)
    open_all(people, account, now=timezone.now())
    return account


@pytest.mark.django_db(transaction=True)
def test_a_dry_run_is_started_and_its_page_shown(ready, no_broker):  # noqa: F811 - the fixture
    client = operator()
    answer = client.post(plan(ready), {"mode": "dry_run"})
    run = Run.objects.get()
    assert (run.mode, run.planned_by, run.state, run.capabilities) == ("dry_run", "op", RunState.PLANNED, ["D", "E", "F"])
    assert answer.url == reverse("admin:migration_run_change", args=[run.pk])
    assert f"Run {run.pk} (dry run, Andalas Motor (organisation 1)) is planned." in messages(client, answer)
    assert "is not finished" in text(html(client, plan(ready)))


@pytest.fixture
def startable(people, settings) -> dict[str, object]:
    """What a dry run has that an operator starts now."""
    settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"
    revision = revisions.publish(mapping_document(), by="tester", note="", now=now()).revision
    account = factories.account()
    systems = worlds.systems()
    return {"account": account, "mapping_revision": revision, "pipeline_version": flow.VERSION, "systems": systems, "mode": RunMode.DRY_RUN}


GIVES_WAY = "another one takes its place, or is refused while a worker is at it."
STAYS = "another one is refused until it has ended: it is resumed or cancelled first."


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("state", "says", "again", "other"),
    [
        (RunState.PLANNED, f"Starting the same again leaves it to the workers; {GIVES_WAY}", RunState.PLANNED, RunState.CANCELLED),
        (RunState.RUNNING, f"Starting the same again leaves it to the workers; {GIVES_WAY}", RunState.RUNNING, RunState.CANCELLED),
        (RunState.VERIFYING, f"Starting the same again leaves it to the workers; {GIVES_WAY}", RunState.VERIFYING, RunState.CANCELLED),
        (
            RunState.INTERRUPTED,
            f"Starting the same again goes on with it where it stopped; {GIVES_WAY}",
            RunState.RUNNING,
            RunState.CANCELLED,
        ),
        (RunState.PAUSING, f"Starting the same again takes the pause back; {STAYS}", RunState.RUNNING, RunState.PAUSING),
        (RunState.PAUSED, f"Starting the same again resumes it; {STAYS}", RunState.RUNNING, RunState.PAUSED),
        (RunState.CANCELLING, "No run of the account starts before it is cancelled.", None, RunState.CANCELLING),
        (
            RunState.WITHDRAWING,
            "No run of the account starts before it is withdrawn, or its withdrawal is abandoned.",
            None,
            RunState.WITHDRAWING,
        ),
    ],
)
def test_the_page_says_what_becomes_of_a_run_that_is_not_finished(startable, no_broker, state, says, again, other):  # noqa: F811 - the fixture
    """`again`: its state after the same is started (None: refused), `other`: after another one is."""
    run, client = factories.run(state, **startable), operator()
    factories.chunk(run)
    assert f"{run} is not finished. {says}" in text(html(client, plan(run.account)))
    answer = client.post(plan(run.account), {"mode": "dry_run"})
    if again:
        assert answer.url == reverse("admin:migration_run_change", args=[run.pk])
        assert f"{run} is {again}." in messages(client, answer)
    else:
        assert f"{run} is {state} and would have to end first" in refusal(answer)
    Run.objects.filter(pk=run.pk).update(state=state)
    answer = client.post(plan(run.account), {"mode": "production"})
    assert (answer.status_code == 302) == (other == RunState.CANCELLED)
    assert Run.objects.get(pk=run.pk).state == other


def test_there_is_a_sentence_for_every_unfinished_state():
    assert set(UNFINISHED) == set(ACTIVE)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("mode", ["production", "nonsense", ""])
def test_a_refused_start_is_told_in_words(ready, mode):
    answer = operator().post(plan(ready), {"mode": mode})
    expected = "has no dry run that ran to its end and balanced" if mode == "production" else "Choose a dry run or a production run."
    assert expected in refusal(answer)
    assert not Run.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_start_measures_again(ready, systems):
    """What was signed is no longer so: the page did not know, the start does."""
    client = operator()
    assert 'value="dry_run"' in html(client, plan(ready))
    systems.change_crm("GRANT UPDATE ON audits TO calm_test_reader")
    assert "Gate A (The CRM is read only) is closed" in refusal(client.post(plan(ready), {"mode": "dry_run"}))
    assert not Run.objects.exists()


def test_a_downgrade_needs_a_confirmation(people, settings):
    account = factories.account(crm_organization_id=1)
    revisions.publish(mapping_document(), by="tester", note="", now=now())
    open_all(people, account, letters="ABCD", now=timezone.now())
    revision = revisions.current()
    factories.run(account=account, mapping_revision=revision, capabilities=["D", "E"])
    rehearsed(account, revision, ["D"])
    markup = html(operator(), plan(account))
    assert "had capability E" in text(markup)
    assert re.search(r'<input type="checkbox" name="downgrade_confirmed" [^>]*required', markup)


def rehearsed(account: Account, revision, capabilities: list[str]) -> Run:
    return factories.run(
        RunState.SUCCEEDED, RunMode.DRY_RUN, account=account, mapping_revision=revision, capabilities=capabilities,
        pipeline_version=flow.VERSION, systems=worlds.systems(),
    )  # fmt: skip


@pytest.mark.django_db(transaction=True)
def test_a_confirmed_downgrade_is_started(ready, people, no_broker):  # noqa: F811 - the fixture
    revision = revisions.current()
    factories.run(account=ready, mapping_revision=revision, capabilities=["D", "E", "F"])
    signoffs.withdraw("F", None, group="CDP", user=people["CDP"], note="no", now=timezone.now())
    rehearsed(ready, revision, ["D", "E"])
    client = operator()
    assert "had capability F" in refusal(client.post(plan(ready), {"mode": "production"}))
    client.post(plan(ready), {"mode": "production", "downgrade_confirmed": "yes"})
    run = Run.objects.first()
    assert (run.mode, run.state, run.capabilities) == ("production", RunState.PLANNED, ["D", "E"])
    assert Event.objects.filter(run=run, kind="downgrade confirmed").exists()
