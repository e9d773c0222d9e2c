"""The floor: the pipeline's own extraction queries by COPY, into staging, the same upsert; and no mapping.

What mapping would decide is a constant of its usual length. The two ids are made in SQL. Audits that concern several contacts through deals
are read once for each contact, by the same primary key, from a list made beforehand.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any
from uuid import UUID, uuid4

from psycopg import sql

from migration import mapping as mappings
from migration.bench.build import ORGANISATION
from migration.bench.meter import Meter
from migration.cdp import Cdp
from migration.crm import Crm
from migration.mapping import Mapping
from migration.models import Account, MappingRevision
from migration.pipeline.queries import Selection, by_contact, occurred_at, sampled

BLOCK = 64 * 1024
CONTEXT = (
    '{"action": "update", "auditable_type": "Crm::Person", "auditable_id": 12345, "user_type": "User", "user_id": 123, "comment": null, '
    '"mapping_revision": 1}'
)
STAGING = """
    CREATE TEMP TABLE floor_staging (
        id uuid NOT NULL, contact_id uuid NOT NULL, category text NOT NULL, actor_kind text NOT NULL, actor_id text, actor_name text,
        occurred_at timestamptz NOT NULL, source_audit_id bigint NOT NULL, changes jsonb NOT NULL, context jsonb NOT NULL);
    ALTER TABLE floor_staging ALTER changes SET STORAGE EXTERNAL"""
EXTRACT = """
    COPY (SELECT lpad(to_hex(p.id), 12, '0') || '80008' || lpad(to_hex(a.id), 15, '0'), md5(p.id::text), 'contact/update', 'user', 'usm_000001', 'User 1',
                 {occurred_at}, a.id, a.audited_changes,
                 {context}
          FROM {source} a WHERE a.created_at < {live_since}) TO STDOUT"""
UPSERT = """
    INSERT INTO contact_activity_logs AS t (id, account_id, contact_id, category, actor_kind, actor_id, actor_name, occurred_at, changes, context,
                                            origin, source_audit_id, run_id)
    SELECT s.id, %(account)s, s.contact_id, s.category, s.actor_kind, s.actor_id, s.actor_name, s.occurred_at, s.changes, s.context,
           'crm_migration', s.source_audit_id, %(run)s
    FROM floor_staging s ORDER BY s.id
    ON CONFLICT (id) DO UPDATE SET
        account_id = excluded.account_id, contact_id = excluded.contact_id, category = excluded.category, actor_kind = excluded.actor_kind,
        actor_id = excluded.actor_id, actor_name = excluded.actor_name, occurred_at = excluded.occurred_at, changes = excluded.changes,
        context = excluded.context, source_audit_id = excluded.source_audit_id, run_id = excluded.run_id
    WHERE t.origin = 'crm_migration'"""

Chunk = tuple[list[int], list[tuple[int, int]]]  # contacts for the rules by contact; (contact, audit) pairs for those through deals


def floor(options: dict[str, Any], clock: Meter) -> Any:
    """See migration.bench.tasks."""
    account = Account.objects.get(crm_organization_id=ORGANISATION)
    mapping = mappings.parse(MappingRevision.objects.latest("number").document)
    with closing(Crm()) as crm:
        chunks = list(cut(crm, mapping, options["chunk_size"]))

    def work() -> dict[str, Any]:
        rows, run = 0, uuid4()
        with closing(Crm()) as crm, closing(Cdp()) as cdp:
            cdp.connection.execute(STAGING)
            for persons, pairs in chunks:
                stage(crm, cdp, mapping, persons, pairs, options["live_since"])
                rows += upsert(cdp, account.cdp_id, run)
        return {"rows": rows}

    return work


def stage(crm: Crm, cdp: Cdp, mapping: Mapping, persons: list[int], pairs: list[tuple[int, int]], live_since: str) -> None:
    with crm.snapshot() as source, cdp.connection.cursor().copy("COPY floor_staging FROM STDIN") as into:
        for which in (by_contact(crm.shape, mapping, Selection(persons)), sampled(crm.shape, mapping, pairs)):
            statement = sql.SQL(EXTRACT).format(
                occurred_at=occurred_at(crm.shape), source=which, live_since=sql.Literal(live_since), context=sql.Literal(CONTEXT)
            )
            with source.cursor().copy(statement) as out:
                for block in blocks(out):
                    into.write(block)


def upsert(cdp: Cdp, account: UUID, run: UUID) -> int:
    with cdp.transaction() as connection:
        rows = connection.execute(UPSERT, {"account": account, "run": run}).rowcount
        connection.execute("TRUNCATE floor_staging")
    return rows


def blocks(out: Iterable[Any]) -> Iterator[bytes]:
    """What COPY gives row by row, in larger pieces: each write costs a call."""
    held: list[Any] = []
    size = 0
    for row in out:
        held.append(row)
        size += len(row)
        if size >= BLOCK:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


def cut(crm: Crm, mapping: Mapping, size: int) -> Iterator[Chunk]:
    """The account's contacts in chunks of about `size` rows, as planning cuts them."""
    linked: dict[int, list[int]] = {}
    for person, audit in crm.rows("SELECT person, audit FROM linked ORDER BY 1, 2"):
        linked.setdefault(person, []).append(audit)
    persons: list[int] = []
    pairs: list[tuple[int, int]] = []
    rows = 0
    for person, direct in crm.rows("SELECT person, number FROM weight ORDER BY 1"):
        persons.append(person)
        pairs += [(person, audit) for audit in linked.get(person, ())]
        rows += direct + len(linked.get(person, ()))
        if rows >= size:
            yield persons, pairs
            persons, pairs, rows = [], [], 0
    yield persons, pairs
