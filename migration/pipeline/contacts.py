"""ContactResolver: CRM person id -> the CDP contact of this account. Two claims, or another tenant's person, are outcomes."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from migration.pipeline.problems import Problem
from migration.pipeline.records import Candidate
from migration.states import Reason

ID = re.compile("-?[0-9]{1,19}")


@dataclass
class Contacts:
    """What is known of a chunk's contacts; all of it looked up before, none of it here."""

    organisation: int  # of the account, in the CRM
    claims: dict[int, list[str]]  # person -> contacts of the account
    rivals: dict[int, set[int]] = field(default_factory=dict)  # person -> organisations of other accounts that claim it
    named: dict[int, set[str]] = field(default_factory=dict)  # person -> organisations that its own audits name

    def decide(self, person: int) -> tuple[str | None, Problem | None]:
        """The one contact, or why there is none. A claim that the person's own audits rule out does not count as a claim."""
        named = self.named.get(person, set())
        if self.is_of_another(person):
            return self.only_claim(person), Problem(Reason.TENANT_MISMATCH, f"the contact's own audits name {organisations_named(named)}")
        claims = self.claims.get(person, [])
        if len(claims) > 1:
            return None, Problem(Reason.CONTACT_AMBIGUOUS, f"contacts {', '.join(claims)} of this account claim the person")
        rivals = sorted(org for org in self.rivals.get(person, ()) if not named or str(org) in named)
        if rivals:
            return self.only_claim(person), Problem(
                Reason.CONTACT_AMBIGUOUS, f"organisation {', '.join(map(str, rivals))} claims the person too"
            )
        return self.only_claim(person), None

    def is_of_another(self, person: int) -> bool:
        """Whether the person's own audits name organisations, and not the account's."""
        named = self.named.get(person, set())
        return bool(named) and str(self.organisation) not in named

    def only_claim(self, person: int) -> str | None:
        claims = self.claims.get(person, [])
        return claims[0] if len(claims) == 1 else None


def organisations_named(named: set[str]) -> str:
    """Ids only: what else an audit says there is its own text, and not for the console's lists."""
    ids = sorted(each for each in named if ID.fullmatch(each))
    others = len(named) - len(ids)
    return f"organisation {', '.join(ids) or 'by no id'}" + (f", and {others} values that are no id" if others and ids else "")


def resolve_contacts(candidates: Iterable[Candidate], contacts: Contacts) -> Iterator[Candidate]:
    """Set `contact_id`, or the problem; an earlier problem stays."""
    decided: dict[int, tuple[str | None, Problem | None]] = {}
    for candidate in candidates:
        person = candidate.person_id
        if person not in decided:
            decided[person] = contacts.decide(person)
        candidate.contact_id, problem = decided[person]
        if problem and candidate.becomes_row:  # what is beyond is counted by category, whosever it is
            candidate.problem = problem
        yield candidate
