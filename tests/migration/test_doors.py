"""What the doors set, ask and accept, condition by condition: a clause that is lost here reads another tenant's contacts, or keeps the CRM busy."""

from contextlib import closing
from dataclasses import fields
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest

from migration import cdp_shape
from migration.cdp import Cdp
from migration.crm import NEEDED, Crm, Shape, shape_of
from migration.doors import BrokenOff, Misconfigured, Outage, is_outage, translated
from migration.tables import Columns

FOR_ALL = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "default_transaction_isolation": "read committed",
    "transaction_isolation": "read committed",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "quote_all_identifiers": "off",
    "lock_timeout": "10s",
    "idle_session_timeout": "10min",
    "jit": "off",
}
OF_THE_CRM = FOR_ALL | {
    "application_name": "calm-console read",
    "default_transaction_read_only": "on",
    "statement_timeout": "41s",
    "idle_in_transaction_session_timeout": "10min",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_sort": "on",
    "enable_indexscan": "on",
    "enable_bitmapscan": "on",
    "max_parallel_workers_per_gather": "0",
}
OF_THE_CDP = FOR_ALL | {
    "application_name": "calm-console load",
    "default_transaction_read_only": "off",
    "statement_timeout": "43s",
    "idle_in_transaction_session_timeout": "1min",
    "enable_mergejoin": "off",
    "enable_seqscan": "on",
    "temp_buffers": "32MB",
    "work_mem": "16MB",
}


def shown(connection: psycopg.Connection, names: dict[str, str]) -> dict[str, str]:
    return {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in names}


def test_each_door_sets_its_session_and_a_question_leaves_it_so(systems, settings):
    settings.CRM_STATEMENT_TIMEOUT_SECONDS, settings.CDP_STATEMENT_TIMEOUT_SECONDS = 41, 43
    with closing(Crm()) as crm, closing(Cdp()) as cdp:
        assert shown(crm.connection, OF_THE_CRM) == OF_THE_CRM
        assert shown(cdp.connection, OF_THE_CDP) == OF_THE_CDP
        named = "SELECT current_setting('enable_sort'), current_setting('enable_bitmapscan'), current_setting('enable_indexscan')"
        assert crm.rows_by_sets(psycopg.sql.SQL(named).format()) == [("off", "on", "off")]
        assert crm.rows_in_order(psycopg.sql.SQL(named).format()) == [("off", "off", "on")]
        with crm.snapshot() as connection:
            inside = {"transaction_isolation": "repeatable read", "transaction_read_only": "on"}
            assert shown(connection, inside) == inside
        assert crm.lag() is None, "this is no replica"
        assert shown(crm.connection, OF_THE_CRM) == OF_THE_CRM
    settings.CRM_DATABASE_URL = systems.crm  # the owner's
    with closing(Crm()) as crm:
        crm.connection.execute("SET default_transaction_read_only = off")
        with crm.snapshot() as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("DELETE FROM audits")


# --- what the CDP is asked ------------------------------------------------------------------------------------------

OURS, THEIRS = UUID(int=1), UUID(int=2)
PERSON = 700_000  # and those after: no contact of the sample claims them


def contact(number: int, account: UUID, source: str, source_id: int | None) -> str:
    claimed = "NULL" if source_id is None else source_id
    return f"INSERT INTO contacts (id, account_id, source, source_id) VALUES ('{UUID(int=number)}', '{account}', '{source}', {claimed})"


def log(number: int, account: UUID, of: int, category: str, at: str, origin: str = "live") -> str:
    return f"""INSERT INTO contact_activity_logs (id, account_id, contact_id, category, actor_kind, occurred_at, changes, origin)
               VALUES ('{UUID(int=number)}', '{account}', '{UUID(int=of)}', '{category}', 'user', '{at}', '{{}}', '{origin}')"""


