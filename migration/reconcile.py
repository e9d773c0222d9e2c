"""Reconciler, for the whole run: every candidate key read afresh from the source and looked for in the CDP, and a sample mapped again.

What it cannot see is written in docs/verification.md.
"""

import math
import random
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from uuid import UUID

from migration import boundary, ours
from migration.boundary import Boundary
from migration.ledger import Ledger
from migration.meanwhile import Meanwhile
from migration.models import QuarantinedCandidate, Run, Waiver
from migration.ours import Key, There
from migration.pipeline.flow import World, of_another_tenant, remap
from migration.planning import next_size
from migration.shares import Shares
from migration.source_audits import Told, says_nothing, source_ids, source_keys
from migration.states import Reason

PERSONS_AT_FIRST, PERSONS_AT_ONCE = 2000, 5000  # the more, the fewer pages of the source are read twice
PERSONS_BY_KEY = 500  # of whom every single key is held
AUDITS_AT_ONCE = 100_000  # of each its id is held as text, the source's and ours, and of those close to the watermark time and class
SAMPLE = 1000
EXAMPLES = 10
NOBODY, NOTHING = Told(), There()


@dataclass
class Verification:
    """What verification found; `agrees` is the verdict."""

    candidates: int = 0  # counted afresh on the source
    accounted: int = 0  # of them, how many the ledger has
    rows: int = 0  # of ours, of people whom the account has
    missing: int = 0  # candidates with no row, no live row and no other outcome
    sampled: int = 0
    differing: int = 0  # sampled rows that are not what mapping them again gives
    examples: list[str] = field(default_factory=list)
    agrees: bool = False
    stale_keys: list[Key] = field(default_factory=list)
    misfit_rows: set[str] = field(default_factory=set)
    lacking: list[Key] = field(default_factory=list)
    excused: list[Key] = field(default_factory=list)  # without a row, and not by this run's quarantine but by a waiver
    uneven: set[int] = field(default_factory=set)  # numbers of chunks that do not account for what the source has there
    lost: set[int] = field(default_factory=set)  # numbers of chunks that are done, and of which the CDP has no receipt any more
    tried_again: set[int] = field(default_factory=set)  # numbers of chunks of whose candidates some were tried again

    @property
    def stale(self) -> int:
        """Rows of ours that are candidates no more, or another tenant's by the contact's own audits."""
        return len(self.stale_keys)

    @property
    def misfits(self) -> int:
        """Rows of ours under another account, or under an id that is not made of their audit."""
        return len(self.misfit_rows)

    @property
    def may_be_mended(self) -> bool:
        """Whether loading chunks again can change what disagrees: a row that nobody would write is not written over either."""
        return bool(self.missing or self.differing or self.uneven or self.lost)

    def as_json(self) -> dict[str, object]:
        """What is stored with the run; the keys themselves are kept elsewhere."""
        names = ("candidates", "accounted", "missing", "stale", "sampled", "differing", "misfits", "examples", "agrees")
        return {name: getattr(self, name) for name in names} | {"uneven": len(self.uneven), "lost": len(self.lost)}

    def example(self, sentence: str) -> None:
        if len(self.examples) < EXAMPLES:
            self.examples.append(sentence)


def verify_run(run: Run, world: World, ledger: Ledger, checkpoint: Callable[[str], None]) -> tuple[Verification, Boundary]:
    """Verify a run against a fresh read of the source, and audit its boundary by the same reading.

    A dry run has no rows to look for: there the fresh count alone is compared.
    """
    found, seams, shares = Verification(accounted=ledger.outcomes), boundary.begun(world), Shares(run)
    sample = Sampler(SAMPLE, run.uuid)
    aside = set_aside(run)
    for batch in batches(world, heavy_ends(run)):
        checkpoint("verifying")
        asked = Meanwhile(partial(source_ids, world, list(batch.claims), world.links.of(batch.claims)))
        there = ours.of_contacts(world.cdp, world.account_id, batch.claims)
        source = asked.result()
        for person, told in source.items():
            found.candidates += told.number
            shares.count(person, told.number)
        for person in sorted(source):
            ids = source[person].ids
            sample.offer(person, less(ids, person, aside) if person in aside.persons else ids)
        for person in sorted(source.keys() | there.keys()):
            near, stands = source.get(person, NOBODY).near(person), there.get(person, NOTHING)
            if near or stands.live:
                boundary.compare_both(near, {person: stands}, world, seams)
        if run.writes:
            found.lacking += look_closely(source, there, batch, world, aside, found)
    if run.writes:
        look_for_strays(run, world, ledger, found)
        found.missing = len(found.lacking)
        for person, audit in found.lacking[:EXAMPLES]:
            found.example(f"audit {audit} of CRM person {person} has no row and no other outcome")
        found.lost = ours.without_receipt(world.cdp, run)
        for number in sorted(found.lost)[:EXAMPLES]:
            found.example(f"chunk {number} is done, and the CDP has no receipt of it")
        look_at_excused(run, ledger, found)
        map_again(sample.chosen, world, found)
    found.uneven, found.tried_again = shares.uneven(), set(shares.tried_again.chunks)
    found.agrees = not (found.may_be_mended or found.misfits) and found.candidates == found.accounted
    return found, seams


