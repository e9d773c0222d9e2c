"""Gate D: how GetUsersByEmails shows users that the CRM holds as deactivated, deleted and active: a real call for each kind.

Fails: no answer, an answer or a status that USMAN's contract does not have, or no deactivated user of the CRM shown as DEACTIVATED.
Users that USMAN does not know (or knows twice by one e-mail) are absent, and counted.

Facts: {"cases": [{"kind": "active", "deactivated" or "deleted", "user_id": text, "email", "crm": {"deactivated", "deleted": the mark as
text or null, "acted": whether an audit names the user, null where that cannot be asked cheaply}, "usman": {"id", "status"} or null}],
"counts": {kind: {"asked", "ACTIVE", "DEACTIVATED", "absent"}}}; of a kind without an answer that can be read "asked" alone, and no cases.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from django.conf import settings

from gates.probes import Finding, Measurement, by_index, known_users
from gates.probes.addresses import database, service
from gates.probes.known_users import KINDS, KnownUser
from migration.crm import VARIABLE, Crm
from migration.doors import Outage, translated
from migration.models import Account
from migration.usman import BATCH, Usman, UsmanUser, read_answer

STATEMENT_SECONDS = 20
MARKS = {"deactivated": "CRM_USER_DEACTIVATED_COLUMN", "deleted": "CRM_USER_DELETED_COLUMN"}
Answer = dict[str, UsmanUser | None]


def configuration(account: Account | None) -> dict[str, str]:
    """The CRM and how it marks its users, and USMAN."""
    return {
        "CRM_DATABASE_URL": database("CRM_DATABASE_URL"),
        "USMAN_URL": service("USMAN_URL"),
        **{variable: getattr(settings, variable) or "none" for variable in MARKS.values()},
    }


def measure(account: Account | None) -> Measurement:
    """Choose users in the CRM and ask USMAN. Raises Outage for the CRM alone: of USMAN, silence is what the gate is about."""
    with closing(Crm()) as crm, closing(Usman()) as usman:
        by_index.prepare(crm, STATEMENT_SECONDS)
        with translated(VARIABLE):
            found = crm.tables["users"]
            chosen = known_users.chosen(crm, marks(found), most=BATCH)
        answers, troubles = asked(usman, chosen)
    cases = [case(kind, user, answers[kind]) for kind in answers for user in chosen[kind]]
    counts = {kind: counted(kind, len(users), cases, kind in answers) for kind, users in chosen.items()}
    return Measurement([*missing_columns(found), *troubles, *findings(counts)], {"cases": cases, "counts": counts})


def marks(found: dict[str, str]) -> dict[str, tuple[str, str]]:
    """kind -> (column, its type), of those columns that users has."""
    names = {kind: getattr(settings, variable) for kind, variable in MARKS.items()}
    return {kind: (name, found[name]) for kind, name in names.items() if name in found}


def missing_columns(found: dict[str, str]) -> Iterator[Finding]:
    for kind, variable in MARKS.items():
        name = getattr(settings, variable)
        if name and name not in found:
            cure = f"set {variable} to the one that marks them, or to nothing"
            yield Finding(None, f"The CRM's users table has no column {name}, so no {kind} user could be chosen: {cure}.")
        elif not name:
            yield Finding(None, f"{variable} is empty, so no {kind} user could be chosen.")


def asked(usman: Usman, chosen: dict[str, list[KnownUser]]) -> tuple[dict[str, Answer], list[Finding]]:
    """USMAN's answer for each kind, one call each; and what is wrong with those that cannot be read. After a silence nothing more is asked."""
    answers: dict[str, Answer] = {}
    troubles: list[Finding] = []
    for kind, users in chosen.items():
        emails = sorted({user.email for user in users})
        try:
            body = usman.ask(emails) if emails else {}
        except Outage as silence:
            troubles.append(Finding(False, f"No answer for {kind} users. {silence}"))
            break
        try:
            answers[kind] = read_answer(body, set(emails))
        except Outage as undocumented:
            troubles.append(Finding(False, f"An answer for {kind} users that cannot be read. {undocumented}"))
    return answers, troubles


def case(kind: str, user: KnownUser, answer: Answer) -> dict[str, Any]:
    known = answer.get(user.email)
    return {
        "kind": kind,
        "user_id": user.id,
        "email": user.email,
        "crm": {"deactivated": user.deactivated, "deleted": user.deleted, "acted": user.acted},
        "usman": {"id": known.id, "status": known.status} if known else None,
    }


def counted(kind: str, users: int, cases: list[dict[str, Any]], answered: bool) -> dict[str, int]:
    if not answered:
        return {"asked": users}
    statuses = Counter(each["usman"]["status"] if each["usman"] else "absent" for each in cases if each["kind"] == kind)
    return {"asked": users, **{status: statuses[status] for status in ("ACTIVE", "DEACTIVATED", "absent")}}


def findings(counts: dict[str, dict[str, int]]) -> Iterator[Finding]:
    """The verdict on deactivated users; how the others are shown is for the signers to judge."""
    yield of_deactivated(counts["deactivated"])
    for kind in KINDS:
        count = counts[kind]
        if kind != "deactivated" and count["asked"] and "absent" in count:
            yield Finding(None, f"Of {number(count['asked'], kind)}, {shown(count)}.")


def of_deactivated(count: dict[str, int]) -> Finding:
    if not count["asked"]:
        return Finding(False, "The CRM holds no deactivated user with an e-mail, so none is known to be shown as DEACTIVATED.")
    if "absent" not in count:
        return Finding(False, f"None of {number(count['asked'], 'deactivated')} is known to be shown as DEACTIVATED.")
    told = f"Of {number(count['asked'], 'deactivated')}, {shown(count)}"
    if count["DEACTIVATED"]:
        return Finding(True, f"{told}.")
    return Finding(
        False, f"{told}: USMAN shows no deactivated user as such, so who acted could not be told; ask Platform how it shows them."
    )


def shown(count: dict[str, int]) -> str:
    return f"{count['DEACTIVATED']:,} came back as DEACTIVATED, {count['ACTIVE']:,} as ACTIVE, and {count['absent']:,} did not come back"


def number(users: int, kind: str) -> str:
    return f"{users:,} {kind} user{'' if users == 1 else 's'} of the CRM"
