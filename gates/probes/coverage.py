"""Gate C: how many of the account's CDP contacts with source 'crm' carry a source_id, the CRM person id by which their history is found.

As in migration.cdp a source_id that is NULL or negative is none; every other number is one, 0 too. An account without any such contact
fails: nothing was measured then, and a run would call an empty account complete.

Facts: {"numerator", "denominator", "percent": "96.94" (text, see `percent`) or null where there is no such contact, "threshold": "99",
"missing": [{"contact": uuid, "source_id": null or the negative number, "created_at": ISO 8601 or null where the CDP does not tell}],
the first MOST_MISSING by contact, "missing_total", "sources": [{"source": text or null, "contacts"}], the MOST_SOURCES with most contacts}.
"""

from contextlib import closing
from typing import Any
from uuid import UUID

from psycopg import sql

from gates.probes import Finding, Measurement
from gates.probes.addresses import database
from migration.cdp import VARIABLE, Cdp
from migration.doors import translated
from migration.models import Account

THRESHOLD = 99  # percent
MOST_MISSING = 200
MOST_SOURCES = 20
SHOWN_SOURCE = 60  # characters
CARRIES = sql.SQL("coalesce(source_id >= 0, false)")


def configuration(account: Account | None) -> dict[str, str]:
    """The CDP, the account's id there, and the threshold."""
    of = needed(account).cdp_id
    return {
        "CDP_DATABASE_URL": database("CDP_DATABASE_URL"),
        "the account's CDP id": str(of),
        "the threshold": f"{THRESHOLD} %",
    }


def measure(account: Account | None) -> Measurement:
    """Count the account's contacts. Raises Outage and Misconfigured."""
    of = needed(account).cdp_id
    with closing(Cdp()) as cdp:
        numerator, denominator = counted(cdp, of)
        found = sources(cdp, of)
        facts = {
            "numerator": numerator,
            "denominator": denominator,
            "percent": percent(numerator, denominator) if denominator else None,
            "threshold": str(THRESHOLD),
            "missing": missing(cdp, of) if numerator < denominator else [],
            "missing_total": denominator - numerator,
            "sources": found,
        }
    return Measurement([finding(numerator, denominator, found), *loss(numerator, denominator)], facts)


def needed(account: Account | None) -> Account:
    if account is None:
        raise ValueError("gate C is measured for each account, so an account must be named")
    return account


def counted(cdp: Cdp, account: UUID) -> tuple[int, int]:
    """Contacts with source 'crm' that carry a source_id, and all with source 'crm'."""
    statement = sql.SQL("SELECT count(*) FILTER (WHERE {carries}), count(*) FROM contacts WHERE account_id = %s AND source = 'crm'")
    numerator, denominator = cdp.rows(statement.format(carries=CARRIES), (account,))[0]
    return numerator, denominator


def percent(numerator: int, denominator: int) -> str:
    """With two digits, to the nearest; but what falls short of the threshold, or of all, never looks as if it reached it."""
    hundredths = (20_000 * numerator + denominator) // (2 * denominator)
    for bound in (THRESHOLD, 100):
        if 100 * numerator < bound * denominator:
            hundredths = min(hundredths, 100 * bound - 1)
    return f"{hundredths // 100}.{hundredths % 100:02}"


def missing(cdp: Cdp, account: UUID) -> list[dict[str, Any]]:
    """The first contacts that carry none. Neither name nor address: the CDP finds them by their id."""
    with translated(VARIABLE):
        tells = "created_at" in cdp.tables["contacts"]
    statement = sql.SQL(
        """SELECT id::text, source_id, {made_at} FROM contacts WHERE account_id = %s AND source = 'crm' AND NOT {carries}
           ORDER BY id LIMIT {most}"""
    ).format(made_at=sql.SQL("created_at" if tells else "NULL::timestamptz"), carries=CARRIES, most=sql.Literal(MOST_MISSING))
    return [
        {"contact": contact, "source_id": source_id, "created_at": made_at.isoformat() if made_at else None}
        for contact, source_id, made_at in cdp.rows(statement, (account,))
    ]


def sources(cdp: Cdp, account: UUID) -> list[dict[str, Any]]:
    """The account's contacts by source: a source written in another way would be left out unseen."""
    statement = sql.SQL(
        "SELECT left(source, {shown}), count(*) FROM contacts WHERE account_id = %s GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {most}"
    ).format(shown=sql.Literal(SHOWN_SOURCE), most=sql.Literal(MOST_SOURCES))
    return [{"source": source, "contacts": contacts} for source, contacts in cdp.rows(statement, (account,))]


def finding(numerator: int, denominator: int, found: list[dict[str, Any]]) -> Finding:
    """The verdict, in whole numbers: no fraction is rounded before it is compared."""
    if not denominator:
        return Finding(False, nothing(found))
    told = f"{numerator:,} of the account's {denominator:,} CDP contacts with source 'crm' carry a source_id: {percent(numerator, denominator)} %"
    if 100 * numerator >= THRESHOLD * denominator:
        return Finding(True, f"{told}, and {THRESHOLD} % are needed.")
    cure = f"have the CDP record the CRM person id of {enough(numerator, denominator):,} more (contacts.source_id)"
    return Finding(False, f"{told}, less than the {THRESHOLD} % that are needed: {cure}.")


def nothing(found: list[dict[str, Any]]) -> str:
    others = ", ".join(f"{each['source']!r} ({each['contacts']:,})" if each["source"] else f"none ({each['contacts']:,})" for each in found)
    has = f"its contacts' sources are {others}" if others else "it has no contacts at all"
    return (
        f"The CDP holds no contact with source 'crm' for the account ({has}), so nothing could be measured: "
        "have its contacts synced from the CRM, or leave the account out."
    )


def enough(numerator: int, denominator: int) -> int:
    """How many contacts more must carry one before the threshold is reached."""
    return -(-THRESHOLD * denominator // 100) - numerator


def loss(numerator: int, denominator: int) -> list[Finding]:
    """What the contacts without a source_id mean, for the signers to judge."""
    without = denominator - numerator
    if not without:
        return []
    who = "1 contact carries none: its" if without == 1 else f"{without:,} contacts carry none: their"
    return [Finding(None, f"{who} history stays in the CRM, since nothing else says which CRM person is meant.")]
