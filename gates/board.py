"""The readiness board: milestones, every gate with where it stands, and what the person who looks can do next. Reads, never writes."""

from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import AnonymousUser, Group, User

from gates import by_account, milestones, next_acts, standing
from gates.by_account import Tally
from gates.catalogue import BY_LETTER, GATES, OWNER_GROUPS, Effect
from gates.catalogue import Gate as Rule
from gates.milestones import Step
from gates.next_acts import Act, Person
from gates.standing import Standing, State

MOST_MEMBERS = 500


@dataclass(frozen=True)
class Row:
    """One gate of the matrix: `standing` of a global one, `tally` of one that is asked for each account."""

    letter: str
    standing: Standing | None = None
    tally: Tally | None = None

    @property
    def rule(self) -> Rule:
        return BY_LETTER[self.letter]

    @property
    def is_open(self) -> bool:
        if self.standing:
            return self.standing.is_open
        return bool(self.tally and self.tally.total and not self.tally.closed)

    @property
    def expires(self) -> datetime | None:
        return expiry(self.standing) if self.standing else None


@dataclass(frozen=True)
class Board:
    steps: list[Step]
    rows: list[Row]
    acts: list[Act]
    now: datetime


def of(user: User | AnonymousUser, *, now: datetime) -> Board:
    """What the board tells this person. The number of queries depends on neither accounts nor decisions."""
    shared = {each.rule.letter: each for each in standing.of_all([gate for gate in GATES if not gate.per_account], now=now)}
    tallies = {gate.letter: by_account.tally(gate, now=now) for gate in GATES if gate.per_account}
    rows = [Row(gate.letter, shared.get(gate.letter), tallies.get(gate.letter)) for gate in GATES]
    needed = [each for each in shared.values() if each.rule.effect == Effect.RUN]
    closed = [*shared.values(), *(each for tally in tallies.values() for each in tally.lacking)]
    return Board(
        steps=milestones.of(needed, next(iter(tallies.values()))),
        rows=rows,
        acts=next_acts.of(person(user), closed, members(), now=now),
        now=now,
    )


def person(user: User | AnonymousUser) -> Person:
    groups = Group.objects.filter(user=user.pk, name__in=OWNER_GROUPS).values_list("name", flat=True)
    return Person(user.pk, frozenset(groups), user.has_perm("gates.add_evidence"))


def members() -> dict[str, list[str]]:
    """Active members of each owner group by name."""
    found: dict[str, list[str]] = {group: [] for group in OWNER_GROUPS}
    people = User.objects.filter(groups__name__in=OWNER_GROUPS, is_active=True).order_by("username")
    for group, name in people.values_list("groups__name", "username")[:MOST_MEMBERS]:
        if group in found:
            found[group].append(name)
    return found


def expiry(shown: Standing) -> datetime | None:
    """When the first of the sign-offs that stand expires."""
    return min((each.signoff.stands_until for each in shown.groups if each.state == State.SIGNED and each.signoff), default=None)
