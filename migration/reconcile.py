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
    for batch in person_batches(world):
        checkpoint("verifying")
        source = source_keys(world, list(batch))
        found.candidates += len(source)
        sample.offer(key for key, empty in source.items() if not empty)
        if run.writes:
            found.lacking += compare(source, batch, world, aside, found)
    if run.writes:
        found.missing = len(found.lacking)
        for person, audit in found.lacking[:EXAMPLES]:
            found.example(f"audit {audit} of CRM person {person} has no row and no other outcome")
        map_again(sample.chosen, world, found)
    found.agrees = not found.missing and not found.differing and found.candidates == found.accounted
    return found


def person_batches(world: World) -> Iterator[dict[int, list[str]]]:
    """Person -> contacts of the account that claim it, read afresh, some hundred persons at a time."""
    persons = world.cdp.persons(world.account_id)
    for start in range(0, len(persons), PERSONS_AT_ONCE):
        batch = persons[start : start + PERSONS_AT_ONCE]
        yield world.cdp.contacts(world.account_id, batch[0], batch[-1])


def source_keys(world: World, persons: list[int]) -> dict[Key, bool]:
    """Candidate key -> whether it is an update that changed nothing. By sets, through SQL of its own, not the extractor's."""
    empty = sql.SQL("a.action = 'update' AND a.audited_changes = '{}'" if world.crm.shape.changes == "jsonb" else "false")
    limit = before(world.crm, world.mapping, {entity: moment.isoformat() for entity, moment in world.watermark.items()})
    statement = sql.SQL("SELECT a.person, a.id, coalesce({empty}, false) FROM {source} a WHERE {before}")
    return {
        (int(person), audit): nothing
        for source in sources(world.crm, world.mapping, persons, world.links.of(persons))
        for person, audit, nothing in world.crm.rows(statement.format(empty=empty, source=source, before=limit))
    }


def compare(source: dict[Key, bool], batch: dict[int, list[str]], world: World, aside: set[Key], found: Verification) -> list[Key]:
    """The batch's candidates that have neither a row of ours, nor a live one, nor another outcome; rows beyond them are counted as stale."""
    ours = our_keys(world, batch)
    found.stale_keys += sorted(ours - source.keys())
    open_keys = [key for key, empty in source.items() if not empty and key not in ours and key not in aside]
    if not open_keys:
        return []
    live = live_keys(world, batch)
    return [key for key in open_keys if key not in live]


def our_keys(world: World, batch: dict[int, list[str]]) -> set[Key]:
    """Keys of the account's rows of ours, read off their ids, for these persons."""
    query = """SELECT id FROM contact_activity_logs
               WHERE id BETWEEN %s AND %s AND account_id = %s AND origin = 'crm_migration'"""
    first, last = UUID(row_id(min(batch), 0)), UUID(row_id(max(batch), (1 << 62) - 1))
    rows = world.cdp.rows(query, (first, last, world.account_id))
    return {key for key in (key_of(row[0]) for row in rows) if key[0] in batch}


def key_of(identifier: UUID) -> Key:
    return identifier.int >> 80, identifier.int & ((1 << 62) - 1)


def live_keys(world: World, batch: dict[int, list[str]]) -> set[Key]:
    """Keys that the live sync holds."""
    person_of = {contact: person for person, contacts in batch.items() for contact in contacts}
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
