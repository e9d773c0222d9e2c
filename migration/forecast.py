"""When the accounts of a batch are expected to start and to end, and how long production takes, as far as anything is known to reckon from. Reads only."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median, median_low

from django.db.models import F, OuterRef, Subquery

from migration import progress, revisions, runs, windows
from migration.doors import Misconfigured
from migration.models import Account, BatchItem, Chunk, Event, Run
from migration.pipeline.flow import VERSION
from migration.states import COMPLETE, AtClose, BatchWork, ItemState, RunMode, RunState
from migration.windows import Window
from migration.worlds import systems

RECENT_RUNS = 200  # of which those next in size tell the pace
SIMILAR_RUNS = 9  # of them, at the most


@dataclass(frozen=True)
class Terms:
    """What of a batch decides when its accounts start."""

    window: Window
    at_once: int
    canary: int
    at_close: AtClose


@dataclass(frozen=True)
class Place:
    """When an account is expected to start and to end; None where that cannot be told. `takes` is the work that is left."""

    takes: timedelta | None
    start: datetime | None
    end: datetime | None


def places(works: Sequence[timedelta | None], terms: Terms, *, now: datetime) -> list[Place]:
    """One place for each account's work, in order: as many at once as allowed, the canary first, none begun while the window is closed.

    Where one takes nobody knows how long, its place in the row is taken for good; so what follows is told as late as it may get.
    """
    free: list[datetime | None] = [now] * terms.at_once
    found = []
    for number, takes in enumerate(works):
        if number == terms.canary and number:
            free = [None if None in free else max(each for each in free if each)] * terms.at_once
        known = [each for each in free if each]
        if not known:
            found.append(Place(takes, None, None))
            continue
        start = when_open(terms.window, min(known))
        end = ends(takes, terms, start) if takes is not None else None
        free[free.index(min(known))] = end
        found.append(Place(takes, start, end))
    return found


def window_to_tell(window: Window, start: datetime, end: datetime) -> tuple[datetime, datetime]:
    """What a customer is told: from the start to the closing of the opening in which it is expected to end, else a day later."""
    opening = windows.opening_at(window, end)
    return start, opening.end if opening and opening.end else end + windows.DAY


def when_open(window: Window, moment: datetime) -> datetime:
    """The moment, or the beginning of the next opening."""
    return max(moment, next(windows.openings(window, moment)).start)


def ends(takes: timedelta, terms: Terms, start: datetime) -> datetime:
    return windows.worked_until(terms.window, start, takes) if terms.at_close == AtClose.PAUSE else start + takes


def works(items: Iterable[BatchItem], work: BatchWork, *, now: datetime) -> list[timedelta | None]:
    """What is left to do for each account, those that have ended at nothing."""
    items = list(items)
    paces = Paces.recent()
    candidates = known_candidates([item.account for item in items])
    rehearsed = rehearsals([item.account for item in items], now=now) if work == BatchWork.BOTH else set()

    def work_of(item: BatchItem) -> timedelta | None:
        if item.state not in (ItemState.WAITING, ItemState.RUNNING):
            return timedelta(0)
        number = candidates.get(item.account_id)
        modes = modes_of(work, item.account_id in rehearsed)
        if item.state == ItemState.RUNNING and item.run and item.run.state not in COMPLETE:
            return left_of(item.run, modes, number, paces, now=now)
        return total(paces.takes(mode, number) for mode in modes)

    return [work_of(item) for item in items]


def modes_of(work: BatchWork, rehearsed: bool) -> list[RunMode]:
    """The runs that an account needs."""
    if work == BatchWork.DRY_RUN:
        return [RunMode.DRY_RUN]
    return [RunMode.PRODUCTION] if work == BatchWork.PRODUCTION or rehearsed else [RunMode.DRY_RUN, RunMode.PRODUCTION]


def left_of(run: Run, modes: list[RunMode], number: int | None, paces: "Paces", *, now: datetime) -> timedelta | None:
    """What is left of a run under way, and of the production that follows a dry run."""
    eta = progress.of(run, now=now).eta if run.state == RunState.RUNNING else None
    rest = eta if eta is not None else paces.takes(RunMode(run.mode), number if run.candidates is None else run.candidates)
    follows = [RunMode.PRODUCTION] if run.mode == RunMode.DRY_RUN and RunMode.PRODUCTION in modes else []
    return total([rest, *(paces.takes(mode, number) for mode in follows)])


def total(parts: Iterable[timedelta | None]) -> timedelta | None:
    """The sum; None where a part is not known."""
    known = list(parts)
    return None if None in known else sum((part for part in known if part), timedelta(0))


def production_takes(dry: Run) -> timedelta | None:
    """How long production would take of what a dry run has counted; None for any other run.

    At the pace of the runs next in size, or as much longer than this dry run as production took there, if that is less: of its size there may be none yet.
    """
    if dry.writes or dry.state not in COMPLETE or not dry.candidates or dry.started_at is None or dry.finished_at is None:
        return None
    found = Paces.recent()
    takes = found.takes(RunMode.PRODUCTION, dry.candidates)
    there = median_low(size for size, _ in found.near(RunMode.PRODUCTION, dry.candidates)) if takes else None
    rehearsed, moved = found.takes(RunMode.DRY_RUN, there), found.takes(RunMode.PRODUCTION, there)
    return min(takes, (dry.finished_at - dry.started_at) * (moved / rehearsed)) if takes and rehearsed and moved else takes


Pace = tuple[int, float]  # of one run: its candidates, and how many of them a second


@dataclass(frozen=True)
class Paces:
    """Those of recent runs that ran to their end, by mode."""

    dry_run: tuple[Pace, ...]
    production: tuple[Pace, ...]

    @classmethod
    def recent(cls) -> "Paces":
        return cls(paces(RunMode.DRY_RUN), paces(RunMode.PRODUCTION))

    def near(self, mode: RunMode, candidates: int) -> list[Pace]:
        """The newest of those as near in size as any, give or take a factor of two: what is fixed to a run makes a small one slow.

        A mode without any is reckoned by the other's.
        """
        known = (self.dry_run or self.production) if mode == RunMode.DRY_RUN else (self.production or self.dry_run)
        away = [abs(math.log(size / max(candidates, 1))) for size, _ in known]
        farthest = min(away, default=0) + math.log(2)
        return [pace for pace, distance in zip(known, away, strict=True) if distance <= farthest][:SIMILAR_RUNS]

    def takes(self, mode: RunMode, candidates: int | None) -> timedelta | None:
        """By the median, so that one which was paused for a night does not count for much; None where nothing is known."""
        found = self.near(mode, candidates) if candidates is not None else []
        return timedelta(seconds=candidates / median(pace for _, pace in found)) if found and candidates is not None else None


def paces(mode: RunMode) -> tuple[Pace, ...]:
    """Of the newest runs first. None that was tried again days later counts."""
    recent = Run.objects.filter(mode=mode, state__in=COMPLETE, candidates__gt=0, finished_at__gt=F("started_at"))[:RECENT_RUNS]
    took = recent.values_list("pk", "candidates", F("finished_at") - F("started_at"))
    runs = [pk for pk, _, _ in took]
    again = {*Chunk.objects.filter(run__in=runs, pairs__isnull=False).order_by().values_list("run", flat=True)}
    again |= {*Event.objects.filter(run__in=runs, kind=f"run {RunState.FAILED}").order_by().values_list("run", flat=True)}
    return tuple((candidates, candidates / seconds.total_seconds()) for pk, candidates, seconds in took if pk not in again)


def known_candidates(accounts: list[Account]) -> dict[int, int]:
    """Candidates by account, as the newest run that counted them found."""
    newest = Run.objects.filter(account=OuterRef("pk"), candidates__isnull=False).order_by("-pk").values("candidates")[:1]
    counted = Account.objects.filter(pk__in=[account.pk for account in accounts]).annotate(counted=Subquery(newest))
    return dict(counted.filter(counted__isnull=False).values_list("pk", "counted"))


def rehearsals(accounts: list[Account], *, now: datetime) -> set[int]:
    """The accounts with a dry run that fits a production run planned now: it ran to its end with the same mapping, capabilities, code, systems."""
    revision = revisions.current()
    if revision is None or not accounts:
        return set()
    try:
        here = systems()
    except Misconfigured:
        return set()  # a start says what is wrong; a page shall tell what else it can
    capabilities = runs.gate_decision(accounts[0], RunMode.DRY_RUN, now=now).capabilities  # they are the same for every account
    fitting = Run.objects.filter(
        account__in=accounts, mode=RunMode.DRY_RUN, state__in=COMPLETE, mapping_revision=revision, pipeline_version=VERSION,
        capabilities=sorted(capabilities), systems=here,
    )  # fmt: skip
    return set(fitting.values_list("account_id", flat=True))
