"""ActorMapper: who acted, by the table of SPEC section 3. Users are learnt in batches ahead of their rows."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

from migration import copytext
from migration.mapping import Mapping
from migration.people import Person
from migration.pipeline.records import Actor, Candidate

Key = tuple[bytes, bytes, bytes]  # user_type, user_id, username, as COPY fields

BATCH_ROWS = 1000
BATCH_BYTES = 2_000_000  # audits of 400 kB must not pile up while users are looked up
CACHED_KEYS = 20_000  # labels can be as many as audits
SYSTEM = Actor("system", None, None)


class Directory(Protocol):
    def look_up(self, user_ids: Iterable[str]) -> dict[str, Person]: ...


class ActorMapper:
    """Maps (user_type, user_id, username) to an Actor; one for each worker and run."""

    def __init__(self, mapping: Mapping, organisation: int, capabilities: frozenset[str], directory: Directory) -> None:
        self.mapping, self.organisation, self.directory = mapping, organisation, directory
        self.shows_deactivated = "D" in capabilities
        self.cache: dict[Key, Actor] = {}

    def learn(self, keys: set[Key]) -> None:
        """Decide the actors of `keys`, asking the directory once for all of them. Raises Outage."""
        if len(self.cache) > CACHED_KEYS:
            self.cache.clear()
        new = {key: tuple(map(copytext.read, key)) for key in keys if key not in self.cache}
        people = self.directory.look_up(user_id for kind, user_id, _ in new.values() if user_id and kind in ("User", "", None))
        for key, (user_type, user_id, username) in new.items():
            self.cache[key] = self.decide(user_type or None, user_id or None, username, people)  # a text column may hold ''

    def decide(self, user_type: str | None, user_id: str | None, username: str | None, people: dict[str, Person]) -> Actor:
        """The actor table, top to bottom, overrides first."""
        if user_id is None:
            return self.overridden(None, username) or Actor("label", None, username) if username else SYSTEM
        if user_type not in ("User", None):
            return Actor("integration", None, f"{user_type} #{user_id}")
        override = self.overridden(user_id, None) if user_type == "User" else None
        return override or self.user(user_type, people.get(user_id))

    def overridden(self, user_id: str | None, label: str | None) -> Actor | None:
        found = self.mapping.actor_override(self.organisation, user_id, label)
        return Actor(found.kind, found.actor_id, found.actor_name) if found else None

    def user(self, user_type: str | None, person: Person | None) -> Actor:
        """A CRM user id: known to USMAN, deactivated there, or unknown."""
        if person is None:
            return Actor("unknown_user", None, None)
        if user_type is None or person.usman is None:
            return Actor("unknown_user", None, person.name)
        if person.usman.status == "ACTIVE":
            return Actor("user", person.usman.id, person.usman.name)
        if self.shows_deactivated:
            return Actor("deactivated_user", person.usman.id, person.usman.name)
        return Actor("unknown_user", None, person.name)


def map_actors(candidates: Iterable[Candidate], actors: ActorMapper) -> Iterator[Candidate]:
    """Set `actor` of every candidate that is still to become a row.

    One whose actor is known goes on at once: a thousand that are held back are out of the processor's caches when the next step comes to them.
    """
    coming = iter(candidates)
    for candidate in coming:
        if not candidate.becomes_row:
            yield candidate
        elif actor := actors.cache.get((candidate.user_type, candidate.user_id, candidate.username)):
            candidate.actor = actor
            yield candidate
        else:  # somebody new, and so perhaps others soon: one question for all of them
            yield from learnt([candidate, *ahead(coming)], actors)


def learnt(batch: list[Candidate], actors: ActorMapper) -> Iterator[Candidate]:
    """The batch with its actors, after one question about those that are new."""
    actors.learn({(c.user_type, c.user_id, c.username) for c in batch if c.becomes_row})
    for candidate in batch:
        if candidate.becomes_row:
            candidate.actor = actors.cache[candidate.user_type, candidate.user_id, candidate.username]
        yield candidate


def ahead(coming: Iterator[Candidate]) -> Iterator[Candidate]:
    """The next candidates, bounded in number and in bytes."""
    size = 0
    for candidate in islice(coming, BATCH_ROWS):
        yield candidate
        size += len(candidate.changes)
        if size >= BATCH_BYTES:
            return
