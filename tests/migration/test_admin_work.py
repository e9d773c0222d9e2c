"""The pages on which staff work: who may, what each act does, that refusals are sentences, and that what was typed comes back as it was."""

import base64
import copy
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from html import unescape
from html.parser import HTMLParser
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st
from kombu import pools

from calm_console.celery import app
from migration import budget, drafts, ledger, override_csv, revisions, tasks
from migration.admin import display, mapping_form, typed
from migration.admin.lost import NOT_SENT
from migration.mapping import canonical, digest
from migration.models import (
    Account,
    Event,
    LinkIndex,
    LinkOddity,
    MappingDraft,
    NameCollision,
    QuarantinedCandidate,
    ReadBudget,
    Run,
    SetWatermark,
    StaleRow,
    Waiver,
)
from migration.pipeline import flow
from migration.states import ChunkState, Reason, RunMode, RunState
from tests import factories
from tests.conftest import rows as rows_of
from tests.factories import NOON
from tests.migration.conftest import mapping_document, now, run_account
from tests.migration.test_admin import HOSTILE, SHOWN, changelist, html, page, rows, text, unmarked

pytestmark = pytest.mark.django_db

DRAFT = "migration_mappingdraft"
BROKER_DATABASE = 8  # beside the console's own and that of the restart tests
AWAY = "redis://127.0.0.1:1/0"


@pytest.fixture
def staff(client) -> Client:
    client.force_login(factories.superuser())
    factories.password_typed(client)
    return client


@pytest.fixture
def viewer() -> Client:
    """May see everything, and do nothing."""
    client = Client()
    client.force_login(factories.viewer())
    return client


@pytest.fixture
def broker(settings):
    """Nudges go to a Redis database of their own; gives the queue as it is."""
    address = urlunsplit(urlsplit(settings.REDIS_URL)._replace(path=f"/{BROKER_DATABASE}"))
    with redis.Redis.from_url(address) as server:
        server.flushdb()
        with sent_to(address):
            yield lambda: [json.loads(message)["headers"] for message in server.lrange(settings.CELERY_TASK_DEFAULT_QUEUE, 0, -1)]
        server.flushdb()


@pytest.fixture
def no_broker():
    with sent_to(AWAY):
        yield


@contextmanager
def sent_to(address: str) -> Iterator[None]:
    """Celery's messages go to this broker."""
    before = app.conf.broker_url
    point(address)
    try:
        yield
    finally:
        point(before)


def point(address: str) -> None:
    pools.reset()
    app.conf.broker_url = address
    app._pool = None
    app.amqp._producer_pool = None


def url(name: str, *arguments: object, **query: object) -> str:
    return reverse(f"admin:{name}", args=arguments, query=query or None)


