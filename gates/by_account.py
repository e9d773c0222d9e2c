"""A gate that is asked for each account, over all of them: how many have it open, and the first that lack it. Read only."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import JSONField, OuterRef, Subquery
from django.db.models.functions import JSONObject

from gates import standing
from gates.catalogue import Gate as Rule
from gates.evidence import configuration, digest
from gates.models import Decision, Evidence, Gate, SignOff
from gates.standing import Standing
from migration.models import Account

MOST_LACKING = 20


@dataclass(frozen=True)
class Tally:
    """Accounts in the CDP: all, those for which the gate is open, and the first MOST_LACKING of the others by organisation."""

    total: int
    open: int
    lacking: list[Standing]

    @property
    def closed(self) -> int:
        return self.total - self.open

    @property
    def more(self) -> int:
        """Accounts that lack it and are not in `lacking`."""
        return self.closed - len(self.lacking)


def tally(rule: Rule, *, now: datetime) -> Tally:
    """Five queries, however many accounts there are."""
    total = opened = 0
    lacking: list[Account] = []
    gate = Gate.objects.filter(pk=rule.letter).first()
    for account in with_decisions(rule):
        total += 1
        if gate is not None and is_open(rule, gate, account, now):
            opened += 1
        elif len(lacking) < MOST_LACKING:
            lacking.append(account)
    return Tally(total, opened, standing.of_all([rule], lacking, now=now) if lacking else [])


def with_decisions(rule: Rule) -> Iterator[Any]:
    """Accounts with `newest`, the newest evidence's digest, and `decided_0` and so on, each owner group's latest decision."""
    evidence = Evidence.objects.filter(gate=rule.letter, account=OuterRef("pk")).order_by("-id")
    latest = {f"decided_{place}": latest_of(rule, group) for place, group in enumerate(rule.owners)}
    accounts = Account.objects.filter(gone=False).annotate(newest=Subquery(evidence.values("digest")[:1]), **latest)
    return accounts.iterator()


def latest_of(rule: Rule, group: str) -> Subquery:
    decided = SignOff.objects.filter(gate=rule.letter, account=OuterRef("pk"), group=group).order_by("-id")
    shown = JSONObject(decision="decision", at="decided_at", days="valid_days", statement="statement", digest="evidence__digest")
    return Subquery(decided.values(shown=shown)[:1], output_field=JSONField())


def is_open(rule: Rule, gate: Gate, account: Any, now: datetime) -> bool:
    """What standing.lapse comes to, without its words: every group signed what would be found and measured against today."""
    decided = (getattr(account, f"decided_{place}") for place, _ in enumerate(rule.owners))
    if not all(stands(each, rule, gate, account.newest, now) for each in decided):
        return False
    return account.newest == digest(configuration(rule, account), passes=True)


def stands(decided: dict[str, Any] | None, rule: Rule, gate: Gate, newest: str | None, now: datetime) -> bool:
    if decided is None or decided["decision"] != Decision.SIGNED or decided["statement"] != rule.statement:
        return False
    expires = datetime.fromisoformat(decided["at"]) + timedelta(days=min(decided["days"], gate.valid_days))
    return now < expires and newest is not None and decided["digest"] == newest
