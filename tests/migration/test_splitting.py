"""A row that fails its whole chunk, or kills whoever reads it: it alone is put aside, everything else is moved."""

import signal
from contextlib import closing
from datetime import timedelta
from types import SimpleNamespace

import pytest

from migration import attempts, chunks, ledger, runs, splitting, steps, worlds
from migration.cdp import Cdp
from migration.models import Account, Chunk, Event, Run
from migration.pipeline.flow import process_chunk
from migration.pipeline.load import Target, load
from migration.pipeline.problems import Fenced
from migration.states import ChunkState, Reason, RunMode, RunReason, RunState
from tests import factories
from tests.migration.against_oracle import assert_same, sample, written
from tests.migration.conftest import OWNER, now, run_account
from tests.migration.oracle import expected
from tests.migration.test_quarantine import retry
from tests.migration.test_restart import PATIENCE, process

REFUSES = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN IF NEW.source_audit_id = {audit} THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END $$;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON contact_activity_logs FOR EACH ROW EXECUTE FUNCTION refuse()"""
REFUSES_ALL = REFUSES.replace("NEW.source_audit_id = {audit}", "true")


def a_row(organisation: int = 1) -> tuple[int, int]:
    """(CRM person id, audit id) of an audit of a contact itself (no link hangs on it), in the middle of the one with most of these."""
    rows = expected(sample(), organisation, capabilities=frozenset("DE")).rows()
    keys = [(int(row[0].replace("-", "")[:12], 16), row[11]) for row in rows if row[3] == "contact/update"]
    persons = [person for person, _ in keys]
    busiest = max(set(persons), key=persons.count)
    audits = sorted(audit for person, audit in keys if person == busiest)
    return busiest, audits[len(audits) // 2]


def assert_only_one_is_aside(console, run: Run, poison: tuple[int, int], error_class: str) -> None:
    wanted = expected(sample(), 1, capabilities=frozenset(run.capabilities))
    person, audit = poison
    assert_same(written(console, run), [row for row in wanted.rows() if row[11] != audit])
    aside = set(run.quarantined.values_list("audit_id", "person_id", "reason"))
    assert aside - wanted.quarantined() == {(audit, person, Reason.PROCESSING_FAILED)}
    assert wanted.quarantined() <= aside
    kept = run.quarantined.get(reason=Reason.PROCESSING_FAILED, audit_id=audit)
    assert (kept.error_class, str(kept.contact_id)) == (error_class, next(row[2] for row in wanted.rows() if row[11] == audit))
    found = ledger.of(run)
    assert found.balances and found.written == len(wanted.rows()) - 1
    assert run.state == RunState.PARTIAL and run.verification["agrees"]


# --- a row that the server refuses ----------------------------------------------------------------------------------


def test_a_row_that_the_server_refuses_is_found_and_put_aside_alone(console):
    poison = a_row()
    console.change_cdp(REFUSES.format(audit=poison[1]))
    run = run_account(1)
    assert_only_one_is_aside(console, run, poison, "RaiseException")
    split = run.chunks.filter(state=ChunkState.SPLIT)
    assert split and all(chunk.reason == "RaiseException" and chunk.expected == 0 for chunk in split)
    assert sorted(run.chunks.values_list("number", flat=True)) == list(range(1, run.chunks.count() + 1))
    assert all(part.number > part.parent.number for part in run.chunks.filter(parent__isnull=False))
    assert Event.objects.filter(run=run, kind="chunk split").count() == split.count()


def test_retried_candidates_that_fail_together_are_split_to_the_one_at_fault(console):
    """The chunk that names its candidates, and the ledger that subtracts what they were quarantined for before."""
    person, audit = a_row()
    wanted = expected(sample(), 1, capabilities=frozenset("DE")).rows()
    other = next(row[11] for row in wanted if row[11] != audit and row[3] == "contact/update")
    console.change_crm(f"CREATE TABLE kept AS SELECT id, action FROM audits WHERE id IN ({audit}, {other})")
    console.change_crm(f"UPDATE audits SET action = 'odd' WHERE id IN ({audit}, {other})")
    run = run_account(1)
    assert run.quarantined.filter(audit_id__in=(audit, other), error_class="UnknownAction").count() == 2
    console.change_crm("UPDATE audits SET action = kept.action FROM kept WHERE kept.id = audits.id")
    console.change_cdp(REFUSES.format(audit=audit))
    retry(Reason.PROCESSING_FAILED)
    run.refresh_from_db()
    assert_only_one_is_aside(console, run, (person, audit), "RaiseException")


def test_a_target_that_refuses_everything_ends_the_run_with_its_reason(console, monkeypatch):
    monkeypatch.setattr(splitting, "LAST", 10)  # fifty take their time
    console.change_cdp(REFUSES_ALL)
    run = run_account(1, chunk_size=100)
    assert (run.state, run.reason_code) == (RunState.FAILED, RunReason.CHUNKS_FAILING)
    assert run.reason.startswith("More than half of the last 10 chunks failed, lately chunk ")
    assert run.chunks.filter(ended_at__isnull=False).count() in (10, 11)
    assert not run.chunks.filter(state=ChunkState.LEASED).exists()
    assert not console.activities("origin = 'crm_migration'")


# --- judging --------------------------------------------------------------------------------------------------------


def ended(run: Run, number: int, state: ChunkState, **fields) -> list[Chunk]:
    return [factories.chunk(run, state, ended_at=now(), **fields) for _ in range(number)]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("failing", "well", "reason", "stops"),
    [
        (26, 24, "KeyError", True),
        (25, 25, "KeyError", False),
        (25, 24, "KeyError", False),
        (49, 0, "KeyError", False),
        (50, 0, splitting.SMALLER, False),
        (50, 0, chunks.TRIED_ANEW, False),
    ],
)
def test_more_than_half_of_the_last_fifty(failing, well, reason, stops):
    run = factories.run(RunState.RUNNING)
    ended(run, 100, ChunkState.DONE)
    Chunk.objects.update(ended_at=None)
    ended(run, well, ChunkState.DONE)
    ended(run, failing, ChunkState.SPLIT, expected=0, reason=reason)
    assert splitting.most_fail(run) is stops


@pytest.mark.django_db
def test_the_search_for_one_row_is_no_failing_but_halves_that_both_fail_are():
    run = factories.run(RunState.RUNNING)
    parent = ended(run, 1, ChunkState.SPLIT, expected=0)[0]
    for _ in range(40):
        ended(run, 1, ChunkState.DONE, parent=parent)
        parent = ended(run, 1, ChunkState.SPLIT, parent=parent, expected=0)[0]
    assert not splitting.most_fail(run)
    Chunk.objects.filter(state=ChunkState.DONE).update(reason="audit 1 of CRM person 1 is put aside: KeyError")
    assert splitting.most_fail(run)


# --- a row that kills its worker ------------------------------------------------------------------------------------

KILLED_BY = """
import os, signal, sys
from django.core.management import execute_from_command_line
from django.conf import settings
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "calm_console.settings")
import django; django.setup()
settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"
from migration.pipeline import extract
read = extract.candidate
def candidate(fields, *rest):
    if fields[1] == b"{audit}":
        os.kill(os.getpid(), signal.SIGKILL)
    return read(fields, *rest)
