"""A database restored from an older copy, with PostgreSQL's own pg_dump and pg_restore: what the other one holds brings it back to the truth."""

import getpass
import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone
from psycopg.types.json import Jsonb

from calm_console import roles
from migration import attempts, chunks, fences, ledger, quarantine, receipts, reconcile, runs, steps, withdrawal, worlds
from migration.cdp import Cdp
from migration.doors import Misconfigured
from migration.models import Account, Chunk, QuarantinedCandidate, Run
from migration.states import FINISHED, ChunkState, RunMode, RunState
from tests import factories
from tests.conftest import ROLES, at, rows, run_sql
from tests.migration.against_oracle import assert_same, sample, written
from tests.migration.conftest import OWNER, now, run_account
from tests.migration.oracle import expected
from tests.servers import postgres_program

SIZE = 90  # account 1 in about six chunks
NAME = f"calm_test_{os.getpid()}_restored"
PERSONS = (
    "SELECT c.source_id FROM contacts c JOIN accounts a ON a.id = c.account_id WHERE a.crm_organization_id = 1 AND c.source_id IS NOT NULL"
)

Copies = Callable[[], Callable[[], None]]


@pytest.fixture
def copies(console, postgres, tmp_path) -> Iterator[Copies]:
    """Dumps the console's database; what that gives restores it into a new one, which is the console's from then on."""
    own = connection.settings_dict["NAME"]
    numbers = iter(range(100))

    def copy() -> Callable[[], None]:
        file = tmp_path / f"console-{next(numbers)}.dump"
        done = postgres_program("pg_dump", "--format=custom", f"--file={file}", at(postgres, connection.settings_dict["NAME"]))
        assert done.returncode == 0, done.stderr
        return lambda: restore(file)

    def restore(file: Path) -> None:
        connection.close()
        run_sql(postgres, f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)", f"CREATE DATABASE {NAME} TEMPLATE template0")
        done = postgres_program("pg_restore", "--exit-on-error", f"--dbname={at(postgres, NAME)}", str(file))
        assert done.returncode == 0, done.stderr
        connection.settings_dict["NAME"] = NAME

    yield copy
    connection.close()
    connection.settings_dict["NAME"] = own
    run_sql(postgres, f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)")


def truth(console, run: Run) -> dict[str, object]:
    """All that must be the same whichever way it came about: rows as stored (not even touched again: ctid), ledger, verdict."""
    run.refresh_from_db()
    return {
        "rows": rows(console.cdp, "SELECT ctid::text, inserted_at, id::text, category, changes::text, context::text, run_id::text"
                                  " FROM contact_activity_logs ORDER BY id"),
        "ledger": ledger.of(run).as_json(),
        "categories": dict(ledger.of(run).categories),
        "quarantined": sorted(run.quarantined.values_list("person_id", "audit_id", "reason")),
        "state": run.state,
        "candidates": run.candidates,
    }  # fmt: skip


def started(mode: RunMode = RunMode.PRODUCTION) -> Run:
    """Account 1's run with its chunks cut."""
    run = runs.start(runs.Wish(Account.objects.get(crm_organization_id=1), mode, SIZE), by="tester", now=now())
    steps.step(run, owner=OWNER)
    run.refresh_from_db()
    assert run.state == RunState.RUNNING
    return run


def work(run: Run, number: int) -> None:
    """The run's next chunks."""
    with worlds.opened(run) as world:
        for _ in range(number):
            chunk = chunks.claim(run, owner=OWNER)
            assert chunk
            attempts.process(chunk, world, owner=OWNER)


def lose(run: Run, times: int) -> None:
    """A worker claims the next chunk, raises its fence, and dies; as often as that."""
    for _ in range(times):
        with worlds.opened(run) as world:
            chunk = chunks.claim(run, owner=OWNER)
            assert chunk
            world.cdp.rows(
                "INSERT INTO calm.receipts AS r (chunk, run_id, account_id, token, generation) VALUES (%s, %s, %s, %s, 1)"
                " ON CONFLICT (chunk) DO UPDATE SET token = excluded.token RETURNING token",
                (chunk.uuid, run.uuid, run.account.cdp_id, chunk.token),
            )
        Chunk.objects.filter(pk=chunk.pk).update(lease_expires_at=timezone.now() - timedelta(seconds=1))
        chunks.free(run)


def finish(run: Run) -> Run:
    while run.state not in FINISHED:
        steps.step(run, owner=OWNER)
        run.refresh_from_db()
    return run


def try_again(run: Run) -> None:
    with closing(Cdp()) as cdp:
        quarantine.retry(QuarantinedCandidate.objects.filter(run=run), cdp, by="ana", now=now())
    run.refresh_from_db()