def allow(name: str, *permissions: str) -> Client:
    """Somebody who may see everything and do these things."""
    user = factories.viewer(name=name)
    user.user_permissions.add(*Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(User.objects.get(pk=user.pk))
    factories.password_typed(client)
    return client


def said(client: Client, answer) -> str:
    """The messages on the page that an act leads to."""
    assert answer.status_code == 302, text(answer.content.decode())
    shown = client.get(answer.url).content.decode()
    return text(" ".join(re.findall(r'<ul class="messagelist">.*?</ul>', shown, re.DOTALL)))


class Fields(HTMLParser):
    """The fields of a form as a browser would send them."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self.area = self.select = ""
        self.feed(markup)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "input" and given.get("type") in ("text", "hidden"):
            self.values[given["name"]] = given.get("value", "")
        if tag == "textarea":
            self.area, self.values[given["name"]] = given["name"], ""
        if tag == "select":
            self.select, self.values[given["name"]] = given["name"], ""
        self.chosen = tag == "option" and "selected" in given

    def handle_endtag(self, tag):
        if tag == "textarea":
            self.values[self.area] = self.values[self.area].replace("\r\n", "\n").removeprefix("\n").replace("\n", "\r\n")
            self.area = ""
        if tag == "select":
            self.select = ""

    def handle_data(self, data):
        if self.area:
            self.values[self.area] += data
        elif self.select and self.chosen:
            self.values[self.select] = data


def form_of(client: Client, address: str) -> dict[str, str]:
    """What a browser would send if nothing were changed."""
    markup = html(client, address)
    return Fields(re.search(r'<form method="post"[^>]* class="(?:card )?work-form".*?</form>', markup, re.DOTALL)[0]).values


FULL = {
    "class_roles": {
        "contact": ["Crm::Person", "Contact", '"quoted"', "two\nlines", HOSTILE],
        "deal": ["Crm::Deal"],
        "deal_contact_join": [{"class": "Crm::DealPerson", "deal": "crm_deal_id", "contact": "crm_person_id"}],
        "deal_company_join": [{"class": "Crm::DealCompany", "deal": "crm_deal_id", "company": HOSTILE}],
    },
    "status_attributes": {"deal": "crm_stage_id", "task": HOSTILE},
    "name_attributes": {"company": "name"},
    "id_sets": {"won": [4, "closed won", "04"], "done": ["=1"]},
    "account_id_sets": {"2": {"done": [3, HOSTILE], "won": []}, "17": {"resolved": [1]}},
    "secrets": ["encrypted_password", "*_token", HOSTILE],
    "category_overrides": [
        {"account": 2, "class": "Crm::Deal", "action": "update", "attribute": "status", "to": to, "category": "deal/lost", "priority": n}
        for n, to in enumerate((True, None, 0, 0.5, -1.25e-7, 2**70, "", "lost", "true", HOSTILE, [1, {"b": [None], "a": "x"}], {}))
    ]
    + [{"class": HOSTILE, "action": "create", "category": "note/pinned", "priority": -5}],
    "actor_overrides": [
        {"account": None, "crm_user_id": 24, "label": None, "kind": "user", "actor_id": "usm_x", "actor_name": HOSTILE},
        {"crm_user_id": "0024", "kind": "integration"},
        {"account": 1, "label": "\t edge\n ", "kind": "label", "actor_name": "Import"},
        {"account": 1, "label": HOSTILE, "kind": "system"},
    ],
}


def a_draft(document: dict | None = None, name: str = "work") -> MappingDraft:
    draft = drafts.start(name, by="mapper", now=NOON)
    if document:
        drafts.edit(draft, document, by="mapper", now=NOON)
    draft.refresh_from_db()
    return draft


def edited(client: Client, draft: MappingDraft, part: str, **changes: str):
    """Send a part's form with these fields changed (dots written as double underscores)."""
    address = url(f"{DRAFT}_edit", draft.pk, part)
    return client.post(address, form_of(client, address) | {name.replace("__", "."): value for name, value in changes.items()})


def everything() -> dict[str, object]:
    """One record of each kind that has a page of work."""
    run = factories.run(RunState.PARTIAL)
    candidate = factories.quarantined(factories.chunk(run))
    collision = NameCollision.objects.create(
        account=run.account,
        role="deal",
        record_id=17,
        class_name="Crm::Deal",
        version=3,
        candidates=[[901, "Alpha"], [902, HOSTILE]],
        first_seen_at=NOON,
    )
    stale = StaleRow.objects.create(run=run, row_id=run.uuid, person_id=9, audit_id=300)
    index = LinkIndex.objects.create(key="k", built=True, covers_to=50, covered_at=NOON)
    odd = LinkOddity.objects.create(index=index, join_row=3, audit_id=40, kind="startless")
    revisions.publish(mapping_document(), by="ana", note="", now=NOON)
    return {
        "draft": a_draft(),
        "candidate": candidate,
        "collision": collision,
        "stale": stale,
        "index": index,
        "odd": odd,
        "account": run.account,
    }


def acts(found: dict[str, object]) -> list[tuple[str, dict[str, str]]]:
    """Every address that changes something, with a form that would do it."""
    draft, candidate = found["draft"].pk, found["candidate"].pk
    return [
        (url(f"{DRAFT}_start"), {"name": "x"}),
        (url(f"{DRAFT}_edit", draft, "ids"), {"id_sets.won": "1"}),
        (url(f"{DRAFT}_count", draft), {}),
        (url(f"{DRAFT}_publish", draft), {"note": "x"}),
        (url(f"{DRAFT}_import", draft, "actor_overrides"), {}),
        (url("migration_quarantinedcandidate_retry"), {"ids": str(candidate)}),
        (url("migration_quarantinedcandidate_waive"), {"ids": str(candidate), "note": "x"}),
        (url("migration_namecollision_decide", found["collision"].pk), {"audit": "901", "note": "x"}),
        (url("migration_account_watermark", found["account"].pk), {"entity": "deal", "how": "live", "note": "x"}),
    ]


# --- who may --------------------------------------------------------------------------------------------------------


def test_a_viewer_sees_every_page_and_no_button(viewer, no_broker):
    found = everything()
    for record in found.values():
        markup = html(viewer, page(record)) + html(viewer, changelist(type(record)))
        content = re.sub(r'<form (id="logout-form"|id="changelist-(search|form)").*?</form>', "", markup, flags=re.DOTALL)
        assert '<form method="post"' not in content and 'class="act"' not in content and 'class="edit"' not in content
        assert "Start a draft" not in content and 'name="action"' not in content
    draft = found["draft"].pk
    assert viewer.get(url(f"{DRAFT}_export", draft, "actor_overrides")).status_code == 200
    assert viewer.get(url(f"{DRAFT}_document", draft)).json() == mapping_document()


def test_a_viewer_can_do_nothing(viewer, no_broker):
    found = everything()
    for address, form in acts(found):
        assert viewer.post(address, form).status_code == 403, address
        assert viewer.get(address).status_code == 403, address
    assert not Waiver.objects.exists() and not SetWatermark.objects.exists()
    assert MappingDraft.objects.count() == 1 and NameCollision.objects.get().decided_at is None


def test_a_stranger_is_asked_to_log_in(client, no_broker):
    for address, form in acts(everything()):
        assert client.post(address, form).url.startswith("/admin/login/"), address


@pytest.fixture
def credentials(quick_passwords, db) -> dict[str, str]:
    """What somebody who may do everything types to log in."""
    user = factories.superuser()
    user.set_password("of-the-test")
    user.save()
    return {"username": user.username, "password": "of-the-test"}


def test_after_a_login_in_between_an_act_says_that_it_was_not_done(no_broker, credentials):
    """The login leads back to the act's address, with GET."""
    found = everything()
    sent = [
        (url("migration_readbudget_set"), {"what": "stop", "note": "x"}, changelist(ReadBudget)),
        (url("migration_account_watermark", found["account"].pk), {"entity": "deal", "how": "live", "note": "x"}, page(found["account"])),
        (url("migration_namecollision_decide", found["collision"].pk), {"audit": "901", "note": "x"}, page(found["collision"])),
        (url(f"{DRAFT}_count", found["draft"].pk), {}, page(found["draft"])),
        (url("migration_quarantinedcandidate_retry"), {"ids": str(found["candidate"].pk)}, changelist(QuarantinedCandidate)),
        (url("migration_quarantinedcandidate_waive"), {"ids": str(found["candidate"].pk), "note": "x"}, changelist(QuarantinedCandidate)),
    ]
    for address, form, record in sent:
        client = Client()
        lost = client.post(address, form)
        assert said(client, lost) == NOT_SENT, address
        back = client.post(lost.url, credentials)
        assert back.url == address
        answer = client.get(back.url)
        assert (answer.status_code, answer["Location"]) == (302, record), address
        assert said(client, answer) == NOT_SENT, address
    assert not budget.current().stopped_at and not Waiver.objects.exists() and not SetWatermark.objects.exists()


def test_what_is_sent_once_the_login_has_ended_is_said_to_be_lost_on_the_login_page(no_broker, credentials):
    """Once; also where the page that the login leads back to asks before it acts."""
    found = everything()
    asking = (url("migration_batch_plan"), url("migration_run_pause", found["stale"].run_id), url(f"{DRAFT}_publish", found["draft"].pk))
    for address in asking:
        client = Client()
        lost = client.post(address, {"note": "x"})
        assert said(client, lost) == NOT_SENT, address
        assert "messagelist" not in client.get(lost.url).content.decode(), address
        assert client.post(lost.url, credentials).url == address
        assert NOT_SENT not in client.get(address).content.decode(), address
    client = Client()
    client.post(url("login"), credentials | {"password": "wrong"})
    assert NOT_SENT not in client.get(url("login")).content.decode()
    assert "messagelist" not in client.get(client.get(url("migration_batch_plan")).url).content.decode()


def test_every_act_needs_the_csrf_token(no_broker):
    client = Client(enforce_csrf_checks=True)
    client.force_login(factories.superuser())
    for address, form in acts(everything()):
        assert client.post(address, form).status_code == 403, address


def test_each_act_has_its_own_permission(no_broker):
    found = everything()
    editor = allow("editor", "change_mappingdraft")
    publisher = allow("publisher", "add_mappingrevision")
    draft = found["draft"].pk
    assert editor.get(url(f"{DRAFT}_edit", draft, "ids")).status_code == 200
    assert editor.get(url(f"{DRAFT}_publish", draft)).status_code == 403
    assert publisher.get(url(f"{DRAFT}_publish", draft)).status_code == 200
    assert publisher.get(url(f"{DRAFT}_edit", draft, "ids")).status_code == 403
    assert "Publish…" not in html(editor, page(found["draft"])) and "Edit" not in text(html(publisher, page(found["draft"])))
    waiver = allow("waiver", "change_quarantinedcandidate")
    assert waiver.get(url("migration_quarantinedcandidate_waive", ids=found["candidate"].pk)).status_code == 200
    assert waiver.post(url("migration_account_watermark", found["account"].pk), {}).status_code == 403


# --- drafts: what is typed ------------------------------------------------------------------------------------------


@given(st.text(max_size=30))
def test_any_text_comes_back_from_its_field(given_text):
    field = typed.text_field(given_text)
    assert not any(map(display.unseen, field)) and field == field.strip()
    assert typed.read_text(field) == given_text
    assert typed.read_lines(typed.lines_field([given_text, "x", given_text])) == [given_text, "x", given_text]


@pytest.mark.parametrize("part", mapping_form.PARTS)
def test_saving_a_part_unchanged_changes_nothing(staff, part):
    draft = a_draft(FULL)
    address = url(f"{DRAFT}_edit", draft.pk, part)
    form = form_of(staff, address)
    assert "Nothing was changed." in said(staff, staff.post(address, form))
    draft.refresh_from_db()
    assert draft.edited_at == NOON
    _, document = mapping_form.posted(mapping_form.PARTS[part], draft.document, form, 0)
    assert canonical(document) == canonical(FULL)


def test_hostile_text_is_escaped_and_visible_on_the_drafts_pages(staff):
    draft = a_draft(FULL, name=HOSTILE)
    addresses = [url(f"{DRAFT}_edit", draft.pk, part) for part in mapping_form.PARTS]
    for address in [page(draft), changelist(MappingDraft), url(f"{DRAFT}_publish", draft.pk), *addresses]:
        markup = html(staff, address)
        assert SHOWN in unmarked(markup), address
        assert "<script>alert" not in markup
        assert not [character for character in markup if display.unseen(character) and character != "\n"], address
        assert not re.findall(r"<style|<[^>]+\s(style|on[a-z]+)\s*=|<script(?![^>]*\ssrc=)", markup)


def test_each_part_is_saved_to_its_place(staff):
    revisions.publish(mapping_document(), by="ana", note="", now=NOON)
    draft = a_draft()
    edited(staff, draft, "classes", class_roles__note="Crm::Note\r\nCrm::Memo\r\n\r\n")
    edited(staff, draft, "attributes", name_attributes__deal="", secrets="*_key")
    edited(
        staff,
        draft,
        "ids",
        id_sets__done="4",
        account_id_sets__0__account="2",
        account_id_sets__0__set="won",
        account_id_sets__0__ids="5\r\nwon",
    )
    override = {
        "class": "Crm::Note",
        "action": "update",
        "attribute": "is_pinned",
        "to": "true",
        "category": "note/pinned",
        "priority": "1",
    }
    edited(staff, draft, "category_overrides", **{f"category_overrides__1__{key}": value for key, value in override.items()})
    edited(
        staff,
        draft,
        "actor_overrides",
        actor_overrides__0__crm_user_id="24",
        actor_overrides__0__kind="user",
        actor_overrides__0__actor_id="u",
    )
    draft.refresh_from_db()
    document = mapping_document()
    document["class_roles"]["note"] = ["Crm::Note", "Crm::Memo"]
    del document["name_attributes"]["deal"]
    document |= {"secrets": ["*_key"], "account_id_sets": {"2": {"won": [5, "won"]}}}
    document["id_sets"]["done"] = [4]
    document["category_overrides"] = [override | {"account": None, "to": True, "priority": 1}]
    document["actor_overrides"] = [{"crm_user_id": 24, "kind": "user", "actor_id": "u"}]
    assert canonical(draft.document) == canonical(document)
    assert draft.edited_by == "root"
    shown = re.search(r'<pre class="document".*?</pre>', html(staff, page(draft)), re.DOTALL)[0]
    assert '+ "Crm::Memo",' in text(shown) or '"Crm::Memo"' in text(shown)


def test_an_entry_is_removed(staff):
    draft = a_draft(FULL)
    edited(staff, draft, "actor_overrides", actor_overrides__1__remove="1", actor_overrides__2__remove="1")
    draft.refresh_from_db()
    assert canonical(draft.document) == canonical(FULL | {"actor_overrides": [FULL["actor_overrides"][0], FULL["actor_overrides"][3]]})


@pytest.mark.parametrize(
    ("part", "changes", "field", "says"),
    [
        ("classes", {"class_roles__contact": ""}, "class_roles.contact", "needs at least one class"),
        ("classes", {"class_roles__task": "Crm::Deal"}, "class_roles.task", "entry 1: class Crm::Deal is already in entry 1 of class_roles.deal,"),
        ("classes", {"class_roles__deal_contact_join__0__deal": "crm_person_id"}, None, "must be two different attributes"),
        ("ids", {"id_sets__won": "4\r\n-3"}, "id_sets.won", "entry 2: must not be below 0"),
        ("ids", {"id_sets__won": '4\r\n"x'}, "id_sets.won", "line 2 begins with a quotation mark"),
        ("ids", {"id_sets__won": "4\r\n4 5 10"}, "id_sets.won", "entry 2: '4 5 10' is no id: write one id to a line"),
        ("ids", {"account_id_sets__0__ids": "3, 4"}, "account_id_sets.0.ids", "entry 1: '3, 4' is no id: write one id to a line"),
        ("ids", {"account_id_sets__0__account": "x"}, "account_id_sets.0.account", "the key must be a CRM organisation id"),
        ("ids", {"account_id_sets__0__set": ""}, None, "needs an organisation id and a set"),
        ("ids", {"account_id_sets__2__account": "2", "account_id_sets__2__set": "done"}, None, "another row for done"),
        ("category_overrides", {"category_overrides__3__priority": "0.5"}, "category_overrides.3.priority", "must be a whole number, but is text"),
        ("category_overrides", {"category_overrides__3__to": "lost"}, "category_overrides.3.to", "must be JSON"),
        ("category_overrides", {"category_overrides__3__to": "0.50"}, "category_overrides.3.to", "cannot be kept as it is written"),
        ("category_overrides", {"category_overrides__3__to": "[" * 9999}, "category_overrides.3.to", "must be JSON"),
        ("category_overrides", {"category_overrides__3__to": "1e999999999999999999999"}, "category_overrides.3.to", "must be JSON"),
        ("category_overrides", {"category_overrides__3__category": "won"}, "category_overrides.3.category", "is not of the form"),
        ("category_overrides", {"category_overrides__1__to": "true", "category_overrides__1__priority": "0"}, None, "overlaps entry 1 of"),
        ("actor_overrides", {"actor_overrides__0__label": "x"}, None, "needs exactly one of crm_user_id and label"),
        ("actor_overrides", {"actor_overrides__0__label": '"\\ud800"', "actor_overrides__0__crm_user_id": ""}, "actor_overrides.0.label", "cannot store"),
    ],
)  # fmt: skip
def test_a_problem_stands_beside_its_field_and_nothing_is_saved(staff, part, changes, field, says):
    draft = a_draft(FULL)
    answer = edited(staff, draft, part, **changes)
    assert answer.status_code == 200
    markup = answer.content.decode()
    places = re.findall(r'<ul class="problems"(?: id="([^"]+)-problems")?>(.*?)</ul>', markup, re.DOTALL)
    assert [(place or None) for place, problem in places if says in text(problem)] == [field], places
    assert "Nothing was saved" in text(markup)
    draft.refresh_from_db()
    assert (canonical(draft.document), draft.edited_at) == (canonical(FULL), NOON)
    for name, value in changes.items():
        assert Fields(markup).values[name.replace("__", ".")] == value


def test_two_people_at_once_do_not_undo_each_other(staff):
    draft = a_draft(FULL)
    address = url(f"{DRAFT}_edit", draft.pk, "ids")
    form = form_of(staff, address)
    drafts.edit(draft, FULL | {"id_sets": {"won": [99]}}, by="another", now=NOON + timedelta(hours=1))
    answer = staff.post(address, form | {"id_sets.done": "7"})
    assert "another changed this draft meanwhile, so nothing was saved" in text(answer.content.decode())
    draft.refresh_from_db()
    assert draft.document["id_sets"] == {"won": [99]}


def test_a_long_table_is_edited_page_by_page(staff):
    entries = [{"crm_user_id": n, "kind": "user", "actor_id": "a"} for n in range(1, 131)]
    draft = a_draft(FULL | {"actor_overrides": entries})
    address = url(f"{DRAFT}_edit", draft.pk, "actor_overrides") + "?from=50"
    form = form_of(staff, address)
    assert (form["actor_overrides.0.crm_user_id"], form["actor_overrides.49.crm_user_id"], form["actor_overrides.rows"]) == (
        "51",
        "100",
        "50",
    )
    answer = staff.post(address, form | {"actor_overrides.0.actor_id": "b", "actor_overrides.49.remove": "1", "stay": "1"})
    assert answer.url == address
    draft.refresh_from_db()
    expected = copy.deepcopy(entries)
    expected[50]["actor_id"] = "b"
    del expected[99]
    assert canonical(draft.document) == canonical(FULL | {"actor_overrides": expected})
    refused = staff.post(address, form_of(staff, address) | {"actor_overrides.3.crm_user_id": "1"})
    assert "overlaps entry 1 of actor_overrides, which names the same CRM user" in text(refused.content.decode())


def test_many_sets_of_accounts_are_edited_page_by_page(staff):
    sets = {str(account): {"won": [account]} for account in range(1, 121)}
    draft = a_draft(FULL | {"account_id_sets": sets})
    address = url(f"{DRAFT}_edit", draft.pk, "ids") + "?from=100"
    form = form_of(staff, address)
    last = form["account_id_sets.19.account"]
    assert form["account_id_sets.rows"] == "22" and "51 to 100" in html(staff, address)
    outside = next(account for account in sets if account not in form.values())
    refused = staff.post(address, form | {"account_id_sets.20.account": outside, "account_id_sets.20.set": "won"})
    assert "there is another row for won" in text(refused.content.decode())
    staff.post(address, form | {"account_id_sets.19.remove": "1", "account_id_sets.20.account": "500", "account_id_sets.20.set": "done"})
    draft.refresh_from_db()
    del sets[last]
    assert canonical(draft.document) == canonical(FULL | {"account_id_sets": sets | {"500": {"done": []}}})


def test_a_draft_is_started_from_the_current_revision(staff):
    revisions.publish(mapping_document(), by="ana", note="", now=NOON)
    assert "Start a draft" in html(staff, changelist(MappingDraft))
    for name, says in (("", "needs a name"), ("x" * 121, "this one has 121"), ("\0x", "cannot be stored")):
        assert says in text(staff.post(url(f"{DRAFT}_start"), {"name": name}).content.decode())
    assert "The draft is started." in said(staff, staff.post(url(f"{DRAFT}_start"), {"name": "stages"}))
    draft = MappingDraft.objects.get()
    assert (draft.name, draft.edited_by, draft.document, draft.based_on.number) == ("stages", "root", mapping_document(), 1)
    assert "They mean the same." in text(html(staff, page(draft)))


# --- drafts: CSV ----------------------------------------------------------------------------------------------------


def upload(client: Client, draft: MappingDraft, kind: str, content: str | bytes):
    raw = content.encode() if isinstance(content, str) else content
    return client.post(url(f"{DRAFT}_import", draft.pk, kind), {"csv": SimpleUploadedFile("x.csv", raw)})


def hidden(markup: str) -> dict[str, str]:
    return Fields(re.search(r'<form method="post" class="acts".*?</form>', markup, re.DOTALL)[0]).values | {"confirm": "1"}


@pytest.mark.parametrize("kind", ["category_overrides", "actor_overrides"])
def test_exported_overrides_are_imported_again_without_any_change(staff, kind):
    draft = a_draft(FULL)
    exported = staff.get(url(f"{DRAFT}_export", draft.pk, kind))
    assert exported["Content-Disposition"] == f'attachment; filename="{kind}-draft-{draft.pk}.csv"'
    assert exported.content.decode() == override_csv.export(draft.document, kind)
    preview = upload(staff, draft, kind, exported.content).content.decode()
    count = len(FULL[kind])
    assert f"{count} lines: 0 new, {count} kept, 0 wrong. 0 overrides of the draft would be removed." in text(preview)
    assert SHOWN in unmarked(preview) or "alert(1)" in unescape(preview)
    assert "<script>alert" not in preview
    answer = staff.post(url(f"{DRAFT}_import", draft.pk, kind), hidden(preview))
    assert "Nothing was changed." in said(staff, answer)
    draft.refresh_from_db()
    assert canonical(draft.document) == canonical(FULL)


def test_a_csv_is_previewed_line_by_line_and_then_applied(staff):
    draft = a_draft(FULL)
    first = FULL["actor_overrides"][0]
    new = {"account": 3, "crm_user_id": None, "label": "line\nbreak, =1", "kind": "label", "actor_id": None, "actor_name": "\u202eX"}
    csv = override_csv.export({"actor_overrides": [first, new]}, "actor_overrides")
    preview = upload(staff, draft, "actor_overrides", csv).content.decode()
    table = [row for row in rows(preview) if row[1:2] and row[1] in ("new", "kept", "removed", "wrong")]
    assert [row[:2] for row in table] == [["2", "kept"], ["4", "new"], *[["—", "removed"]] * 3]
    assert table[1][2:] == ["3", "", '"line\\nbreak, =1"', "label", "", '"\\u202eX"']
    draft.refresh_from_db()
    assert draft.edited_at == NOON
    assert "Saved." in said(staff, staff.post(url(f"{DRAFT}_import", draft.pk, "actor_overrides"), hidden(preview)))
    draft.refresh_from_db()
    assert canonical(draft.document) == canonical(FULL | {"actor_overrides": [first, new]})


def test_a_preview_says_of_how_many_that_would_be_removed_it_shows_some(staff):
    one = {"account": None, "crm_user_id": None, "kind": "label", "actor_id": None, "actor_name": None}
    draft = a_draft(FULL | {"actor_overrides": [one | {"label": f"import {number}"} for number in range(501)]})
    for kept, says in ((0, "500 of the 501 overrides that would be removed are shown."), (1, "")):
        csv = override_csv.export({"actor_overrides": draft.document["actor_overrides"][:kept]}, "actor_overrides")
        preview = upload(staff, draft, "actor_overrides", csv).content.decode()
        assert len([row for row in rows(preview) if row[1:2] == ["removed"]]) == 500
        assert re.findall(r"[0-9]+ of the [0-9]+ overrides that would be removed are shown\.", text(preview)) == ([says] if says else [])


def test_a_wrong_csv_is_shown_by_line_and_cannot_be_confirmed(staff):
    draft = a_draft(FULL)
    header = ",".join(override_csv.COLUMNS["category_overrides"])
    csv = f"{header}\r\n,Crm::Note,update,a,0.50,note/pinned,1\r\n,Crm::Note,update,b,true,note/<b>,x\r\n,Crm::Note,update,c,{'[' * 900},note/p,2\r\n"
    preview = upload(staff, draft, "category_overrides", csv).content.decode()
    assert "3 lines: 0 new, 0 kept, 3 wrong. 13 overrides of the draft would be removed." in text(preview)
    for says in ("line 2, to: the number 0.50 cannot be kept", "line 3, priority: must be a whole number", "line 4, to: must be JSON"):
        assert says in text(preview)
    assert 'name="confirm"' not in preview
    forged = {"file": base64.b64encode(csv.encode()).decode(), "confirm": "1"}
    staff.post(url(f"{DRAFT}_import", draft.pk, "category_overrides"), forged)
    draft.refresh_from_db()
    assert draft.edited_at == NOON
    broken = staff.post(url(f"{DRAFT}_import", draft.pk, "category_overrides"), {"file": "é", "confirm": "1"})
    assert "The preview did not come back whole" in text(broken.content.decode())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe", "is not UTF-8"),
        ("a,b", "must name the columns"),
        (b"x" * 1_000_001, "this page takes 1,000,000"),
        (b"", "Choose a CSV file"),
    ],
)
def test_something_else_than_overrides_is_refused_in_a_sentence(staff, content, says):
    draft = a_draft(FULL)
    answer = upload(staff, draft, "category_overrides", content)
    assert answer.status_code == 200
    shown = text(answer.content.decode())
    assert says in shown or (content == b"" and "must name the columns" in shown)


