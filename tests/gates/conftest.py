"""People of every owner group, and evidence in a given state, for the tests of what gates decide."""

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from django.contrib.auth.models import Group, User

from gates import evidence, signoffs, standing
from gates.catalogue import BY_LETTER, GATES, OWNER_GROUPS
from gates.models import Evidence, SignOff
from gates.probes import Finding, Measurement
from migration.models import Account

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
numbers = count(1)


def member(*groups: str, name: str = "") -> User:
    user = User.objects.create_user(name or f"person-{next(numbers)}", is_staff=True)
    user.groups.set(Group.objects.filter(name__in=groups))
    return user


@pytest.fixture(autouse=True)
def addresses(settings):
    """Somewhere that nothing is asked: for what only compares where evidence was measured. `systems` names real ones."""
    for system in ("CRM", "CDP"):
        setattr(settings, f"{system}_DATABASE_URL", f"postgresql://reader:secret@127.0.0.1:1/{system.lower()}")
    settings.USMAN_URL = "http://127.0.0.1:1"


@pytest.fixture
def people(db) -> dict[str, User]:
    """One person for each owner group, by its name."""
    return {group: member(group, name=f"of {group}") for group in OWNER_GROUPS}


def found(letter: str, account: Account | None = None, *, passes: bool = True, says: str = "", now: datetime = NOON) -> Evidence:
    """Evidence as a probe's would be, against what is configured now."""
    rule = BY_LETTER[letter]
    sentence = says or ("All is well." if passes else "Something is wrong.")
    settled = evidence.configuration(rule, account)
    return evidence.store(rule, account, settled, Measurement([Finding(passes, sentence)]), 0.5, by="ana", now=now)


def sign(letter: str, group: str, user: User, account: Account | None = None, *, note: str = "looked at", now: datetime = NOON) -> SignOff:
    """Sign on the newest evidence."""
    newest = standing.of(letter, account, now=now).evidence
    return signoffs.sign(letter, account, group=group, evidence=newest, user=user, note=note, now=now)


def open_all(people: dict[str, User], *accounts: Account, letters: str = "ABCDEFGH", now: datetime = NOON) -> None:
    """Passing evidence for these gates, signed by every owner group."""
    for rule in GATES:
        if rule.letter in letters:
            for account in accounts if rule.per_account else [None]:
                if rule.probe:
                    found(rule.letter, account, now=now)
                for group in rule.owners:
                    sign(rule.letter, group, people[group], account, now=now)