def compared() -> tuple[int, list[dict]]:
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("compare_receipts", "--json", stdout=out)
    return int(str(ended.value.code)), json.loads(out.getvalue())["differences"]


def test_a_chunk_that_was_done_anew_since_is_told(systems):
    """By its generation; another one is as the console knows it."""
    run = factories.run(RunState.PARTIAL)
    done = [(factories.chunk(run), 2), (factories.chunk(run), 1)]
    with closing(Cdp()) as cdp:
        cdp.prepare()
        for chunk, generation in done:
            cdp.connection.execute(
                "INSERT INTO calm.receipts VALUES (%s, %s, %s, 1, %s, '{}', %s)",
                (chunk.uuid, run.uuid, run.account.cdp_id, generation, run.finished_at + timedelta(hours=1)),
            )
        [found] = receipts.differences(cdp)
    assert found.sentence.startswith("1 of its chunks were done since; here it is partial.")


def test_a_run_that_the_console_does_not_know_is_told_unless_a_later_one_saw_to_its_rows(systems):
    account, last = factories.account(), factories.NOON
    before = factories.run(RunState.SUCCEEDED, account=account, started_at=last - timedelta(hours=1))
    with closing(Cdp()) as cdp:
        cdp.prepare()
        cdp.connection.execute(
            "INSERT INTO calm.receipts VALUES (gen_random_uuid(), gen_random_uuid(), %s, 1, 1, %s, %s)",
            (account.cdp_id, '{"written": 7}', last),
        )
        [found] = receipts.differences(cdp)
        assert found.sentence.startswith("It is unknown here; it wrote 7 rows")
        Run.objects.filter(pk=before.pk).update(started_at=last + timedelta(seconds=1))
        assert list(receipts.differences(cdp)) == []


def test_a_fence_is_never_lowered_and_a_receipt_of_another_generation_not_adopted(systems):
    """The CDP knows higher tokens than a console that was restored."""
    run = factories.run(RunState.RUNNING)
    receipt = factories.receipt(written=3)
    fenced, other, same = (factories.chunk(run, ChunkState.LEASED) for _ in range(3))
    with closing(Cdp()) as cdp:
        cdp.prepare()
        for chunk, generation, plain in ((fenced, 1, None), (other, 2, receipt.as_json()), (same, 1, receipt.as_json())):
            row = (chunk.uuid, run.uuid, run.account.cdp_id, generation, Jsonb(plain) if plain else None)
            cdp.connection.execute("INSERT INTO calm.receipts VALUES (%s, %s, %s, 9, %s, %s)", row)
        assert [fences.committed(cdp, chunk) for chunk in (fenced, other, same)] == [None, None, receipt]
        fences.settle(cdp, fenced, receipt)
        assert cdp.rows("SELECT token, receipt FROM calm.receipts WHERE chunk = %s", (fenced.uuid,)) == [(9, None)]
        assert [fences.highest(cdp, chunk) for chunk in (other, same)] == [9, 9]


# --- the console's -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("done_before", [pytest.param(0, marks=pytest.mark.fault), 3])
def test_receipts_bring_a_run_under_way_back_to_the_truth(console, copies, done_before):
    """The copy is from before most chunks, one of which had cost two workers since; nothing is written twice, not a row is touched."""
    run = started()
    work(run, done_before)
    restore = copies()
    lose(run, 2)
    wanted = truth(console, finish(run))
    assert wanted["state"] == RunState.PARTIAL and len(wanted["rows"]) > 471
    assert compared() == (0, [])

    restore()
    run = Run.objects.get()
    assert (run.state, ledger.of(run).as_json() == wanted["ledger"]) == (RunState.RUNNING, False)
    code, (difference,) = compared()
    newer = run.chunks.count() - done_before
    assert (code, difference["number"], difference["difference"].split(" of ")[0]) == (3, run.pk, str(newer))
    assert truth(console, run_account(1, chunk_size=SIZE)) == wanted
    assert Run.objects.count() == 1
    assert max(run.chunks.values_list("attempts", flat=True)) == 1, "to catch up counts as no attempt"
    assert compared() == (0, [])


@pytest.mark.fault
def test_receipts_bring_a_finished_run_back_to_what_was_tried_again_since(console, copies):
    """The copy is from before quarantined candidates were tried again: rows by a chunk that it has never heard of count as written all the same."""
    earliest = "SELECT min(id) FROM audits WHERE auditable_type = 'Crm::Person' AND action = 'create' AND auditable_id = ANY(%s)"
    persons = [person for (person,) in rows(console.cdp, PERSONS)]
    ((audit,),) = rows(console.crm, earliest, (persons,))
    ((moment,),) = rows(console.crm, "SELECT created_at::text FROM audits WHERE id = %s", (audit,))
    console.change_crm(f"UPDATE audits SET created_at = NULL WHERE id = {audit}")
    run = finish(started())
    restore = copies()
    console.change_crm(f"UPDATE audits SET created_at = '{moment}' WHERE id = {audit}")
    try_again(run)
    wanted = truth(console, finish(run))
    assert len(wanted["quarantined"]) == 11

    restore()
    run = Run.objects.get()
    assert len(truth(console, run)["quarantined"]) == 12
    assert [each["number"] for each in compared()[1]] == [run.pk]
    try_again(run)
    assert truth(console, finish(run)) == wanted
    assert compared() == (0, [])