def test_a_preview_of_another_state_is_shown_again_before_it_applies(staff):
    draft = a_draft(FULL)
    preview = hidden(upload(staff, draft, "actor_overrides", override_csv.export({}, "actor_overrides")).content.decode())
    drafts.edit(draft, FULL | {"actor_overrides": FULL["actor_overrides"][:1]}, by="another", now=NOON + timedelta(hours=1))
    address = url(f"{DRAFT}_import", draft.pk, "actor_overrides")
    again = staff.post(address, preview).content.decode()
    assert "another changed the draft since this preview" in text(again)
    assert "1 override of the draft would be removed" in text(again)
    assert "Saved." in said(staff, staff.post(address, hidden(again)))


# --- drafts: effect and publishing ----------------------------------------------------------------------------------


def test_counting_is_asked_for_and_the_page_says_so(staff, broker):
    draft = a_draft(FULL)
    staff.post(url(f"{DRAFT}_count", draft.pk))
    assert [(task["task"], task["kwargsrepr"]) for task in broker()] == [("migration.count_effect", repr({"draft_id": draft.pk}))]
    assert "counting A worker was asked at" in text(html(staff, page(draft)))
    assert "Is a worker running" not in html(staff, page(draft))
    MappingDraft.objects.filter(pk=draft.pk).update(effect_at=now() - timedelta(minutes=3))
    assert "Is a worker running" in html(staff, page(draft))


