"""One chunk, top to bottom. Only this file imports the steps."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID, uuid4

from migration.cdp import Cdp
from migration.crm import Crm
from migration.mapping import Mapping, Role
from migration.pipeline.actors import ActorMapper, map_actors
from migration.pipeline.associations import Names, enrich_associations
from migration.pipeline.categories import CategoryMapper, map_categories
from migration.pipeline.contacts import Contacts, resolve_contacts
from migration.pipeline.extract import extract
from migration.pipeline.load import Target, doubtful, every_row, foresee, load, mark_unstorable, stage
from migration.pipeline.lookups import namings, organisations
from migration.pipeline.problems import Unstorable
from migration.pipeline.queries import Selection
from migration.pipeline.records import Candidate, Links, Receipt
from migration.pipeline.rows import RowWriter
from migration.pipeline.verify import verify

VERSION = 1  # raised by hand whenever the same audits would become other rows


class LinkReader(Protocol):
    """The LinkIndex, as a chunk asks it."""

    def of(self, persons: Iterable[int]) -> Links: ...


def silent(name: str) -> None:
    """A checkpoint nobody listens to."""


@dataclass
class World:
    """What a worker holds while it works on one run: the doors, and everything that is the same for all of the run's chunks."""

    crm: Crm
    cdp: Cdp
    account_id: UUID
    organisation: int
    organisation_attribute: str
    run_id: UUID
    writes: bool
    mapping: Mapping
    revision: int
    watermark: dict[str, datetime]
    seam_lag: timedelta
    rivals: dict[int, set[int]]
    links: LinkReader
    actors: ActorMapper
    categories: CategoryMapper
    waived: frozenset[tuple[int, int, str]] = frozenset()  # (person, audit, reason) that staff waived
    enriches: bool = False  # capability F
    decisions: dict[tuple[Role, int, str, int | None], str] = field(default_factory=dict)
    checkpoint: Callable[[str], None] = field(default=silent)  # called between phases: heartbeat, pause, tests' faults

    def close(self) -> None:
        self.crm.close()
        self.cdp.close()


@dataclass(frozen=True)
class Work:
    """One chunk as the pipeline sees it: whose contacts, which audits, and under which fence."""

    chunk: UUID
    token: int
    generation: int
    person_from: int
    person_to: int
    audit_from: int | None = None
    audit_to: int | None = None
    pairs: list[tuple[int, int]] | None = None  # single candidates, instead of the whole range
    retried: list[tuple[int, int, str]] = field(default_factory=list)  # of them, those quarantined before, with the reason


def process_chunk(work: Work, world: World) -> Receipt:
    """Move one chunk: every candidate ends in exactly one outcome, in one CDP transaction. A dry run does all but write."""
    staged = map_and_stage(work, world)
    world.checkpoint("staged")
    target = aim(work, world)
    if not world.writes:
        return foresee(world.cdp, target, staged)
    receipt = load(world.cdp, target, staged, world.checkpoint)
    world.checkpoint("committed")
    return verify(receipt, world.cdp, target) if receipt is staged else receipt


def remap(pairs: list[tuple[int, int]], world: World) -> Receipt:
    """Map single candidates (CRM person id, audit id) again from scratch, and foresee what loading them would change."""
    persons = [person for person, _ in pairs]
    work = Work(uuid4(), 0, 0, min(persons), max(persons), pairs=pairs)
    return foresee(world.cdp, aim(work, world), map_and_stage(work, world))


def of_another_tenant(persons: list[int], world: World) -> set[int]:
    """Those of the CRM persons whose own audits, read afresh, name organisations, and not the account's."""
    if not persons:
        return set()
    with world.crm.snapshot() as connection:
        named = organisations(connection, world.crm.shape, world.mapping, persons, world.organisation_attribute, own=world.organisation)
    contacts = Contacts(world.organisation, {}, named=named)
    return {person for person in persons if contacts.is_of_another(person)}


def map_and_stage(work: Work, world: World) -> Receipt:
    """Stage the chunk's rows in the CDP session; nothing but a batch of candidates is ever held in memory."""
    # Asked for beforehand: while the COPY into staging runs, its session can do nothing else.
    if work.pairs is None:
        claims = world.cdp.contacts(world.account_id, work.person_from, work.person_to)
    else:
        claims = world.cdp.contacts_of(world.account_id, sorted({person for person, _ in work.pairs}))
    retried = Counter(reason for _, _, reason in work.retried)
    rows = RowWriter(str(world.account_id), world.mapping, world.revision, world.crm.shape)
    try:
        with closing(mapped(work, world, claims)) as candidates:
            return stage(candidates, world.cdp, rows, world.waived, Receipt(retried=retried))
    except Unstorable:  # in which rows, only jsonb itself can tell
        with closing(mapped(work, world, claims, probing=True)) as candidates:
            return stage(candidates, world.cdp, rows, world.waived, Receipt(retried=retried))


def mapped(work: Work, world: World, claims: dict[int, list[str]], *, probing: bool = False) -> Generator[Candidate]:
    """The chunk's candidates with all that the steps decide, read in one snapshot of the CRM."""
    # A person whom no contact of the account claims any more has no candidates here.
    pairs = [(person, audit) for person, audit in work.pairs if person in claims] if work.pairs is not None else None
    persons = sorted({person for person, _ in pairs}) if pairs is not None else list(claims)
    selection = Selection(persons, work.audit_from, work.audit_to, pairs)
    links = world.links.of(persons)
    with world.crm.snapshot() as connection:
        named = organisations(
            connection, world.crm.shape, world.mapping, selection.persons, world.organisation_attribute,
            own=world.organisation, contested=world.rivals,
        )  # fmt: skip
        contacts = Contacts(world.organisation, claims, world.rivals, named)
        names = Names(namings(connection, world.crm.shape, world.mapping, links), world.decisions) if world.enriches else None
        world.checkpoint("reading")
        # Closed first where somebody stops listening: a COPY left open would take the session with it.
        with closing(extract(connection, world.crm.shape, world.mapping, selection, links, world.watermark)) as extracted:
            candidates = mark_unstorable(extracted, every_row, world.mapping) if probing else extracted
            resolved = resolve_contacts(candidates, contacts)
            if world.crm.shape.changes != "jsonb":  # which holds nothing that jsonb refuses
                resolved = mark_unstorable(resolved, doubtful, world.mapping)
            attributed = map_actors(resolved, world.actors)
            categorised = map_categories(attributed, world.categories)
            yield from enrich_associations(categorised, names)


def aim(work: Work, world: World) -> Target:
    """Where the chunk's rows go."""
    return Target(
        run=world.run_id,
        account=world.account_id,
        chunk=work.chunk,
        token=work.token,
        generation=work.generation,
        lag=world.seam_lag,
        waived=world.waived,
        is_secret=world.mapping.is_secret,
        part_of_contact=(work.audit_from, work.audit_to, work.pairs) != (None, None, None),
    )