@pytest.mark.fault
def test_a_run_that_the_copy_does_not_know_is_found_right_by_the_next(console, copies):
    restore = copies()
    lost = finish(started())
    wanted = truth(console, lost)
    restore()
    assert not Run.objects.exists()
    code, (difference,) = compared()
    assert (code, difference["run"], difference["number"]) == (3, str(lost.uuid), None)
    assert difference["difference"].startswith("It is unknown here; it wrote 471 rows, lately at ")
    assert difference["difference"].endswith("Run the account again: manage.py run_account 1 --mode production.")
    found = truth(console, run_account(1, chunk_size=SIZE))
    assert found.pop("ledger") == wanted.pop("ledger") | {"written": 0, "unchanged": 471}
    assert found == wanted
    assert compared() == (0, [])


@pytest.mark.fault
def test_a_run_that_was_withdrawn_since_is_withdrawn_again_and_its_count_stays(console, copies):
    run = started()
    work(run, 2)
    restore = copies()
    finish(run)
    withdrawal.begin(run, by="ana", now=now())
    finish(run)
    assert (run.state, sum(run.withdrawal["removed"].values())) == (RunState.WITHDRAWN, 471)

    restore()
    (difference,) = compared()[1]
    assert difference["difference"] == f"It was withdrawn; here it is running. Withdraw it again: manage.py withdraw_run {run.pk}."
    with pytest.raises(Misconfigured, match="cancel the run, then withdraw it again"):
        steps.step(Run.objects.get(), owner=OWNER)
    assert console.activities("origin = 'crm_migration'") == []
    out = StringIO()
    call_command("control_run", str(run.pk), "cancel", stdout=out, stderr=out)
    call_command("withdraw_run", str(run.pk), "--yes", stdout=out, stderr=out)
    run = Run.objects.get()
    assert (run.state, sum(run.withdrawal["removed"].values())) == (RunState.WITHDRAWN, 471)
    assert compared() == (0, [])


# --- the CDP --------------------------------------------------------------------------------------------------------


@pytest.fixture
def cdp_copies(console, postgres) -> Iterator[Copies]:
    """Dumps the CDP; what that gives puts it in the place of the one that is there."""
    name, kept = console.cdp.rpartition("/")[2], f"calm_test_{os.getpid()}_cdp_copy"

    def copy() -> Callable[[], None]:
        run_sql(postgres, f"CREATE DATABASE {kept} TEMPLATE {name}")
        return restore

    def restore() -> None:
        run_sql(postgres, f"DROP DATABASE {name} WITH (FORCE)", f"CREATE DATABASE {name} TEMPLATE {kept}")
        with psycopg.connect(console.cdp) as owner:
            roles.grant(owner, roles.CDP, role=ROLES["cdp"])

    yield copy
    run_sql(postgres, f"DROP DATABASE IF EXISTS {kept} WITH (FORCE)")


def content(console) -> list[tuple]:
    """The rows without which run wrote them."""
    return [row[:-1] for row in console.activities()]


def test_a_cdp_restored_from_a_copy_is_put_right_by_running_again(console, cdp_copies):
    run = started()
    work(run, 2)
    restore = cdp_copies()
    wanted = truth(console, finish(run))
    rows_wanted, there = content(console), rows(console.cdp, "SELECT count(*) FROM contact_activity_logs")
    restore()
    kept = rows(console.cdp, "SELECT count(*) FROM contact_activity_logs WHERE origin = 'crm_migration'")[0][0]
    with pytest.raises(SystemExit) as ended:
        call_command("verify_account", "1", stdout=StringIO())
    assert ended.value.code == 1, "verification says that rows are missing"
    again = run_account(1, chunk_size=SIZE)
    assert (content(console), rows(console.cdp, "SELECT count(*) FROM contact_activity_logs")) == (rows_wanted, there)
    assert ledger.of(again).as_json() == wanted["ledger"] | {"written": 471 - kept, "unchanged": kept}
    assert (again.state, 0 < kept < 471) == (RunState.PARTIAL, True)


