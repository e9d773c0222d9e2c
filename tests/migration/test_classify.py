"""The live rows that decide an outcome are found the same whichever way they are looked for, and a part of a contact reads no whole contact."""

import json
import random
from contextlib import closing
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb

from migration import ledger, ours
from migration.cdp import Cdp
from migration.pipeline import load, staging
from migration.states import RunMode
from tests.conftest import Systems
from tests.migration.conftest import run_account
from tests.migration.hard_rows import few_contacts

NAMES = {"account": UUID(int=1), "run": UUID(int=2), "seam": "-infinity", "lag": timedelta(seconds=10)}
CATEGORIES = ("note/create", "task/create")
STAGED = """INSERT INTO calm_staging (id, contact_id, category, actor_kind, occurred_at, source_audit_id, digest, changes, context)
            VALUES (%s, %s, %s, 'system', %s, %s, %s, '{}', '{}')"""
LIVE = """INSERT INTO contact_activity_logs (id, account_id, contact_id, category, actor_kind, occurred_at, changes, origin, source_audit_id)
          VALUES (%s, %s, %s, %s, 'system', %s, '{}', 'live', %s)"""


def fill(systems: Systems, cdp: Cdp, rows: int, seed: int) -> None:
    """Staged rows of three contacts, and live ones that name one of their audits, another, or none, close by in time or not; some times are infinite."""
    chance = random.Random(seed)
    contacts = [uuid4() for _ in range(3)]

    def moment() -> str:
        if chance.random() < 0.02:
            return chance.choice(["infinity", "-infinity"])
        return str(datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=chance.randrange(rows * 5)))

    cdp.connection.execute(f"{staging.STAGING}; {staging.SPANS}; {staging.VERDICT}; TRUNCATE calm_staging, calm_spans, calm_verdict")
    for audit in range(1, rows + 1):
        person, contact = chance.choice(list(enumerate(contacts, 1)))
        cdp.connection.execute(STAGED, (ours.row_id(person, audit), contact, chance.choice(CATEGORIES), moment(), audit, uuid4()))
    cdp.connection.execute(staging.FILL_SPANS)
    for audit in range(1, rows + 1):
        named = chance.choice([audit, audit + rows, None, None])
        cdp.connection.execute(LIVE, (uuid4(), NAMES["account"], chance.choice(contacts), chance.choice(CATEGORIES), moment(), named))


def verdicts(cdp: Cdp, *, occupied: bool, part_of_contact: bool) -> list[tuple]:
    cdp.connection.execute("TRUNCATE calm_verdict")
    cdp.connection.execute(staging.classifying(occupied=occupied, part_of_contact=part_of_contact), NAMES)
    return cdp.rows("SELECT id::text, old_category, outcome FROM calm_verdict ORDER BY 1, 2, 3")


