"""Gate B's probe against real plans: each reason to fail, made in a copy of the sample CRM, and the cure that it names really cures."""

import os
import re
from contextlib import closing
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from psycopg import sql

from gates.probes import Measurement, by_index, extraction, gem_indexes, plan_trees, query_plans
from migration import link_reader, links, planning, revisions, worlds
from migration import mapping as mappings
from migration.crm import Crm
from migration.doors import Misconfigured
from migration.pipeline.queries import query, rows_of
from tests.conftest import PASSWORD, ROLES, at, run_sql
from tests.migration.conftest import mapping_document, now

QUERIES = [
    "counting the contacts' own audits",
    "counting the deals' audits",
    "counting the join rows' audits",
    "an organisation that contacts name",
    "all organisations that contacts name",
    "the names of deals",
    "the names of companies",
    "the contacts' own audits",
    "the join rows' audits",
    "the deals' audits",
]


@dataclass
class Sample:
    """Copies of the sample's systems, by their owner's URLs."""

    crm: str
    cdp: str

    def change(self, *statements: str) -> None:
        run_sql(self.crm, *statements)


@pytest.fixture
def sample(request, postgres, templates, settings, db):
    """The sample with the demo's mapping; the console's roles reach it."""
    names = {system: f"calm_test_{os.getpid()}_plans_{system}" for system in ("crm", "cdp")}
    for system, template in (("crm", getattr(request, "param", "crm_sample")), ("cdp", "sample_cdp")):
        run_sql(postgres, f"CREATE DATABASE {names[system]} TEMPLATE {templates[template]}")
    settings.CRM_DATABASE_URL = at(postgres, names["crm"], ROLES["crm"], PASSWORD)
    settings.CDP_DATABASE_URL = at(postgres, names["cdp"], ROLES["cdp"], PASSWORD)
    revisions.publish(mapping_document(), by="tester", note="", now=now())
    yield Sample(at(postgres, names["crm"]), at(postgres, names["cdp"]))
    for name in names.values():
        run_sql(postgres, f"DROP DATABASE {name} WITH (FORCE)")


def measure() -> Measurement:
    return query_plans.measure(None)


def failing(found: Measurement) -> list[str]:
    return [each.sentence for each in found.findings if each.ok is False]


def fact(columns: list[str], found: str | None, create: str | None = None, table: str = "public.audits") -> dict[str, object]:
    return {"table": table, "columns": columns, "found": found, "create": create}


AUDITABLE, ASSOCIATED = ["auditable_type", "auditable_id", "version"], ["associated_type", "associated_id"]
INDEXES = [fact(AUDITABLE, "auditable_index"), fact(ASSOCIATED, "associated_index"), fact(["id"], "audits_pkey")]
BUFFERS = re.compile(r" in [\d.]+ ms by (.*), \d+ blocks from memory and \d+ read\.$")


@pytest.mark.parametrize(("sample", "audits"), [("crm_sample", [341, 293]), ("crm_sample_yaml", [123, 61])], indirect=["sample"])
def test_the_sample_passes_with_the_gems_indexes(sample, audits):
    found = measure()
    assert failing(found) == []
    assert found.passes
    assert found.facts["accounts"] == [
        {"which": "largest", "account": "Borneo Retail", "organisation": 2, "contacts": 133},
        {"which": "typical", "account": "Celebes Properti", "organisation": 3, "contacts": 95},
    ]
    assert found.facts["indexes"] == INDEXES
    told = found.facts["queries"]
    assert [(each["which"], each["name"]) for each in told] == [(which, name) for which in ("largest", "typical") for name in QUERIES]
    assert [each["rows"] for each in told if each["name"] == "the contacts' own audits"] == audits
    for each in told:
        assert each["milliseconds"] > 0 < each["buffers"]["hit"] + each["buffers"]["read"]
        assert {key for node in plan_trees.nodes(each["plan"]) for key in node} <= {*plan_trees.KEPT, "Plans"}
        assert re.search(r"'\{\d+,\d+,\d+,… \d+ more\}'::bigint\[\]", each["sql"])
    assert [BUFFERS.sub("", each.sentence) for each in found.findings][:6] == [
        "Index public.auditable_index leads to audits by auditable_type, auditable_id.",
        "Index public.associated_index leads to audits by associated_type, associated_id.",
        "Index public.audits_pkey leads to audits by id.",
        f"Largest account Borneo Retail (organisation 2): {audits[0]} audits concern the 132 of its 133 contacts that it was measured with.",
        f"Typical account Celebes Properti (organisation 3): {audits[1]} audits concern the 94 of its 95 contacts that it was measured with.",
        f"Largest account Borneo Retail (organisation 2), counting the contacts' own audits: {132 if audits[0] == 341 else 38} rows",
    ]