@pytest.mark.fault
def test_a_cdp_that_is_restored_while_a_run_is_under_way_is_put_right_by_that_run(console, cdp_copies):
    """Chunks that the console has as done are missed by verification, and done again."""
    run = started()
    restore = cdp_copies()
    work(run, 3)
    restore()
    finish(run)
    found = ledger.of(run)
    assert (run.state, found.written, found.unchanged, found.balances) == (RunState.PARTIAL, 471, 0, True)
    assert len(console.activities("origin = 'crm_migration'")) == 471


@pytest.mark.parametrize("number", [1, 2])
def test_corrections_that_a_failover_took_away_are_made_again(console, cdp_copies, settings, monkeypatch, number):
    """The new primary lacks the last chunks: their rows are there, as the run before wrote them. In a large account no sample has one of them."""
    monkeypatch.setattr(reconcile, "map_again", lambda *_: None)
    settings.GATE_POLICY = "tests.migration.policies.with_d"
    run_account(1, chunk_size=SIZE)
    settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"
    run = started()
    work(run, 2)
    restore = cdp_copies()
    work(run, number)
    restore()
    finish(run)
    assert_same(written(console, run), expected(sample(), 1, capabilities=frozenset("DE")).rows())
    found = ledger.of(run)
    assert (run.state, found.corrected, found.unchanged, found.balances) == (RunState.PARTIAL, 140, 331, True)
    assert (run.verification["agrees"], run.verification["rounds"], run.verification["lost"]) == (True, 2, 0)
    chunks_ = "1 chunk" if number == 1 else "2 chunks"
    assert run.events.get(kind="run running", sentence__startswith="Verification found").sentence == (
        f"Verification found 484 candidates, the ledger 484; {chunks_} {'is' if number == 1 else 'are'} done again. "
        f"The CDP has no receipt of {chunks_}: it was restored, or a standby took its place."
    )


def test_a_cdp_that_went_back_behind_corrections_is_told(console, cdp_copies, settings, monkeypatch):
    """After the run has ended: every row is there, some as they were before."""
    monkeypatch.setattr(reconcile, "map_again", lambda *_: None)
    settings.GATE_POLICY = "tests.migration.policies.with_d"
    run_account(1, chunk_size=SIZE)
    settings.GATE_POLICY = "tests.migration.policies.with_d_and_e"
    run = started()
    work(run, 2)
    restore = cdp_copies()
    finish(run)
    wanted, others = content(console), run.chunks.count() - 2
    restore()
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("verify_account", "1", stdout=out)
    assert ended.value.code == 1
    said = f"DISAGREES: 0 missing, 0 of 0 sampled rows differ; {others} chunks without a receipt in the CDP; chunk 3 is done, and the CDP has no"
    assert said in out.getvalue()
    run_account(1, chunk_size=SIZE)
    assert content(console) == wanted


def go_back_to_before_us(console) -> None:
    """The CDP as it was before anything of ours was made there; but the role may make schema calm, as an owner may have let it."""
    gone = "DELETE FROM contact_activity_logs WHERE origin = 'crm_migration'"
    console.change_cdp(gone, "DROP SCHEMA calm CASCADE", f"GRANT CREATE ON DATABASE {console.cdp.rpartition('/')[2]} TO {ROLES['cdp']}")


@pytest.mark.parametrize("done", [0, 2, 99], ids=["before any chunk", "between chunks", "before verification"])
def test_schema_calm_is_made_again_in_a_cdp_that_went_back_behind_it(console, done):
    run = started()
    for _ in range(min(done, run.chunks.count())):
        work(run, 1)
    go_back_to_before_us(console)
    finish(run)
    assert_same(written(console, run), expected(sample(), 1, capabilities=frozenset("DE")).rows())
    assert (run.state, run.verification["agrees"], ledger.of(run).written) == (RunState.PARTIAL, True, 471)
    assert run.events.filter(kind="schema made").count() == 1


def test_a_run_is_cancelled_though_the_cdp_went_back_behind_schema_calm(console):
    run = started()
    lose(run, 1)
    go_back_to_before_us(console)
    out = StringIO()
    call_command("control_run", str(run.pk), "cancel", stdout=out, stderr=out)
    assert out.getvalue() == f"{run} is cancelled: {getpass.getuser()} asked for its end.\n"
    assert rows(console.cdp, "SELECT chunk, token, receipt FROM calm.receipts") == [(run.chunks.get(number=1).uuid, 2, None)]


def test_who_may_not_make_schema_calm_again_says_so(console):
    run = started()
    console.change_cdp("DROP SCHEMA calm CASCADE")
    said = "schema calm is missing and the role may not make it: have its owner run what `manage.py prepare_cdp --sql` prints"
    with pytest.raises(Misconfigured, match=said):
        steps.step(run, owner=OWNER)
    assert set(run.chunks.values_list("attempts", "state")) == {(0, ChunkState.PENDING)}
