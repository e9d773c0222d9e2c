"""Rows that the sample does not hold: put into the CRM's copy, moved, and compared whole."""

import json
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from psycopg import sql

from migration import ledger
from migration.models import Run
from migration.states import RunState
from tests.conftest import Systems, rows, run_sql
from tests.migration.against_oracle import assert_same, sample
from tests.migration.conftest import run_account
from tests.migration.oracle import expected, jsonb, row_id
from tests.migration.oracle_sample import Sample, read_json

FIRST = 900_001  # no audit of the sample has so high an id
ORGANISATION, PERSON = 1, 1
ACCOUNT = sample().accounts[ORGANISATION]
AT = "2023-05-01 12:00:00.123456"
CHANGES = '{"phone": ["1", "2"]}'
PLAIN = {
    "auditable_type": "Crm::Person", "auditable_id": PERSON, "associated_type": None, "associated_id": None, "user_id": None,
    "user_type": None, "username": None, "action": "update", "audited_changes": CHANGES, "comment": None, "created_at": AT,
}  # fmt: skip
NOTE = {"auditable_type": "Crm::Note", "auditable_id": 7001, "associated_type": "Crm::Person", "associated_id": PERSON}
AS_JSON = "ALTER TABLE audits ALTER audited_changes TYPE json USING audited_changes::text::json"
# A row of ours that no run would write, so that nothing written again mends it.
NOBODYS = """
    INSERT INTO contact_activity_logs (id, account_id, contact_id, category, actor_kind, occurred_at, changes, context, origin, source_audit_id, run_id)
    SELECT overlay(id::text PLACING '4' FROM 15)::uuid, account_id, contact_id, category, actor_kind, occurred_at, changes, context, origin,
           source_audit_id + 1000000, run_id
    FROM contact_activity_logs WHERE origin = 'crm_migration' LIMIT 1"""

Shown = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class Moved:
    """What production made of the account: the run, the hard rows without their run, and the hard rows put aside."""

    run: Run
    rows: list[tuple]
    quarantined: dict[int, str]  # audit id -> reason


def insert(systems: Systems, audits: Iterable[dict[str, Any]], after: Sized = ()) -> list[dict[str, Any]]:
    """Put audits into the CRM, numbered from FIRST or `after` earlier ones, with PLAIN's values for what they leave out; gives them whole."""
    whole = [{"id": number} | PLAIN | one for number, one in enumerate(audits, FIRST + len(after))]
    statements = []
    for one in whole:
        names = sql.SQL(", ").join(map(sql.Identifier, one))
        values = sql.SQL(", ").join(map(sql.Literal, one.values()))
        # As simple queries: a literal takes whatever type its column has.
        statements.append(sql.SQL("INSERT INTO audits ({}) VALUES ({})").format(names, values).as_string())
    run_sql(systems.crm, *statements)
    return whole


def moved(systems: Systems, known: Sample | None = None, chunk_size: int | None = None, shown: Shown = dict) -> Moved:
    """Run production of account 1. The sample's own rows must be the oracle's, the ledger must balance, verification must agree.

    `known` is the sample where the test changed it, `shown` what makes a context of the oracle's one.
    """
    run = run_account(ORGANISATION, chunk_size=chunk_size)
    assert run.state in (RunState.SUCCEEDED, RunState.PARTIAL), run.reason
    assert ledger.of(run).balances
    assert run.verification and run.verification["agrees"]
    written = [row[:-1] for row in systems.activities(f"origin = 'crm_migration' AND source_audit_id < {FIRST}")]
    wanted = expected(known or sample(), ORGANISATION).rows()
    assert_same(written, [(*row[:9], jsonb(shown(read_json(str(row[9])))), *row[10:]) for row in wanted])
    hard = [row[:-1] for row in systems.activities(f"origin = 'crm_migration' AND source_audit_id >= {FIRST}")]
    aside = run.quarantined.filter(audit_id__gte=FIRST)
    return Moved(run, hard, dict(aside.values_list("audit_id", "reason")))


def few_contacts(systems: Systems, last: int = 20) -> Sample:
    """Leave only the contacts up to CRM person `last` in the CDP, for small chunks take their time; the sample as it is then."""
    systems.change_cdp(
        f"DELETE FROM contacts WHERE source_id > {last}",
        "DELETE FROM contact_activity_logs WHERE contact_id NOT IN (SELECT id FROM contacts)",
    )
    left = [row for row in sample().contacts if row["source_id"] is None or int(row["source_id"]) <= last]
    live = [row for row in sample().live if row["contact_id"] in {contact["id"] for contact in left}]
    return replace(sample(), contacts=left, live=live)


def new_contact(systems: Systems, person: int, organisation: int = ORGANISATION) -> str:
    """A contact of the account for a CRM person; its id."""
    query = "INSERT INTO contacts (id, account_id, source, source_id) VALUES (gen_random_uuid(), %s, 'crm', %s) RETURNING id::text"
    return str(rows(systems.cdp, query, (sample().accounts[organisation], person))[0][0])


def activity(audit: dict[str, Any], category: str, *, actor: tuple = ("system", None, None), person: int = PERSON, **given: Any) -> tuple:
    """The whole row that an inserted audit must become.

    `changes` is jsonb's text (the inserted text itself, if left out), `at` the time (the inserted one), `context` what differs in it.
    """
    contact = next(row["id"] for row in sample().contacts if row["account_id"] == ACCOUNT and row["source_id"] == str(person))
    names = ("action", "auditable_type", "auditable_id", "user_type", "user_id", "comment")
    context = {name: audit[name] for name in names} | {"mapping_revision": 1} | given.get("context", {})
    at = given.get("at") or datetime.fromisoformat(audit["created_at"]).replace(tzinfo=UTC)
    changes = given.get("changes", audit["audited_changes"])
    return (
        row_id(person, audit["id"]), ACCOUNT, contact, category, *actor, at, changes, jsonb(context), "crm_migration", audit["id"],
    )  # fmt: skip


def as_jsonb(systems: Systems, text: str) -> str:
    """What jsonb makes of a JSON text, by PostgreSQL itself."""
    return rows(systems.crm, "SELECT %s::jsonb::text", (text,))[0][0]


def text_of(changes: dict[str, Any]) -> str:
    return json.dumps(changes, ensure_ascii=False)
