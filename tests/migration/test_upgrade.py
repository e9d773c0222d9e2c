"""From the first schema to the newest with data in it; and the newest is one that the code of the release before can live with (docs/operations.md)."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from django.contrib.postgres.operations import AddIndexConcurrently
from django.core.management import call_command
from django.db import connection, migrations, models
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.models import NOT_PROVIDED
from django.test import Client

from migration import ledger
from migration.models import Run
from tests import factories
from tests.conftest import at, rows, run_sql

NAME = f"calm_test_{os.getpid()}_upgrade"
OURS = ("migration", "gates")
FIRST = [("migration", "0001_initial"), ("gates", "0001_initial")]
# Up to here all is of the first release: nobody has the code of one before.
BASELINE = {"migration": "0009_login_attempts", "gates": "0004_signoff_valid_days"}
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)

# Tables that may hold millions of rows: an index on one is made while the old code goes on reading and writing.
LARGE = {"chunk", "quarantinedcandidate", "joinconcern", "deallink", "event"}

# (migration, operation): why older code can live with it all the same.
EXCEPTIONS = {
    (
        "migration.0012_account_organization",
        "AlterField",
    ): "what was unique among all accounts is so no longer: it lets more pass than before",
    ("migration.0012_account_organization", "AddConstraint"): "unique among the accounts that are there, where it was among all",
    ("gates.0005_retention", "RunSQL"): "a trigger that lets one more thing pass than before; the code of before never tries it",
}


@pytest.fixture
def empty(postgres, transactional_db) -> Iterator[str]:
    """A new database, which is the console's, by the role that owns it, as for `manage.py migrate`; its URL."""
    own, options = connection.settings_dict["NAME"], connection.settings_dict["OPTIONS"]
    by_role = options["options"]
    connection.close()
    run_sql(postgres, f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)", f"CREATE DATABASE {NAME} TEMPLATE template0 ENCODING 'UTF8'")
    connection.settings_dict["NAME"], options["options"] = NAME, by_role.partition(" -c role=")[0]
    yield at(postgres, NAME)
    connection.close()
    connection.settings_dict["NAME"], options["options"] = own, by_role
    run_sql(postgres, f"DROP DATABASE {NAME} WITH (FORCE)")


def filled(apps) -> None:
    """One of everything that the first schema has and that points to something, by the models as they were then."""
    account = apps.get_model("migration", "Account").objects.create(
        cdp_id=UUID(int=1), crm_organization_id=7, name="Harbour", synced_at=NOON
    )
    revision = apps.get_model("migration", "MappingRevision").objects.create(
        number=1, digest="d" * 64, document={}, published_at=NOON, published_by="ana"
    )
    run = apps.get_model("migration", "Run").objects.create(
        uuid=UUID(int=2), account=account, mapping_revision=revision, mode="production", state="partial", pipeline_version=1, systems="0" * 64,
        chunk_size=10, candidates=11, planned_at=NOON, planned_by="ana", started_at=NOON, finished_at=NOON, reason_code="quarantined",
    )  # fmt: skip
    receipt = factories.receipt(written=10, categories={"contact/create": 10}).as_json()
    receipt["quarantined"] = [[1, 5, None, "time_missing", "", ""]]
    chunk = apps.get_model("migration", "Chunk").objects.create(
        uuid=UUID(int=3), run=run, number=1, person_from=1, person_to=9, expected=11, state="done", receipt=receipt, seconds=1.5, token=4
    )
    same = {"account": account, "audit_id": 5, "person_id": 1, "reason": "time_missing"}
    apps.get_model("migration", "QuarantinedCandidate").objects.create(run=run, chunk=chunk, **same)
    apps.get_model("migration", "Waiver").objects.create(**same | {"audit_id": 6}, note="lost", waived_at=NOON, waived_by="ana")
    apps.get_model("migration", "Event").objects.create(at=NOON, by="ana", kind="run partial", sentence="x", account=account, run=run)


def tables(url: str) -> dict[str, list[str]]:
    """Our tables with their columns."""
    found = rows(
        url,
        "SELECT table_name::text, array_agg(column_name::text ORDER BY ordinal_position) FROM information_schema.columns"
        " WHERE table_schema = 'public' AND split_part(table_name, '_', 1) = ANY(%s) GROUP BY 1",
        (list(OURS),),
    )
    return dict(found)


def content(url: str, of: dict[str, list[str]]) -> dict[str, list[tuple]]:
    return {
        name: rows(url, f"""SELECT {", ".join(f'"{column}"::text' for column in columns)} FROM {name} ORDER BY 1""")
        for name, columns in of.items()
    }


