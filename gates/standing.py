"""How each gate stands now: its newest evidence, the decisions of its owner groups, and why a sign-off stands no longer. Read only."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from django.db.models import Q, QuerySet

from gates.catalogue import BY_LETTER, GATES
from gates.catalogue import Gate as Rule
from gates.evidence import configuration, reason_why_not
from gates.models import Decision, Evidence, Gate, SignOff
from migration.models import Account


class State(StrEnum):
    """What a group's latest decision is worth now."""

    SIGNED = "signed"
    MISSING = "missing"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    LAPSED = "lapsed"


@dataclass(frozen=True)
class GroupStanding:
    """One owner group of a gate. `why` says in words what is amiss; "" where it is signed."""

    group: str
    state: State
    why: str
    signoff: SignOff | None = None


@dataclass(frozen=True)
class Standing:
    """One gate, for one account where it is asked for each. `stale` says why the newest evidence cannot be signed any more."""

    rule: Rule
    gate: Gate | None
    account: Account | None
    evidence: Evidence | None
    stale: str
    groups: list[GroupStanding]

    @property
    def is_open(self) -> bool:
        """Whether every owner group's sign-off stands."""
        return all(each.state == State.SIGNED for each in self.groups)

    @property
    def name(self) -> str:
        return f"{self.rule} ({self.rule.title})" + (f" for {self.account}" if self.account else "")


def of(letter: str, account: Account | None = None, *, now: datetime) -> Standing:
    """One gate; `account` counts only for a gate that is asked for each account."""
    rule = BY_LETTER[letter]
    return of_all([rule], [account] if rule.per_account and account else [], now=now)[0]


def of_all(rules: Iterable[Rule] = GATES, accounts: Iterable[Account] = (), *, now: datetime) -> list[Standing]:
    """The gates in their order; one that is asked for each account once for each of `accounts`. Three queries, however many."""
    several: list[Account | None] = [*accounts] or [None]
    wanted = [(rule, account) for rule in rules for account in (several if rule.per_account else [None])]
    letters, keys = [rule.letter for rule, _ in wanted], [account.pk for _, account in wanted if account]
    gates = Gate.objects.in_bulk(letters)
    newest = {(e.gate_id, e.account_id): e for e in of_these(Evidence.objects.defer("facts"), letters, keys, "gate_id", "account_id")}
    signed = SignOff.objects.select_related("evidence", "user", "gate").defer("evidence__facts")
    decided = {(s.gate_id, s.account_id, s.group): s for s in of_these(signed, letters, keys, "gate_id", "account_id", "group")}
    return [standing(rule, account, gates.get(rule.letter), newest, decided, now) for rule, account in wanted]


def of_these(rows: QuerySet[Any], letters: list[str], accounts: list[int], *by: str) -> QuerySet[Any]:
    """The newest row for each combination of `by`, of these gates: the global ones', and these accounts'."""
    concerned = Q(account__isnull=True) | Q(account__in=accounts)
    return rows.filter(concerned, gate__in=letters).order_by(*by, "-id").distinct(*by)


def standing(rule: Rule, account: Account | None, gate: Gate | None, newest: dict, decided: dict, now: datetime) -> Standing:
    key = account.pk if account else None
    evidence = newest.get((rule.letter, key))
    against = configuration(rule, account) if rule.probe else {}
    groups = [group_standing(rule, group, gate, decided.get((rule.letter, key, group)), evidence, against, now) for group in rule.owners]
    return Standing(rule, gate, account, evidence, staleness(rule, gate, evidence, against, now), groups)


def group_standing(
    rule: Rule, group: str, gate: Gate | None, signoff: SignOff | None, evidence: Evidence | None, against: dict[str, str], now: datetime
) -> GroupStanding:
    if gate is None:
        return GroupStanding(group, State.MISSING, f"{rule} is not in the database: run `manage.py migrate`", signoff)
    if signoff is None:
        return GroupStanding(group, State.MISSING, f"{group} has not signed")
    if signoff.decision != Decision.SIGNED:
        verb = "rejected it" if signoff.decision == Decision.REJECTED else "withdrew the sign-off"
        why = f"{signoff.decided_by} {verb} for {group} on {day(signoff.decided_at)}: {signoff.note}"
        return GroupStanding(group, State(signoff.decision), why, signoff)
    lapsed = lapse(rule, signoff, evidence, against, now)
    why = f"the sign-off of {signoff.decided_by} for {group} lapsed: {lapsed}" if lapsed else ""
    return GroupStanding(group, State.LAPSED if lapsed else State.SIGNED, why, signoff)


def lapse(rule: Rule, signoff: SignOff, newest: Evidence | None, against: dict[str, str], now: datetime) -> str:
    """Why a sign-off stands no longer; "" while it does."""
    if now >= signoff.stands_until:
        return f"it expired {signoff.days} day{'' if signoff.days == 1 else 's'} after {day(signoff.decided_at)}"
    if signoff.statement != rule.statement:
        return "what it states has been worded anew"
    if not rule.probe:
        return ""
    signed = signoff.evidence
    if signed is None or newest is None:
        return "it names no evidence"
    if changed := difference(signed.configuration, against):
        return changed
    if newest.digest == signed.digest:
        return ""
    if not newest.passes:
        return f"measured again on {day(newest.measured_at)}, it fails: {reason_why_not(newest)}"
    return difference(signed.configuration, newest.configuration) or "measured again, the verdict is another one"


def staleness(rule: Rule, gate: Gate | None, evidence: Evidence | None, against: dict[str, str], now: datetime) -> str:
    """Why the newest evidence cannot be signed any more; "" where it can, or there is none."""
    if evidence is None or gate is None:
        return ""
    if changed := difference(evidence.configuration, against):
        return changed
    if now >= evidence.measured_at + timedelta(days=gate.valid_days):
        return f"it is older than {gate.valid_days} days"
    return ""


def difference(then: dict[str, str], now: dict[str, str]) -> str:
    """What was measured against then and is another now, in words; "" where nothing is."""
    changed = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    return "; ".join(f"{key} was {then.get(key, 'not known')} and is {now.get(key, 'not known')}" for key in changed)


def day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
