"""What one person can do next for the gates: sign, measure, or find somebody else. Asks nothing; the policies decide when it is done."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from gates.catalogue import Gate as Rule
from gates.models import Decision
from gates.standing import GroupStanding, Standing, State

RENEW_BEFORE = timedelta(days=7)
MOST_NAMES = 5


class Kind(StrEnum):
    SIGN = "sign"
    RENEW = "renew"
    MEASURE = "measure"
    ASK = "ask"  # somebody else has to act first


@dataclass(frozen=True)
class Person:
    """`groups` are the owner groups that they are in."""

    pk: int | None
    groups: frozenset[str]
    may_measure: bool


@dataclass
class Act:
    """One thing to do for one gate; `standings` are the accounts that it concerns, or the one standing of a global gate."""

    kind: Kind
    rule: Rule
    group: str
    sentence: str
    standings: list[Standing] = field(default_factory=list)


def of(person: Person, shown: Iterable[Standing], members: dict[str, list[str]], *, now: datetime) -> list[Act]:
    """Signatures first, then measurements, then what waits for others; accounts that need the same are one act."""
    found: dict[tuple[Kind, str, str, str], Act] = {}
    for each in shown:
        for act in acts(person, each, members, now):
            found.setdefault((act.kind, act.rule.letter, act.group, act.sentence), act).standings.append(each)
    return sorted(found.values(), key=lambda act: list(Kind).index(act.kind))


def acts(person: Person, shown: Standing, members: dict[str, list[str]], now: datetime) -> Iterator[Act]:
    mine = [each for each in shown.groups if each.group in person.groups]
    lacking = [each for each in mine if each.state != State.SIGNED]
    looks_after_all = person.may_measure and not person.groups and not shown.is_open
    if needs_measuring(shown) and (lacking or looks_after_all):
        yield measure(person, shown)
    elif signed_for := next((each.group for each in shown.groups if is_signed_by(person, each)), ""):
        yield from (barred(shown.rule, each.group, signed_for, members) for each in lacking if each.group != signed_for)
        yield from (sign(shown.rule, [each]) for each in lacking if each.group == signed_for)
    elif lacking:
        yield sign(shown.rule, lacking)
    yield from (renew(shown, each) for each in mine if expires_soon(each, now))


def sign(rule: Rule, lacking: list[GroupStanding]) -> Act:
    """One person can sign for one of these groups."""
    groups = " or ".join(each.group for each in lacking)
    before = {each.state for each in lacking}
    if before == {State.LAPSED}:
        return Act(Kind.SIGN, rule, groups, f"The sign-off of {groups} lapsed: sign again.")
    if before <= {State.REJECTED, State.WITHDRAWN}:
        return Act(Kind.SIGN, rule, groups, f"{groups} decided against it: sign once it will do.")
    return Act(Kind.SIGN, rule, groups, f"Sign for {groups}.")


def needs_measuring(shown: Standing) -> bool:
    """Whether nobody can sign before it is measured (again)."""
    return bool(shown.rule.probe) and (shown.evidence is None or not shown.evidence.passes or bool(shown.stale))


def measure(person: Person, shown: Standing) -> Act:
    who = "measure it" if person.may_measure else "have an operator measure it"
    if shown.evidence is None:
        sentence = f"Nothing was measured yet: {who}."
    elif shown.evidence.passes:
        sentence = f"The evidence is stale: {who} again."
    else:
        sentence = f"The evidence fails: have the cause mended, then {who} again."
    return Act(Kind.MEASURE if person.may_measure else Kind.ASK, shown.rule, "", sentence)


def is_signed_by(person: Person, each: GroupStanding) -> bool:
    return bool(each.signoff and each.signoff.decision == Decision.SIGNED and each.signoff.user_id == person.pk)


def barred(rule: Rule, group: str, signed_for: str, members: dict[str, list[str]]) -> Act:
    """One person never signs for two groups."""
    names = members.get(group, [])
    who = f"in it: {', '.join(names[:MOST_NAMES])}{' and others' if len(names) > MOST_NAMES else ''}" if names else "nobody is in it yet"
    return Act(Kind.ASK, rule, group, f"You signed for {signed_for}, so somebody else must sign for {group} ({who}).")


def expires_soon(each: GroupStanding, now: datetime) -> bool:
    return each.state == State.SIGNED and each.signoff is not None and each.signoff.stands_until - now < RENEW_BEFORE


def renew(shown: Standing, each: GroupStanding) -> Act:
    """The same evidence is not signed twice, so a gate that has a probe is measured first."""
    is_signed = bool(shown.evidence and each.signoff and each.signoff.evidence_id == shown.evidence.pk)
    how = "measure again, then sign" if is_signed else "sign again"
    return Act(Kind.RENEW, shown.rule, each.group, f"The sign-off of {each.group} expires within a week: {how}.")
