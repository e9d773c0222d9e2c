"""The console for staff: who sees what, that nothing can be changed, that hostile text stays text, and that the figures are the ledger's."""

import re
import time
from datetime import timedelta
from html import unescape

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from migration import forecast, ledger
from migration.admin import charts, display, run_report
from migration.admin.document_diff import changes
from migration.admin.quarantine import EXPLAINED
from migration.models import Account, Chunk, Event, LinkIndex, MappingRevision, QuarantinedCandidate, Run
from migration.pipeline.problems import Problem
from migration.pipeline.records import Quarantined
from migration.states import ChunkState, Reason, RunMode, RunState
from tests import factories
from tests.factories import NOON

pytestmark = pytest.mark.django_db

MODELS = (Account, Run, Chunk, QuarantinedCandidate, Event, MappingRevision)
HOSTILE = "<script>alert(1)</script>\u202egnp.exe\x07 \u2028&"
SHOWN = "&lt;script&gt;alert(1)&lt;/script&gt;⟨U+202E⟩gnp.exe⟨U+0007⟩ ⟨U+2028⟩&amp;"


def changelist(model: type, **filters: object) -> str:
    return reverse(f"admin:migration_{model._meta.model_name}_changelist", query=filters or None)


def page(record: object) -> str:
    return reverse(f"admin:migration_{record._meta.model_name}_change", args=[record.pk])


def html(client: Client, url: str) -> str:
    answer = client.get(url)
    assert answer.status_code == 200, (url, answer.status_code)
    return answer.content.decode()


