"""What publishing a mapping would change: each account mapped under the current revision and under the new document, and compared.

Nothing is written but the count. Activities are told apart by key (CRM person id, audit id); what differs only in the revision's number
is no change.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import uuid4

from django.conf import settings

from migration import budget, links, ours, runs, watermark, worlds
from migration import mapping as mappings
from migration.cdp import Cdp
from migration.crm import Crm
from migration.models import Account, MappingRevision, Run
from migration.people import People
from migration.pipeline.flow import Work, World, mapped
from migration.pipeline.rows import RowWriter
from migration.reconcile import PERSONS_BY_KEY, Batch, batches
from migration.states import RunMode
from migration.usman import Usman

EXAMPLES = 5
Key = tuple[int, int]


@dataclass
class Effect:
    """For one account: activities that would come, go or change, and how many of them are loaded already."""

    organisation: int
    changed: int = 0
    added: int = 0
    removed: int = 0
    loaded: int = 0
    categories: Counter[str] = field(default_factory=Counter)  # "old -> new", where the category changes
    examples: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        return asdict(self) | {"categories": dict(self.categories)}


@dataclass(frozen=True)
class Outlook:
    """An activity as one mapping makes it; two are equal if the rows are."""

    row: bytes
    category: str


class Doors(NamedTuple):
    crm: Crm
    users: Crm  # asked while the other session is in the middle of its COPY
    cdp: Cdp
    usman: Usman


def count(document: object, accounts: Iterable[Account], *, now: datetime, pulse: Callable[[], None]) -> Iterator[Effect]:
    """The effect of publishing `document` on each account. Raises MappingError, Outage or Misconfigured; Refused while gates are closed."""
    mappings.parse(document)
    revision = MappingRevision.objects.order_by("-number").first()
    with opened() as doors:
        for account in accounts:
            yield effect(account, (revision.document if revision else None, document), doors, now=now, pulse=lambda: heed(doors.crm, pulse))


def heed(crm: Crm, pulse: Callable[[], None]) -> None:
    """Between two pieces of reading. Raises Outage where the read budget lets nothing be read now: whoever asked for the count asks again."""
    pulse()
    budget.check_may_read(crm)


@contextmanager
def opened() -> Iterator[Doors]:
    with ExitStack() as stack:
        yield Doors(
            stack.enter_context(closing(Crm())),
            stack.enter_context(closing(Crm())),
            stack.enter_context(closing(Cdp())),
            stack.enter_context(closing(Usman())),
        )


def effect(account: Account, documents: tuple[object, object], doors: Doors, *, now: datetime, pulse: Callable[[], None]) -> Effect:
    """Compare what two mapping documents (the first may be None) make of the account, contact by contact."""
    found = Effect(account.crm_organization_id)
    people = People(None, doors.users, doors.usman)
    before_world, after_world = (world(account, each, doors, people, now=now, pulse=pulse) if each else None for each in documents)
    if after_world is None:
        raise ValueError("there is no new mapping to compare with")
    for batch in batches(after_world, most=PERSONS_BY_KEY):
        pulse()
        before = outlooks(before_world, batch) if before_world else {}
        after = outlooks(after_world, batch)
        loaded = ours.keys(after_world.cdp, after_world.account_id, batch.claims)
        for key in sorted(before.keys() | after.keys()):
            compare(key, before.get(key), after.get(key), key in loaded, found)
    return found


def compare(key: Key, before: Outlook | None, after: Outlook | None, loaded: bool, found: Effect) -> None:
    if before == after:
        return
    found.changed += bool(before and after)
    found.added += before is None
    found.removed += after is None
    found.loaded += loaded
    old, new = before.category if before else "nothing", after.category if after else "nothing"
    if old != new:
        found.categories[f"{old} -> {new}"] += 1
    if len(found.examples) < EXAMPLES:
        found.examples.append(f"audit {key[1]} of CRM person {key[0]}: {old} -> {new}" + (", loaded already" if loaded else ""))


def outlooks(world: World, batch: Batch) -> dict[Key, Outlook]:
    """Every activity that the mapping would make of the batch's candidates."""
    rows = RowWriter(str(world.account_id), world.mapping, 0, world.crm.shape)
    work = Work(uuid4(), 0, 0, batch.first, batch.last)
    found = {}
    for candidate in mapped(work, world, batch.claims):
        if candidate.becomes_row:
            with suppress(Exception):  # a run puts it aside, whatever the mapping
                found[candidate.person_id, candidate.audit_id] = Outlook(rows.line(candidate), candidate.category)
    return found


def world(account: Account, document: object, doors: Doors, people: People, *, now: datetime, pulse: Callable[[], None]) -> World:
    """The world of a dry run that the account would have under this mapping now. Raises Refused where the gates allow none."""
    decision = runs.gate_decision(account, RunMode.DRY_RUN, now=now)
    if decision.refusals:
        raise runs.Refused(" ".join(decision.refusals))
    moments = watermark.resolve(doors.cdp, account, now=now, safety_lag=timedelta(hours=settings.SAFETY_LAG_HOURS))
    address = worlds.address("CRM_DATABASE_URL")
    run = Run(
        uuid=uuid4(),
        account=account,
        mode=RunMode.DRY_RUN,
        mapping_revision=MappingRevision(number=0, document=document),
        capabilities=sorted(decision.capabilities),
        watermark=watermark.as_json(moments),
        link_index=links.up_to_date(mappings.parse(document), doors.crm, address, pulse=pulse),
    )
    rivals: dict[int, set[int]] = {}
    for person, organisation in doors.cdp.rival_claims(account.cdp_id):
        rivals.setdefault(person, set()).add(organisation)
    return worlds.world(run, doors.crm, doors.cdp, people, rivals)