def asked_within(seconds: float, client: Client, draft: MappingDraft) -> str:
    """What the page says once counting was asked for, which may not take longer."""
    before = datetime.now(UTC)
    client.post(url(f"{DRAFT}_count", draft.pk))
    assert (datetime.now(UTC) - before).total_seconds() < seconds
    return text(html(client, page(draft)))


def test_a_broker_that_is_away_keeps_nobody_waiting(staff, no_broker):
    assert "Not counted: the broker at REDIS_URL does not answer." in asked_within(4, staff, a_draft(FULL))


def test_nor_does_one_that_takes_the_connection_and_is_silent(staff):
    with socket.create_server(("127.0.0.1", 0)) as silent, sent_to(f"redis://127.0.0.1:{silent.getsockname()[1]}/0"):
        assert "Not counted: the broker at REDIS_URL does not answer." in asked_within(4, staff, a_draft(FULL))


def test_a_worker_goes_back_to_its_work_though_the_broker_is_away(no_broker):
    began = time.monotonic()
    assert not tasks.nudge(1)
    assert time.monotonic() - began < 3


def test_a_draft_that_was_saved_with_several_ids_in_one_is_not_published(staff):
    draft = a_draft(FULL)
    MappingDraft.objects.update(document=FULL | {"id_sets": {"won": ["3, 4"]}})
    refused = text(staff.post(url(f"{DRAFT}_publish", draft.pk), {"note": "why"}).content.decode())
    assert "The draft holds what can no longer be published: id_sets.won[0]: '3, 4' is no id: write one id to a line" in refused
    assert not revisions.current()