def look_for_strays(run: Run, world: World, ledger: Ledger, found: Verification) -> None:
    """Rows of ours whose person left the account. Not looked for where there can be none: all that the account's one run loaded was found.

    What it loaded before chunks were done anew the ledger does not tell any more.
    """
    only_run = ours.runs_of(world.cdp, run.account) == {run.uuid} and not run.chunks.filter(generation__gt=1).exists()
    if not only_run or found.rows != ledger.loaded:
        others, misfits = ours.strays(world.cdp, run.account)
        found.stale_keys = sorted({*found.stale_keys, *others})
        add_misfits(misfits, found)


def add_misfits(rows: list[str], found: Verification) -> None:
    for row in rows:
        if row not in found.misfit_rows:
            found.example(f"row {row} is under an id or an account that is not its own")
    found.misfit_rows.update(rows)


@dataclass(frozen=True)
class Aside:
    """Candidates that have an outcome without a row."""

    quarantined: set[Key]  # by this run
    waived: set[Key]  # by a person, in this run or before
    of_others: set[int]  # persons, some of whose candidates are or were another tenant's

    @cached_property
    def persons(self) -> set[int]:
        return {person for person, _ in self.quarantined | self.waived}


def set_aside(run: Run) -> Aside:
    quarantined = list(QuarantinedCandidate.objects.filter(run=run).values_list("person_id", "audit_id", "reason"))
    waived = list(Waiver.objects.filter(account=run.account).values_list("person_id", "audit_id", "reason"))
    return Aside(
        {(person, audit) for person, audit, _ in quarantined},
        {(person, audit) for person, audit, _ in waived},
        {person for person, _, reason in [*quarantined, *waived] if reason == Reason.TENANT_MISMATCH},
    )


@dataclass(frozen=True)
class Batch:
    """A range of CRM person ids, both ends inclusive, and who of the account's contacts claims which person in it."""

    first: int
    last: int
    claims: dict[int, list[str]]


def batches(world: World, ends: Sequence[int] = (), *, most: int | None = None) -> Iterator[Batch]:
    """Some of the account's persons at a time; a batch ends at the latest with one of `ends`, which ascend.

    `most` so many, or else as many as follow from how long the last ones took.
    """
    persons = world.cdp.persons(world.account_id)
    size, first, start = most or PERSONS_AT_FIRST, 0, 0
    while start < len(persons):
        begun = time.monotonic()
        following = bisect_left(ends, first)
        last = min([persons[min(start + size, len(persons)) - 1], *ends[following : following + 1]])
        yield Batch(first, last, world.cdp.contacts(world.account_id, first, last))
        first, start = last + 1, bisect_right(persons, last)
        size = most or next_size(size, time.monotonic() - begun, PERSONS_AT_ONCE)


def heavy_ends(run: Run) -> list[int]:
    """Where verification must end a batch at the latest, for its memory's sake: about every AUDITS_AT_ONCE audits, as planning counted them."""
    ends, audits = [], 0
    for last, expected in run.chunks.filter(pairs__isnull=True).order_by("person_to").values_list("person_to", "expected"):
        audits += expected
        if audits >= AUDITS_AT_ONCE:
            ends.append(last)
            audits = 0
    return ends


