"""What the CDP holds of an account's contacts: rows of ours, as their ids tell them, and live ones. Read only.

Asked contact by contact, through the timeline's index: the CRM gives its person ids to all organisations in turn, so that between two of an
account's lie the rows of all the others; and a row of ours that stands at the wrong contact is not taken for one that is there.
"""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from migration.cdp import TELLABLE, Cdp
from migration.models import Account, Run
from migration.pipeline.rows import row_id
from migration.states import ChunkState, RunMode

HIGHEST_PERSON = (1 << 48) - 1  # the highest that a row id can carry
HIGHEST_AUDIT = (1 << 62) - 1

Key = tuple[int, int]  # CRM person id, audit id
Claims = dict[int, list[str]]  # CRM person id -> the account's contacts that claim it

PERSON = "('x' || encode(substring(uuid_send(id) FOR 6), 'hex'))::bit(48)::bigint"
OF_CONTACTS = f"""
    SELECT person, coalesce(string_agg(encode(substring(uuid_send(id) FROM 9), 'hex'), ',' ORDER BY id) FILTER (WHERE ours AND at_home), ''),
           count(*) FILTER (WHERE ours AND NOT at_home), array_agg(split_part(category, '/', 1)) FILTER (WHERE NOT ours),
           array_agg(source_audit_id) FILTER (WHERE NOT ours), array_agg(occurred_at) FILTER (WHERE NOT ours)
    FROM unnest(%(contacts)s::uuid[], %(persons)s::bigint[], %(lows)s::uuid[], %(highs)s::uuid[]) claim(contact, person, low, high)
    CROSS JOIN LATERAL (
        SELECT id, category, source_audit_id, origin = 'crm_migration' AS ours,
               CASE WHEN occurred_at {TELLABLE} THEN occurred_at END AS occurred_at,
               coalesce(account_id = %(account)s AND id BETWEEN claim.low AND claim.high, false) AS at_home
        FROM contact_activity_logs WHERE contact_id = claim.contact OFFSET 0) found
    GROUP BY 1"""  # noqa: S608 - constants only

AWAY = f"""
    SELECT id::text, {PERSON}, source_audit_id, account_id = %(account)s FROM contact_activity_logs
    WHERE contact_id = ANY(%(contacts)s::uuid[]) AND origin = 'crm_migration' ORDER BY id"""  # noqa: S608 - constants only

# Through the index on run_id. A row at a contact of the account that claims its person is none.
STRAYS = f"""
    SELECT id::text, {PERSON}, source_audit_id, true FROM contact_activity_logs
    WHERE run_id = ANY(%(runs)s) AND account_id = %(account)s AND origin = 'crm_migration' AND (contact_id, {PERSON}) NOT IN (
        SELECT id, source_id FROM contacts WHERE account_id = %(account)s AND source = 'crm' AND source_id >= 0)
    ORDER BY id"""  # noqa: S608 - constants only


class Live(NamedTuple):
    """A row of the live sync."""

    entity: str
    audit: int | None
    at: datetime | None  # None: infinite, or in no year that Python knows


class There(NamedTuple):
    """What stands at the contacts that claim one person."""

    ids: str = ""  # lower halves of the ids of that person's rows of ours, ascending: hexadecimal, between commas
    away: int = 0  # rows of ours that are another person's, another account's, or nobody's
    live: tuple[Live, ...] = ()


def of_contacts(cdp: Cdp, account: UUID, claims: Claims) -> dict[int, There]:
    """Person -> what stands at its contacts; persons at whose contacts nothing stands are absent."""
    pairs = [(contact, person) for person, contacts in claims.items() for contact in contacts]
    ends = [(row_id(person, 0), row_id(person, HIGHEST_AUDIT)) if person <= HIGHEST_PERSON else (None, None) for _, person in pairs]
    names = {
        "account": account,
        "contacts": [contact for contact, _ in pairs],
        "persons": [person for _, person in pairs],
        "lows": [low for low, _ in ends],
        "highs": [high for _, high in ends],
    }
    return {
        person: There(ids, away, tuple(Live(*each) for each in zip(entities or (), audits or (), times or (), strict=True)))
        for person, ids, away, entities, audits, times in cdp.rows(OF_CONTACTS, names)
    }


def keys(cdp: Cdp, account: UUID, claims: Claims) -> set[Key]:
    """The account's rows of ours for these persons."""
    return {key for person, there in of_contacts(cdp, account, claims).items() for key in keys_of(person, there.ids)}


def keys_of(person: int, ids: str) -> set[Key]:
    """`There.ids` as keys."""
    return {(person, audit_of(text)) for text in ids.split(",") if text}


def audit_of(text: str) -> int:
    """The audit id of a row's lower half."""
    return int(text, 16) & HIGHEST_AUDIT


class Found(NamedTuple):
    """Rows of ours where the account's candidates have none."""

    others: list[Key]  # under the id of another person's row
    misfits: list[str]  # ids of rows that we would not write: under another account, or under an id that is not made of the row's own audit


def told_apart(rows: list[tuple[str, int, int | None, bool]]) -> Found:
    """Of (id, the person that it tells, audit, whether it is of the account)."""
    found = Found([], [])
    for row, person, audit, of_account in rows:
        if of_account and audit is not None and 0 <= audit <= HIGHEST_AUDIT and row_id(person, audit) == row:
            found.others.append((person, audit))
        else:
            found.misfits.append(row)
    return found


def away(cdp: Cdp, account: UUID, contacts: list[str], person: int) -> Found:
    """Rows of ours at a person's contacts that are not that person's."""
    others, misfits = told_apart(cdp.rows(AWAY, {"account": account, "contacts": contacts}))
    return Found([key for key in others if key[0] != person], misfits)


def runs_of(cdp: Cdp, account: Account) -> set[UUID]:
    """The runs that may have written rows of the account: those that the console knows, and those that the CDP has receipts of."""
    known = Run.objects.filter(account=account, mode=RunMode.PRODUCTION).values_list("uuid", flat=True)
    return {*known, *(row[0] for row in cdp.rows("SELECT DISTINCT run_id FROM calm.receipts WHERE account_id = %s", (account.cdp_id,)))}


def without_receipt(cdp: Cdp, run: Run) -> set[int]:
    """Numbers of the run's chunks that are done by the console's word, and of which the CDP has no receipt, or only one of an earlier generation.

    A receipt is committed with its rows: where one is gone, so is what they said, be it that older rows stand in their place.
    """
    done = list(run.chunks.filter(state=ChunkState.DONE).values_list("number", "uuid", "generation"))
    query = "SELECT chunk, generation FROM calm.receipts WHERE chunk = ANY(%s) AND receipt IS NOT NULL"
    told = dict(cdp.rows(query, ([chunk for _, chunk, _ in done],)))
    return {number for number, chunk, generation in done if told.get(chunk, 0) < generation}


def strays(cdp: Cdp, account: Account) -> Found:
    """Rows of ours that stand at no contact of the account that claims their person, wherever else they stand."""
    return told_apart(cdp.rows(STRAYS, {"runs": list(runs_of(cdp, account)), "account": account.cdp_id}))