def test_a_draft_is_counted_and_published_through_its_pages(console, staff):
    draft = a_draft()
    edited(staff, draft, "ids", id_sets__done="4", id_sets__resolved="")
    address = url(f"{DRAFT}_publish", draft.pk)
    refused = text(html(staff, address))
    assert "The draft's effect is not counted yet" in refused
    assert "effect is not counted yet" in text(staff.post(address, {"note": "why"}).content.decode())

    tasks.count_effect(draft_id=draft.pk)
    shown = html(staff, page(draft))
    draft.refresh_from_db()
    counted = {each["organisation"]: each for each in draft.effect}
    line = next(row for row in rows(shown) if "(organisation 1)" in row[0])
    assert line[1:] == [str(counted[1][name]) for name in ("changed", "added", "removed", "loaded")]
    assert counted[1]["changed"] > 5 and "task/done -> task/update" in text(shown) and counted[1]["examples"][0] in text(shown)

    form = form_of(staff, address)
    assert "publishing needs a note" in text(staff.post(address, form | {"note": " "}).content.decode())
    assert "Published as revision 2." in said(staff, staff.post(address, form | {"note": HOSTILE}))
    draft.refresh_from_db()
    assert (draft.published.number, draft.published.published_by) == (2, "root")
    assert "is published already" in text(staff.post(address, form | {"note": "again"}).content.decode())
    assert "Edit" not in text(html(staff, page(draft)))
    answer = staff.post(url(f"{DRAFT}_edit", draft.pk, "ids"), {"id_sets.won": "1"})
    assert answer.status_code == 200 and revisions.current().number == 2
    assert "is published already" in said(staff, staff.post(url(f"{DRAFT}_count", draft.pk)))
    assert SHOWN in unmarked(html(staff, page(draft.published)))


