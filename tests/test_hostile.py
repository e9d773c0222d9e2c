"""Hostile text wherever others can put it: nothing executes on any page there is, and what cannot be seen is shown.

It is put in through the systems and moved by a run.
"""

import json
from collections.abc import Iterator
from datetime import time
from pathlib import Path
from uuid import uuid4

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.http import HttpResponse
from django.test import Client
from playwright.sync_api import expect

from calm_console.demo.stand_ins import DATA
from gates import signoffs, standing
from gates.models import Evidence
from migration import accounts, budget, drafts, quarantine, revisions
from migration.models import (
    Account,
    Batch,
    LinkIndex,
    LinkOddity,
    MappingDraft,
    NameCollision,
    Notification,
    QuarantinedCandidate,
    Run,
    StaleRow,
)
from migration.states import RunMode
from tests import factories
from tests.browsing import Seen, browser, context, kind_of, opened_for, seen, site, walk  # noqa: F401 - fixtures
from tests.calm_console.test_security_rights import address, named
from tests.conftest import Systems, serve_usman
from tests.migration.conftest import mapping_document, now, run_account

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

TEXTS = (
    "<script>executed.push('script')</script>",
    '"><img src=x onerror="executed.push(1)">',
    "'><svg/onload=executed.push(2)>",
    "</textarea></title></style><script>executed.push(3)</script>",
    "javascript:executed.push(4)",
    "{{7*7}}{% debug %}",
    "\u202egnp.exe\u2066",
    "\x07\x1b[31m",
)
HOSTILE = " ".join(TEXTS)
LONG = "x" * 1_000_000 + HOSTILE
LONGEST_PAGE = 400_000  # characters


@pytest.fixture
def usman(tmp_path: Path, settings) -> Iterator[None]:
    """The sample's USMAN, all of whose people have hostile names."""
    told = json.loads((DATA / "sample_usman_users.json").read_text())
    for user in told["users"]:
        user["name"] = HOSTILE
    file = tmp_path / "users.json"
    file.write_text(json.dumps(told))
    server = serve_usman(file)
    settings.USMAN_URL = next(server)
    yield
    next(server, None)


@pytest.fixture
def poisoned(systems: Systems, usman, settings) -> User:
    """The systems full of it, one account moved, and every note that staff can leave."""
    settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"
    poison(systems)
    person = User.objects.create_superuser(HOSTILE[:150], f"{TEXTS[0]}@sample.example")
    person.first_name, person.last_name = HOSTILE[:150], TEXTS[6]
    person.save()
    accounts.sync(now=now())
    revisions.publish(hostile_mapping(), by=person.username, note=HOSTILE, now=now())
    run_account(1, RunMode.DRY_RUN)
    run_account(1)
    leave_notes(person)
    return person


def poison(systems: Systems) -> None:
    change = json.dumps({"name": HOSTILE, "content": HOSTILE, HOSTILE: [HOSTILE, {"a": HOSTILE}]})
    systems.change_crm(
        "SET standard_conforming_strings = on",
        f"UPDATE audits SET audited_changes = audited_changes || {quoted(change)}::jsonb WHERE id % 3 = 0 AND auditable_type NOT LIKE '%Join%'",
        f"UPDATE audits SET comment = {quoted(HOSTILE)}, remote_address = {quoted(HOSTILE)}",
        f"UPDATE audits SET username = {quoted(HOSTILE)}, user_id = NULL, user_type = NULL WHERE id % 5 = 0",
        f"UPDATE audits SET action = {quoted(HOSTILE)} WHERE auditable_type = 'Crm::Person' AND id % 40 = 0",
        f"UPDATE audits SET comment = {quoted(LONG)}, action = 'unheard of' WHERE auditable_type = 'Crm::Person' AND id % 41 = 0",
        f"UPDATE users SET full_name = {quoted(HOSTILE)}",
    )
    systems.change_cdp(f"UPDATE accounts SET name = name || {quoted(HOSTILE)}", f"UPDATE contacts SET name = {quoted(HOSTILE)}")


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def hostile_mapping() -> dict:
    document = mapping_document()
    document["category_overrides"] = [{"class": HOSTILE, "action": "create", "category": "note/pinned", "priority": 1}]
    document["actor_overrides"] = [{"label": HOSTILE, "kind": "label", "actor_name": HOSTILE}]
    document["secrets"] = [*document["secrets"], HOSTILE]
    return document


def leave_notes(person: User) -> None:
    by = person.username
    leave_records(by)
    drafts.start(HOSTILE[:120], by=by, now=now())
    quarantine.waive(QuarantinedCandidate.objects.filter(pk=QuarantinedCandidate.objects.first().pk), note=HOSTILE, by=by, now=now())
    budget.stop(note=LONG, by=by, now=now())
    group = Group.objects.get(name="Design")
    person.groups.add(group)
    newest = standing.of("G", None, now=now()).evidence
    signoffs.sign("G", None, group=group.name, evidence=newest, user=person, note=HOSTILE, now=now())


