"""When a batch may work: days of the week, hours and a time zone, made into openings on the world's one clock. Pure: it asks no clock.

A window belongs to the day on which it opens; one that ends at or before its beginning ends on the next day, and one that ends as it begins
lasts until that time of the next day. Where clocks are changed, a time that is skipped counts as the moment of the change, and a time that
comes twice counts the first time. So a window lies as its zone's clocks show it, and is an hour longer or shorter twice a year.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from itertools import count
from zoneinfo import ZoneInfo, available_timezones

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Window:
    """Days are 0 (Monday) to 6, on which it opens; `zone` is a name of the IANA database; nothing before `first_day`, where that is set."""

    days: frozenset[int]
    begins: time
    ends: time
    zone: str
    first_day: date | None = None

    @property
    def is_always_open(self) -> bool:
        return self.begins == self.ends and len(self.days) == len(DAYS)

    def __str__(self) -> str:
        if self.is_always_open:
            return f"always, {self.zone}"
        return f"{day_names(self.days)} {self.begins:%H:%M} to {self.ends:%H:%M}, {self.zone}"


@dataclass(frozen=True)
class Opening:
    """From `start` until just before `end`, in UTC; `end` is None where it never closes again."""

    start: datetime
    end: datetime | None

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment and (self.end is None or moment < self.end)


def opening_at(window: Window, moment: datetime) -> Opening | None:
    """The opening that holds the moment; None where the window is closed then."""
    found = next(openings(window, moment))
    return found if moment in found else None


def is_open(window: Window, moment: datetime) -> bool:
    return opening_at(window, moment) is not None


def next_opening(window: Window, moment: datetime) -> Opening | None:
    """The first opening that begins after the moment; None where the window is open by then and never closes."""
    return next((each for each in openings(window, moment) if each.start > moment), None)


def worked_until(window: Window, start: datetime, work: timedelta) -> datetime:
    """When so much work ends that is begun at `start` and rests while the window is closed."""
    for opening in openings(window, start):
        begun = max(start, opening.start)
        if opening.end is None or begun + work <= opening.end:
            return begun + work
        work -= opening.end - begun
    raise ValueError(f"the window {window} closes for ever")


def openings(window: Window, moment: datetime) -> Iterator[Opening]:
    """The opening that holds the moment, if there is one, and those that follow; openings that touch are one."""
    if window.is_always_open:
        yield Opening(always_open_from(window), None)
        return
    waiting: Opening | None = None
    for each in single_openings(window, first_day_to_look_at(window, moment)):
        if waiting and waiting.end and each.start <= waiting.end:
            waiting = Opening(waiting.start, each.end)
            continue
        if waiting and waiting.end and waiting.end > moment:
            yield waiting
        waiting = each


def always_open_from(window: Window) -> datetime:
    return resolved(window.first_day or date(1970, 1, 1), window.begins, ZoneInfo(window.zone))


def first_day_to_look_at(window: Window, moment: datetime) -> date:
    """Early enough for an opening of several days that holds the moment."""
    day = moment.astimezone(ZoneInfo(window.zone)).date() - 9 * DAY
    return max(day, window.first_day) if window.first_day else day


def single_openings(window: Window, first: date) -> Iterator[Opening]:
    """One for each of the window's days, from that date on; none where clocks skip all of it."""
    zone = ZoneInfo(window.zone)
    for number in count():
        day = first + number * DAY
        if day.weekday() in window.days:
            start = resolved(day, window.begins, zone)
            end = resolved(day if window.ends > window.begins else day + DAY, window.ends, zone)
            if start < end:
                yield Opening(start, end)


@lru_cache(maxsize=10_000)  # a batch of thousands of accounts asks for the same days over and over
def resolved(day: date, at: time, zone: ZoneInfo) -> datetime:
    """The moment, in UTC, at which the zone's clocks show this time: the first of two, or where it is skipped that of the change."""
    local = datetime.combine(day, at, zone)
    before = local.astimezone(UTC)
    if before.astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None):
        return before
    # Skipped: as read by the offset of before the change it lies after the change, by the offset of after it before.
    late, early = before, local.replace(fold=1).astimezone(UTC)
    offset = late.astimezone(zone).utcoffset()
    while late - early > SECOND:
        middle = early + (late - early) // 2
        if middle.astimezone(zone).utcoffset() == offset:
            late = middle
        else:
            early = middle
    return late.replace(microsecond=0)


def day_names(days: Iterable[int]) -> str:
    """`Mon to Fri`, `Mon, Wed`, `every day`."""
    chosen = sorted(days)
    if len(chosen) == len(DAYS):
        return "every day"
    if len(chosen) > 2 and chosen[-1] - chosen[0] == len(chosen) - 1:
        return f"{DAYS[chosen[0]]} to {DAYS[chosen[-1]]}"
    return ", ".join(DAYS[day] for day in chosen)


def read_days(text: str) -> frozenset[int]:
    """The days of `mon,wed`, `mon-fri`, `fri-mon` (over the week's end) or `every`. Raises ValueError with a sentence."""
    if text.strip().lower() == "every":
        return frozenset(range(len(DAYS)))
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = (each.strip() for each in part.partition("-"))
        begin, end = day_of(first), day_of(last if dash else first)
        found |= {(begin + step) % len(DAYS) for step in range((end - begin) % len(DAYS) + 1)}
    return frozenset(found)


def day_of(name: str) -> int:
    short = name[:3].capitalize()
    if short not in DAYS:
        raise ValueError(f"{name[:40]!r} is no day: write mon, tue, wed, thu, fri, sat or sun, a span such as mon-fri, or every.")
    return DAYS.index(short)


def is_zone(name: str) -> bool:
    """Whether the IANA database has the name."""
    return name in zones()


@cache
def zones() -> frozenset[str]:
    """All names; looking for them reads hundreds of files."""
    return frozenset(available_timezones())