def test_an_edit_makes_the_count_stale(staff):
    revisions.publish(mapping_document(), by="ana", note="", now=NOON)
    draft = a_draft(FULL)
    found = [{"organisation": 1, "changed": 1, "added": 0, "removed": 0, "loaded": 1, "categories": {HOSTILE: 1}, "examples": [HOSTILE]}]
    MappingDraft.objects.filter(pk=draft.pk).update(effect=found, effect_digest="0" * 64, effect_at=NOON, effect_reason="Counted.")
    shown = text(html(staff, page(draft)))
    assert "The draft was changed since it was counted." in shown and "not counted yet" in shown
    MappingDraft.objects.filter(pk=draft.pk).update(effect_digest=digest(draft.document))
    markup = html(staff, page(draft))
    assert "The draft can be published." in text(markup) and unmarked(markup).count(SHOWN) >= 2


def test_any_two_revisions_are_compared(staff):
    for number, ids in enumerate((["4"], ["4", "5"], ["5"]), 1):
        factories.mapping(number=number, document={"id_sets": {"won": ids}})
    third = revisions.current()
    assert "Changed since revision 2" in text(html(staff, page(third)))
    shown = html(staff, page(third) + "?with=1")
    assert "Changed since revision 1" in text(shown)
    assert [text(each) for each in re.findall(r"<(?:ins|del)>.*?</(?:ins|del)>", shown)] == ['- "4"', '+ "5"']
    for odd in ("x", "9" * 30, "77", "3"):
        assert staff.get(page(third) + f"?with={odd}").status_code == 200


# --- quarantine -----------------------------------------------------------------------------------------------------


def mended(console) -> tuple[Run, QuarantinedCandidate]:
    """A production run with a candidate without a time, whose time is there again since."""
    audit, created_at = console_row(console)
    console.change_crm(f"UPDATE audits SET created_at = NULL WHERE id = {audit}")
    run = run_account(1)
    assert run.state == RunState.PARTIAL
    console.change_crm(f"UPDATE audits SET created_at = '{created_at}' WHERE id = {audit}")
    return run, run.quarantined.get(reason=Reason.TIME_MISSING, audit_id=audit)


def console_row(console) -> tuple[int, str]:
    """An audit of a contact of account 1 that is written."""
    query = (
        "SELECT max(id), max(created_at::text) FROM audits WHERE auditable_type = 'Crm::Person' AND auditable_id = 3 AND action = 'create'"
    )
    return rows_of(console.crm, query)[0]


def work(run: Run) -> Run:
    run.refresh_from_db()
    tasks.work_here(run)
    return run


def test_retrying_moves_the_ledger_and_a_second_click_is_refused(console, staff, broker):
    run, candidate = mended(console)
    before = ledger.of(run)
    address = url("migration_quarantinedcandidate_retry")
    assert f"{address}?ids={candidate.pk}" in html(staff, page(candidate))
    asked = html(staff, f"{address}?ids={candidate.pk}")
    assert "1 candidate would be tried again" in text(asked) and "time missing" in text(asked)

    assert "1 candidate is tried again by the workers." in said(staff, staff.post(address, {"ids": str(candidate.pk)}))
    assert [task["task"] for task in broker()] == ["migration.work"]
    second = said(staff, staff.post(address, {"ids": str(candidate.pk)}))
    assert "is running: only a partial run's candidates are tried again" in second
    assert run.chunks.filter(pairs__isnull=False).count() == 1 and len(broker()) == 1

    after = ledger.of(work(run))
    assert after.balances and after.written == before.written + 1
    assert before.quarantined["time_missing"] - after.quarantined["time_missing"] == 1
    assert "Choose candidates" not in said(staff, staff.post(address, {"ids": str(candidate.pk)}))


def test_retrying_by_reason_from_the_runs_page(console, staff, broker):
    run, _ = mended(console)
    wanted = f"{url('migration_quarantinedcandidate_retry')}?run={run.pk}&amp;reason=time_missing"
    assert wanted in html(staff, page(run))
    assert "1 candidate would be tried again" in text(html(staff, unescape(wanted)))
    form = form_of(staff, unescape(wanted))
    assert "tried again by the workers" in said(staff, staff.post(url("migration_quarantinedcandidate_retry"), form))
    assert work(run).state == RunState.PARTIAL and not run.quarantined.filter(reason="time_missing").exists()