@pytest.mark.parametrize("occupied", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_live_rows_decide_the_same_row_by_row_as_contact_by_contact(systems, seed, occupied):
    with closing(Cdp()) as cdp:
        fill(systems, cdp, 200, seed)
        by_row, by_contact = (verdicts(cdp, occupied=occupied, part_of_contact=part) for part in (True, False))
    assert by_row == by_contact
    assert {outcome for _, _, outcome in by_row} == {"already_live", "probable_overlap"}


@pytest.mark.parametrize("part_of_contact", [False, True])
def test_the_lag_is_counted_from_the_audit_s_own_moment_and_has_both_its_ends(systems, part_of_contact):
    """One contact for each: a live row that names no audit, so long after the audit. What is put aside is not where the history begins."""
    after = [timedelta(0), NAMES["lag"], timedelta(microseconds=-1), NAMES["lag"] + timedelta(microseconds=1)]
    with closing(Cdp()) as cdp:
        cdp.connection.execute(f"{staging.STAGING}; {staging.SPANS}; {staging.VERDICT}")
        for person, each in enumerate(after):
            contact, moment = uuid4(), datetime(2025, 1, 1, hour=person, tzinfo=UTC)
            cdp.connection.execute(STAGED, (ours.row_id(person, 7), contact, CATEGORIES[0], moment, 7, uuid4()))
            cdp.connection.execute(LIVE, (uuid4(), NAMES["account"], contact, CATEGORIES[0], moment + each, None))
        cdp.connection.execute(staging.FILL_SPANS)
        found = verdicts(cdp, occupied=False, part_of_contact=part_of_contact)
        first = {row[6] for row in cdp.rows(staging.COUNT)}
    assert found == [(ours.row_id(person, 7), None, "probable_overlap") for person in (0, 1)]
    assert first == {"2025-01-01 02:00:00+00"}


def test_a_part_of_a_contact_s_audits_does_not_read_all_that_stands_there(systems):
    """A thousand rows of ours at the contact, of other parts: none of them is looked at."""
    contact = uuid4()
    systems.change_cdp(
        f"""INSERT INTO contact_activity_logs (id, account_id, contact_id, category, actor_kind, occurred_at, changes, origin, source_audit_id, run_id)
            SELECT id::uuid, '{NAMES["account"]}', '{contact}', 'note/create', 'system', '2025-01-01'::timestamptz + n * interval '1 minute',
                   '{{}}', 'crm_migration', n, '{NAMES["run"]}' FROM unnest('{{{",".join(ours.row_id(1, n) for n in range(1, 1001))}}}'::text[])
            WITH ORDINALITY AS t(id, n)""",
        "ANALYZE contact_activity_logs",
    )
    with closing(Cdp()) as cdp:
        cdp.connection.execute(f"{staging.STAGING}; {staging.SPANS}; {staging.VERDICT}")
        for audit in (0, 5000):
            cdp.connection.execute(STAGED, (ours.row_id(1, audit), contact, "note/create", "2025-06-01T00:00:00Z", audit, uuid4()))
        cdp.connection.execute(staging.FILL_SPANS)
        plans = [
            json.dumps(cdp.rows(f"EXPLAIN (ANALYZE, FORMAT JSON) {staging.classifying(occupied=False, part_of_contact=part)}", NAMES)[0][0])
            for part in (True, False)
        ]
    assert ['"Rows Removed by Filter": 1000' in plan for plan in plans] == [False, True]


INTRUDER = """INSERT INTO contact_activity_logs (id, account_id, contact_id, category, actor_kind, occurred_at, changes, origin, source_audit_id, run_id)
              SELECT CASE WHEN %(same_id)s THEN id ELSE gen_random_uuid() END, %(account)s, contact_id, category, 'system', occurred_at, '{}',
                     CASE WHEN %(same_id)s THEN 'crm_migration' ELSE 'live' END, CASE WHEN %(same_id)s THEN source_audit_id + 1000000 ELSE source_audit_id END,
                     CASE WHEN %(same_id)s THEN gen_random_uuid() END
              FROM jsonb_to_record(%(row)s) AS r(id uuid, contact_id uuid, category text, occurred_at timestamptz, source_audit_id bigint)"""


@pytest.mark.django_db
@pytest.mark.parametrize("same_id", [True, False], ids=["under the id", "with the audit and contact"])
def test_a_row_that_comes_between_the_look_and_the_insert_is_found(console, monkeypatch, same_id):
    """Nothing stood there, so that the chunk inserts without asking: the transaction ends, and done again the row is one that stands there."""
    undisturbed = ledger.of(run_account(1, RunMode.DRY_RUN))
    decide = load.classify

    def meanwhile(connection, target, receipt, *, occupied):
        assert not occupied
        own = decide(connection, target, receipt, occupied=occupied)
        [row] = connection.execute(
            "SELECT to_jsonb(s) FROM calm_staging s WHERE id NOT IN (SELECT id FROM calm_verdict) LIMIT 1"
        ).fetchone()
        with closing(Cdp()) as other:
            other.connection.execute(INTRUDER, {"same_id": same_id, "account": target.account, "row": Jsonb(row)})
        monkeypatch.undo()
        return own

    monkeypatch.setattr(load, "classify", meanwhile)
    run = run_account(1)
    found = ledger.of(run)
    assert found.balances and run.verification["agrees"]
    assert (found.written, found.corrected, found.already_live) == (
        undisturbed.written - 1,
        int(same_id),
        undisturbed.already_live + (not same_id),
    )
    assert set(run.chunks.values_list("attempts", flat=True)) == {2}


@pytest.mark.django_db
def test_a_row_of_ours_that_becomes_a_live_one_between_the_look_and_the_upsert_is_left_alone(console, monkeypatch):
    """It was to be corrected: the chunk is done again, and the row is the live sync's. Another one lost its run, and is corrected."""
    few_contacts(console, 1)
    first = ledger.of(run_account(1))
    one, other = console.activities("origin = 'crm_migration'")[:2]
    console.change_cdp(
        f"UPDATE contact_activity_logs SET actor_name = 'somebody' WHERE id = '{one[0]}'",
        f"UPDATE contact_activity_logs SET run_id = NULL WHERE id = '{other[0]}'",
    )
    decide = load.classify

    def meanwhile(connection, target, receipt, *, occupied):
        own = decide(connection, target, receipt, occupied=occupied)
        assert receipt.corrected == 2
        console.change_cdp(f"UPDATE contact_activity_logs SET origin = 'live', run_id = NULL WHERE id = '{one[0]}'")
        monkeypatch.undo()
        return own

    monkeypatch.setattr(load, "classify", meanwhile)
    run = run_account(1)
    found = ledger.of(run)
    assert (found.corrected, found.unchanged, found.already_live) == (1, first.written - 2, first.already_live + 1)
    assert run.verification["agrees"]
    assert list(run.chunks.values_list("attempts", "generation")) == [(2, 1)], "nothing was committed before"
    assert console.activities(f"id IN ('{one[0]}', '{other[0]}')") == [
        (*one[:6], "somebody", *one[7:10], "live", one[11], None),
        (*other[:-1], str(run.uuid)),
    ]


@pytest.mark.django_db
def test_of_a_run_s_rows_those_are_written_that_came_after_the_account_s_last_run_before_it(systems):
    """Where no receipt of the chunk tells, as after a restore. A later run's receipts say nothing of it, nor do another account's."""
    runs = [NAMES["run"], UUID(int=3), UUID(int=4), UUID(int=5)]
    hours = {runs[0]: (4, 5), runs[1]: (1, 2), runs[2]: (8,), runs[3]: (3,)}
    with closing(Cdp()) as cdp:
        cdp.prepare()
        cdp.connection.execute(f"{staging.STAGING}; {staging.SPANS}; {staging.VERDICT}")
        for run, several in hours.items():
            account = NAMES["account"] if run != runs[3] else UUID(int=9)
            for hour in several:
                cdp.connection.execute(
                    "INSERT INTO calm.receipts VALUES (gen_random_uuid(), %s, %s, 1, 1, '{}', %s)",
                    (run, account, datetime(2025, 1, 1, hour, tzinfo=UTC)),
                )
        for number, (hour, outcome) in enumerate([(1, "own"), (2, "own"), (3, "own"), (4, "own"), (4, "corrected")]):
            row = (ours.row_id(1, number), NAMES["account"], uuid4(), number, NAMES["run"], datetime(2025, 1, 1, hour, tzinfo=UTC))
            cdp.connection.execute(
                """INSERT INTO contact_activity_logs (id, account_id, contact_id, category, actor_kind, occurred_at, changes, origin, source_audit_id,
                                                      run_id, inserted_at)
                   VALUES (%s, %s, %s, 'note/create', 'system', now(), '{}', 'crm_migration', %s, %s, %s)""",
                row,
            )
            cdp.connection.execute("INSERT INTO calm_verdict VALUES (%s, NULL, %s)", (row[0], outcome))
        assert cdp.rows(staging.INSERTED, NAMES) == [(2,)]
