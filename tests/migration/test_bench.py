"""`manage.py bench` on 3,000 activities: that it measures what it says, that what it loads is right, and that it leaves nothing behind.

The guard at the end compares counts, which are the same on every machine: statements and round trips of a chunk, and rows whose JSON is parsed.
"""

import json
from collections import Counter
from collections.abc import Iterator
from io import StringIO

import psycopg
import pytest
from django.conf import settings as django_settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migration import accounts, attempts, chunks, ledger, link_reader, reconcile, revisions, runs, steps, worlds
from migration.bench import build, forecast, pieces, plain_dlt, policy, server, shapes
from migration.cdp import Cdp
from migration.crm import Crm
from migration.management.commands import bench as command
from migration.models import Account, Chunk, Run
from migration.pipeline import categories
from migration.pipeline.flow import process_chunk
from migration.states import RunMode, RunState
from tests.conftest import at, rows, run_sql

pytestmark = pytest.mark.slow
ROWS = 3000
# Of a chunk, whatever its size; server-side cursors are not counted. Two are looks whether the session is still the loader's alone.
STATEMENTS = {"crm": 4, "cdp": 13}
ROWS_TO_A_LOOK_UP = 1000  # of CRM users, where a batch has new ones
PIECES = {"dry run", "pipeline", "second run", "other accounts", "floor", "anchor", "two workers", "by step", "Django ORM"}


def scratch_databases(postgres: str) -> list[str]:
    return [name for (name,) in rows(postgres, "SELECT datname FROM pg_database WHERE datname LIKE 'calm\\_bench\\_%' ORDER BY 1")]


@pytest.fixture(scope="module")
def bench(postgres, tmp_path_factory) -> Iterator[pieces.Bench]:
    """The data, and a console that knows the account."""
    with server.scratch(postgres) as scratch:
        built = build.build(scratch, ROWS, now=timezone.now())
        with command.usman(build.users_file(tmp_path_factory.mktemp("usman"))) as url:
            found = pieces.Bench(scratch, built, url, 1000, lambda text: None)
            found.prepare()
            yield found


@pytest.mark.timeout(400)  # dozens of processes, one after another
def test_one_object_with_every_figure_and_nothing_left(postgres):
    out, before = StringIO(), scratch_databases(postgres)
    call_command("bench", rows=600, repeat=1, chunk_size=200, server=postgres, json=True, stdout=out, stderr=StringIO())
    found = json.loads(out.getvalue())
    assert found.keys() == {
        "ratio_to_floor", "cpu_ratio_to_floor", "ratio_to_anchor", "floor_to_anchor", "two_workers_to_one", "one_worker_uses", "last_tenth_to_first",
        "second_run_to_first", "verification_share", "peak_megabytes", "judge_by", "goals", "pieces", "phases", "steps", "accounts", "data", "machine",
    }  # fmt: skip
    assert found["pieces"].keys() == PIECES
    assert found["ratio_to_floor"] > 0 and found["cpu_ratio_to_floor"] > 0 and 20 < found["peak_megabytes"] < 150
    loaded = {name: piece["rows"] for name, piece in found["pieces"].items() if name != "other accounts"}
    assert set(loaded.values()) == {found["data"]["activities"], found["data"]["activities"] + found["data"]["skipped"]}
    assert loaded["floor"] == found["data"]["activities"] + found["data"]["skipped"], "the floor loads what changed nothing too"
    assert {"extract", "resolve", "map actors", "map categories", "enrich", "load", "verify chunk"} <= found["steps"].keys()
    assert found["goals"][0]["key"] == "ratio_to_floor"
    assert sum(each["rows"] for each in found["accounts"]) == found["pieces"]["other accounts"]["rows"] > 100
    assert set(forecast.errors(found)) and forecast.fitted(found).each >= 0, "the forecast reads it"
    assert scratch_databases(postgres) == before


@pytest.mark.fault
def test_a_shape_is_moved_whole(postgres):
    out, before = StringIO(), scratch_databases(postgres)
    call_command("bench", shape=["wide-deal"], share=0.002, chunk_size=3000, server=postgres, json=True, stdout=out, stderr=StringIO())
    found = json.loads(out.getvalue())["wide-deal"]
    assert found["activities"] == shapes.SHAPES["wide-deal"].scaled(0.002).activities == 500 + 500 * 21
    assert found["chunks"] >= 3 and 20 < found["peak_megabytes"] < 150
    assert scratch_databases(postgres) == before


