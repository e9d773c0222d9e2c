"""The boundary audit: what both systems hold beyond the watermark and close around it, and whether live sync takes over without gap or overlap.

A *gap* is an audit beyond the watermark that no live row shows; an *overlap* a live row that shows an audit from before the watermark.
A live row shows an audit where it names it, or names none, has its contact and entity, and follows it within the seam's lag.
It goes with the run's verification (reconcile.py), which reads all of the account's audits and hands on those that are close.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from migration.mapping import ENTITY_OF_ROLE
from migration.ours import Key, There
from migration.pipeline.flow import World

AROUND = timedelta(hours=24)  # "close around": this long before the watermark
EXAMPLES = 5
SPARSE_FROM, SPARSE_SHARE = 10, 0.5  # from ten audits beyond the watermark on, live rows for fewer than half are no running sync


Near = tuple[int, int, str, datetime]  # CRM person id, audit id, class, time: an audit from `since` on


class Audit(NamedTuple):
    person: int
    id: int
    at: datetime


class Shown(NamedTuple):
    """A live row."""

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


def begun(world: World) -> Boundary:
    """A boundary audit that has compared nobody yet."""
    return Boundary({entity: Seam(moment.isoformat()) for entity, moment in world.watermark.items()})


def since(world: World) -> datetime:
    """The earliest moment that is close to any entity's watermark."""
    return min(world.watermark.values()) - AROUND


def compare_both(near: Iterable[Near], there: dict[int, There], world: World, found: Boundary) -> None:
    """Compare some contacts: their audits from `since` on, and the live rows that stand there."""
    in_crm, live = by_entity(near, world), live_rows(there)
    for entity, seam in found.seams.items():
        compare(in_crm[entity], live[entity], world.watermark[entity], world.seam_lag, seam)


def by_entity(near: Iterable[Near], world: World) -> dict[str, list[Audit]]:
    """Entity -> audits beyond its watermark or close before it, with each contact they concern; oldest first."""
    found: dict[str, list[Audit]] = defaultdict(list)
    for person, audit_id, class_name, at in near:
        entity = ENTITY_OF_ROLE[world.mapping.role_of[class_name]]
        if at >= world.watermark[entity] - AROUND:
            found[entity].append(Audit(person, audit_id, at))
    for each in found.values():
        each.sort(key=lambda one: (one.at, one.id))
    return found


def live_rows(there: dict[int, There]) -> dict[str, list[Shown]]:
    """Entity -> live rows of these persons' contacts, oldest first."""
    found: dict[str, list[Shown]] = defaultdict(list)
    for person, each in there.items():
        for row in each.live:
            if row.at is not None:
                found[row.entity].append(Shown(person, row.audit, row.at))
    for rows in found.values():
        rows.sort(key=lambda row: row.at)
    return found


def gaps(near: Iterable[Near], there: dict[int, There], world: World) -> set[Key]:
    """Of some contacts' audits beyond the watermark those that no live row shows."""
    in_crm, live = by_entity(near, world), live_rows(there)
    return {
        (each.person, each.id)
        for entity, watermark in world.watermark.items()
        for each, shown in matched(in_crm[entity], live[entity], world.seam_lag)
        if each.at >= watermark and not shown
    }


def compare(audits: list[Audit], live: list[Shown], watermark: datetime, lag: timedelta, seam: Seam) -> None:
    """Match live rows to audits one to one, and count what is left on either side."""
    seam.cdp_live += len(live)
    for each, shown in matched(audits, live, lag):
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


def matched(audits: list[Audit], live: list[Shown], lag: timedelta) -> Iterator[tuple[Audit, bool]]:
    """Each audit, and whether a live row shows it; one that names none shows one audit."""
    named = {(row.person, row.audit) for row in live if row.audit is not None}
    unnamed: dict[int, list[datetime]] = defaultdict(list)
    for row in live:
        if row.audit is None:
            unnamed[row.person].append(row.at)
    for each in audits:
        yield each, (each.person, each.id) in named or taken(unnamed[each.person], each.at, lag)


def taken(moments: list[datetime], at: datetime, lag: timedelta) -> bool:
    """Take the first of `moments` that follows `at` within the lag, if there is one."""
    for place, moment in enumerate(moments):
        if at <= moment <= at + lag:
            del moments[place]
            return True
    return False