def test_waiving_the_selected_moves_the_ledger(console, staff):
    run = run_account(2)
    chosen = [str(pk) for pk in run.quarantined.values_list("pk", flat=True)]
    before = ledger.of(run)
    listed = changelist(QuarantinedCandidate)
    asked = staff.post(listed, {"action": "waive_selected", "_selected_action": chosen[:1]}).content.decode()
    assert "1 candidate would be waived for good" in text(asked)
    address = url("migration_quarantinedcandidate_waive")
    refused = staff.post(address, {"ids": chosen[0], "note": " \0"})
    assert "a waiver needs a note" in text(refused.content.decode()) and not Waiver.objects.exists()

    assert "1 candidate is waived." in said(staff, staff.post(address, {"ids": chosen[0], "note": HOSTILE}))
    after = ledger.of(Run.objects.get(pk=run.pk))
    assert (after.waived.total(), after.quarantined.total()) == (1, before.quarantined.total() - 1) and after.balances
    assert "None of them is quarantined any more: 1 is waived already." in text(
        staff.post(address, {"ids": chosen[0], "note": "again"}).content.decode()
    )
    assert Waiver.objects.get().waived_by == "root"
    assert SHOWN in unmarked(html(staff, page(QuarantinedCandidate.objects.get(pk=chosen[0]))))

    form = form_of(staff, url("migration_quarantinedcandidate_waive", run=run.pk, reason=""))
    assert f"{len(chosen) - 1} candidates are waived." in said(staff, staff.post(address, form | {"note": "given up"}))
    assert Run.objects.get(pk=run.pk).state == RunState.SUCCEEDED


def partial(**fields) -> QuarantinedCandidate:
    revision = revisions.publish(mapping_document(), by="ana", note="", now=NOON).revision
    run = factories.run(RunState.PARTIAL, mapping_revision=revision, pipeline_version=flow.VERSION, **fields)
    return factories.quarantined(factories.chunk(run))


def test_what_cannot_be_retried_says_why_before_anybody_clicks(staff):
    candidate = partial(mode=RunMode.DRY_RUN)
    asked = html(staff, url("migration_quarantinedcandidate_retry", ids=candidate.pk))
    assert "is a dry run" in text(asked) and ">Try again</button>" not in asked


def test_an_outage_retries_nothing(staff, settings):
    candidate = partial()
    settings.CDP_DATABASE_URL = "postgresql://nobody@127.0.0.1:1/none"
    answer = said(staff, staff.post(url("migration_quarantinedcandidate_retry"), {"ids": str(candidate.pk)}))
    assert "Nothing is tried again: CDP_DATABASE_URL" in answer
    assert Run.objects.get().state == RunState.PARTIAL


@pytest.mark.parametrize(
    "query", [{}, {"ids": "x"}, {"ids": "1,,2"}, {"run": "1e9"}, {"run": "1", "reason": "nonsense"}, {"ids": "9" * 30}]
)
def test_nonsense_in_the_address_is_refused(staff, query):
    for name in ("retry", "waive"):
        address = url(f"migration_quarantinedcandidate_{name}")
        assert "refused" not in said(staff, staff.get(address, query)) and said(staff, staff.post(address, query))


def test_selected_candidates_are_confirmed_first(staff):
    candidate = partial()
    form = {"action": "retry_selected", "_selected_action": [str(candidate.pk)]}
    asked = staff.post(changelist(QuarantinedCandidate), form).content.decode()
    assert "1 candidate would be tried again" in text(asked) and f'value="{candidate.pk}"' in asked
    assert Run.objects.get().state == RunState.PARTIAL


# --- the raw audit --------------------------------------------------------------------------------------------------

CHANGES = {
    "name": [HOSTILE, "x" * 30_000],
    "encrypted_password": ["hunter1", "hunter2"],
    "API_TOKEN": "hunter3",
    "deep": [{"reset_token": {"a": "hunter4"}, "amount": 1}],
    "big": 9007199254740993,
}


def looked_at(console, client: Client, audit: int) -> str:
    run = factories.run(RunState.PARTIAL, mapping_revision=revisions.current())
    return html(client, page(factories.quarantined(factories.chunk(run), audit_id=audit)))


def test_the_raw_audit_is_escaped_visible_folded_and_without_secrets(console, staff):
    literal = json.dumps(CHANGES).replace("'", "''")
    console.change_crm(
        f"""UPDATE audits SET audited_changes = '{literal}'::jsonb || '{{"price": 0.50}}', username = E'{HOSTILE}' WHERE id = 5"""
    )
    markup = looked_at(console, staff, 5)
    assert "hunter" not in markup and markup.count("on the secrets list, not shown") == 3
    assert SHOWN in unmarked(markup) and SHOWN.replace("⟨U+0007⟩", "\\u0007") in unmarked(markup) and "<script>alert" not in markup
    assert not [character for character in markup if display.unseen(character) and character != "\n"]
    facts = dict(re.findall(r"<div><dt>(.*?)</dt><dd>(.*?)</dd></div>", markup, re.DOTALL))
    shown = {text(name): text(value) for name, value in facts.items()}
    assert (shown["big"], shown["price"], shown["id"]) == ("9007199254740993", "0.50", "5")
    assert '<details class="fold">' in facts["<bdi>name</bdi>"] and "10," in shown["name"]


@pytest.mark.parametrize("systems", ["crm_sample_yaml"], indirect=True)
def test_yaml_is_read_and_what_cannot_be_read_is_cut_before_a_secret(console, staff):
    console.change_crm(
        "UPDATE audits SET audited_changes = E'---\\nname:\\n- a\\n- b\\nencrypted_password:\\n- hunter1\\n- hunter2\\n' WHERE id = 5",
        "UPDATE audits SET audited_changes = E'---\\nname: !ruby/object:Odd {}\\n  bad\\nencrypted_password: hunter1\\nhunter2\\n' WHERE id = 6",
        "UPDATE audits SET audited_changes = NULL WHERE id = 7",
    )
    read, cut, null = (looked_at(console, staff, audit) for audit in (5, 6, 7))
    assert "hunter" not in read + cut
    assert '["a", "b"]' in text(read) and "secrets list, not shown" in read
    assert "cannot be read as the gem writes it" in text(cut) and "ruby/object:Odd" in cut and "nor is what follows" in cut
    assert "audited_changes is null." in text(null)


