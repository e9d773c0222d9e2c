"""Gate A's probe against real roles: every way to hold more than SELECT on two tables fails, and what PUBLIC has by default does not."""

import os
import re
from contextlib import closing
from dataclasses import dataclass

import psycopg
import pytest

from gates.probes import Finding, Measurement, read_only
from migration.doors import Misconfigured, Outage
from tests.conftest import PASSWORD, at, rows, run_sql

DEFAULTS = "Listed, as every role has it by default"
SYSTEM_COUNTS = re.compile(r"(CONNECT|EXECUTE|SELECT|TEMPORARY|UPDATE|USAGE|SET) on \d+ [a-z ]+")


@dataclass
class Login:
    """A login of the CRM with the two grants, made for one test; `run` says {r} for it and {o} for a second role that cannot log in."""

    crm: str  # the owner's URL
    name: str
    other: str

    def run(self, *statements: str) -> None:
        run_sql(self.crm, *(each.replace("{r}", self.name).replace("{o}", self.other) for each in statements))

    def measure(self) -> Measurement:
        return read_only.measure(None)

    def said(self, found: Measurement, ok: bool | None) -> list[str]:
        """The findings of one kind, with the roles' names as in `run`."""
        return [each.sentence.replace(self.name, "{r}").replace(self.other, "{o}") for each in found.findings if each.ok is ok]

    def excess(self, found: Measurement) -> list[tuple[str, ...]]:
        return [
            tuple(
                each[key].replace(self.name, "{r}").replace(self.other, "{o}") for key in ("object_type", "object", "privilege", "through")
            )
            for each in found.facts["grants"]
            if each["verdict"] == "excess"
        ]


@pytest.fixture(scope="module")
def roles(postgres):
    names = f"calm_test_{os.getpid()}_reader", f"calm_test_{os.getpid()}_group"
    yield names
    run_sql(postgres, *(f"DROP ROLE IF EXISTS {name}" for name in names))


