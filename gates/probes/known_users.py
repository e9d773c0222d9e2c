"""Users of the CRM that gate D asks USMAN about: a bounded choice of each kind, those first whom audits name."""

from dataclasses import dataclass, replace

from psycopg import sql

from gates.probes.by_index import NoIndex, gave_up, rows
from migration.crm import INTEGERS, TEXTS, Crm
from migration.doors import Outage

# A user who is deactivated and deleted counts as deleted.
KINDS = {
    "deactivated": "deactivated IS NOT NULL AND deleted IS NULL",
    "deleted": "deleted IS NOT NULL",
    "active": "deactivated IS NULL AND deleted IS NULL",
}
AMONG = 5_000  # users of a kind, the newest, among whom those with audits are looked for
LONGEST_MARK = 60  # characters


@dataclass(frozen=True)
class KnownUser:
    """`email` as USMAN is asked for it, trimmed and in lower case; the marks as text, None where the CRM's row has none.

    `acted`: whether an audit names the user; None where no index of the CRM tells.
    """

    id: str
    email: str
    deactivated: str | None
    deleted: str | None
    acted: bool | None = None


def chosen(crm: Crm, marks: dict[str, tuple[str, str]], *, most: int) -> dict[str, list[KnownUser]]:
    """Up to `most` users of each kind, with an e-mail; none of a kind that no column marks. `marks`: kind -> (column, its type).

    Raises Outage.
    """
    return {kind: preferred(crm, of_kind(crm, kind, marks))[:most] if kind == "active" or kind in marks else [] for kind in KINDS}


def of_kind(crm: Crm, kind: str, marks: dict[str, tuple[str, str]]) -> list[KnownUser]:
    holds = {each: mark(*marks[each]) if each in marks else sql.SQL("NULL::text") for each in ("deactivated", "deleted")}
    statement = sql.SQL(
        """SELECT id::text, email, deactivated, deleted FROM (
               SELECT id, email::text AS email, {deactivated} AS deactivated, {deleted} AS deleted FROM users) every
           WHERE btrim(email) <> '' AND {wanted} ORDER BY every.id DESC LIMIT {among}"""
    ).format(wanted=sql.SQL(KINDS[kind]), among=sql.Literal(AMONG), **holds)
    found = [KnownUser(key, email.strip().lower(), deactivated, deleted) for key, email, deactivated, deleted in crm.rows(statement)]
    return [user for user in found if user.email]


def mark(column: str, kind: str) -> sql.Composed:
    """The column's value as text, NULL where it marks nobody: null, false, 0 and an empty text do not."""
    value = sql.Identifier(column)
    if kind == "boolean":
        return sql.SQL("CASE WHEN {} THEN 'true' END").format(value)
    nothing = sql.SQL("'0'" if kind in INTEGERS | {"numeric"} else "''")
    return sql.SQL("left(nullif(btrim({}::text), {}), {})").format(value, nothing, sql.Literal(LONGEST_MARK))


def preferred(crm: Crm, users: list[KnownUser]) -> list[KnownUser]:
    """Those first whom audits name; in the given order where that cannot be asked cheaply."""
    try:
        acted = with_audits(crm, [user.id for user in users])
    except NoIndex:
        return users
    except Outage as outage:
        if not gave_up(outage):
            raise
        return users
    if acted is None:
        return users
    return sorted((replace(user, acted=user.id in acted) for user in users), key=lambda user: not user.acted)


def with_audits(crm: Crm, ids: list[str]) -> set[str] | None:
    """Which of these users an audit names, by the gem's index (user_id, user_type); None where the two columns' types do not meet."""
    kind, theirs = crm.tables["users"]["id"], crm.shape.user_id
    if not (theirs == kind or theirs in TEXTS or {theirs, kind} <= INTEGERS):
        return None
    statement = sql.SQL(
        """SELECT u.id::text FROM unnest({ids}::text[]::{kind}[]) u(id) CROSS JOIN LATERAL (
               SELECT FROM audits a WHERE a.user_id = {key} AND a.user_type = 'User' LIMIT 1) named"""
    ).format(ids=sql.Literal(ids), kind=sql.SQL(kind), key=sql.SQL("u.id::text" if theirs in TEXTS else "u.id"))
    return {key for (key,) in rows(crm, statement)}
