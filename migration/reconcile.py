"""Reconciler, for the whole run: every candidate key read afresh from the source and looked for in the CDP, and a sample mapped again.

What it cannot see is written in docs/verification.md.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from uuid import UUID

from psycopg import sql

from migration.ledger import Ledger
from migration.models import QuarantinedCandidate, Run, Waiver
from migration.pipeline.flow import World, remap
from migration.pipeline.rows import row_id
from migration.planning import before, sources

PERSONS_AT_ONCE = 500
SAMPLE = 1000
EXAMPLES = 10
HIGHEST_PERSON = (1 << 48) - 1  # the highest that a row id can carry
EMPTY = {  # an audited_changes that says nothing changed, as the column's type writes it
    "jsonb": "a.audited_changes = '{}'",
    "json": r"a.audited_changes::text ~ '^\s*\{\s*\}\s*$'",
    "text": r"a.audited_changes ~ '^---\s+(!\S+\s+)?\{\s*\}\s*(\.\.\.\s*)?$'",
}

Key = tuple[int, int]  # CRM person id, audit id


@dataclass
class Verification:
    """What verification found; `agrees` is the verdict."""

    candidates: int = 0  # counted afresh on the source
    accounted: int = 0  # of them, how many the ledger has
    missing: int = 0  # candidates with no row, no live row and no other outcome
    sampled: int = 0
    differing: int = 0  # sampled rows that are not what mapping them again gives
    examples: list[str] = field(default_factory=list)
    agrees: bool = False
    stale_keys: list[Key] = field(default_factory=list)
    lacking: list[Key] = field(default_factory=list)

    @property
    def stale(self) -> int:
        """Rows of ours that are candidates no more."""
        return len(self.stale_keys)

    def as_json(self) -> dict[str, object]:
        """What is stored with the run; the keys themselves are kept elsewhere."""
        names = ("candidates", "accounted", "missing", "stale", "sampled", "differing", "examples", "agrees")
        return {name: getattr(self, name) for name in names}

    def example(self, sentence: str) -> None:
        if len(self.examples) < EXAMPLES:
            self.examples.append(sentence)


def verify_run(run: Run, world: World, ledger: Ledger, checkpoint: Callable[[str], None]) -> Verification:
    """Verify a run against a fresh read of the source.

    A dry run has no rows to look for: there the fresh count alone is compared.
    """
    found = Verification(accounted=ledger.outcomes)
    sample = Sampler(SAMPLE, run.uuid)
    aside = set_aside(run)
    for batch in batches(world):
        checkpoint("verifying")
        source = source_keys(world, list(batch.claims))
        found.candidates += len(source)
        sample.offer(key for key, empty in source.items() if not empty and key not in aside)
        if run.writes:
            found.lacking += compare(source, batch, world, aside, found)
    if run.writes:
        found.missing = len(found.lacking)
        for person, audit in found.lacking[:EXAMPLES]:
            found.example(f"audit {audit} of CRM person {person} has no row and no other outcome")
        map_again(sample.chosen, world, found)
    found.agrees = not found.missing and not found.differing and found.candidates == found.accounted
    return found


@dataclass(frozen=True)
class Batch:
    """A range of CRM person ids, both ends inclusive, and who of the account's contacts claims which person in it."""

    first: int
    last: int
    claims: dict[int, list[str]]


def batches(world: World) -> Iterator[Batch]:
    """The whole space of person ids without a gap, some hundred persons at a time: rows whose person left the account are found too."""
    persons = world.cdp.persons(world.account_id)
    first = 0
    for start in range(0, len(persons), PERSONS_AT_ONCE):
        last = persons[start : start + PERSONS_AT_ONCE][-1] if start + PERSONS_AT_ONCE < len(persons) else max(HIGHEST_PERSON, persons[-1])
        yield Batch(first, last, world.cdp.contacts(world.account_id, first, last))
        first = last + 1
    if not persons:
        yield Batch(0, HIGHEST_PERSON, {})