def test_contacts_and_live_rows_are_those_of_the_account_and_nobody_else_s(systems):
    """Two accounts beside the sample's, with everything that a claim, or a live row of the account, is not."""
    systems.change_cdp(
        f"INSERT INTO accounts (id, crm_organization_id, name) VALUES ('{OURS}', 901, 'ours'), ('{THEIRS}', 900, 'theirs')",
        contact(11, OURS, "crm", PERSON), contact(13, OURS, "crm", PERSON + 1), contact(12, OURS, "crm", PERSON + 1),
        contact(14, OURS, "crm", 0), contact(15, OURS, "crm", -5), contact(16, OURS, "crm", None), contact(17, OURS, "form", None),
        contact(18, OURS, "import", PERSON + 2), contact(19, OURS, "import", PERSON + 3),
        contact(21, THEIRS, "crm", PERSON), contact(22, THEIRS, "crm", PERSON), contact(23, THEIRS, "import", PERSON + 1),
        contact(24, THEIRS, "crm", PERSON + 3), contact(25, THEIRS, "crm", PERSON + 4),
        log(31, OURS, 11, "contact/update", "2024-03-02 10:00+00"), log(32, OURS, 11, "contact/create", "2024-03-01 10:00+00"),
        log(33, OURS, 11, "contact/create", "2024-01-01 10:00+00", "crm_migration"), log(34, OURS, 12, "deal/won", "2024-05-01 10:00+00"),
        log(35, THEIRS, 11, "deal/won", "2024-04-01 10:00+00"), log(36, OURS, 21, "note/create", "2024-04-01 10:00+00"),
        log(37, OURS, 11, "task/done", "-infinity"), log(38, OURS, 11, "task/done", "0001-01-01 10:00+00 BC"),
    )  # fmt: skip
    with closing(Cdp()) as cdp:
        assert_claims(cdp)
        assert cdp.live_since(OURS) == {"contact": datetime(2024, 3, 1, 10, tzinfo=UTC), "deal": datetime(2024, 5, 1, 10, tzinfo=UTC)}


def assert_claims(cdp: Cdp) -> None:
    both = [str(UUID(int=12)), str(UUID(int=13))]
    assert list(cdp.persons(OURS)) == [0, PERSON, PERSON + 1]
    assert cdp.contacts(OURS, 0, PERSON + 9) == {0: [str(UUID(int=14))], PERSON: [str(UUID(int=11))], PERSON + 1: both}
    assert cdp.contacts(OURS, PERSON + 1, PERSON + 1) == {PERSON + 1: both}
    assert cdp.contacts_of(OURS, [PERSON + 1, PERSON + 2, PERSON + 3, PERSON + 4, 9]) == {PERSON + 1: both}
    assert cdp.contacts_without_source_id(OURS) == 2
    assert cdp.rival_claims(OURS) == [(PERSON, 900)]
    assert sorted(cdp.rival_claims(THEIRS)) == [(PERSON, 901)]
    told = cdp.contacts_by_account()
    assert [row[1:] for row in told if row[0] in (OURS, THEIRS)] == [(900, "theirs", 4), (901, "ours", 4)]
    assert told == sorted(told, key=lambda row: (-row[3], row[1])), "most contacts first, then by organisation"
    assert [row[1] for row in cdp.accounts()] == [1, 2, 3, 900, 901]


# --- types and shapes -----------------------------------------------------------------------------------------------

AUDITS = {
    "id": "bigint", "auditable_id": "bigint", "auditable_type": "character varying", "associated_id": "bigint", "associated_type": "character varying",
    "user_id": "bigint", "user_type": "character varying", "username": "character varying", "action": "character varying",
    "audited_changes": "jsonb", "version": "integer", "comment": "text", "created_at": "timestamp without time zone",
}  # fmt: skip
WHOLE, WORDS = {"smallint", "integer", "bigint"}, {"text", "character varying"}
CITEXT = {"citext", "public.citext"}
ODD = {"uuid", "numeric", "bpchar", "name", "bytea", "date", "hstore", "k", "double precision", "json", "jsonb", "boolean", "citext"}
READ = {
    "id": WHOLE,
    "audited_changes": {"jsonb", "json", *WORDS},
    "auditable_type": WORDS | CITEXT,
    "associated_type": WORDS | CITEXT,
    "auditable_id": WHOLE | WORDS,
    "associated_id": WHOLE | WORDS,
    "created_at": {"timestamp without time zone", "timestamp with time zone"},
}


def is_read(changed: Columns) -> bool:
    try:
        shape_of(AUDITS | changed)
    except Misconfigured:
        return False
    return True


