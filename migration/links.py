"""LinkIndex: deal-contact links over time, built once for each source from the audits of join rows, kept, and extended.

First build: join rows in the order of their id, some thousand audits at a time, through the gem's index (auditable_type, auditable_id);
a cursor makes it resumable, and no more than one batch is ever in memory. Extension: the audits since, by primary key, name the join rows
that changed; their whole history is read again and replaces what is kept of them. Since ids commit out of order, an extension begins a
window before the end of the last one.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import Model, Q
from psycopg import sql

from migration import events, ticks
from migration.crm import Crm
from migration.doors import Outage
from migration.link_history import History
from migration.link_reader import FOREVER
from migration.link_source import Page, Source
from migration.mapping import Mapping, Role
from migration.models import DealLink, JoinConcern, LinkIndex, LinkOddity

# Raised by hand whenever the same audits would become other links. 2: rows whose id is no number are links too. 3: an associated contact tells the rows
# of two tables apart. 4: an update after the destroy concerns the row's contact; a contact that leaves a row without a deal leaves none; unknown actions
# belong to the associated deal. 5: a deal that an update states, and does not change, is the row's, whatever earlier audits told; and what
# stands beside a number of any exponent is read.
READING = 5
LAG = timedelta(hours=6)  # the longest transaction of the CRM that an extension must still find
WAITS, WAIT_SECONDS = 100, 0.2  # for another worker's extension
SAME_PAGES = 20  # to look at between two pulses, which take longer than a page does that is as it was
KEPT = (DealLink, JoinConcern, LinkOddity)
QUICK_SECONDS = 0.2  # a count of settled audits that takes no longer is made each time
SELDOM = 100
BEGUN_AGAIN = (
    "Audits of join rows came or went where ids were settled long ago: the index is built anew. Runs that were verified since {since} may rest on "
    "links that were wrong: run their accounts again."
)
Pulse = Callable[[], None]


def key_of(mapping: Mapping, address: str) -> str:
    """What a link index is kept under: the CRM's address and everything of the mapping that links rest on."""
    joins = {name: [ends.deal, ends.contact, ends.company] for name, ends in mapping.joins.items()}
    meaning = [READING, address, sorted(joins.items()), sorted(mapping.classes(Role.DEAL)), sorted(mapping.classes(Role.CONTACT))]
    return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()


def up_to_date(mapping: Mapping, crm: Crm, address: str, *, pulse: Pulse) -> LinkIndex:
    """The source's link index, built, or extended by every audit committed until now; asked at the planning of each run and before its verification.

    `pulse` is called between batches. Raises Outage where another worker is building it.
    """
    index, _ = LinkIndex.objects.get_or_create(key=key_of(mapping, address))
    asked = ticks.now()
    with only_builder(index, pulse):
        index.refresh_from_db()
        if index.built and index.covered_at and index.covered_at > asked:
            return index  # while this worker waited for its turn, another one began to look and has ended
        now, source = ticks.now(), Source(mapping, crm)
        if not source.classes:
            mark(index, source.highest_audit(), now)
            return index
        last = index.counted_at
        if index.built and is_count_due(index, now) and count(index, source, index.settled_to, now) != index.settled_audits:
            forget(index, since=last, now=now)  # a restored backup, a late import, a purge
        if index.built:
            extend(index, source, now=now, pulse=pulse)
        else:
            build(index, source, now=now, pulse=pulse)
    return index


@contextmanager
def only_builder(index: LinkIndex, pulse: Pulse) -> Iterator[None]:
    """One worker builds; the others wait a while for the usual extension, which takes milliseconds, then give the reason."""
    with connection.cursor() as cursor:
        for _ in range(WAITS):
            cursor.execute("SELECT pg_try_advisory_lock(hashtext('migration_linkindex'), %s)", (index.pk,))
            if cursor.fetchone()[0]:
                break
            pulse()
            time.sleep(WAIT_SECONDS)
        else:
            raise Outage(f"Another worker is building the link index (join row {index.cursor} so far): wait for it.")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(hashtext('migration_linkindex'), %s)", (index.pk,))