extract.candidate = candidate
execute_from_command_line(["manage.py", "run_account", "1", "--mode", "production", "--inline"])
"""


def test_a_row_that_kills_its_worker_is_found_and_put_aside_alone(console, settings):
    """Real processes, each killed within the chunk; leases run out in between. The account is small, so that the search is short."""
    poison = a_row()
    console.change_crm(f"DELETE FROM audits WHERE id % 256 <> {poison[1] % 256}")
    deaths = 0
    while True:
        with process(settings, "-c", KILLED_BY.replace("{audit}", str(poison[1]))) as child:
            code = child.wait(PATIENCE)
        if code != -signal.SIGKILL:
            break
        deaths += 1
        Chunk.objects.filter(state=ChunkState.LEASED).update(lease_expires_at="2020-01-01T00:00Z")  # instead of waiting for it
    assert code == 3, child
    run = Run.objects.get()
    kept = run.quarantined.get(audit_id=poison[1])
    assert (kept.person_id, kept.reason, kept.error_class) == (poison[0], Reason.PROCESSING_FAILED, splitting.WORKER_DIED)
    assert deaths == 3 + (run.chunks.filter(state=ChunkState.SPLIT).count() - 1) + 3
    assert ledger.of(run).balances and run.verification["agrees"]


# --- fences ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def started(console) -> Run:
    run = runs.start(runs.Wish(Account.objects.get(crm_organization_id=1), RunMode.PRODUCTION, None), by="tester", now=now())
    steps.step(run, owner=OWNER)
    run.refresh_from_db()
    return run


def target_of(chunk: Chunk) -> Target:
    """What a worker that holds the chunk writes under."""
    return Target(chunk.run.uuid, chunk.run.account.cdp_id, chunk.uuid, chunk.token, chunk.generation, "infinity", timedelta(0))


def test_a_frozen_worker_of_a_chunk_that_was_split_writes_nothing(started):
    frozen = chunks.claim(started, owner="frozen:1")
    Chunk.objects.filter(pk=frozen.pk).update(lease_expires_at="2020-01-01T00:00Z", attempts=3)
    chunks.free(started)
    held = chunks.claim(started, owner=OWNER)
    assert (held.pk, held.token, held.attempts) == (frozen.pk, frozen.token + 1, 4)
    splitting.give_up(held, splitting.WORKER_DIED, by=OWNER, now=now())
    with closing(Cdp()) as cdp:
        cdp.connection.execute("CREATE TEMP TABLE calm_staging (id uuid)")
        for late in (frozen, held):
            with pytest.raises(Fenced):
                load(cdp, target_of(late), factories.receipt())


def test_what_a_lost_worker_had_committed_is_adopted_instead_of_split(console, started):
    lost = chunks.claim(started, owner="lost:1")
    with worlds.opened(started) as world:
        receipt = process_chunk(attempts.work_of(lost), world)
    Chunk.objects.filter(pk=lost.pk).update(lease_expires_at="2020-01-01T00:00Z", attempts=3)
    chunks.free(started)
    held = chunks.claim(started, owner=OWNER)
    splitting.give_up(held, splitting.WORKER_DIED, by=OWNER, now=now())
    held.refresh_from_db()
    assert held.state == ChunkState.DONE and held.receipt == receipt.as_json()
    assert not started.chunks.filter(parent__isnull=False).exists()


def test_a_chunk_without_audits_that_fails_is_failed(started):
    """Nothing in it is at fault, so it says so, and the run with it."""
    held = chunks.claim(started, owner=OWNER)
    Chunk.objects.filter(pk=held.pk).update(person_from=10**9, person_to=10**9 + 1)
    held.refresh_from_db()
    splitting.give_up(held, "KeyError", by=OWNER, now=now())
    held.refresh_from_db()
    assert (held.state, held.reason) == (ChunkState.FAILED, "KeyError, though it has no audit")


@pytest.mark.django_db
def test_the_only_audit_of_a_chunk_may_be_waived_or_the_live_sync_s():
    run = factories.run(RunState.RUNNING, RunMode.DRY_RUN)
    world = SimpleNamespace(cdp=None, waived=frozenset({(1, 5, "processing_failed"), (1, 6, "processing_failed")}))
    for found in (splitting.Found(1, 5, False), splitting.Found(1, 6, True)):
        factories.chunk(run, ChunkState.PENDING)
        splitting.put_aside(chunks.claim(run, owner=OWNER), found, world, "KeyError", now=now())
    assert list(run.chunks.order_by("number").values_list("receipt", flat=True)) == [
        factories.receipt(beyond={"unreadable": 1}).as_json(),
        factories.receipt(waived={"processing_failed": 1}).as_json(),
    ]


@pytest.mark.django_db
@pytest.mark.parametrize(("searching", "attempts_made"), [(True, [2, 0]), (False, [0, 0])])
def test_parts_that_are_a_search_have_one_try_each_and_a_single_candidate_has_all(searching, attempts_made):
    chunk = factories.chunk(factories.run(RunState.RUNNING), ChunkState.LEASED)
    chunks.split(chunk, [chunks.Part(10, 14, 5), chunks.Part(15, 19, 1)], "KeyError", searching=searching)
    assert list(Chunk.objects.filter(parent=chunk).order_by("number").values_list("attempts", flat=True)) == attempts_made


@pytest.mark.django_db
def test_parts_tile_their_chunk():
    """No id is lost between them, none is in two; however deep, they end at single audits."""
    run = factories.run(RunState.RUNNING)
    chunk = factories.chunk(run, ChunkState.LEASED, person_from=0, person_to=2**63 - 1)
    found = [splitting.Found(person, audit, True) for person, audit in ((3, 1), (3, 4), (3, 9), (3, 12), (8, 4), (8, 30), (9, 2))]
    whole = splitting.parts(chunk, found)
    assert [(p.person_from, p.person_to, p.audit_from, p.audit_to, p.expected) for p in whole] == [
        (0, 7, None, None, 4),
        (8, 2**63 - 1, None, None, 3),
    ]
    chunk.person_to = 7
    assert [(p.person_from, p.person_to, p.audit_from, p.audit_to, p.expected) for p in splitting.parts(chunk, found[:4])] == [
        (0, 2, None, None, 0),
        (3, 3, None, 9, 2),
        (3, 3, 9, None, 2),
        (4, 7, None, None, 0),
    ]
    chunk.person_from = chunk.person_to = 3
    chunk.audit_from, chunk.audit_to = 9, 100
    assert [(p.person_from, p.audit_from, p.audit_to, p.expected) for p in splitting.parts(chunk, found[2:4])] == [
        (3, 9, 12, 1),
        (3, 12, 100, 1),
    ]