def test_which_types_of_audits_columns_are_read():
    assert {*AUDITS} == {*NEEDED["audits"].columns}
    every = set().union(*READ.values(), ODD)
    assert {column: {kind for kind in every if is_read({column: kind})} for column in READ} == READ
    assert all(is_read({column: kind}) for column in AUDITS.keys() - READ.keys() for kind in every), "the others are carried as text"
    found = shape_of(AUDITS | {"audited_changes": "character varying", "request_uuid": "uuid"})
    told = {each.name: getattr(found, each.name) for each in fields(Shape)}
    assert told == {
        "changes": "text", "record_id": "bigint", "associated_id": "bigint", "user_id": "bigint", "created_at": "timestamp without time zone",
        "has_request": True,
    }  # fmt: skip
    assert (shape_of(AUDITS).changes, shape_of(AUDITS).has_request) == ("jsonb", False)


TAKEN = {  # by table and column
    **{each: {"uuid"} for each in [("accounts", "id"), ("contacts", "id"), ("contacts", "account_id")]},
    **dict.fromkeys([("accounts", "crm_organization_id"), ("contacts", "source_id"), ("contact_activity_logs", "source_audit_id")], WHOLE),
    **{("contact_activity_logs", name): {"uuid"} for name in ("id", "account_id", "contact_id", "run_id")},
    **{("contact_activity_logs", name): WORDS | CITEXT for name in ("category", "actor_kind", "actor_id", "actor_name")},
    **{("contact_activity_logs", name): {"jsonb"} for name in ("changes", "context")},
    ("contact_activity_logs", "occurred_at"): {"timestamp with time zone"},
}


def test_which_types_of_the_cdp_s_columns_are_taken():
    every = set().union(*TAKEN.values(), ODD, {"timestamp without time zone"})
    sound = {table: {column: min(kinds) for (of, column), kinds in TAKEN.items() if of == table} for table, _ in TAKEN}
    assert [*cdp_shape.wrong_types(sound)] == []

    def is_taken(table: str, column: str, kind: str) -> bool:
        return not [*cdp_shape.wrong_types(sound | {table: sound[table] | {column: kind}})]

    assert {each: {kind for kind in every if is_taken(*each, kind)} for each in TAKEN} == TAKEN


def test_occurred_at_keeps_microseconds():
    """-1: of no declared precision, which is six digits; a column of 0 keeps whole seconds."""
    unique = [["id"], ["contact_id", "source_audit_id"]]
    assert [digits for digits in range(-1, 7) if not [*cdp_shape.wrong_logs(digits, [], unique)]] == [-1, 6]


LOGS = "ALTER TABLE contact_activity_logs"
PAIR = "source_audit_id, contact_id"
INSUFFICIENT = [
    f"CREATE INDEX x ON contact_activity_logs ({PAIR})",
    f"CREATE UNIQUE INDEX x ON contact_activity_logs ({PAIR}) WHERE origin = 'live'",
    f"CREATE UNIQUE INDEX x ON contact_activity_logs ({PAIR}) WHERE source_audit_id IS NULL",
    f"CREATE UNIQUE INDEX x ON contact_activity_logs ({PAIR}, category)",
    "CREATE UNIQUE INDEX x ON contact_activity_logs (source_audit_id, contact_id, (category || ''))",
    "CREATE UNIQUE INDEX x ON contact_activity_logs (id, source_audit_id) INCLUDE (contact_id)",
    "CREATE UNIQUE INDEX x ON contact_activity_logs (id) INCLUDE (source_audit_id, contact_id)",
    f"{LOGS} ADD CONSTRAINT x UNIQUE ({PAIR}) DEFERRABLE",
    f"CREATE UNIQUE INDEX x ON contact_activity_logs ({PAIR}); UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'x'::regclass",
]
SUFFICIENT = [
    f"{LOGS} ADD CONSTRAINT x UNIQUE ({PAIR})",
    "CREATE UNIQUE INDEX x ON contact_activity_logs (contact_id, source_audit_id) INCLUDE (category)",
    f"CREATE UNIQUE INDEX x ON contact_activity_logs ({PAIR}) WHERE source_audit_id IS NOT NULL",
]


