"""The boundary audit: what both systems hold beyond the watermark and close around it, and whether live sync takes over without gap or overlap.

A *gap* is an audit beyond the watermark that no live row shows; an *overlap* a live row that shows an audit from before the watermark.
A live row shows an audit where it names it, or names none, has its contact and entity, and follows it within the seam's lag.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from psycopg import sql

from migration.mapping import ENTITY_OF_ROLE
from migration.pipeline.flow import World
from migration.pipeline.queries import occurred_at
from migration.planning import sources

PERSONS_AT_ONCE = 500
AROUND = timedelta(hours=24)  # "close around": this long before the watermark
EXAMPLES = 5
SPARSE_FROM, SPARSE_SHARE = 10, 0.5  # from ten audits beyond the watermark on, live rows for fewer than half are no running sync


class Audit(NamedTuple):
    person: int
    id: int
    at: datetime


class Live(NamedTuple):
    person: int
    audit: int | None
    at: datetime


@dataclass
class Seam:
    """One entity's seam. Counts are of (audit, contact) pairs in the CRM and of live rows in the CDP."""

    watermark: str
    crm_before: int = 0  # within AROUND before the watermark
    crm_beyond: int = 0
    cdp_live: int = 0
    matched: int = 0
    gaps: int = 0
    overlaps: int = 0
    examples: list[str] = field(default_factory=list)

    def example(self, sentence: str) -> None:
        if len(self.examples) < EXAMPLES:
            self.examples.append(sentence)

    @property
    def sparse(self) -> bool:
        """Live rows are too few for a sync that runs."""
        return self.cdp_live > 0 and self.crm_beyond >= SPARSE_FROM and self.matched < SPARSE_SHARE * self.crm_beyond


@dataclass
class Boundary:
    seams: dict[str, Seam]

    def as_json(self) -> dict[str, object]:
        """By entity, as stored with the run and printed by --json."""
        return {entity: vars(seam) for entity, seam in self.seams.items()}

    def warnings(self) -> list[str]:
        """Seams that do not look like a running live sync, in words."""
        return [
            f"Live sync of {entity} activity seems not to run: since the watermark {seam.watermark} the CRM has {seam.crm_beyond} audits, "
            f"the CDP live rows for {seam.matched} of them. Set the watermark by hand if the first live rows were a trial."
            for entity, seam in self.seams.items()
            if seam.sparse
        ]


def audit(world: World, pulse: Callable[[], None]) -> Boundary:
    """Compare both systems, some hundred contacts at a time."""
    found = Boundary({entity: Seam(moment.isoformat()) for entity, moment in world.watermark.items()})
    persons = world.cdp.persons(world.account_id)
    for start in range(0, len(persons), PERSONS_AT_ONCE):
        pulse()
        batch = persons[start : start + PERSONS_AT_ONCE]
        in_crm, live = near_audits(world, batch), live_rows(world, batch)
        for entity, seam in found.seams.items():
            compare(in_crm[entity], live[entity], world.watermark[entity], world.seam_lag, seam)
    return found


def near_audits(world: World, persons: list[int]) -> dict[str, list[Audit]]:
    """Entity -> audits beyond its watermark or close before it, with each contact they concern; oldest first."""
    classes = {name: ENTITY_OF_ROLE[role] for name, role in world.mapping.role_of.items() if role in ENTITY_OF_ROLE}
    earliest = (min(world.watermark.values()) - AROUND).isoformat()
    statement = sql.SQL(
        "SELECT a.person, a.id, a.auditable_type, {at} FROM {source} a WHERE {at} >= {earliest}::timestamptz AND {at} < 'infinity'"
    )
    found: dict[str, list[Audit]] = defaultdict(list)
    for source in sources(world.crm, world.mapping, persons, world.links.of(persons)):
        rows = world.crm.rows(statement.format(at=occurred_at(world.crm.shape), source=source, earliest=sql.Literal(earliest)))
        for person, audit_id, name, at in rows:
            if at >= world.watermark[classes[name]] - AROUND:
                found[classes[name]].append(Audit(int(person), audit_id, at))
    for each in found.values():
        each.sort(key=lambda one: (one.at, one.id))
    return found


def live_rows(world: World, persons: list[int]) -> dict[str, list[Live]]:
    """Entity -> live rows of these persons' contacts, oldest first."""
    claims = world.cdp.contacts(world.account_id, persons[0], persons[-1])
    person_of = {contact: person for person, contacts in claims.items() for contact in contacts}
    query = """SELECT contact_id::text, split_part(category, '/', 1), source_audit_id, occurred_at FROM contact_activity_logs
               WHERE contact_id = ANY(%s::uuid[]) AND origin = 'live' AND isfinite(occurred_at) ORDER BY occurred_at, id"""
    found: dict[str, list[Live]] = defaultdict(list)
    for contact, entity, audit_id, at in world.cdp.rows(query, (list(person_of),)):
        found[entity].append(Live(person_of[contact], audit_id, at))
    return found


def compare(audits: list[Audit], live: list[Live], watermark: datetime, lag: timedelta, seam: Seam) -> None:
    """Match live rows to audits one to one, and count what is left on either side."""
    named = {(row.person, row.audit) for row in live if row.audit is not None}
    unnamed: dict[int, list[datetime]] = defaultdict(list)
    for row in live:
        if row.audit is None:
            unnamed[row.person].append(row.at)
    seam.cdp_live += len(live)
    for each in audits:
        shown = (each.person, each.id) in named or taken(unnamed[each.person], each.at, lag)
        beyond = each.at >= watermark
        seam.crm_beyond += beyond
        seam.crm_before += not beyond
        seam.matched += shown and beyond
        if beyond and not shown:
            seam.gaps += 1
            seam.example(f"gap: audit {each.id} of CRM person {each.person} at {each.at.isoformat()} has no live row")
        elif shown and not beyond:
            seam.overlaps += 1
            seam.example(
                f"overlap: audit {each.id} of CRM person {each.person} at {each.at.isoformat()} is before the watermark and live too"
            )


def taken(moments: list[datetime], at: datetime, lag: timedelta) -> bool:
    """Take the first of `moments` that follows `at` within the lag, if there is one."""
    for place, moment in enumerate(moments):
        if at <= moment <= at + lag:
            del moments[place]
            return True
    return False