def source_keys(world: World, persons: list[int]) -> dict[Key, bool]:
    """Candidate key -> whether it is an update that changed nothing. By sets, through SQL of its own, not the extractor's."""
    empty = sql.SQL(f"a.action = 'update' AND {EMPTY[world.crm.shape.changes]}")
    limit = before(world.crm, world.mapping, {entity: moment.isoformat() for entity, moment in world.watermark.items()})
    statement = sql.SQL("SELECT a.person, a.id, coalesce({empty}, false) FROM {source} a WHERE {before}")
    return {
        (int(person), audit): nothing
        for source in sources(world.crm, world.mapping, persons, world.links.of(persons))
        for person, audit, nothing in world.crm.rows(statement.format(empty=empty, source=source, before=limit))
    }


def compare(source: dict[Key, bool], batch: Batch, world: World, aside: set[Key], found: Verification) -> list[Key]:
    """The batch's candidates that have neither a row of ours, nor a live one, nor another outcome; rows beyond them are counted as stale."""
    ours = our_keys(world, batch)
    found.stale_keys += sorted(ours - source.keys())
    open_keys = [key for key, empty in source.items() if not empty and key not in ours and key not in aside]
    if not open_keys:
        return []
    live = live_keys(world, batch.claims)
    return [key for key in open_keys if key not in live]


def our_keys(world: World, batch: Batch) -> set[Key]:
    """Keys of the account's rows of ours in the batch's range, read off their ids."""
    query = """SELECT id FROM contact_activity_logs
               WHERE id BETWEEN %s AND %s AND account_id = %s AND origin = 'crm_migration'"""
    first, last = UUID(row_id(min(batch.first, HIGHEST_PERSON), 0)), UUID(row_id(min(batch.last, HIGHEST_PERSON), (1 << 62) - 1))
    return {key_of(row[0]) for row in world.cdp.rows(query, (first, last, world.account_id))}


def key_of(identifier: UUID) -> Key:
    return identifier.int >> 80, identifier.int & ((1 << 62) - 1)


def live_keys(world: World, claims: dict[int, list[str]]) -> set[Key]:
    """Keys that the live sync holds."""
    person_of = {contact: person for person, contacts in claims.items() for contact in contacts}
    query = """SELECT contact_id::text, source_audit_id FROM contact_activity_logs
               WHERE contact_id = ANY(%s::uuid[]) AND origin = 'live' AND source_audit_id IS NOT NULL"""
    return {(person_of[contact], audit) for contact, audit in world.cdp.rows(query, (list(person_of),))}


def set_aside(run: Run) -> set[Key]:
    """Keys that have an outcome without a row: quarantined by this run, or waived by a person."""
    waived = Waiver.objects.filter(account=run.account).values_list("person_id", "audit_id")
    return {*QuarantinedCandidate.objects.filter(run=run).values_list("person_id", "audit_id"), *waived}


def map_again(sample: list[Key], world: World, found: Verification) -> None:
    """Map the sample again from scratch, and let the CDP compare whole rows: none may be new, none may differ."""
    if not sample:
        return
    receipt = remap(sample, world)
    found.sampled = len(sample)
    found.differing = receipt.written + receipt.corrected
    for difference in receipt.samples:
        after = difference["after"]
        found.example(f"row {after['id'] if isinstance(after, dict) else '?'} is not what mapping its audit again gives")


class Sampler:
    """A fair sample of a stream of unknown length (reservoir sampling), the same for the same run."""

    def __init__(self, size: int, seed: UUID) -> None:
        self.size, self.seen = size, 0
        self.chosen: list[Key] = []
        self.random = random.Random(seed.int)  # noqa: S311 - a sample, no secret

    def offer(self, keys: Iterator[Key]) -> None:
        for key in keys:
            self.seen += 1
            if len(self.chosen) < self.size:
                self.chosen.append(key)
            elif (place := self.random.randrange(self.seen)) < self.size:
                self.chosen[place] = key
