"""The account's rows of ours in the CDP, as their ids tell them. Read only.

Asked person by person, through the primary key: the CRM gives its person ids to all organisations in turn, so that between two of an
account's lie the rows of all the others.
"""

from collections.abc import Iterable
from uuid import UUID

from migration.cdp import Cdp
from migration.models import Account, Run
from migration.pipeline.rows import row_id
from migration.states import RunMode

HIGHEST_PERSON = (1 << 48) - 1  # the highest that a row id can carry
HIGHEST_AUDIT = (1 << 62) - 1

Key = tuple[int, int]  # CRM person id, audit id

PERSON = "('x' || encode(substring(uuid_send(id) FOR 6), 'hex'))::bit(48)::bigint"
OF_PERSONS = f"""
    SELECT {PERSON}, string_agg(encode(substring(uuid_send(id) FROM 9), 'hex'), ',' ORDER BY id)
    FROM unnest(%s::uuid[], %s::uuid[]) span(low, high) CROSS JOIN LATERAL (
        SELECT id FROM contact_activity_logs WHERE id BETWEEN low AND high AND account_id = %s AND origin = 'crm_migration' OFFSET 0) ours
    GROUP BY 1"""  # noqa: S608 - constants only

# Through the index on run_id. A row whose person a contact of the account claims is none.
STRAYS = f"""
    SELECT {PERSON} AS person, source_audit_id FROM contact_activity_logs
    WHERE run_id = ANY(%(runs)s) AND account_id = %(account)s AND origin = 'crm_migration' AND {PERSON} NOT IN (
        SELECT source_id FROM contacts WHERE account_id = %(account)s AND source = 'crm' AND source_id >= 0)
    ORDER BY id"""  # noqa: S608 - constants only


def of_persons(cdp: Cdp, account: UUID, persons: Iterable[int]) -> dict[int, str]:
    """Person -> the audits of the account's rows of ours, ascending: the lower half of each row's id in hexadecimal, between commas."""
    known = [person for person in persons if person <= HIGHEST_PERSON]
    lows, highs = [row_id(person, 0) for person in known], [row_id(person, HIGHEST_AUDIT) for person in known]
    return dict(cdp.rows(OF_PERSONS, (lows, highs, account)))


def keys(cdp: Cdp, account: UUID, persons: Iterable[int]) -> set[Key]:
    """The same, as keys."""
    return {(person, audit_of(text)) for person, texts in of_persons(cdp, account, persons).items() for text in texts.split(",")}


def audit_of(text: str) -> int:
    """The audit id of a row's lower half."""
    return int(text, 16) & HIGHEST_AUDIT


def runs_of(cdp: Cdp, account: Account) -> set[UUID]:
    """The runs that may have written rows of the account: those that the console knows, and those that the CDP has receipts of."""
    known = Run.objects.filter(account=account, mode=RunMode.PRODUCTION).values_list("uuid", flat=True)
    return {*known, *(row[0] for row in cdp.rows("SELECT DISTINCT run_id FROM calm.receipts WHERE account_id = %s", (account.cdp_id,)))}


def strays(cdp: Cdp, account: Account) -> list[Key]:
    """Keys of rows of ours whose person no contact of the account claims any more."""
    return cdp.rows(STRAYS, {"runs": list(runs_of(cdp, account)), "account": account.cdp_id})