def test_which_indexes_and_columns_keep_rows_from_coming_twice_or_not_at_all(systems):
    def problem() -> str:
        try:
            Cdp().close()
        except Misconfigured as error:
            return str(error)
        return ""

    systems.change_cdp("DROP INDEX contact_activity_logs_source")
    for statement in INSUFFICIENT:
        systems.change_cdp(*statement.split("; "))
        assert f"has no unique index on ({PAIR})" in problem(), statement
        systems.change_cdp(f"{LOGS} DROP CONSTRAINT IF EXISTS x", "DROP INDEX IF EXISTS x")
    for statement in SUFFICIENT:
        systems.change_cdp(f"{LOGS} DROP CONSTRAINT IF EXISTS x", "DROP INDEX IF EXISTS x", statement)
        assert problem() == "", statement
    systems.change_cdp(
        f"{LOGS} ADD empty text, ADD filled text NOT NULL DEFAULT 'x', ADD numbered bigint GENERATED ALWAYS AS IDENTITY, ADD gone text",
        f"UPDATE {LOGS.split()[-1]} SET gone = 'x'", f"{LOGS} ALTER gone SET NOT NULL", f"{LOGS} DROP gone",
    )  # fmt: skip
    assert problem() == ""
    systems.change_cdp(f"{LOGS} ALTER filled DROP DEFAULT")
    assert "column contact_activity_logs.filled takes no NULL, has no default" in problem()
    systems.change_cdp(f"{LOGS} DROP filled", f"{LOGS} DROP CONSTRAINT contact_activity_logs_pkey")
    assert "has no unique index on (id)" in problem()


@pytest.mark.parametrize(
    ("kind", "known", "unknown"),
    [
        ("smallint", ["-32768", "32767"], ["-32769", "32768"]),
        ("integer", ["-2147483648", "2147483647"], ["-2147483649", "2147483648"]),
        ("bigint", ["-9223372036854775808", "9223372036854775807"], ["-9223372036854775809", "9223372036854775808", "1e3", "٣", " 7"]),
        (
            "uuid",
            ["00000000-0000-0000-0000-00000000000a", "0000000000000000000000000000000B"],
            ["", "7", "0000000000000000000000000000000"],
        ),
        ("text", ["anything", ""], []),
    ],
)
def test_ids_of_users_that_their_column_can_hold_are_asked_for_and_no_others(kind, known, unknown):
    door = Crm.__new__(Crm)  # no session is needed to tell
    door.tables = {"users": {"id": kind}}
    assert door.storable_ids([*unknown, *known]) == known


# --- which errors are whose -----------------------------------------------------------------------------------------

WAITING_CURES = ["08006", "53300", "57P01", "57P03", "58030", "40001", "40P01", "25P03", "25P04", "55P03", "25006"]
SOMEBODY_MUST_ACT = ["42501", "42P01", "42703"]
OF_THE_DATA = ["22P02", "23505", "22021", "42601", "25001"]


def met(state: str) -> type[BaseException]:
    with pytest.raises(Exception) as caught, translated("CRM_DATABASE_URL"):
        raise psycopg.errors.lookup(state)("it broke")
    return caught.type


def test_what_waiting_cures_what_somebody_must_change_and_what_is_the_data_s():
    assert {state: issubclass(met(state), Outage) for state in WAITING_CURES} == dict.fromkeys(WAITING_CURES, True)
    assert {state: met(state) for state in SOMEBODY_MUST_ACT} == dict.fromkeys(SOMEBODY_MUST_ACT, Misconfigured)
    assert [met(state).sqlstate for state in OF_THE_DATA] == OF_THE_DATA
    broken_off = [state for state in (*WAITING_CURES, "57014") if met(state) is BrokenOff]
    assert broken_off == ["57P01", "40001", "25P04", "57014"], "a chunk is made smaller, where a replica may have ended it"
    with pytest.raises(BrokenOff), translated("CRM_DATABASE_URL"):
        raise psycopg.OperationalError("the connection went")
    with pytest.raises(psycopg.DataError), translated("CRM_DATABASE_URL"):
        raise psycopg.DataError("a value that psycopg cannot read")
    assert [is_outage(psycopg.OperationalError()), is_outage(psycopg.InterfaceError()), is_outage(psycopg.DataError())] == [
        True,
        True,
        False,
    ]