def build(index: LinkIndex, source: Source, *, now: datetime, pulse: Pulse) -> None:
    """The first build, or the rest of one that was broken off."""
    if index.building_to is None:
        index.building_to, index.building_at = source.highest_audit(), now
        index.save(update_fields=["building_to", "building_at"])
    while (batch := source.next_batch(index.cursor)) is not None:
        pulse()
        upper, selections = batch
        histories = [source.histories(which) for which in selections]
        with transaction.atomic():
            clear(index, index.cursor, upper)
            for each in histories:
                keep(index, each)
            index.cursor = upper
            index.save(update_fields=["cursor"])
    pulse()
    with transaction.atomic():  # what was kept of odd rows serves until all of them are there again
        clear(index, index.cursor, FOREVER)
        for which in source.odd():
            replace(index, source.histories(which))
    # What was written while the build went on is the extension's to find, from where the build began.
    mark(index, index.building_to, index.building_at or now)
    extend(index, source, now=now, pulse=pulse)


def is_count_due(index: LinkIndex, now: datetime) -> bool:
    """Whether to count the settled audits: always where that is quick, else so seldom that a hundredth of the time goes into it."""
    if index.counted_at is None or index.counting_seconds < QUICK_SECONDS:
        return True
    return not timedelta(0) <= now - index.counted_at < SELDOM * timedelta(seconds=index.counting_seconds)


def count(index: LinkIndex, source: Source, below: int, now: datetime) -> int:
    """Count the settled audits; the index remembers when that was, and how long it took."""
    began = time.monotonic()
    audits = source.settled(below)
    index.counted_at, index.counting_seconds = now, time.monotonic() - began
    index.save(update_fields=["counted_at", "counting_seconds"])
    return audits


def forget(index: LinkIndex, *, since: datetime | None, now: datetime) -> None:
    """Begin the first build again; what is kept is replaced batch by batch, and serves until then."""
    moment = f"{since:%Y-%m-%d %H:%M} UTC" if since else "it was built"
    events.record("link index begun again", BEGUN_AGAIN.format(since=moment), now=now, by="link index")
    index.built, index.cursor, index.building_to, index.building_at, index.settled_to, index.pages = False, -1, None, None, 0, {}
    index.save(update_fields=["built", "cursor", "building_to", "building_at", "settled_to", "pages"])


def extend(index: LinkIndex, source: Source, *, now: datetime, pulse: Pulse) -> None:
    """Read again the join rows that have audits in what is not settled yet, page by page: those pages that are not as they were at the last look."""
    top = source.highest_audit()
    low: int | None = window_start(index, source, now)
    pages: dict[int, Page] = {}
    while low is not None:
        if len(pages) % SAME_PAGES == 0:
            pulse()
        page = pages[low] = source.page(low, now - LAG)
        if index.pages.get(str(low)) != page.told:
            pulse()
            with transaction.atomic():
                if index.pages.get(str(low)):  # should this look be broken off, the next one reads that page again
                    index.pages[str(low)] = ""
                    index.save(update_fields=["pages"])
                told = cut_off(index, low, page.following or FOREVER)
                also = source.rows_kept_as(map(row_of, told), since=min(pages))
                for which in source.changed_rows(low, page.following or FOREVER, also):
                    replace(index, source.histories(which))
        low = page.following
    lows = list(pages)
    first_recent = next((number for number, low in enumerate(lows) if pages[low].is_recent), len(lows))
    settled_to = lows[max(first_recent - 1, 0)]
    index.pages = {str(low): page.told for low, page in pages.items() if low >= settled_to}
    mark(index, top, now)
    settle(index, source, settled_to, now=now)


def window_start(index: LinkIndex, source: Source, now: datetime) -> int:
    """The audit id below which all is settled: where the last look left it, unless a source that was restored to before holds others there by now."""
    if index.pages:
        first = min(map(int, index.pages))
        if source.page(first, now).told == index.pages[str(first)]:
            return first
    return source.first_since((index.covered_at or now) - LAG, index.covers_to or 0)