@pytest.mark.timeout(400)
def test_what_an_estate_asks_of_the_console_is_counted_not_timed(postgres):
    """Of thousands of accounts each act takes as many queries as of some: a regression here would be hours at 20,000."""
    counts = []
    for number in (50, 500):
        out = StringIO()
        call_command("bench", estate=number, server=postgres, json=True, stdout=out, stderr=StringIO())
        counts.append({name.replace(str(number), "all"): each["queries"] for name, each in json.loads(out.getvalue()).items()})
    assert counts[0] == counts[1]


def test_a_role_that_may_not_create_databases_is_refused_in_words(postgres):
    run_sql(postgres, "DROP ROLE IF EXISTS calm_test_plain", "CREATE ROLE calm_test_plain LOGIN PASSWORD 'calm-test'")
    with pytest.raises(CommandError, match="--server: role calm_test_plain may not create databases") as refused:
        call_command("bench", server=at(postgres, "postgres", "calm_test_plain", "calm-test"), json=True)
    assert refused.value.returncode == 2
    run_sql(postgres, "DROP ROLE calm_test_plain")


def test_what_is_interrupted_leaves_nothing(postgres, monkeypatch):
    def interrupted(self: pieces.Bench) -> None:
        raise KeyboardInterrupt

    before = scratch_databases(postgres)
    monkeypatch.setattr(pieces.Bench, "prepare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call_command("bench", rows=100, server=postgres, json=True, stdout=StringIO(), stderr=StringIO())
    assert scratch_databases(postgres) == before


def test_dlt_is_told_the_target_as_a_url():
    parts = {"host": "127.0.0.1", "port": "5433", "user": "bench user", "password": "p@ss/w:rd%", "dbname": "calm_bench_1_cdp"}
    assert conninfo_to_dict(plain_dlt.as_url(make_conninfo(**parts))) == parts


def test_the_open_gates_are_for_scratch_databases_only(settings, db):
    account = Account(crm_organization_id=1)
    settings.CRM_DATABASE_URL, settings.CDP_DATABASE_URL = "postgresql://host/calm_bench_crm", "postgresql://host/cdp"
    refused = policy.decide(account, RunMode.PRODUCTION)
    assert refused.capabilities == frozenset() and refused.refusals[0].startswith("CDP_DATABASE_URL names no scratch database")
    settings.CDP_DATABASE_URL = "postgresql://host/calm_bench_cdp"
    assert policy.decide(account, RunMode.PRODUCTION) == policy.Decision(frozenset({"D", "E", "F"}))


def test_the_rows_are_those_that_the_data_hold(bench):
    """Every activity by its audit and contact, with its changes less the secrets: against the build's own lists, not the pipeline's queries."""
    bench.fresh()
    bench.moved("pipeline")
    live_since = bench.built.live_since
    wanted = rows(
        bench.scratch.of("crm"),
        """SELECT a.id, md5(person::text)::uuid::text, (a.audited_changes - '{encrypted_password,reset_token}'::text[])::text
           FROM (SELECT person, audit FROM linked
                 UNION ALL SELECT coalesce(associated_id, auditable_id), id FROM audits
                 WHERE auditable_type IN ('Crm::Person', 'Crm::Note', 'Crm::Task', 'Crm::Ticket')
                 AND created_at < %s AND (action <> 'update' OR audited_changes <> '{}')) w
           JOIN weight USING (person) JOIN audits a ON a.id = w.audit ORDER BY 1, 2""",
        (live_since,),
    )
    found = rows(
        bench.scratch.of("cdp"),
        """SELECT source_audit_id, contact_id::text, changes::text FROM contact_activity_logs WHERE origin = 'crm_migration' ORDER BY 1, 2""",
    )
    assert found == wanted
    assert len(found) == bench.built.activities


class Counted:
    """Statements by system (crm, cdp), pieces written to COPY, and rows whose changes were parsed for their category."""

    def __init__(self, monkeypatch) -> None:
        self.number: Counter[str] = Counter()
        for name in ("execute", "copy"):
            monkeypatch.setattr(psycopg.Cursor, name, self.statement(getattr(psycopg.Cursor, name)))
        monkeypatch.setattr(psycopg.Copy, "write", self.counting("writes", psycopg.Copy.write))
        monkeypatch.setattr(categories, "parse", self.counting("parsed", categories.parse))

    def statement(self, function):
        def counted(cursor, *args, **named):
            self.number[cursor.connection.info.dbname.rpartition("_")[2]] += 1
            return function(cursor, *args, **named)

        return counted

    def counting(self, name, function):
        def counted(*args, **named):
            self.number[name] += 1
            return function(*args, **named)

        return counted


def planned(bench, settings, size: int) -> Run:
    """A run with chunks of so many audits, planned in this process."""
    bench.fresh()
    order = bench.order("move", {})
    for name, value in (order["settings"] | {"GATE_POLICY": "migration.bench.policy.decide"}).items():
        setattr(settings, name, value)
    accounts.sync(now=timezone.now())
    document = json.loads((django_settings.BASE_DIR / "calm_console" / "demo" / "mapping.json").read_text())
    revisions.publish(document, by="tester", note="", now=timezone.now())
    account = Account.objects.get(crm_organization_id=build.ORGANISATION)
    run = runs.start(runs.Wish(account, RunMode.PRODUCTION, size), by="tester", now=timezone.now())
    steps.step(run, owner="tester:1")
    run.refresh_from_db()
    return run


def counts_of_a_chunk(bench, settings, monkeypatch, size: int) -> tuple[Counter, int, dict]:
    """What the first chunk of so many audits takes, its rows, and its contacts."""
    run = planned(bench, settings, size)
    chunk = chunks.claim(run, owner="tester:1")
    with worlds.opened(run) as world, monkeypatch.context() as patched:
        counted = Counted(patched)
        receipt = process_chunk(attempts.work_of(chunk), world)
    return counted.number, receipt.written, {"first": chunk.person_from, "last": chunk.person_to}


@pytest.mark.parametrize("size", [300, 3000])
@pytest.mark.django_db(transaction=True)
def test_a_chunk_takes_the_same_statements_at_any_size(bench, settings, monkeypatch, size):
    number, written, persons = counts_of_a_chunk(bench, settings, monkeypatch, size)
    assert written > size * 0.6
    assert number["cdp"] == STATEMENTS["cdp"]
    assert STATEMENTS["crm"] < number["crm"] <= STATEMENTS["crm"] + 1 + size // ROWS_TO_A_LOOK_UP
    assert number["writes"] <= 5 + written // 60, "rows go to COPY in blocks"
    status = """SELECT count(*) FROM (SELECT person, audit FROM linked UNION ALL SELECT coalesce(associated_id, auditable_id), id FROM audits
                WHERE auditable_type IN ('Crm::Task', 'Crm::Ticket')) w JOIN weight USING (person) JOIN audits a ON a.id = w.audit
                WHERE person BETWEEN %(first)s AND %(last)s AND a.action = 'update'
                AND a.audited_changes ?| '{crm_task_status_id,crm_stage_id,ticket_status_id}'"""
    assert number["parsed"] == rows(bench.scratch.of("crm"), status, persons)[0][0] < written / 8


@pytest.mark.django_db(transaction=True)
def test_verification_and_the_boundary_audit_read_the_source_once(bench, settings, monkeypatch):
    """A batch of contacts is three queries on the CRM, for the contacts' own audits, the deals' and the join rows', and one look at links, of
    three queries too; the rest is the sample's, mapped again."""
    run = planned(bench, settings, 3000)
    while run.state == RunState.RUNNING:
        steps.step(run, owner="tester:1")
    source, looks = [], []
    with worlds.opened(run) as world, monkeypatch.context() as patched:
        for name in ("rows", "rows_by_sets"):
            ask = getattr(world.crm, name)
            patched.setattr(world.crm, name, lambda query, *more, ask=ask: source.append(query) or ask(query, *more))
        patched.setattr(
            link_reader.Reader,
            "kept",
            lambda reader, query, ids, kept=link_reader.Reader.kept: looks.append(query) or kept(reader, query, ids),
        )
        found, seams = reconcile.verify_run(run, world, ledger.of(run), lambda name: None)
    assert found.agrees and found.sampled == 1000
    assert sum(seam.crm_beyond for seam in seams.seams.values()) == bench.built.beyond > 0
    assert bench.built.persons <= reconcile.PERSONS_AT_ONCE
    assert (len(source), len(looks)) == (3, 2 * 3)


def test_a_door_opens_with_few_questions(console, monkeypatch):
    """Settings in one statement, all tables in another; the CDP's types, indexes and policies in two more, and one for what the database allows.

    A run opens eight sessions, and over a network each question is a wait.
    """
    counted = Counted(monkeypatch)
    for door, number in ((Crm, 2), (Cdp, 5)):
        before = counted.number.total()
        door().close()
        assert counted.number.total() - before == number


@pytest.mark.django_db(transaction=True)
def test_a_checkpoint_is_one_look_that_writes_nothing(bench, settings, django_assert_num_queries):
    chunk = chunks.claim(planned(bench, settings, 3000), owner="tester:1")
    before = Chunk.objects.get(pk=chunk.pk).lease_expires_at
    with django_assert_num_queries(1):
        chunks.checkpoint(chunk, "staged")
    assert Chunk.objects.get(pk=chunk.pk).lease_expires_at == before
    Chunk.objects.filter(pk=chunk.pk).update(token=chunk.token + 1)
    with pytest.raises(chunks.LeaseLost):
        chunks.checkpoint(chunk, "committed")