def leave_records(by: str) -> None:
    """One of each kind that this run has left none of."""
    account, run = Account.objects.get(crm_organization_id=1), Run.objects.last()
    NameCollision.objects.create(
        account=account,
        role="deal",
        record_id=1,
        class_name=HOSTILE,
        version=1,
        candidates=[[1, HOSTILE], [2, TEXTS[0]]],
        first_seen_at=now(),
    )
    StaleRow.objects.create(run=run, row_id=uuid4(), person_id=1, audit_id=1)
    LinkOddity.objects.create(index=LinkIndex.objects.get(), join_row=1, audit_id=1, kind="startless")
    batch = Batch.objects.create(
        name=HOSTILE[:120], reason=HOSTILE, days=[0], begins=time(1), ends=time(5), zone="UTC", planned_at=now(), planned_by=by
    )
    batch.items.create(position=1, account=account, reason=HOSTILE)
    Notification.objects.create(
        uuid=uuid4(), at=now(), kind="run partial", channel="webhook", body={"run": HOSTILE}, run=run, not_before=now(), error=HOSTILE
    )
    Evidence.objects.create(
        gate_id="F", passes=False, findings=[{"ok": False, "sentence": HOSTILE}], facts={HOSTILE: HOSTILE}, configuration={"a": HOSTILE},
        digest="d" * 64, seconds=1, measured_at=now(), measured_by=by,
    )  # fmt: skip


def unseen(person: User, seen: Seen) -> list[str]:  # noqa: F811 - not the fixture
    """Addresses of pages whose route the walk has not met: of each route there is, about a record of its kind, as this person."""
    records = {f"{model._meta.app_label}_{model._meta.model_name}": model.objects.first() for model in admin.site._registry}
    assert [name for name, record in records.items() if record is None] == []
    client = Client()
    client.force_login(person)
    factories.password_typed(client)
    left = [there for there in (address(pattern, records) for pattern in named().values()) if not seen.routes[kind_of(there)]]
    return [there for there in left if is_page(client.get(there))]


def is_page(answer: HttpResponse) -> bool:
    return answer.status_code == 200 and answer["Content-Type"].startswith("text/html")


@pytest.mark.timeout(400)  # every page
def test_nothing_executes_and_what_hides_is_shown(poisoned, context, seen):  # noqa: F811 - fixtures
    page = opened_for(poisoned, context, seen)
    draft = MappingDraft.objects.get()
    candidate = next(each for each in QuarantinedCandidate.objects.all() if each.audit_id % 41 == 0)  # the one with the long comment
    walk(
        page,
        seen,
        "/admin/",
        f"/admin/migration/mappingdraft/{draft.pk}/change/",
        *(f"/admin/migration/mappingdraft/{draft.pk}/edit/{part}/" for part in ("ids", "actor_overrides", "category_overrides")),
        f"/admin/migration/quarantinedcandidate/{candidate.pk}/change/",
        *(f"/admin/migration/quarantinedcandidate/{act}/?ids={candidate.pk}" for act in ("retry", "waive")),
        "/admin/gates/gate/G/change/",
        "/admin/auth/user/add/",
        "/admin/auth/group/add/",
        f"/admin/auth/user/{poisoned.pk}/change/",
        "/admin/password-again/?next=javascript:executed.push(5)",
        "/admin/badge/",
        "/api/docs/",
        each=1,
    )
    walk(page, seen, *unseen(poisoned, seen), each=1)
    assert unseen(poisoned, seen) == []
    context.clear_cookies()
    walk(page, seen, "/admin/login/", "/admin/login/?next=javascript:executed.push(6)", each=1)
    assert seen.faults == []
    assert len(seen.routes) > 40
    ours = {address: text for address, text in seen.pages.items() if "/admin/auth/" not in address}
    assert [address for address, text in seen.pages.items() if len(text) > LONGEST_PAGE] == []
    assert [address for address, text in ours.items() if {"\u202e", "\u2066", "\x07", "\x1b"} & {*text}] == []
    everything = "\n".join(ours.values())
    for shown in ("⟨U+202E⟩gnp.exe⟨U+2066⟩", "⟨U+0007⟩⟨U+001B⟩[31m", "{{7*7}}{% debug %}", TEXTS[0], TEXTS[1], "more characters"):
        assert shown in everything, shown


def test_the_walk_would_see_it(context, seen):  # noqa: F811 - fixtures
    """A page in which a text does execute, or is only held back by the policy: both are noted."""
    page = opened_for(factories.superuser(), context, seen)
    page.goto("/admin/")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"executed.push(1)\">')")
    expect(page.locator("img[src=x]")).to_have_count(1)
    page.wait_for_function("refused.length")
    seen.look(page)
    assert any("script-src" in each for each in seen.faults)