def look_closely(
    source: dict[int, Told], there: dict[int, There], batch: Batch, world: World, aside: Aside, found: Verification
) -> list[Key]:
    """Where a person's candidates are not exactly our rows, see key by key what is missing, stale, live, or has another outcome."""
    found.rows += sum(each.ids.count(",") + 1 for each in there.values() if each.ids)
    for person in (person for person, each in there.items() if each.away):
        look_at_misfits(person, batch, world, found)
    strangers = of_another_tenant([person for person in there if person in aside.of_others], world)
    doubtful = [p for p in source.keys() | there.keys() if p in strangers or there.get(p, NOTHING).ids != source.get(p, NOBODY).ids]
    lacking: list[Key] = []
    for start in range(0, len(doubtful), PERSONS_BY_KEY):
        persons = doubtful[start : start + PERSONS_BY_KEY]
        rows = {key for person in persons for key in ours.keys_of(person, there.get(person, NOTHING).ids)}
        candidates = source_keys(world, persons)
        found.stale_keys += [key for key in rows if key not in candidates or key[0] in strangers]
        without = compare(candidates, rows, {p: there[p] for p in persons if p in there}, aside)
        nothing = says_nothing(world, [audit for _, audit in without])
        for key in without:
            if key[1] not in nothing:
                (found.excused if key in aside.waived else lacking).append(key)
    return lacking


def look_at_misfits(person: int, batch: Batch, world: World, found: Verification) -> None:
    """Rows of ours that stand at a person's contacts and are not that person's. Where they are another's of the account they are stale there."""
    others, misfits = ours.away(world.cdp, world.account_id, batch.claims[person], person)
    found.stale_keys += others
    add_misfits(misfits, found)


def less(ids: str, person: int, aside: Aside) -> str:
    """A person's ids without those that have another outcome."""
    keys = ((text, (person, ours.audit_of(text))) for text in ids.split(",") if text)
    return ",".join(text for text, key in keys if key not in aside.quarantined and key not in aside.waived)


def compare(source: dict[Key, bool], rows: set[Key], there: dict[int, There], aside: Aside) -> list[Key]:
    """The candidates that have neither a row of ours, nor a live one, nor a place in this run's quarantine."""
    live = {(person, row.audit) for person, each in there.items() for row in each.live}
    return [key for key, empty in source.items() if not (empty or key in rows or key in aside.quarantined or key in live)]


def look_at_excused(run: Run, ledger: Ledger, found: Verification) -> None:
    """Of candidates that were ever waived no more may be without a row than this run waived: the others were mended since, and had one."""
    waived = ledger.waived.total() - run.quarantined.filter(waiver__isnull=False).count()
    if (surplus := len(found.excused) - waived) > 0:
        found.missing += surplus
        found.lacking += found.excused  # which of them, only loading them again can tell
        found.example(f"{len(found.excused)} candidates that were waived once have no row, of which this run waived {waived}")


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
    """A fair sample of a stream of unknown length, the same for the same run.

    Source: K.-H. Li, "Reservoir-sampling algorithms of time complexity O(n(1 + log(N/n)))", 1994, algorithm L: what is not chosen is
    stepped over, not looked at.
    """

    def __init__(self, size: int, seed: UUID) -> None:
        self.size, self.seen, self.next, self.weight = size, 0, 0, 1.0
        self.chosen: list[Key] = []
        self.random = random.Random(seed.int)  # noqa: S311 - a sample, no secret  # nosec B311

    def offer(self, person: int, ids: str) -> None:
        """A person's candidates, as `source_ids` gives them."""
        number = ids.count(",") + 1 if ids else 0
        if self.next < self.seen + number:
            each = ids.split(",")
            while self.next < self.seen + number:
                self.take((person, ours.audit_of(each[self.next - self.seen])))
        self.seen += number

    def take(self, key: Key) -> None:
        """Choose the key, once the sample is full in the place of another; and decide which comes next."""
        if len(self.chosen) < self.size:
            self.chosen.append(key)
        else:
            self.chosen[self.random.randrange(self.size)] = key
        self.next += 1
        if len(self.chosen) == self.size:
            self.weight *= math.exp(math.log(1.0 - self.random.random()) / self.size)
            self.next += math.floor(math.log(1.0 - self.random.random()) / math.log1p(-self.weight))