MISSING = {
    "auditable_index": (
        ["DROP INDEX auditable_index"],
        fact(AUDITABLE, None, "CREATE INDEX CONCURRENTLY auditable_index ON \"public\".\"audits\" (auditable_type, auditable_id, version);"),
        "public.audits has no index by auditable_type, auditable_id: run on the primary: "
        'CREATE INDEX CONCURRENTLY auditable_index ON "public"."audits" (auditable_type, auditable_id, version).',
    ),
    "associated_index": (
        ["DROP INDEX associated_index"],
        fact(ASSOCIATED, None, 'CREATE INDEX CONCURRENTLY associated_index ON "public"."audits" (associated_type, associated_id);'),
        "public.audits has no index by associated_type, associated_id: run on the primary: "
        'CREATE INDEX CONCURRENTLY associated_index ON "public"."audits" (associated_type, associated_id).',
    ),
    "the primary key": (
        ["ALTER TABLE audits DROP CONSTRAINT audits_pkey"],
        fact(["id"], None, 'CREATE INDEX CONCURRENTLY audits_pkey ON "public"."audits" (id);'),
        'public.audits has no index by id: run on the primary: CREATE INDEX CONCURRENTLY audits_pkey ON "public"."audits" (id).',
    ),
    "not valid": (
        ["UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'auditable_index'::regclass"],
        fact(AUDITABLE, None, 'REINDEX INDEX CONCURRENTLY "public"."auditable_index";'),
        "public.audits has no index by auditable_type, auditable_id, but one that is not valid: run on the primary: "
        'REINDEX INDEX CONCURRENTLY "public"."auditable_index".',
    ),
    "of a part only, under the gem's name": (
        ["DROP INDEX auditable_index", "CREATE INDEX auditable_index ON audits (auditable_type, auditable_id, version) WHERE id > 1000"],
        fact(AUDITABLE, None, 'CREATE INDEX CONCURRENTLY ON "public"."audits" (auditable_type, auditable_id, version);'),
        "public.audits has no index by auditable_type, auditable_id: run on the primary: "
        'CREATE INDEX CONCURRENTLY ON "public"."audits" (auditable_type, auditable_id, version).',
    ),
    "of a kind that leads to no row, under another name": (
        ["DROP INDEX auditable_index", "CREATE INDEX blocks ON audits USING brin (auditable_type, auditable_id)"],
        fact(AUDITABLE, None, "CREATE INDEX CONCURRENTLY auditable_index ON \"public\".\"audits\" (auditable_type, auditable_id, version);"),
        "public.audits has no index by auditable_type, auditable_id: run on the primary: "
        'CREATE INDEX CONCURRENTLY auditable_index ON "public"."audits" (auditable_type, auditable_id, version).',
    ),
    "by something else, under the gem's name, in a schema that needs quotes": (
        [
            "DROP INDEX auditable_index",
            "CREATE INDEX auditable_index ON audits (auditable_type, created_at)",
            'CREATE SCHEMA "My CRM"',
            'ALTER TABLE audits SET SCHEMA "My CRM"',
            f'GRANT USAGE ON SCHEMA "My CRM" TO {ROLES["crm"]}',
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = \"My CRM\", public', current_database()); END $$",
        ],
        fact(AUDITABLE, None, 'CREATE INDEX CONCURRENTLY ON "My CRM"."audits" (auditable_type, auditable_id, version);', "My CRM.audits"),
        "My CRM.audits has no index by auditable_type, auditable_id: run on the primary: "
        'CREATE INDEX CONCURRENTLY ON "My CRM"."audits" (auditable_type, auditable_id, version).',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_index_fails_without_reading_the_table_and_what_is_named_mends_it(sample, settings, name):
    settings.CHUNK_SIZE = 100  # so that a class of the sample has more audits than a chunk
    statements, told, sentence = MISSING[name]
    sample.change(*statements)
    found = measure()
    assert not found.passes
    assert [each for each in found.facts["indexes"] if not each["found"]] == [told]
    assert failing(found)[0] == sentence
    scanned = [each for each in found.facts["queries"] if each["rows"] is None]
    assert scanned
    assert all(each["buffers"] == {"hit": None, "read": None} for each in scanned)
    assert any(" scan of " in each and ", so it was not executed. Make the index that is missing" in each for each in failing(found)[1:])
    sample.change(told["create"])
    settings.CHUNK_SIZE = 10_000
    again = measure()
    assert failing(again) == []


def test_other_indexes_that_begin_with_the_same_columns_do(sample):
    sample.change(
        "DROP INDEX auditable_index, associated_index",
        "CREATE INDEX a ON audits (auditable_id, auditable_type)",  # as the gem made it before 4.6
        "CREATE INDEX b ON audits (associated_type, associated_id, created_at)",
    )
    found = measure()
    assert failing(found) == []
    assert found.facts["indexes"] == [fact(AUDITABLE, "a"), fact(ASSOCIATED, "b"), fact(["id"], "audits_pkey")]


def test_a_record_id_of_type_text_is_no_obstacle(sample):
    sample.change("ALTER TABLE audits ALTER auditable_id TYPE text, ALTER associated_id TYPE varchar")
    assert failing(measure()) == []


def test_each_partition_is_looked_at_and_mended_by_itself(sample):
    sample.change(
        "ALTER TABLE audits RENAME TO audits_old",
        "CREATE TABLE audits (LIKE audits_old) PARTITION BY RANGE (id)",
        'CREATE TABLE "audits, old" PARTITION OF audits FOR VALUES FROM (0) TO (1000)',
        "CREATE TABLE audits_new PARTITION OF audits DEFAULT",
        "INSERT INTO audits SELECT * FROM audits_old",
        "DROP TABLE audits_old",
        'CREATE INDEX ON audits_new (auditable_type, auditable_id)',
        'CREATE INDEX ON audits (associated_type, associated_id)',
        'CREATE INDEX ON audits (id)',
        f"GRANT SELECT ON audits TO {ROLES['crm']}",
        "ANALYZE audits",
    )  # fmt: skip
    found = measure()
    create = 'CREATE INDEX CONCURRENTLY ON "public"."audits, old" (auditable_type, auditable_id, version);'
    assert failing(found)[0] == (
        f"public.audits, old has no index by auditable_type, auditable_id: run on the primary: {create} "
        "CONCURRENTLY works on each partition by itself, not on the partitioned table."
    )
    assert found.facts["indexes"] == [
        fact(AUDITABLE, None, create, "public.audits, old"),
        fact(ASSOCIATED, "audits, old_associated_type_associated_id_idx", table="public.audits, old"),
        fact(["id"], "audits, old_id_idx", table="public.audits, old"),
    ]
    sample.change(create)
    assert failing(measure()) == []


def test_a_view_named_audits_is_judged_by_the_table_that_it_reads(sample):
    sample.change(
        "ALTER TABLE audits RENAME TO audit_log",
        "CREATE VIEW audits AS SELECT * FROM audit_log",
        f"GRANT SELECT ON audits TO {ROLES['crm']}",
    )
    found = measure()
    assert failing(found) == []
    assert [each["table"] for each in found.facts["indexes"]] == ["public.audit_log"] * 3


def test_a_sort_that_spills_fails(sample):
    sample.change(
        "INSERT INTO audits (id, auditable_type, auditable_id, action, audited_changes, created_at) "
        "SELECT n, 'Crm::Deal', 1, 'update', '{}', now() FROM generate_series(100000, 109000) n",
        "ANALYZE audits",
        "DO $$ DECLARE d text := current_database(); BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''64kB''', d); "
        "EXECUTE format('ALTER DATABASE %I SET enable_hashagg = off', d); END $$",
    )
    found = measure()
    assert all(" disk" in each for each in failing(found))
    assert re.fullmatch(
        r"Largest account Borneo Retail \(organisation 2\), counting the deals' audits: a sort that spills to disk \(\d+ kB\)\. "
        r"Raise work_mem for this role \(ALTER ROLE … SET work_mem\), or lower CHUNK_SIZE\.",
        failing(found)[0],
    )


def test_more_rows_than_a_chunk_holds_fail(sample, settings):
    settings.CHUNK_SIZE = 20
    sample.change(
        "INSERT INTO audits (id, auditable_type, auditable_id, action, audited_changes, created_at) "
        "SELECT n, 'Crm::Deal', 1, 'update', '{}', now() FROM generate_series(100000, 100499) n",
        "ANALYZE audits",
    )
    told = [each for each in failing(measure()) if each.startswith("Largest") and "the deals' audits" in each]
    assert re.fullmatch(
        r"Largest account Borneo Retail \(organisation 2\), the deals' audits: it goes through 8\d\d rows, more than 2 times CHUNK_SIZE \(20\)\. "
        r"Look for deals with very many audits; where they are meant, a larger CHUNK_SIZE allows for them\.",
        told[-1],
    )


def test_behind_a_first_contact_with_more_audits_than_a_chunk_holds_others_are_measured_with(sample, settings):
    """The chunk before it, for whoever may appear there, holds nobody, so with that one any query would pass; its own are larger than a chunk."""
    settings.CHUNK_SIZE = 600
    sample.change(
        "INSERT INTO audits (id, auditable_type, auditable_id, action, audited_changes, created_at, version) "
        "SELECT n, 'Crm::Person', (SELECT min(id) FROM (SELECT auditable_id AS id FROM audits WHERE auditable_type = 'Crm::Person' "
        "AND audited_changes ->> 'organization_id' = '2') p), 'update', '{}', now(), n FROM generate_series(100000, 101299) n",
        "ANALYZE audits",
    )
    found = measure()
    told = [each.sentence for each in found.findings if each.sentence.startswith("Largest account") and "measured with" in each.sentence]
    assert re.fullmatch(
        r"Largest account Borneo Retail \(organisation 2\): [1-9]\d+ audits concern the 1\d\d of its 133 contacts that it was measured with\.",
        told[0],
    )
    assert failing(found) == []


def test_more_time_than_a_chunk_may_take_fails(sample, monkeypatch):
    monkeypatch.setattr(query_plans, "SECONDS_PER_10_000", 0)
    told = failing(measure())
    assert len(told) == 2 * len(QUERIES)
    assert told[0] == (
        "Largest account Borneo Retail (organisation 2), counting the contacts' own audits: 0.0 seconds, more than the 0 that a chunk of "
        "this size may take. Look at the plan with the CRM's DBA, try again when the replica is quiet, or lower CHUNK_SIZE."
    )


def test_a_query_that_does_not_end_is_stopped_and_fails(sample, monkeypatch):
    sample.change(
        "ALTER TABLE audits RENAME TO audit_log",
        "CREATE VIEW audits AS SELECT * FROM audit_log WHERE pg_sleep(0.05) IS NOT NULL",
        f"GRANT SELECT ON audits TO {ROLES['crm']}",
    )
    monkeypatch.setattr(query_plans, "PROBE_SECONDS", 0.1)
    found = measure()
    assert failing(found)[0] == (
        "Largest account Borneo Retail (organisation 2), counting the contacts' own audits: it was stopped after 0.1 seconds. "
        "Look at the plan with the CRM's DBA, try again when the replica is quiet, or lower CHUNK_SIZE."
    )
    assert next(each.sentence for each in found.findings if each.ok is None) == (
        "Largest account Borneo Retail (organisation 2): it was not counted how many audits concern the 100 of its 133 contacts that it was measured with."
    )


def test_without_a_mapping_nothing_is_asked(db, settings):
    settings.CRM_DATABASE_URL = settings.CDP_DATABASE_URL = "postgresql://u@nowhere.example:1/x"
    assert measure() == Measurement(
        [query_plans.Finding(False, "No mapping is published, so no class of the CRM is known: publish one (`manage.py publish_mapping --file mapping.json`).")]
    )  # fmt: skip
    assert query_plans.configuration(None)["the extraction queries"] == "none: no mapping is published"


@pytest.mark.parametrize(
    ("statements", "sentence"),
    [
        (
            ["TRUNCATE accounts CASCADE"],
            "The CDP holds no account, so there is nothing to extract: check that CDP_DATABASE_URL names the right database.",
        ),
        (
            ["UPDATE contacts SET source_id = NULL"],
            "None of the CDP's 3 accounts has a contact with source 'crm' and a source_id, so there is nothing to extract: "
            "have the CDP fill contacts.source_id with the CRM's person ids (gate C shows which lack it).",
        ),
    ],
)
def test_without_accounts_or_contacts_it_fails_and_says_so(sample, statements, sentence):
    run_sql(sample.cdp, *statements)
    assert measure() == Measurement([query_plans.Finding(False, sentence)])


def test_a_crm_without_these_contacts_fails_as_nothing_was_measured(sample):
    sample.change("UPDATE audits SET auditable_id = auditable_id + 100000, associated_id = associated_id + 100000")
    assert failing(measure()) == [
        "The CRM has no audit of any contact of Borneo Retail and Celebes Properti that was looked at, so nothing was measured: "
        "check that CRM_DATABASE_URL and CDP_DATABASE_URL belong together, and the mapping's contact classes."
    ]


def test_one_account_alone_is_measured_once(sample):
    run_sql(sample.cdp, "UPDATE contacts SET source = 'form' WHERE account_id <> (SELECT id FROM accounts WHERE crm_organization_id = 1)")
    found = measure()
    assert [(each["which"], each["organisation"]) for each in found.facts["accounts"]] == [("largest", 1)]
    assert [each["name"] for each in found.facts["queries"]] == QUERIES


def test_a_built_link_index_says_which_deals(sample):
    mapping = mappings.parse(mapping_document())
    with closing(Crm()) as crm:
        by_index.prepare(crm, 60)
        guessed = extraction.chunk(crm, mapping, list(range(1, 50)))
        index = links.up_to_date(mapping, crm, worlds.address("CRM_DATABASE_URL"), pulse=lambda: None)
        told = extraction.chunk(crm, mapping, list(range(1, 50)))
    assert told.links == link_reader.Reader(index).of(told.selection.persons)
    assert {span for spans in guessed.links.by_deal.values() for span in spans} == {(0, 0, planning.LAST_PERSON)}
    assert (told.audits or 0) > (guessed.audits or 0)


def test_what_is_explained_is_what_is_copied(sample):
    mapping = mappings.parse(mapping_document())
    with closing(Crm()) as crm:
        own = {each.name: each.statement for each in extraction.queries(crm, mapping, query_plans.EMPTY)}["the contacts' own audits"]
        source = extraction.by_contact(crm.shape, mapping, query_plans.EMPTY.selection)
        assert own == rows_of(crm.shape, mapping, source, extraction.MOMENT)
        copied = query(crm.shape, mapping, source, extraction.MOMENT).as_string(None)
    assert copied == f"COPY ({own.as_string(None)}) TO STDOUT"


def test_the_configuration_follows_the_classes_and_the_login(db, settings):
    settings.CRM_DATABASE_URL = "postgresql://calm_reader:secret@crm.example/crm"
    document = mapping_document()
    revisions.publish(document, by="tester", note="", now=now())
    first = query_plans.configuration(None)
    assert first["CRM_DATABASE_URL"] == "crm.example:5432/crm as calm_reader"
    assert re.fullmatch("[0-9a-f]{12}", first["the extraction queries"])
    revisions.publish(document | {"secrets": ["more"]}, by="tester", note="", now=now())
    assert query_plans.configuration(None) == first
    document["class_roles"]["note"].append("Crm::Memo")
    revisions.publish(document, by="tester", note="", now=now())
    assert query_plans.configuration(None)["the extraction queries"] != first["the extraction queries"]


def test_a_login_that_may_not_read_is_misconfigured(sample):
    sample.change(f"REVOKE SELECT ON audits FROM {ROLES['crm']}")
    with pytest.raises(Misconfigured, match="may not read table audits"):
        measure()


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"Node Type": "Hash", "Hash Batches": 4}, ["a hash that spills to disk (4 batches)"]),
        ({"Node Type": "Aggregate", "HashAgg Batches": 5, "Disk Usage": 1096}, ["a hash that spills to disk (5 batches)"]),
        ({"Node Type": "Sort", "Workers": [{"Sort Space Type": "Disk"}]}, ["a sort that spills to disk (0 kB)"]),
        ({"Node Type": "Materialize", "Storage": "Disk"}, ["a Materialize that spills to disk"]),
        ({"Node Type": "CTE Scan", "Temp Written Blocks": 12}, ["12 temporary blocks were written to disk"]),
        ({"Node Type": "Sort", "Sort Space Type": "Memory", "Temp Written Blocks": 0}, []),
    ],
)
def test_every_kind_of_spill_is_seen(node, said):
    assert plan_trees.spills(node) == said


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"Node Type": "Seq Scan", "Relation Name": "audits_2024", "Actual Loops": 0}, ["a sequential scan of audits_2024"]),
        ({"Node Type": "Index Scan", "Index Name": "i", "Relation Name": "audits"}, ["a scan of the whole index i, and so of all of audits"]),
        ({"Node Type": "Bitmap Index Scan", "Index Name": "i", "Index Cond": "(t = 'auditable_id')", "Plan Rows": 101},
         ["a scan of index i that is not by auditable_id or associated_id and reads 101 rows"]),
        ({"Node Type": "Index Scan", "Index Name": "i", "Index Cond": "(t = 'x')", "Actual Rows": 2, "Actual Loops": 30, "Rows Removed by Filter": 3},
         ["a scan of index i that is not by auditable_id or associated_id and reads 150 rows"]),
        ({"Node Type": "Index Scan", "Index Name": "i", "Index Cond": "(t = 'x')", "Plan Rows": 100}, []),
        ({"Node Type": "Index Only Scan", "Index Name": "i", "Index Cond": "((t = 'x') AND (a.auditable_id = p.id))", "Plan Rows": 900}, []),
        ({"Node Type": "Foreign Scan", "Relation Name": "audits"},
         ["a scan of the foreign table audits, whose own plan is made on another server and not seen here"]),
        ({"Node Type": "Custom Scan", "Relation Name": "audits"}, ["a scan of audits by an extension, whose plan cannot be read"]),
    ],
)  # fmt: skip
def test_every_kind_of_scan_is_seen(node, said):
    assert plan_trees.scans({"Node Type": "Append", "Plans": [node, node]}, extraction.BY_RECORD, 100) == said