@pytest.mark.fault
def test_from_the_first_schema_to_the_newest_with_data_in_it(empty):
    executor = MigrationExecutor(connection)
    executor.migrate(FIRST)
    filled(executor.loader.project_state(FIRST).apps)
    there = tables(empty)
    before = {name: found for name, found in content(empty, there).items() if found}
    assert len(before) == 7, "every table that was filled"

    call_command("migrate", verbosity=0)
    assert {name: found for name, found in content(empty, there).items() if name in before} == before
    call_command("migrate", check_unapplied=True, verbosity=0)
    run = Run.objects.get()
    assert (ledger.of(run).written, ledger.of(run).balances) == (10, True)
    client = Client()
    client.force_login(factories.superuser())
    for page in ("", f"migration/run/{run.pk}/change/", f"migration/account/{run.account_id}/change/", "migration/quarantinedcandidate/"):
        assert client.get(f"/admin/{page}").status_code == 200, page


@pytest.mark.fault
def test_the_code_of_the_release_before_writes_into_the_newest_schema(empty):
    call_command("migrate", verbosity=0)
    old = MigrationLoader(connection).project_state(list(BASELINE.items())).apps
    filled(old)
    evidence = old.get_model("gates", "Evidence").objects.create(
        gate=old.get_model("gates", "Gate").objects.get(pk="A"), passes=True, findings=[], facts={"a": 1}, configuration={}, digest="d" * 64,
        seconds=0.5, measured_at=NOON, measured_by="ana",
    )  # fmt: skip
    assert rows(empty, "SELECT id FROM gates_evidence") == [(evidence.pk,)]
    assert Run.objects.get().chunks.count() == 1


def later() -> Iterator[tuple[str, migrations.Migration]]:
    """Our schema migrations since the baseline."""
    for (app, name), migration in MigrationLoader(None).disk_migrations.items():
        if app in BASELINE and name > BASELINE[app]:
            yield f"{app}.{name}", migration


def test_schema_migrations_are_such_that_old_code_can_live_with():
    found = {
        (name, type(each).__name__)
        for name, migration in later()
        for each in migration.operations
        if not bearable(each, migration.operations)
    }
    assert found == EXCEPTIONS.keys(), "not bearable, and no reason given; or a reason given for nothing"


def bearable(operation, all_of_it) -> bool:
    """Whether code that does not know of it reads and writes on as before."""
    if isinstance(operation, migrations.CreateModel | migrations.AlterModelOptions | migrations.AlterModelManagers | AddIndexConcurrently):
        return True
    if isinstance(operation, migrations.AddIndex):
        return operation.model_name_lower not in LARGE
    if isinstance(
        operation, migrations.AddField
    ):  # what does not name the column must still be able to insert, and nobody wait for an index
        indexed = operation.field.db_index or operation.field.unique
        may_be_left_out = operation.field.null or operation.field.db_default is not NOT_PROVIDED
        return may_be_left_out and not (indexed and operation.model_name_lower in LARGE)
    if isinstance(operation, migrations.RemoveConstraint):
        return True
    if isinstance(
        operation, migrations.AddConstraint
    ):  # one that is put in the place of a stricter one, or concerns new columns: see its reason
        return any(isinstance(each, migrations.RemoveConstraint) and each.name == operation.constraint.name for each in all_of_it)
    return False


INDEX = models.Index(fields=["person_from"], name="x")


@pytest.mark.parametrize(
    ("operation", "wanted"),
    [
        (migrations.AddIndex("Chunk", INDEX), False),
        (AddIndexConcurrently("Chunk", INDEX), True),
        (migrations.AddIndex("Account", INDEX), True),
        (migrations.AddField("Event", "x", models.BooleanField(null=True, db_index=True)), False),
        (migrations.AddField("Event", "x", models.BooleanField(null=True)), True),
        (migrations.AddField("Event", "x", models.BooleanField(default=False)), False),
        (migrations.AlterField("run", "reason", models.CharField(max_length=3)), False),
        (migrations.RemoveField("run", "reason"), False),
        (migrations.RenameField("run", "reason", "why"), False),
        (migrations.DeleteModel("Tick"), False),
        (migrations.AddField("run", "x", factories.Run._meta.get_field("mode")), False),
        (migrations.AddField("run", "x", factories.Run._meta.get_field("candidates")), True),
        (migrations.RunSQL("SELECT 1"), False),
    ],
)
def test_what_is_bearable(operation, wanted):
    assert bearable(operation, [operation]) is wanted