def cut_off(index: LinkIndex, low: int, high: int) -> set[int]:
    """Forget what audits with these ids told: a source that was restored has them no more, or others under their ids. Returns whose audits they were.

    Whatever began or ended a link is kept as a concern too, or as an oddity.
    """
    told = {"index": index, "audit_id__gte": low, "audit_id__lt": high}
    rows = {row for model in (JoinConcern, LinkOddity) for row in model._default_manager.filter(**told).values_list("join_row", flat=True)}
    of_rows = DealLink.objects.filter(index=index, join_row__in=rows)
    of_rows.filter(from_audit__gte=low, from_audit__lt=high).delete()
    of_rows.filter(to_audit__gte=low, to_audit__lt=high).update(to_audit=None)
    for model in (JoinConcern, LinkOddity):
        model._default_manager.filter(**told).delete()
    return rows


def settle(index: LinkIndex, source: Source, to: int, *, now: datetime) -> None:
    """Take the ids up to `to` for settled. Only what is new among them is counted, where what lies below was counted before."""
    if 0 < index.settled_to <= to:
        index.settled_audits += source.within(index.settled_to, to)
    else:
        index.settled_audits = count(index, source, to, now)
    index.settled_to = to
    index.save(update_fields=["settled_to", "settled_audits"])


def mark(index: LinkIndex, top: int, now: datetime) -> None:
    index.built, index.covers_to, index.covered_at = True, top, now
    index.save(update_fields=["built", "covers_to", "covered_at", "pages"])


def clear(index: LinkIndex, after: int, upper: int) -> None:
    """Remove what is kept of the join rows with these ids, also of those that have no audits any more."""
    span = Q(join_row__gt=after, join_row__lte=upper)
    span_of_companies = Q(join_row__lt=kept_id(Role.DEAL_COMPANY_JOIN, after), join_row__gte=kept_id(Role.DEAL_COMPANY_JOIN, upper))
    for model in KEPT:
        model._default_manager.filter(span | span_of_companies, index=index).delete()


def replace(index: LinkIndex, histories: dict[tuple[Role, int], History]) -> None:
    """Put these join rows' histories in the place of what is kept of them."""
    for model in KEPT:
        model._default_manager.filter(index=index, join_row__in=[kept_id(*row) for row in histories]).delete()
    keep(index, histories)


def keep(index: LinkIndex, histories: dict[tuple[Role, int], History]) -> None:
    links: list[tuple] = []  # in the order of the models' columns
    concerns: list[tuple] = []
    oddities: list[tuple] = []
    for (role, row), history in histories.items():
        mine = (index.pk, kept_id(role, row))
        if role == Role.DEAL_CONTACT_JOIN:
            links += [(*mine, link.person_id, link.deal_id, link.from_audit, link.to_audit) for link in history.links]
            concerns += [(*mine, each.audit_id, each.person_id, each.deal_id, None, each.moved) for each in history.concerns]
            oddities += [(*mine, audit, "contactless") for audit in history.contactless]
            oddities += [(*mine, audit, "startless") for audit in history.startless]
        else:
            concerns += [(*mine, each.audit_id, None, each.deal_id, each.other_id, "") for each in history.belongings]
    append(DealLink, links)
    append(JoinConcern, concerns)
    append(LinkOddity, oddities)


def append(model: type[Model], rows: list[tuple]) -> None:
    """COPY rows of the model's columns but its id, in their order: what `bulk_create` took longer is in docs/performance.md."""
    columns = sql.SQL(", ").join(sql.Identifier(field.attname) for field in model._meta.concrete_fields if not field.primary_key)
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(model._meta.db_table), columns)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def kept_id(role: Role, row: int) -> int:
    """Deal-company rows are kept under negative ids."""
    return row if role == Role.DEAL_CONTACT_JOIN else -row - 1


def row_of(kept: int) -> int:
    return kept if kept >= 0 else -kept - 1