@pytest.mark.parametrize(
    ("condition", "actual", "said"),
    [
        ("t = 'x'", {"Actual Rows": 101}, "a scan of index i that is not by auditable_id or associated_id and reads 101 rows"),
        (
            "auditable_id = 7",
            {"Actual Rows": 1, "Rows Removed by Filter": 200},
            "it goes through 201 rows, more than 2 times CHUNK_SIZE (100)",
        ),
    ],
)
def test_a_query_that_reads_more_than_the_planner_expected_fails_too(settings, condition, actual, said):
    settings.CHUNK_SIZE = 100
    node = {"Node Type": "Index Scan", "Index Name": "i", "Index Cond": condition, "Relation Name": "audits", "Plan Rows": 100}
    plans = iter([{"Plan": node}, {"Plan": node | actual | {"Actual Loops": 1}, "Execution Time": 1.0}])
    crm = SimpleNamespace(connection=None, rows=lambda statement: [([next(plans)],)])
    found = query_plans.explain(crm, "largest", extraction.Query("audits", sql.SQL("SELECT").format(), extraction.BY_RECORD))
    assert found.problems == [said]


def test_long_texts_are_shortened():
    assert plan_trees.short("ANY('{1,-2,3,4,5}'::bigint[]) ANY('{1,2,3}')") == "ANY('{1,-2,3,… 2 more}'::bigint[]) ANY('{1,2,3}')"
    assert len(plan_trees.short("x" * 5000)) == 4000


def test_many_partitions_without_an_index_are_counted(sample):
    sample.change(
        "DROP TABLE audits",
        "CREATE TABLE audits (id bigint, auditable_id int, auditable_type text, associated_id int, associated_type text, user_id int, user_type text, "
        "username text, action text, audited_changes jsonb, version int, comment text, created_at timestamp) PARTITION BY LIST (id)",
        "DO $$ BEGIN FOR i IN 101..160 LOOP EXECUTE format('CREATE TABLE p%s PARTITION OF audits FOR VALUES IN (%s)', i, i); END LOOP; END $$",
        f"GRANT SELECT ON audits TO {ROLES['crm']}",
    )
    with closing(Crm()) as crm:
        findings, facts = gem_indexes.look(crm)
    assert findings[0].sentence.startswith(
        "public.p101, public.p102, public.p103 and 57 more has no index by auditable_type, auditable_id: "
    )
    assert len(facts) == 3 * 50