@pytest.fixture
def login(postgres, templates, roles, settings):
    """A copy of the sample CRM and two fresh roles; the console's own database is not asked."""
    name, other = roles
    database = f"calm_test_{os.getpid()}_rights"
    run_sql(postgres, f"CREATE DATABASE {database} TEMPLATE {templates['crm_sample']}", f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    made = Login(at(postgres, database), name, other)
    made.run("CREATE ROLE {o}", "GRANT SELECT ON audits, users TO {r}")
    settings.CRM_DATABASE_URL = at(postgres, database, name, PASSWORD)
    yield made
    run_sql(postgres, f"DROP DATABASE {database} WITH (FORCE)", f"DROP ROLE {name}", f"DROP ROLE {other}")


NEEDED = "Role {r} has SELECT on audits and users, and no other privilege to read a table or to write anything."
PLAIN = "Role {r} has none of SUPERUSER, CREATEDB, CREATEROLE, REPLICATION, BYPASSRLS, and can become no role that has."
TRIED = "7 writes were tried outside the session's own read-only setting, and the server refused each."


def test_two_grants_and_what_public_has_pass(login):
    found = login.measure()
    assert found.passes
    assert login.said(found, True) == [PLAIN, NEEDED, TRIED]
    server, listed = login.said(found, None)
    database = login.crm.rpartition("/")[2]
    version = rows(login.crm, "SELECT current_setting('server_version')")[0][0]
    place = login.crm.rpartition("@")[2]
    assert server == (
        f"The CRM at {place} is PostgreSQL {version}, no replica (not in recovery): only the login's rights keep it from being written."
    )
    assert listed.startswith(DEFAULTS)
    assert SYSTEM_COUNTS.findall(listed) == ["CONNECT", "EXECUTE", "SELECT", "SELECT", "SELECT", "TEMPORARY", "UPDATE", "USAGE"]
    table, user = 'INTO "public"."audits" ("action") SELECT "action" FROM "public"."audits"', '"public"."users"'
    denied = {"refused": True, "answer": "permission denied for table audits"}
    users = {"refused": True, "answer": "permission denied for table users"}
    assert found.facts == {
        "server": {"version": version, "in_recovery": False, "role": login.name, "database": database, "address": place},
        "attributes": [],
        "memberships": [],
        "grants": [
            grant("database", database, "CONNECT", "PUBLIC", "needed"),
            grant("schema", "public", "USAGE", "PUBLIC", "needed"),
            grant("table", "public.audits", "SELECT", login.name, "needed"),
            grant("table", "public.users", "SELECT", login.name, "needed"),
            grant("database", database, "TEMPORARY", "PUBLIC", "default"),
        ],
        "grants_total": 5,
        "write_attempts": [
            {"statement": f"INSERT {table} WHERE false"} | denied,
            {"statement": 'UPDATE "public"."audits" SET "action" = "action" WHERE false'} | denied,
            {"statement": 'DELETE FROM "public"."audits" WHERE false'} | denied,
            {"statement": f'INSERT INTO {user} ("email") SELECT "email" FROM {user} WHERE false'} | users,
            {"statement": f'UPDATE {user} SET "email" = "email" WHERE false'} | users,
            {"statement": f"DELETE FROM {user} WHERE false"} | users,
            {"statement": "CREATE TABLE public.calm_console_probe ()", "refused": True, "answer": "permission denied for schema public"},
        ],
    }  # fmt: skip


def grant(kind: str, name: str, privilege: str, through: str, verdict: str) -> dict[str, str]:
    return {"object_type": kind, "object": name, "privilege": privilege, "through": through, "verdict": verdict}


EXCESS = {
    "insert on audits": (
        ["GRANT INSERT ON audits TO {r}"],
        [("table", "public.audits", "INSERT", "{r}")],
        [
            "Role {r} has INSERT on table public.audits: REVOKE INSERT ON TABLE public.audits FROM \"{r}\".",
            'A write was not refused (INSERT INTO "public"."audits" ("action") SELECT "action" FROM "public"."audits" WHERE false: INSERT 0 0); '
            "it concerned no row and was taken back.",
        ],
    ),
    "one column to write": (
        ["GRANT UPDATE (comment) ON audits TO {r}"],
        [("column", "public.audits(comment)", "UPDATE", "{r}")],
        ["Role {r} has UPDATE on column public.audits(comment): REVOKE UPDATE (comment) ON TABLE public.audits FROM \"{r}\"."],
    ),
    "truncate, references, trigger": (
        ["GRANT TRUNCATE, REFERENCES, TRIGGER ON users TO {r}"],
        [("table", "public.users", privilege, "{r}") for privilege in ("REFERENCES", "TRIGGER", "TRUNCATE")],
        [
            f"Role {{r}} has {privilege} on table public.users: REVOKE {privilege} ON TABLE public.users FROM \"{{r}}\"."
            for privilege in ("REFERENCES", "TRIGGER", "TRUNCATE")
        ],
    ),
    "another table to read": (
        ["GRANT SELECT ON organizations TO {r}"],
        [("table", "public.organizations", "SELECT", "{r}")],
        ["Role {r} has SELECT on table public.organizations: REVOKE SELECT ON TABLE public.organizations FROM \"{r}\"."],
    ),
    "another table to read, as all may": (
        ["GRANT SELECT ON organizations TO PUBLIC"],
        [("table", "public.organizations", "SELECT", "PUBLIC")],
        ["Role {r} has SELECT on table public.organizations (through PUBLIC): REVOKE SELECT ON TABLE public.organizations FROM PUBLIC."],
    ),
    "one column of another table": (
        ["GRANT SELECT (name) ON organizations TO {r}"],
        [("column", "public.organizations(name)", "SELECT", "{r}")],
        ["Role {r} has SELECT on column public.organizations(name): REVOKE SELECT (name) ON TABLE public.organizations FROM \"{r}\"."],
    ),
    "names that need quotes, several at once": (
        [
            'CREATE SCHEMA "Old ""CRM"""',
            'CREATE TABLE "Old ""CRM"""."select" ()',
            'CREATE TABLE "Old ""CRM""".audits ()',
            'CREATE TABLE "Old ""CRM""".b ()',
            'CREATE TABLE "Old ""CRM""".c ()',
            'GRANT USAGE ON SCHEMA "Old ""CRM""" TO {r}',
            'GRANT SELECT ON ALL TABLES IN SCHEMA "Old ""CRM""" TO {r}',
        ],
        [("table", f'"Old ""CRM""".{name}', "SELECT", "{r}") for name in ('"select"', "audits", "b", "c")],
        [
            'Role {r} has SELECT on 4 tables: "Old ""CRM"""."select", "Old ""CRM""".audits, "Old ""CRM""".b and 1 more: '
            'REVOKE SELECT ON TABLE "Old ""CRM"""."select" FROM "{r}", and so for the others.'
        ],
    ),
    "a view of another table": (
        ["CREATE VIEW everybody AS SELECT * FROM crm_people", "GRANT SELECT ON everybody TO {r}"],
        [("view", "public.everybody", "SELECT", "{r}")],
        ["Role {r} has SELECT on view public.everybody: REVOKE SELECT ON TABLE public.everybody FROM \"{r}\"."],
    ),
    "a sequence": (
        ["GRANT USAGE ON SEQUENCE audits_id_seq TO {r}"],
        [("sequence", "public.audits_id_seq", "USAGE", "{r}")],
        ["Role {r} has USAGE on sequence public.audits_id_seq: REVOKE USAGE ON SEQUENCE public.audits_id_seq FROM \"{r}\"."],
    ),
    "tables of its own, as PostgreSQL 14 lets everybody": (
        ["GRANT CREATE ON SCHEMA public TO PUBLIC"],
        [("schema", "public", "CREATE", "PUBLIC")],
        [
            "Role {r} has CREATE on schema public (through PUBLIC): REVOKE CREATE ON SCHEMA public FROM PUBLIC.",
            "A write was not refused (CREATE TABLE public.calm_console_probe (): CREATE TABLE); it concerned no row and was taken back.",
        ],
    ),
    "temporary tables where not everybody may": (
        ["REVOKE TEMPORARY ON DATABASE {db} FROM PUBLIC", "GRANT TEMPORARY ON DATABASE {db} TO {r}"],
        [("database", "{db}", "TEMPORARY", "{r}")],
        ["Role {r} has TEMPORARY on database {db}: REVOKE TEMPORARY ON DATABASE {db} FROM \"{r}\"."],
    ),
    "a function that runs with its owner's rights": (
        ["CREATE FUNCTION wipe(integer) RETURNS void LANGUAGE sql SECURITY DEFINER AS 'DELETE FROM audits WHERE id = $1'"],
        [("function", "public.wipe(integer)", "EXECUTE", "PUBLIC")],
        ["Role {r} has EXECUTE on function public.wipe(integer) (through PUBLIC): REVOKE EXECUTE ON ROUTINE public.wipe(integer) FROM PUBLIC."],
    ),
    "a function of the system that not everybody may call": (
        ["GRANT EXECUTE ON FUNCTION pg_read_file(text) TO {r}"],
        [("function", "pg_catalog.pg_read_file(text)", "EXECUTE", "{r}")],
        [
            "Role {r} has EXECUTE on function pg_catalog.pg_read_file(text): "
            "REVOKE EXECUTE ON ROUTINE pg_catalog.pg_read_file(text) FROM \"{r}\"."
        ],
    ),
    "a table of its own": (
        ["ALTER TABLE crm_notes OWNER TO {r}"],
        [("sequence", "public.crm_notes_id_seq", "OWNER", "{r}"), ("table", "public.crm_notes", "OWNER", "{r}")],
        [
            "Role {r} has OWNER on sequence public.crm_notes_id_seq: "
            "give it to another owner (ALTER SEQUENCE public.crm_notes_id_seq OWNER TO …).",
            "Role {r} has OWNER on table public.crm_notes: give it to another owner (ALTER TABLE public.crm_notes OWNER TO …).",
        ],
    ),
    "a grant option": (
        ["GRANT SELECT ON audits TO {r} WITH GRANT OPTION"],
        [("table", "public.audits", "SELECT WITH GRANT OPTION", "{r}")],
        [
            "Role {r} has SELECT WITH GRANT OPTION on table public.audits: "
            "REVOKE GRANT OPTION FOR SELECT ON TABLE public.audits FROM \"{r}\"."
        ],
    ),
    "a large object": (
        ["SELECT lo_create(4711)", "GRANT UPDATE ON LARGE OBJECT 4711 TO {r}"],
        [("large object", "4711", "UPDATE", "{r}")],
        ["Role {r} has UPDATE on large object 4711: REVOKE UPDATE ON LARGE OBJECT 4711 FROM \"{r}\"."],
    ),
    "tables to come": (
        ["ALTER DEFAULT PRIVILEGES FOR ROLE {o} IN SCHEMA public GRANT SELECT ON TABLES TO {r}"],
        [("default privilege", "FOR ROLE {o} IN SCHEMA public ON TABLES", "SELECT", "{r}")],
        [
            "Role {r} will have SELECT on what is made from now on (FOR ROLE {o} IN SCHEMA public ON TABLES): "
            "ALTER DEFAULT PRIVILEGES FOR ROLE {o} IN SCHEMA public REVOKE SELECT ON TABLES FROM \"{r}\"."
        ],
    ),
    "a foreign server": (
        ["CREATE FOREIGN DATA WRAPPER far", "CREATE SERVER away FOREIGN DATA WRAPPER far", "GRANT USAGE ON FOREIGN SERVER away TO {r}"],
        [("foreign server", "away", "USAGE", "{r}")],
        ["Role {r} has USAGE on foreign server away: REVOKE USAGE ON FOREIGN SERVER away FROM \"{r}\"."],
    ),
    "a role that it does not inherit from, but can become": (
        ["GRANT INSERT ON crm_notes TO {o}", "ALTER ROLE {r} NOINHERIT", "GRANT {o} TO {r}"],
        [("table", "public.crm_notes", "INSERT", "{o}")],
        ["Role {r} has INSERT on table public.crm_notes (through {o}): take {r} out of role {o}, or take the privilege from that."],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXCESS)
def test_more_than_that_fails_and_says_how_to_mend_it(login, name):
    statements, grants, sentences = EXCESS[name]
    database = login.crm.rpartition("/")[2]
    login.run(*(each.replace("{db}", database) for each in statements))
    found = login.measure()
    assert not found.passes
    assert login.excess(found) == [tuple(each.replace("{db}", database) for each in row) for row in grants]
    assert login.said(found, False) == [each.replace("{db}", database) for each in sentences]
    assert found.facts["grants_total"] == len(found.facts["grants"])


def test_rights_of_the_servers_settings_fail_where_there_are_such(login):
    if int(rows(login.crm, "SHOW server_version_num")[0][0]) < 150000:
        pytest.skip("PostgreSQL 14 knows no privileges on settings")
    login.run("GRANT ALTER SYSTEM ON PARAMETER work_mem TO {r}")
    try:
        found = login.measure()
    finally:
        login.run("REVOKE ALTER SYSTEM ON PARAMETER work_mem FROM {r}")
    assert login.excess(found) == [("parameter", "work_mem", "ALTER SYSTEM", "{r}")]


ELEVATED = {
    "attributes": (
        ["ALTER ROLE {r} CREATEDB CREATEROLE BYPASSRLS REPLICATION"],
        ["CREATEDB, CREATEROLE, REPLICATION, BYPASSRLS"],
        [],
        ['Role {r} has CREATEDB, CREATEROLE, REPLICATION, BYPASSRLS: ALTER ROLE "{r}" NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS.'],
    ),
    "a predefined role": (
        ["GRANT pg_read_all_data TO {r}"],
        [],
        [{"role": "pg_read_all_data", "ok": False}],
        [
            "Role {r} can become pg_read_all_data, one of PostgreSQL's own elevated roles: "
            'take it out of that role (REVOKE "pg_read_all_data" …).'
        ],
    ),
    "a predefined role behind another that is not inherited": (
        ["GRANT pg_execute_server_program TO {o}", "ALTER ROLE {r} NOINHERIT", "GRANT {o} TO {r}"],
        [],
        [{"role": "{o}", "ok": True}, {"role": "pg_execute_server_program", "ok": False}],
        [
            "Role {r} can become pg_execute_server_program, one of PostgreSQL's own elevated roles: "
            'take it out of that role (REVOKE "pg_execute_server_program" …).'
        ],
    ),
    "a role with attributes": (
        ["ALTER ROLE {o} CREATEDB BYPASSRLS", "GRANT {o} TO {r}"],
        [],
        [{"role": "{o}", "ok": False}],
        ['Role {r} can become {o}, which has CREATEDB, BYPASSRLS: take it out of that role (REVOKE "{o}" …).'],
    ),
    "a role that it may let others into": (
        ["GRANT {o} TO {r} WITH ADMIN OPTION"],
        [],
        [{"role": "{o}", "ok": False}],
        ['Role {r} can become {o}, and may let others in (ADMIN OPTION): take it out of that role (REVOKE "{o}" …).'],
    ),
}


@pytest.mark.parametrize("name", ELEVATED)
def test_an_elevated_role_fails(login, name):
    statements, attributes, memberships, sentences = ELEVATED[name]
    login.run(*statements)
    found = login.measure()
    assert not found.passes
    assert ", ".join(found.facts["attributes"]) == ", ".join(sorted(", ".join(attributes).split(", ")))
    assert [each | {"role": each["role"].replace(login.other, "{o}")} for each in found.facts["memberships"]] == memberships
    assert login.said(found, False)[:1] == sentences


def test_a_superuser_fails_and_what_it_was_let_do_is_taken_back(login, settings):
    settings.CRM_DATABASE_URL = login.crm
    found = read_only.measure(None)
    assert not found.passes
    assert "SUPERUSER" in found.facts["attributes"]
    assert [(each["refused"], each["answer"]) for each in found.facts["write_attempts"]] == [
        (False, "INSERT 0 0"), (False, "UPDATE 0"), (False, "DELETE 0"),
        (False, "INSERT 0 0"), (False, "UPDATE 0"), (False, "DELETE 0"), (False, "CREATE TABLE"),
    ]  # fmt: skip
    assert len(found.facts["grants"]) == 200 < found.facts["grants_total"] or found.facts["grants_total"] == len(found.facts["grants"])
    assert rows(login.crm, "SELECT count(*), to_regclass('calm_console_probe') IS NULL FROM audits") == [(2002, True)]


PASSING = {
    "a plain group": ["GRANT {o} TO {r}", "GRANT SELECT ON users TO {o}"],
    "partitions of audits": [
        "ALTER TABLE audits RENAME TO audits_old",
        "CREATE TABLE audits (LIKE audits_old) PARTITION BY RANGE (created_at)",
        "CREATE TABLE audits_2025 PARTITION OF audits DEFAULT",
        "GRANT SELECT ON audits, audits_2025 TO {r}",
        "DROP TABLE audits_old",
    ],
    "audits as a view": [
        "ALTER TABLE audits RENAME TO audit_log",
        "REVOKE ALL ON audit_log FROM {r}",
        "CREATE VIEW audits AS SELECT * FROM audit_log",
        "GRANT SELECT ON audits TO {r}",
    ],
    "another schema to look into": ["CREATE SCHEMA extensions", "GRANT USAGE ON SCHEMA extensions TO PUBLIC"],
    "what nobody outside a schema reaches": [
        "CREATE SCHEMA hidden",
        "CREATE TABLE hidden.t ()",
        "GRANT SELECT ON hidden.t TO PUBLIC",
        "CREATE FUNCTION hidden.f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
    ],
    "functions that run with the caller's rights, and triggers": [
        "CREATE FUNCTION plain() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "GRANT EXECUTE ON FUNCTION plain() TO {r}",
        "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN NEW; END'",
    ],
    "row security that shows everything": [
        "ALTER TABLE audits ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY everything ON audits FOR SELECT TO {r} USING (true)",
    ],
}


@pytest.mark.parametrize("name", PASSING)
def test_what_neither_writes_nor_reads_another_table_passes(login, name):
    login.run(*PASSING[name])
    found = login.measure()
    assert login.said(found, False) == []
    assert login.excess(found) == []
    assert found.passes


@pytest.mark.parametrize(
    "policies",
    [[], ["CREATE POLICY mine ON audits USING (user_id = 7)"],
     ["CREATE POLICY everything ON audits USING (true)", "CREATE POLICY but ON audits AS RESTRICTIVE USING (id > 7)"],
     ["CREATE POLICY everything ON audits TO {o} USING (true)"]],
)  # fmt: skip
def test_row_security_that_hides_rows_fails(login, policies):
    login.run("ALTER TABLE audits ENABLE ROW LEVEL SECURITY", *policies)
    assert login.said(login.measure(), False) == [
        "Table public.audits is under row security, which may hide rows from role {r}, and so history: "
        'CREATE POLICY calm_console ON public.audits FOR SELECT TO "{r}" USING (true).'
    ]


def test_many_tables_are_counted_and_only_some_listed(login):
    login.run(
        "DO $$ BEGIN FOR i IN 1..300 LOOP EXECUTE format('CREATE TABLE t%s ()', lpad(i::text, 3, '0')); END LOOP; END $$",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {r}",
    )
    found = login.measure()
    others = 300 + 16  # the sample's own tables beside the two
    assert login.said(found, False)[0].startswith(
        f"Role {{r}} has SELECT on {others} tables: public.ar_internal_metadata, public.crm_companies, public.crm_deal_companies and {others - 3} more: "
    )
    assert len(found.facts["grants"]) == 200
    assert {each["verdict"] for each in found.facts["grants"]} == {"excess"}
    assert found.facts["grants_total"] == others + 5


def test_grants_in_other_databases_are_told_not_judged(login, postgres):
    database = f"calm_test_{os.getpid()}_elsewhere"
    run_sql(postgres, f"CREATE DATABASE {database}")
    try:
        run_sql(
            at(postgres, database),
            "CREATE TABLE t ()",
            f"GRANT SELECT ON t TO {login.name}",
            "CREATE TABLE u ()",
            f"ALTER TABLE u OWNER TO {login.name}",
        )
        found = login.measure()
    finally:
        run_sql(postgres, f"DROP DATABASE {database}")
    assert found.passes
    assert login.said(found, None)[-1] == (
        "In other databases of this server, where the probe cannot look, 1 access lists name role {r} or a role that it can become, "
        "and they own 1 objects."
    )


def test_a_locked_table_is_an_outage_as_nothing_was_tried(login):
    with closing(psycopg.connect(login.crm)) as other:
        other.execute("LOCK TABLE audits IN SHARE MODE")
        with pytest.raises(Outage, match="another session holds a lock"):
            login.measure()


def test_a_login_that_may_not_read_is_misconfigured(login):
    login.run("REVOKE SELECT ON users FROM {r}")
    with pytest.raises(Misconfigured, match="may not read table users"):
        login.measure()


def test_configuration_names_the_place_and_the_login_and_never_the_password(settings):
    settings.CRM_DATABASE_URL = "postgresql://calm_reader:secret@crm.example:5433/crm"
    assert read_only.configuration(None) == {"CRM_DATABASE_URL": "crm.example:5433/crm as calm_reader"}


def test_findings_are_findings(login):
    assert all(isinstance(each, Finding) for each in login.measure().findings)
