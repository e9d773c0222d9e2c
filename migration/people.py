"""Who a CRM user is: the CRM's own row, and what USMAN says of its e-mail, kept for the length of a run."""

from collections.abc import Iterable
from typing import NamedTuple

from migration.crm import Crm
from migration.models import ActorAnswer, Run
from migration.usman import Usman, UsmanUser


class Person(NamedTuple):
    """A CRM user as the actor table needs it."""

    name: str | None  # the CRM's
    usman: UsmanUser | None  # None: no e-mail, or USMAN knows nobody by it


class People:
    """The directory that ActorMapper is handed. One for each worker and run; answers are shared through ActorAnswer.

    `crm` is a session of its own: it is asked while candidates stream through another.
    Without a run (a question, not a migration) they are kept in memory only.
    """

    def __init__(self, run: Run | None, crm: Crm, usman: Usman) -> None:
        self.run, self.crm, self.usman = run, crm, usman
        self.known: dict[str, UsmanUser | None] = {}

    def look_up(self, user_ids: Iterable[str]) -> dict[str, Person]:
        """CRM user id, as text -> Person; users that the CRM no longer has are absent. Raises Outage."""
        users = self.crm.users(sorted(set(user_ids)))
        answers = self.answers({email.strip().lower() for email, _ in users.values() if email and email.strip()})
        return {
            user_id: Person(shown(name), answers.get(email.strip().lower()) if email else None) for user_id, (email, name) in users.items()
        }

    def answers(self, emails: set[str]) -> dict[str, UsmanUser | None]:
        """What this run was told of each e-mail, asking USMAN for the rest and keeping its answers."""
        if self.run is not None:
            self.known |= kept(self.run, emails - self.known.keys())
        missing = emails - self.known.keys()
        if missing:
            fresh = self.usman.users_by_email(missing)
            if self.run is not None:
                keep(self.run, fresh)
            self.known |= fresh
        return {email: self.known[email] for email in emails}


def shown(name: str | None) -> str | None:
    """A blank name is none: many a Rails form leaves '' where nothing was filled in."""
    return name if name and name.strip() else None


def kept(run: Run, emails: set[str]) -> dict[str, UsmanUser | None]:
    """The answers that any worker of the run had."""
    found = ActorAnswer.objects.filter(run=run, email__in=emails)
    return {a.email: UsmanUser(a.usman_id, a.name, a.status) if a.usman_id and a.status else None for a in found}


def keep(run: Run, answers: dict[str, UsmanUser | None]) -> None:
    rows = [
        ActorAnswer(run=run, email=email, usman_id=user.id, name=user.name, status=user.status)
        if user
        else ActorAnswer(run=run, email=email)
        for email, user in answers.items()
    ]
    ActorAnswer.objects.bulk_create(rows, ignore_conflicts=True)  # another worker may have asked at the same moment
