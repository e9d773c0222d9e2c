"""The door to the CRM: it needs two grants and no more, and writes nothing even where it could."""

from contextlib import closing
from uuid import uuid4

import psycopg
import pytest

from migration import worlds
from migration.crm import Crm
from migration.pipeline.flow import Work, mapped
from migration.states import RunMode
from tests.conftest import ROLES, rows
from tests.migration.conftest import run_account


def test_the_role_that_all_these_tests_run_under_has_select_on_two_tables_and_nothing_else(systems):
    granted = rows(
        systems.crm,
        """SELECT table_name, privilege_type FROM information_schema.role_table_grants
           WHERE grantee = %s AND table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2""",
        (ROLES["crm"],),
    )
    assert granted == [("audits", "SELECT"), ("users", "SELECT")]


def test_the_session_is_read_only_even_for_the_owner_of_the_tables(systems, settings):
    settings.CRM_DATABASE_URL = systems.crm
    with closing(Crm()) as crm, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        crm.connection.execute("DELETE FROM audits")
    assert rows(systems.crm, "SELECT count(*) FROM audits") == [(2002,)]


def test_all_that_is_read_in_a_snapshot_is_of_one_moment(systems):
    number = "SELECT count(*) FROM audits"
    with closing(Crm()) as crm:
        with crm.snapshot() as connection:
            before = connection.execute(number).fetchone()
            systems.change_crm("DELETE FROM audits WHERE id = (SELECT max(id) FROM audits)")
            assert connection.execute(number).fetchone() == before
        assert crm.rows(number) == [(before[0] - 1,)]


def test_a_session_in_the_middle_of_a_copy_says_so_instead_of_waiting_for_ever(systems):
    with closing(Crm()) as crm, crm.snapshot() as connection, connection.cursor().copy("COPY audits TO STDOUT") as copy:
        assert copy.read()
        with pytest.raises(RuntimeError, match="in the middle of a COPY"):
            crm.rows("SELECT 1")
        for _ in copy:
            continue


def test_a_stream_that_nobody_reads_to_its_end_leaves_the_session_usable(console):
    with worlds.opened(run_account(1, RunMode.DRY_RUN)) as world:
        claims = world.cdp.contacts(world.account_id, 0, 10**6)
        candidates = mapped(Work(uuid4(), 1, 1, 0, 10**6), world, claims)
        assert next(candidates).audit_id
        candidates.close()
        assert world.crm.rows("SELECT 1") == [(1,)]


def test_users_that_the_id_column_cannot_hold_are_unknown_not_a_fault(systems):
    with closing(Crm()) as crm:
        found = crm.users(["7", "99999999999999999999", "not-a-number", "-1", ""])
    assert found == {"7": ("Andi.Nasution363@sample.example", "Andi Nasution")}