def test_the_raw_audit_is_for_those_only_who_work_on_it(console):
    """It holds names, e-mail addresses and telephone numbers; who may only look is told which permission it takes, and the CRM is not asked."""
    console.change_crm("UPDATE audits SET username = 'siti@example.com' WHERE id = 5")
    markup = looked_at(console, allow("only looks"), 5)
    assert "siti@example.com" not in markup and '<dl class="facts raw">' not in markup
    assert "that takes the permission migration.change_quarantinedcandidate, as trying again" in text(markup)
    markup = html(allow("works", "change_quarantinedcandidate"), page(QuarantinedCandidate.objects.get()))
    assert "siti@example.com" in markup and "not shown to you" not in markup


def test_an_audit_that_cannot_be_had_says_why(console, staff, settings):
    assert "The CRM has no audit 999999999999 any more." in text(looked_at(console, staff, 999_999_999_999))
    settings.CRM_DATABASE_URL = "postgresql://reader:hunter1@127.0.0.1:1/crm"
    markup = looked_at(console, staff, 5)
    assert "CRM_DATABASE_URL: nothing listens at its host and port" in text(markup) and "hunter1" not in markup


def test_without_a_readable_mapping_no_changes_are_shown(console, staff):
    run = factories.run(RunState.PARTIAL, mapping_revision=factories.mapping(number=9))
    markup = html(staff, page(factories.quarantined(factories.chunk(run), audit_id=5)))
    assert "nobody knows what is secret in it" in text(markup)


# --- names, watermarks, lists ---------------------------------------------------------------------------------------


def test_a_collision_is_decided_and_decided_anew(staff):
    collision = everything()["collision"]
    address = url("migration_namecollision_decide", collision.pk)
    markup = html(staff, page(collision))
    assert SHOWN in unmarked(markup) and "<script>alert" not in markup
    for form, says in (
        ({"note": "x"}, "Choose one of the names"),
        ({"audit": "7", "note": "x"}, "Choose one"),
        ({"audit": "901"}, "needs a note"),
    ):
        assert says in text(staff.post(address, form).content.decode())
    assert "The decision is stored." in said(staff, staff.post(address, {"audit": "902", "note": HOSTILE}))
    collision.refresh_from_db()
    assert (collision.decided_name, collision.decided_by) == (HOSTILE, "root") and collision.decided_at
    assert SHOWN in unmarked(html(staff, page(collision)))
    staff.post(address, {"audit": "901", "note": "asked them"})
    collision.refresh_from_db()
    assert (collision.decided_name, collision.note) == ("Alpha", "asked them")
    told = Event.objects.filter(kind="name decided").first()
    assert "'Alpha' (audit 901), in the place of" in told.sentence and told.account == collision.account
    assert [staff.get(changelist(NameCollision, decided=d)).context["cl"].result_count for d in ("no", "yes")] == [0, 1]


def test_a_watermark_is_set_and_taken_back(staff):
    account = factories.account()
    factories.run(account=account)
    address = url("migration_account_watermark", account.pk)
    form = {"entity": "deal", "how": "hand", "moment": "2026-01-02T03:04:05", "note": HOSTILE}
    later = (now() + timedelta(days=1)).isoformat()
    for wrong, says in (
        ({"entity": "x"}, "Choose an entity"),
        ({"how": ""}, "Choose whether"),
        ({"moment": "soon"}, "must be a date and a time"),
        ({"moment": "0001-01-01T00:00+10:00"}, "must be a date and a time"),
        ({"moment": later}, "cannot lie in the future"),
        ({"moment": "0024-05-01T12:00"}, "A watermark of the year 24 would leave all of the history to the live sync"),
        ({"note": " "}, "needs a note"),
    ):
        assert says in text(staff.post(address, form | wrong).content.decode())
    assert not SetWatermark.objects.exists()
    assert "The watermark is set." in said(staff, staff.post(address, form))
    made = SetWatermark.objects.get()
    assert (made.entity, made.moment, made.set_by) == ("deal", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "root")
    markup = html(staff, page(account))
    assert ["deal", "2026-03-01 12:00:00 UTC", "2026-01-02 03:04:05 UTC set by hand"] in rows(markup)
    assert SHOWN in unmarked(markup) and "<script>alert" not in markup
    staff.post(address, form | {"how": "live", "note": "a mistake"})
    assert ["deal", "2026-03-01 12:00:00 UTC", "by the live rows, if there are any"] in rows(html(staff, page(account)))
    assert Event.objects.filter(kind="watermark set", account=account).count() == 2


def test_a_watermark_set_here_is_heeded_by_the_next_run(console, staff):
    account = Account.objects.get(crm_organization_id=3)
    form = {"entity": "contact", "how": "hand", "moment": "2023-06-01T00:00:00", "note": "live since then"}
    staff.post(url("migration_account_watermark", account.pk), form)
    assert run_account(3, RunMode.DRY_RUN).watermark["contact"] == "2023-06-01T00:00:00+00:00"


def test_stale_rows_and_link_oddities_are_listed(staff):
    found = everything()
    assert staff.get(changelist(StaleRow, run=found["stale"].run_id)).context["cl"].result_count == 1
    assert staff.get(changelist(StaleRow, q="300")).context["cl"].result_count == 1
    assert staff.get(changelist(LinkOddity, index=found["index"].pk, kind="startless")).context["cl"].result_count == 1
    assert staff.get(changelist(LinkOddity, kind="contactless")).context["cl"].result_count == 0
    shown = text(html(staff, page(found["index"])))
    assert "Covers audits to 50" in shown and "Oddities 1" in shown
    for record in found.values():
        assert staff.post(page(record), {}).status_code == 403


def test_the_new_lists_cost_the_same_with_one_row_and_with_three(staff):
    def cost() -> list[int]:
        counts = []
        for model in (MappingDraft, NameCollision, StaleRow, LinkIndex, LinkOddity, QuarantinedCandidate):
            with CaptureQueriesContext(connection) as captured:
                html(staff, changelist(model))
            counts.append(len(captured))
        return counts

    found = everything()
    cost()
    with_one = cost()
    run = factories.run(RunState.FAILED, account=found["account"])
    for n in (1, 2):
        other = factories.account()
        NameCollision.objects.create(
            account=other, role="deal", record_id=n, class_name="x", version=1, candidates=[[1, "a"]], first_seen_at=NOON
        )
        StaleRow.objects.create(run=run, row_id=factories.uuid4(), person_id=n, audit_id=n)
        LinkOddity.objects.create(index=LinkIndex.objects.create(key=f"k{n}"), join_row=n, audit_id=n, kind="contactless")
        factories.quarantined(factories.chunk(run, ChunkState.DONE))
        a_draft(name=str(n))
    assert cost() == with_one