def text(markup: str) -> str:
    """What a reader sees, in one line."""
    seen = re.sub(r"<(title|svg).*?</\1>|</?(a|bdi|code|span|strong|time)\b[^>]*>", "", markup, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", seen))).strip()


def section(markup: str, name: str) -> str:
    """One card of a run's page."""
    return re.search(rf'<section class="card[^"]*" id="{name}".*?</section>', markup, re.DOTALL)[0]


def rows(markup: str) -> list[list[str]]:
    """The cells of all table rows."""
    found = re.findall(r"<tr.*?</tr>", markup, re.DOTALL)
    return [[text(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)] for row in found]


@pytest.fixture
def staff(client) -> Client:
    client.force_login(factories.superuser())
    return client


@pytest.fixture
def records() -> dict[type, object]:
    """One record of each kind, that belong together."""
    run = factories.run(RunState.PARTIAL, verification=factories.verification())
    chunk = factories.chunk(run)
    candidate = factories.quarantined(chunk)
    return {
        Account: run.account,
        Run: run,
        Chunk: chunk,
        QuarantinedCandidate: candidate,
        Event: factories.event(run),
        MappingRevision: run.mapping_revision,
    }


# --- who sees what --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", [factories.superuser, factories.viewer])
def test_every_page_opens(client, records, who):
    client.force_login(who())
    for url in [reverse("admin:index"), *map(changelist, MODELS), *map(page, records.values())]:
        html(client, url)


def test_a_viewer_sees_only_what_they_may(client, records):
    client.force_login(factories.viewer("account"))
    index = text(html(client, reverse("admin:index")))
    assert "Accounts 1 0 moved" not in index
    assert "Accounts 1 1 moved, of them 1 partial" in index
    assert not any(word in index for word in ("Quarantined now", "Last events", "Runs"))
    assert client.get(changelist(Account)).status_code == 200
    assert [client.get(changelist(model)).status_code for model in MODELS[1:]] == [403] * 5
    assert client.get(page(records[Run])).status_code == 403


def test_a_stranger_is_asked_to_log_in(client, records):
    for url in [reverse("admin:index"), *map(changelist, MODELS), *map(page, records.values())]:
        assert client.get(url).url.startswith("/admin/login/")


@pytest.mark.parametrize("who", [factories.superuser, factories.viewer])
@pytest.mark.parametrize("model", MODELS)
def test_nobody_adds_changes_or_deletes_a_record(client, records, who, model):
    client.force_login(who())
    before = model.objects.values().get()
    name, pk = model._meta.model_name, records[model].pk
    add = reverse(f"admin:migration_{name}_add")
    delete = reverse(f"admin:migration_{name}_delete", args=[pk])
    assert [client.get(url).status_code for url in (add, delete)] == [403, 403]
    assert [client.post(url, {"name": "x", "post": "yes"}).status_code for url in (add, delete, page(records[model]))] == [403] * 3
    client.post(changelist(model), {"action": "delete_selected", "_selected_action": [pk], "post": "yes"})
    assert model.objects.values().get() == before


def test_even_change_permission_only_shows(client, records):
    user = factories.viewer()
    user.user_permissions.set(factories.Permission.objects.filter(content_type__app_label="migration"))
    client.force_login(user)
    assert client.post(page(records[Run]), {"state": "succeeded"}).status_code == 403
    assert "submit-row" not in html(client, page(records[Run]))


def test_a_records_history_is_its_page(staff, records):
    answer = staff.get(reverse("admin:migration_run_history", args=[records[Run].pk]))
    assert answer.url == page(records[Run])


def test_navigation_names_and_their_order(staff):
    index = html(staff, reverse("admin:index"))
    apps = re.findall(r'<div class="app-(\w+) module', index)
    names = re.findall(r'<th scope="row" id="migration-\w+">\s*<a href="[^"]+">([^<]+)</a>', index)
    assert apps == ["gates", "migration", "auth"]
    assert names == [
        "Accounts", "Runs", "Batches", "Chunks", "Read budget", "Quarantine", "Name collisions", "Stale rows",
        "Events", "Notifications", "Mapping drafts", "Mapping revisions", "Link indexes", "Link oddities",
    ]  # fmt: skip
    assert "<h1>Quarantine</h1>" in html(staff, changelist(QuarantinedCandidate))


# --- cheap pages ----------------------------------------------------------------------------------------------------


def family() -> Run:
    """A run with something of everything that its page shows."""
    account = factories.account()
    dry = factories.run(mode=RunMode.DRY_RUN, account=account)
    factories.chunk(dry)
    run = factories.run(RunState.FAILED, account=account, verification=factories.verification())
    grow(run)
    return run


def grow(run: Run) -> None:
    chunk = factories.chunk(run)
    factories.chunk(run, ChunkState.FAILED, reason="KeyError")
    factories.waived(factories.quarantined(chunk))
    factories.event(run)


def queries(client: Client, url: str) -> int:
    html(client, url)  # what is cached for a process is cached now
    with CaptureQueriesContext(
        connection,
    ) as captured:
        html(client, url)
    return len(captured)


@pytest.mark.parametrize("who", [factories.superuser, factories.viewer])
def test_lists_cost_the_same_with_one_row_and_with_three(client, who):
    client.force_login(who())
    first = family()
    urls = [reverse("admin:index"), *map(changelist, MODELS)]
    filtered = [changelist(model, run=first.pk) for model in (Chunk, QuarantinedCandidate, Event)]
    with_one = [queries(client, url) for url in urls + filtered]
    for _ in range(2):
        family()
        grow(first)
        factories.mapping()
    assert [queries(client, url) for url in urls + filtered] == with_one
    assert with_one[0] <= 26, "the first page, with the readiness board"
    assert max(with_one[1:]) <= 14


def test_pages_cost_the_same_with_one_chunk_and_with_three(staff):
    run = family()
    with_one = [queries(staff, page(record)) for record in (run, run.account)]
    grow(run)
    grow(run)
    assert [queries(staff, page(record)) for record in (run, run.account)] == with_one


@pytest.mark.parametrize("model", [Account, Event])
def test_a_page_far_down_joins_and_reckons_for_its_own_rows_only(staff, monkeypatch, model):
    """The last page of 480,000 events took seven seconds."""
    for _ in range(3):
        family()
    monkeypatch.setattr(admin.site.get_model_admin(model), "list_per_page", 1)
    every = list(admin.site.get_model_admin(model).get_queryset(None).order_by(*model._meta.ordering).values_list("pk", flat=True))
    with CaptureQueriesContext(connection) as captured:
        pages = [staff.get(changelist(model, p=number)).context["cl"] for number in range(1, 4)]
    assert [[record.pk for record in each.result_list] for each in pages] == [[pk] for pk in every[:3]]
    skipping = [query["sql"] for query in captured if "OFFSET" in query["sql"]]
    assert len(skipping) == 2 and not any("JOIN" in sql or "SELECT (" in sql or "JSON" in sql for sql in skipping)


# --- hostile text ---------------------------------------------------------------------------------------------------


@pytest.fixture
def hostile() -> dict[type, object]:
    """Records that hold hostile text wherever text is kept."""
    account = factories.account(name=HOSTILE)
    document = {"secrets": [HOSTILE]}
    factories.mapping(number=1, document={"secrets": []})
    mapping = factories.mapping(number=2, document=document, published_by=HOSTILE, note=HOSTILE)
    wrong = factories.verification(agrees=False, missing=1, examples=[HOSTILE])
    seam = {"crm_beyond": 1, "matched": 0, "gaps": 1, "overlaps": 0, "examples": [HOSTILE]}
    run = factories.run(
        RunState.FAILED,
        RunMode.DRY_RUN,
        account=account,
        mapping_revision=mapping,
        reason=HOSTILE,
        planned_by=HOSTILE,
        verification=wrong,
        boundary={HOSTILE: seam},
        watermark={HOSTILE: "2026-03-01T12:00:00+00:00"},
        warnings=[HOSTILE],
        capabilities=[HOSTILE],
        lease_owner=HOSTILE,
        lease_expires_at=NOON,
    )
    row = {"category": HOSTILE, "source_audit_id": 1, "changes": {HOSTILE: HOSTILE}, "context": {}}
    names = {"categories", "actor_kinds", "recategorised", "beyond", "skipped"}
    result = factories.receipt(**{name: {HOSTILE: 1} for name in names}, samples=[{"before": None, "after": row}])
    chunk = factories.chunk(run, result=result, reason=HOSTILE)
    factories.chunk(run, ChunkState.LEASED, reason=HOSTILE, lease_owner=HOSTILE)
    candidate = factories.quarantined(chunk, Reason.PROCESSING_FAILED, detail=HOSTILE, error_class=HOSTILE)
    factories.waived(candidate, note=HOSTILE, by=HOSTILE)
    event = factories.event(run, sentence=HOSTILE, by=HOSTILE, kind=HOSTILE[:48])
    return {Account: account, Run: run, Chunk: chunk, QuarantinedCandidate: candidate, Event: event, MappingRevision: mapping}


def unmarked(markup: str) -> str:
    return re.sub(r'<span class="unseen">|</span>', "", markup)


def test_hostile_text_is_escaped_and_visible_on_every_page(client, hostile):
    user = factories.superuser()
    user.first_name = HOSTILE
    user.save()
    client.force_login(user)
    searched = [changelist(model, q="alert") for model in MODELS]
    for url in [reverse("admin:index"), *map(changelist, MODELS), *map(page, hostile.values()), *searched]:
        markup = html(client, url)
        assert SHOWN in unmarked(markup), url
        assert "<script>alert" not in markup, url
        assert not [character for character in markup if display.unseen(character) and character not in "\n"], url


def test_every_text_of_a_run_is_shown_in_its_place(staff, hostile):
    markup = unmarked(html(staff, page(hostile[Run])))
    places = ("head", "ledger", "verification", "chunks", "actors", "categories", "watermark", "events")
    assert [place for place in places if "alert(1)" not in section(markup, place)] == []
    assert "<title>Run" in markup and SHOWN in re.search(r"<title>(.*?)</title>", markup, re.DOTALL)[1]


def test_a_very_long_text_is_cut_and_the_rest_counted():
    assert display.visible("x" * 1500) == f'<bdi>{"x" * 1000}<span class="unseen">… and 500 more characters</span></bdi>'


@given(st.text(max_size=50))
def test_visible_text_loses_nothing_and_hides_nothing(given_text):
    shown = display.visible(given_text)
    assert not any(display.unseen(character) for character in shown)
    back = re.sub(r'<span class="unseen">⟨U\+([0-9A-F]+)⟩</span>', lambda mark: chr(int(mark[1], 16)), shown)
    assert unescape(back.removeprefix("<bdi>").removesuffix("</bdi>")) == given_text


def test_plain_writing_of_any_script_is_left_alone():
    for plain in ("Åsa", "می‌خواهم", "👨‍👩‍👧", "日本　語", "a\u00a0b"):
        assert display.visible_text(plain) == plain


def test_no_inline_style_or_script_on_any_page(client, hostile):
    login = html(client, reverse("admin:login"))
    client.force_login(factories.superuser())
    user = reverse("admin:auth_user_change", args=[factories.viewer().pk])
    stock = [user, reverse("admin:auth_user_changelist"), reverse("admin:auth_group_add")]
    urls = [reverse("admin:index"), *map(changelist, MODELS), *map(page, hostile.values()), *stock]
    inline = re.compile(r"<style|<[^>]+\s(style|on[a-z]+)\s*=|javascript:|<script(?![^>]*\ssrc=)", re.IGNORECASE)
    foreign = re.compile(r'(src|href|action)="(https?:)?//')
    for markup in [login, *(html(client, url) for url in urls)]:
        assert inline.findall(markup) == [] and foreign.findall(markup) == []


def test_our_own_files_are_served(client):
    page = html(client, reverse("admin:login"))
    ours = re.findall(r'"(/static/migration/[^"]+)"', page)
    assert sorted(ours) == ["/static/migration/console.css", "/static/migration/console.js", "/static/migration/icon.svg"]
    for address in ours:
        assert b"".join(client.get(address)).strip()


# --- a run's page ---------------------------------------------------------------------------------------------------


def test_the_ledger_on_the_page_is_the_ledger(staff):
    run = factories.run(RunState.PARTIAL, candidates=2_000)
    first = {"written": 1_200, "corrected": 40, "unchanged": 300, "already_live": 50, "skipped": {"nothing_changed": 407}}
    chunk = factories.chunk(
        run, result=factories.receipt(**first, quarantined=[aside(1, Reason.TIME_MISSING), aside(2, Reason.TENANT_MISMATCH)])
    )
    factories.chunk(run, result=factories.receipt(written=1))
    factories.quarantined(chunk, Reason.TIME_MISSING, audit_id=1)
    factories.waived(factories.quarantined(chunk, Reason.TENANT_MISMATCH, audit_id=2))

    found = ledger.of(run)
    assert found.as_json() == {
        "candidates": 2_000, "written": 1_201, "corrected": 40, "unchanged": 300, "already_live": 50,
        "skipped": {"nothing_changed": 407}, "quarantined": {"time_missing": 1}, "waived": {"tenant_mismatch": 1},
    }  # fmt: skip
    card = section(html(staff, page(run)), "ledger")
    assert rows(card)[1:] == [
        ["", "candidates counted on the source", "2,000", ""],
        ["=", "written", "1,201", "60.0 %"],
        ["+", "corrected", "40", "2.0 %"],
        ["+", "unchanged", "300", "15.0 %"],
        ["+", "already live", "50", "2.5 %"],
        ["+", "skipped nothing changed", "407", "20.4 %"],
        ["+", "quarantined time missing", "1", "< 0.1 %"],
        ["+", "waived tenant mismatch", "1", "< 0.1 %"],
        ["=", "outcomes of the chunks that are done", "2,000", ""],
    ]
    assert "balances Every one of 2,000 candidates has exactly one outcome." in text(card)
    titles = [unescape(each) for each in re.findall(r"<title>(.*?)</title>", card)]
    assert titles[0] == "written: 1,201" and titles[-1] == "waived tenant mismatch: 1" and len(titles) == 7


def aside(audit: int, reason: Reason) -> Quarantined:
    return Quarantined(10, audit, None, Problem(reason))


@pytest.mark.parametrize(
    ("state", "written", "says"),
    [
        (RunState.FAILED, 7, "does not balance by 3. 3 of the candidates counted on the source have no outcome."),
        (RunState.FAILED, 9, "does not balance by 1. 1 of the candidates counted on the source has no outcome."),
        (RunState.FAILED, 12, "does not balance by 2. 2 more outcomes than candidates counted on the source."),
        (RunState.SUCCEEDED, 7, "does not balance by 3. 3 of the candidates counted on the source have no outcome."),
        (RunState.RUNNING, 7, "does not balance yet by 3. 3 of the candidates counted on the source have no outcome."),
        (RunState.SUCCEEDED, 10, "balances Every one of 10 candidates has exactly one outcome."),
    ],
)
def test_a_run_says_whether_it_balances(staff, state, written, says):
    run = factories.run(state, candidates=10)
    factories.chunk(run, result=factories.receipt(written=written))
    card = section(html(staff, page(run)), "ledger")
    assert says in text(card)
    assert rows(card)[9][2] == f"{written}"
    assert (rows(card)[9][0] == "=") is (written == 10)


def test_a_run_that_is_not_planned_yet_has_no_figures(staff):
    markup = html(staff, page(factories.run(RunState.PLANNED)))
    assert "not counted yet" in text(section(markup, "ledger"))
    assert "waits for a worker" in text(section(markup, "head"))
    assert "Not set yet" in text(section(markup, "watermark"))


def test_the_head_says_state_reason_and_progress(staff):
    run = factories.run(RunState.RUNNING, reason="USMAN at USMAN_URL does not answer.", warnings=["Live sync seems not to run."])
    for state in (ChunkState.DONE, ChunkState.LEASED, ChunkState.PENDING):
        factories.chunk(run, state, expected=1_000)
    head = section(html(staff, page(run)), "head")
    assert text(head).startswith("running USMAN at USMAN_URL does not answer. warning Live sync seems not to run.")
    assert '<progress max="3000" value="1000"' in head
    assert "33 % 1,000 of 3,000 audits, 1 of 3 chunks; about" in text(head)
    assert "<progress" not in section(html(staff, page(factories.run(RunState.SUCCEEDED))), "head")


@pytest.mark.parametrize(
    ("state", "attended", "alone"),
    [
        (RunState.PLANNED, "A worker is counting its candidates", "It waits for a worker to count the candidates"),
        (RunState.RUNNING, "Workers are at its chunks.", "No worker is at its chunks at this moment; each tick asks for one."),
        (
            RunState.VERIFYING,
            "All chunks are done; what they did is being verified.",
            "All chunks are done; it waits for a worker to verify",
        ),
    ],
)
def test_whether_anybody_is_at_a_run_is_told_by_the_leases(staff, state, attended, alone):
    """Workers that were all killed are not said to be at work."""
    soon = timezone.now() + timedelta(minutes=1)
    run = factories.run(state, lease_owner="host:1", lease_expires_at=soon)
    chunk = factories.chunk(run, ChunkState.LEASED, lease_expires_at=soon)
    head = section(html(staff, page(run)), "head")
    assert attended in text(head)
    for held in (Run.objects.filter(pk=run.pk), Chunk.objects.filter(pk=chunk.pk)):
        held.update(lease_expires_at=NOON)
    head = section(html(staff, page(run)), "head")
    assert alone in text(head) and attended not in text(head)


def test_verification_is_shown_with_its_figures(staff):
    wrong = factories.verification(accounted=8, missing=2, differing=1, misfits=4, stale=3, agrees=False, examples=["audit 5 has no row"])
    card = section(html(staff, page(factories.run(RunState.FAILED, verification=wrong))), "verification")
    assert text(card).startswith("Verification disagrees")
    assert [(each[0].split(" ")[0], each[1], "should be" in each[0]) for each in rows(card)[1:]] == [
        ("candidates", "10", False),
        ("accounted", "8", True),
        ("missing", "2", True),
        ("sampled", "10", False),
        ("differing", "1", True),
        ("misfits", "4", True),
        ("stale", "3", False),
    ]
    assert "For example audit 5 has no row" in text(card)


def test_a_dry_run_does_not_claim_to_have_looked_for_rows(staff):
    run = factories.run(mode=RunMode.DRY_RUN, verification=factories.verification())
    card = section(html(staff, page(run)), "verification")
    assert text(card).startswith("Verification agrees")
    assert [each[1] for each in rows(card)[1:]] == ["10", "10", *["not in a dry run"] * 5]


def test_a_dry_run_says_how_long_production_would_take(staff):
    """By the pace of dry runs while no production has ended: 30 candidates in 200 s; then by that of production, 60 in 200 s."""
    dry = factories.run(mode=RunMode.DRY_RUN, candidates=30)
    other = factories.run(mode=RunMode.DRY_RUN, state=RunState.CANCELLED)
    assert "Production would take about 3 min 20 s, at the pace of recent runs" in text(section(html(staff, page(dry)), "head"))
    moved = factories.run(candidates=60)
    assert "Production would take about 1 min 40 s, at the pace of recent runs" in text(section(html(staff, page(dry)), "head"))
    for run in (other, moved):
        assert "Production would take" not in text(section(html(staff, page(run)), "head"))


def test_what_small_accounts_took_is_not_multiplied(db):
    """What is fixed to a run is most of theirs: 20 candidates in 200 s. The large one's dry run took no longer, and production takes twice a dry run's time."""
    for _ in range(9):
        factories.run(mode=RunMode.DRY_RUN, candidates=20, finished_at=NOON + timedelta(seconds=101))
        factories.run(candidates=20)
    dry = factories.run(mode=RunMode.DRY_RUN, candidates=100_000)
    assert forecast.production_takes(dry) == timedelta(seconds=400)
    for number in range(5):
        factories.run(candidates=80_000 + number)
    assert forecast.Paces.recent().takes(RunMode.PRODUCTION, 20) == timedelta(seconds=200)
    assert forecast.production_takes(dry) == pytest.approx(timedelta(seconds=250), abs=timedelta(seconds=1))


def test_a_run_that_an_earlier_release_verified_says_nothing_of_misfits(staff):
    found = factories.verification()
    del found["misfits"]
    card = section(html(staff, page(factories.run(RunState.SUCCEEDED, verification=found))), "verification")
    assert [each[0].split(" ")[0] for each in rows(card)[1:]] == ["candidates", "accounted", "missing", "sampled", "differing", "stale"]


def test_predicted_against_actual(staff):
    account = factories.account()
    dry = factories.run(mode=RunMode.DRY_RUN, account=account)
    same = {"categories": {"deal/won": 8}, "actor_kinds": {"user": 8}}
    factories.chunk(dry, result=factories.receipt(written=8, skipped={"nothing_changed": 2}, **same))
    run = factories.run(account=account)
    chunk = factories.chunk(run, result=factories.receipt(written=8, skipped={"nothing_changed": 2}, **same))
    card = section(html(staff, page(run)), "prediction")
    assert f"agrees with every figure of the dry run, run {dry.pk}." in text(card)
    assert "open" not in re.search(r"<details[^>]*>", card)[0]

    came = factories.receipt(written=6, skipped={"nothing_changed": 3}, categories={"deal/update": 6}, actor_kinds={"user": 6})
    Chunk.objects.filter(pk=chunk.pk).update(receipt=came.as_json())
    card = section(html(staff, page(run)), "prediction")
    assert f"differs from the dry run, run {dry.pk}, in 5 figures." in text(card)
    assert [row for row in rows(card) if row[-1] not in ("same", "Difference")] == [
        ["Outcomes"],
        ["written", "8", "6", "-2"],
        ["skipped nothing changed", "2", "3", "+1"],
        ["Categories"],
        ["deal/won", "8", "0", "-8"],
        ["deal/update", "0", "6", "+6"],
        ["Actor kinds"],
        ["user", "8", "6", "-2"],
    ]
    assert 'id="prediction"' not in html(staff, page(dry))


def test_chunks_and_quarantine_link_to_their_lists(staff):
    run = factories.run(RunState.FAILED)
    done = factories.chunk(run)
    failed = factories.chunk(run, ChunkState.FAILED, reason="KeyError")
    for reason in (Reason.TIME_MISSING, Reason.TIME_MISSING, Reason.CONTACT_AMBIGUOUS):
        factories.quarantined(done, reason)
    other = factories.chunk(factories.run())
    factories.quarantined(other, Reason.TIME_MISSING)
    factories.chunk(other.run, ChunkState.FAILED)
    markup = html(staff, page(run))

    assert rows(section(markup, "chunks"))[1:] == [["done", "1", "10", "1.25 s"], ["failed", "1", "10", "—"]]
    assert f"Chunk {failed.number}: KeyError" in text(section(markup, "chunks"))
    assert [row[1] for row in rows(section(markup, "quarantine"))[1:]] == ["2", "1"]
    (to_failed,) = re.findall(r'href="([^"]*state=failed)"', section(markup, "chunks"))
    (to_missing,) = re.findall(r'href="([^"]*reason=time_missing)"', section(markup, "quarantine"))
    assert results(staff, to_failed) == 1
    assert results(staff, to_missing) == 2


def results(client: Client, url: str) -> int:
    return client.get(unescape(url)).context["cl"].result_count


def test_a_dry_runs_samples_are_shown_as_they_are_written(staff):
    before = {"id": "x", "category": "deal/update", "changes": {"amount": 0.5, "tags": ["a", {"b": None}]}, "context": {"action": "update"}}
    after = before | {"category": "deal/won", "source_audit_id": 9007199254740993}
    run = factories.run(mode=RunMode.DRY_RUN)
    chunk = factories.chunk(run, result=factories.receipt(samples=[{"before": before, "after": after}]))
    with connection.cursor() as cursor:  # jsonb keeps the last zero, Python's float would not
        cursor.execute("UPDATE migration_chunk SET receipt = replace(receipt::text, '0.5', '0.50')::jsonb WHERE id = %s", [chunk.pk])
    for url in (page(run), page(chunk)):
        markup = html(staff, url)
        assert "deal/won, audit 9007199254740993: a row that would be rewritten" in text(markup)
        sample = rows(re.search(r'<table class="plain sample">.*?</table>', markup, re.DOTALL)[0])
        assert sample == [
            ["Field", "Before", "After"],
            ["id", '"x"', '"x"'],
            ["category differs", '"deal/update"', '"deal/won"'],
            ["source_audit_id differs", "", "9007199254740993"],
            ["changes.tags", '["a", {"b": null}]', '["a", {"b": null}]'],
            ["changes.amount", "0.50", "0.50"],
            ["context.action", '"update"', '"update"'],
        ]


# --- lists and the first page ---------------------------------------------------------------------------------------


def test_the_list_of_accounts(staff):
    never = factories.account(crm_organization_id=70, name="Never")
    tried = factories.account(crm_organization_id=71, name="Tried")
    moved = factories.account(crm_organization_id=72, name="Moved", gone=True)
    factories.chunk(factories.run(RunState.CANCELLED, RunMode.DRY_RUN, account=tried))
    dry = factories.run(RunState.RUNNING, RunMode.DRY_RUN, account=tried)
    for state in (ChunkState.DONE, ChunkState.PENDING):
        factories.chunk(dry, state)
    factories.chunk(factories.run(RunState.SUCCEEDED, RunMode.DRY_RUN, account=moved))
    factories.chunk(factories.run(RunState.PARTIAL, account=moved))
    assert rows(html(staff, changelist(Account)).split('id="result_list"')[1])[1:] == [
        [never.name, "70", "—", "—", "—"],
        [tried.name, "71", "running 2026-03-02 12:00:00 UTC", "—", "50 % of the dry run"],
        ["Moved gone from the CDP", "72", "succeeded 2026-03-02 12:03:21 UTC", "partial 2026-03-02 12:03:21 UTC", "100 %"],
    ]
    assert results(staff, changelist(Account, production="partial")) == 1
    assert results(staff, changelist(Account, production="none")) == 2


def test_search_by_number_is_exact_and_by_text_is_not(staff):
    account = factories.account(crm_organization_id=881, name="Samudra Motor")
    run = factories.run(account=account)
    chunk = factories.chunk(run, person_from=100, person_to=199)
    factories.quarantined(chunk, audit_id=5000, person_id=150)
    factories.quarantined(chunk, audit_id=50001, person_id=151)
    event = factories.event(run, sentence="planned")

    def found(model, words):
        return results(staff, changelist(model, q=words))

    assert [found(QuarantinedCandidate, words) for words in ("5000", "150", "881", "samudra", "samudra 5000", "500")] == [1, 1, 2, 2, 1, 0]
    assert [found(Chunk, words) for words in ("150", "99", "881", "motor")] == [1, 0, 1, 1]
    assert [found(Run, words) for words in (str(run.pk), "881", "MOTOR", "ana", "nobody")] == [1, 1, 1, 1, 0]
    assert [found(Account, words) for words in ("881", "88", "samu")] == [1, 0, 1]
    assert [found(Event, words) for words in ("881", "planned", "motor")] == [1, 1, 1]
    assert event.pk
    for odd in ("9" * 40, "²", "\x00", "%", "'", "a" * 5000):
        assert [staff.get(changelist(model, q=odd)).status_code for model in MODELS] == [200] * 6


def test_filters_refuse_nonsense_without_failing(staff, records):
    assert staff.get(changelist(Chunk, run="x")).url.endswith("?e=1")
    assert results(staff, changelist(Chunk, run="9" * 30)) == 0
    assert results(staff, changelist(Chunk, state="nonsense")) == 0
    assert results(staff, changelist(QuarantinedCandidate, waived="yes")) == 0
    assert results(staff, changelist(QuarantinedCandidate, waived="no")) == 1
    assert results(staff, changelist(Event, account=records[Account].pk)) == 1
    assert results(staff, changelist(Chunk, account=records[Account].pk + 1)) == 0


def test_a_chunk_says_what_it_holds(staff):
    run = factories.run()
    wide = factories.chunk(run, person_from=0, person_to=2**63 - 1)
    heavy = factories.chunk(run, person_from=7, person_to=7, audit_from=100, audit_to=200)
    again = factories.chunk(run, pairs=[[30, 1, "time_missing"], [31, 2, "time_missing"]])
    shown = [row[2] for row in rows(html(staff, changelist(Chunk)).split('id="result_list"')[1])[1:]]
    assert shown == ["0 to the last", "7, audits from 100, audits before 200", "30 to 39, 2 candidates again"]
    assert [chunk.number for chunk in (wide, heavy, again)] == [1, 2, 3]


def test_a_mapping_revision_shows_what_changed(staff):
    factories.mapping(number=1, document={"id_sets": {"won": ["4"]}})
    second = factories.mapping(number=2, document={"id_sets": {"won": ["4", "5"]}})
    markup = html(staff, page(second))
    shown = re.search(r'<pre class="document".*?</pre>', markup, re.DOTALL)[0]
    assert [text(each) for each in re.findall(r"<(?:ins|del)>.*?</(?:ins|del)>", shown)] == ['+ "5"']


def test_a_change_shows_whole_overrides_and_what_stands_around_it():
    override = {"class": "Crm::Note", "action": "update", "attribute": "is_pinned", "to": 1, "category": "note/pinned", "priority": 1}
    before = {
        "class_roles": {"contact": ["Crm::Person"]},
        "secrets": ["*_token"],
        "category_overrides": [override, override | {"priority": 2}],
    }
    after = {
        "class_roles": {"contact": ["Crm::Person", "Contact"]},
        "category_overrides": [override | {"priority": 2}, override | {"to": True}],
    }
    assert changes(before, before | {"secrets": ["*_token"]}) == []
    shown = "".join(f"{sign}{line}\n" for sign, line in changes(before, after))
    assert (
        shown
        == """\
@
   "account_id_sets": {},
   "actor_overrides": [],
   "category_overrides": [
-    {
-      "account": null,
-      "action": "update",
-      "attribute": "is_pinned",
-      "category": "note/pinned",
-      "class": "Crm::Note",
-      "priority": 1,
-      "to": 1
-    },
+    {
+      "account": null,
+      "action": "update",
+      "attribute": "is_pinned",
+      "category": "note/pinned",
+      "class": "Crm::Note",
+      "priority": 1,
+      "to": true
+    },
     {
       "account": null,
       "action": "update",
@
   "class_roles": {
     "company": [],
     "contact": [
+      "Contact",
       "Crm::Person"
     ],
     "deal": [],
@
   },
   "name_attributes": {},
   "secrets": [
-    "*_token"
   ],
   "status_attributes": {}
 }
"""
    )


def test_thousands_of_changed_overrides_are_compared_in_seconds_and_some_are_shown():
    override = {"class": "Crm::Note", "action": "update", "attribute": "status", "priority": 1}
    before = [override | {"account": 1 + at % 3, "to": at, "category": "note/pinned"} for at in range(5_000)]
    after = [each | {"category": "note/starred"} if at % 2 else each for at, each in enumerate(before)]
    roles = {"class_roles": {"contact": ["Crm::Person"]}}
    began = time.process_time()
    found = changes(roles | {"category_overrides": before}, roles | {"category_overrides": after})
    assert time.process_time() - began < 5
    assert len(found) == 2_001 and found[-1][0] == "@" and found[-1][1].endswith(" more lines")


def test_the_first_page_counts(staff):
    moved = factories.run(RunState.PARTIAL)
    factories.waived(factories.quarantined(factories.chunk(moved)))
    factories.quarantined(moved.chunks.get(), Reason.TENANT_MISMATCH)
    older = factories.run(RunState.PARTIAL, mode=RunMode.DRY_RUN)
    factories.quarantined(factories.chunk(older))
    newer = factories.run(RunState.SUCCEEDED, mode=RunMode.DRY_RUN, account=older.account)
    running = factories.run(RunState.RUNNING, account=older.account, reason="waiting")
    factories.chunk(running)
    factories.chunk(running, ChunkState.PENDING, expected=30)
    factories.event(newer, kind="run succeeded", sentence="verifying to succeeded", at=NOON + timedelta(minutes=1))
    shown = text(re.search(r'<div id="overview".*<div class="apps">', html(staff, reverse("admin:index")), re.DOTALL)[0])
    assert shown == (
        "Accounts 2 1 moved, of them 1 partial "
        "Runs 4 running 1 succeeded 1 partial 2 "
        "Quarantined now 1 candidates of 1 account, in the latest runs that came to their end; 2 in all runs "
        f"Runs that are not finished Run State Progress Reason {running} running 25 % waiting "
        f"Last events 2026-03-02 12:01:00 UTC · ana · {newer} run succeeded verifying to succeeded All events"
    )


@pytest.mark.parametrize(
    ("states", "says"),
    [
        ([], "0 moved"),
        ([RunState.SUCCEEDED], "1 moved"),
        ([RunState.PARTIAL], "1 moved, of them 1 partial"),
        ([RunState.PARTIAL, RunState.SUCCEEDED], "1 moved"),
        ([RunState.SUCCEEDED, RunState.PARTIAL], "1 moved, of them 1 partial"),
        ([RunState.PARTIAL, RunState.CANCELLED], "1 moved, of them 1 partial"),
        ([RunState.SUCCEEDED, RunState.WITHDRAWN], "1 moved"),
        ([RunState.FAILED], "0 moved"),
    ],
)
def test_the_first_page_calls_no_partial_run_complete(staff, states, says):
    account = factories.account()
    for state in states:
        factories.run(state, account=account)
    factories.run(RunState.PARTIAL, mode=RunMode.DRY_RUN, account=account)
    tile = re.search(r'aria-labelledby="tile-accounts".*?</section>', html(staff, reverse("admin:index")), re.DOTALL)[0]
    assert re.search(r'<p class="quiet">(.*?)</p>', tile)[1] == says


# --- pieces ---------------------------------------------------------------------------------------------------------


def test_every_state_and_reason_has_its_words_and_its_icon():
    assert set(run_report.MEANING) == set(RunState)
    assert set(EXPLAINED) == set(Reason)
    pills = [display.PILLS[state] for state in (*RunState, *ChunkState)]
    assert {tone for tone, _ in pills} == {"quiet", "busy", "good", "warn", "bad"}
    for state in (*RunState, *ChunkState):
        assert text(display.pill(state)) == state and "<svg" in display.pill(state)


def test_a_stacked_bar_fills_its_width_and_loses_no_part():
    slices = charts.stacked([("written", "written", 10**6), ("open", "x", -5), ("quarantined", "y", 1), ("waived", "z", 0)])
    assert [(each.kind, each.count) for each in slices] == [("written", 10**6), ("quarantined", 1)]
    widths = [float(each.width.rstrip("%")) for each in slices]
    assert sum(widths) == pytest.approx(100, abs=0.01) and widths[1] > 0.5
    assert charts.stacked([]) == []


@pytest.mark.parametrize(
    ("part", "whole", "says"),
    [(0, 0, ""), (0, 5, "0 %"), (5, 5, "100 %"), (1, 3, "33.3 %"), (1, 10**6, "< 0.1 %"), (10**6 - 1, 10**6, "> 99.9 %")],
)
def test_a_share_never_rounds_to_all_or_nothing(part, whole, says):
    assert charts.share(part, whole) == says


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(None, "—"), (0.336, "0.34 s"), (12.4, "12 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (timedelta(hours=30), "30 h 0 min")],
)
def test_durations(seconds, says):
    assert display.duration(seconds) == says


def test_a_link_index_says_when_its_settled_audits_were_counted_and_how_long_that_took(staff):
    known = {"built": True, "covers_to": 9, "covered_at": NOON, "settled_audits": 69_000_000}
    counted = LinkIndex.objects.create(key="a", counted_at=NOON, counting_seconds=23.4, **known)
    never = LinkIndex.objects.create(key="b", **known)
    assert f"Last counted {NOON:%Y-%m-%d %H:%M:%S} UTC, in 23 s" in text(html(staff, page(counted)))
    assert "Last counted —" in text(html(staff, page(never)))
