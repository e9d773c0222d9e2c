"""Windows against clocks that are changed, midnight, and whole days: each opening exact, in UTC."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration import windows
from migration.windows import Opening, Window

BERLIN = "Europe/Berlin"  # forward on 29 March 2026 at 02:00 (01:00 UTC), back on 25 October 2026 at 03:00 (01:00 UTC)
WEEK = range(7)


def window(begins: str, ends: str, days=WEEK, zone: str = BERLIN, first_day: date | None = None) -> Window:
    return Window(frozenset(days), time.fromisoformat(begins), time.fromisoformat(ends), zone, first_day)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def following(of: Window, moment: str, number: int) -> list[tuple[str, str]]:
    found = islice(windows.openings(of, utc(moment)), number)
    return [(f"{each.start:%a %d %H:%M}", f"{each.end:%a %d %H:%M}") for each in found]


def test_hours_within_a_day():
    office = window("09:00", "17:30", days=range(5))
    assert following(office, "2026-03-05T12:00", 3) == [
        ("Thu 05 08:00", "Thu 05 16:30"),
        ("Fri 06 08:00", "Fri 06 16:30"),
        ("Mon 09 08:00", "Mon 09 16:30"),
    ]
    assert not windows.is_open(office, utc("2026-03-05T07:59:59"))
    assert windows.is_open(office, utc("2026-03-05T08:00"))
    assert not windows.is_open(office, utc("2026-03-05T16:30")), "the end is no part of it"


def test_over_midnight_it_belongs_to_the_day_on_which_it_opens():
    friday_night = window("22:00", "06:00", days=[4])
    assert following(friday_night, "2026-03-07T04:59", 2) == [("Fri 06 21:00", "Sat 07 05:00"), ("Fri 13 21:00", "Sat 14 05:00")]
    assert not windows.is_open(friday_night, utc("2026-03-06T04:00")), "Friday morning is Thursday's night"
    assert windows.next_opening(friday_night, utc("2026-03-06T21:00")).start == utc("2026-03-13T21:00")


def test_whole_days_that_touch_are_one_opening():
    weekend = window("00:00", "00:00", days=[5, 6])
    assert following(weekend, "2026-03-08T12:00", 2) == [("Fri 06 23:00", "Sun 08 23:00"), ("Fri 13 23:00", "Sun 15 23:00")]
    six_days = window("12:00", "12:00", days=range(6))
    assert following(six_days, "2026-03-14T10:59", 1) == [("Mon 09 11:00", "Sun 15 11:00")]


def test_always_open_never_closes():
    always = window("03:00", "03:00")
    found = windows.opening_at(always, utc("2026-03-05T00:00"))
    assert found is not None and found.end is None
    assert windows.next_opening(always, utc("2026-03-05T00:00")) is None
    later = window("03:00", "03:00", first_day=date(2026, 4, 1))
    assert not windows.is_open(later, utc("2026-04-01T00:59"))
    assert windows.next_opening(later, utc("2026-03-05T00:00")) == Opening(utc("2026-04-01T01:00"), None)


@pytest.mark.parametrize(
    ("begins", "ends", "at", "expected"),
    [
        ("22:00", "06:00", "2026-03-28T21:30", ("Sat 28 21:00", "Sun 29 04:00")),  # spring: seven hours
        ("22:00", "06:00", "2026-10-24T21:30", ("Sat 24 20:00", "Sun 25 05:00")),  # autumn: nine hours
        ("02:30", "06:00", "2026-03-29T01:10", ("Sun 29 01:00", "Sun 29 04:00")),  # begins in the hour that is skipped
        ("22:00", "02:30", "2026-03-28T22:00", ("Sat 28 21:00", "Sun 29 01:00")),  # ends in it
        ("22:00", "02:30", "2026-10-24T22:00", ("Sat 24 20:00", "Sun 25 00:30")),  # ends in the hour that comes twice
        ("02:30", "06:00", "2026-10-25T00:45", ("Sun 25 00:30", "Sun 25 05:00")),  # begins in it
        ("02:10", "02:40", "2026-10-25T00:15", ("Sun 25 00:10", "Sun 25 00:40")),  # all of it in it: once
        ("02:10", "02:40", "2026-03-29T00:59", ("Mon 30 00:10", "Mon 30 00:40")),  # all of it skipped: not on that day
        ("00:00", "00:00", "2026-03-29T12:00", None),
    ],
)
def test_where_clocks_are_changed(begins, ends, at, expected):
    days = WEEK if expected else [6]
    expected = expected or ("Sat 28 23:00", "Sun 29 22:00")  # a Sunday of 23 hours
    assert following(window(begins, ends, days), at, 1) == [expected]


def test_changes_of_other_sizes():
    half_an_hour = window("02:15", "04:00", days=[6], zone="Australia/Lord_Howe")  # 02:00 becomes 02:30 on 4 October 2026, at 15:30 UTC
    assert following(half_an_hour, "2026-10-03T15:00", 1) == [("Sat 03 15:30", "Sat 03 17:00")]
    a_day = window("09:00", "17:00", days=[4], zone="Pacific/Apia")  # Friday 30 December 2011 was left out
    assert following(a_day, "2011-12-28T00:00", 1) == [("Thu 05 19:00", "Fri 06 03:00")]


def test_work_rests_while_the_window_is_closed():
    nights = window("22:00", "02:00", zone="UTC")
    start, hours = utc("2026-03-05T23:00"), timedelta(hours=1)
    assert windows.worked_until(nights, start, 3 * hours) == utc("2026-03-06T02:00")
    assert windows.worked_until(nights, start, 8 * hours) == utc("2026-03-07T23:00")
    assert windows.worked_until(nights, utc("2026-03-05T12:00"), hours) == utc("2026-03-05T23:00")
    assert windows.worked_until(window("00:00", "00:00"), start, 100 * hours) == start + 100 * hours


ZONES = ("UTC", BERLIN, "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia", "Africa/Casablanca")
TIMES = st.times().map(lambda at: at.replace(second=0, microsecond=0, fold=0))  # as a form or a table gives them
MOMENTS = st.datetimes(datetime(2005, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))
WINDOWS = st.builds(Window, st.frozensets(st.integers(0, 6), min_size=1), TIMES, TIMES, st.sampled_from(ZONES))


@given(WINDOWS, MOMENTS)
def test_openings_follow_each_other_and_clocks_read_as_the_window_says(of, moment):
    found = list(islice(windows.openings(of, moment), 4))
    for one, next_one in pairwise(found):
        assert one.start < one.end < next_one.start
    for each in found:
        assert each.end is None or each.end > moment
        starts = each.start.astimezone(ZoneInfo(of.zone))
        jumped = (each.start - timedelta(seconds=1)).astimezone(ZoneInfo(of.zone)).utcoffset() != starts.utcoffset()
        assert starts.time() == of.begins or jumped
    assert windows.is_open(of, moment) == any(moment in each for each in found)


@given(WINDOWS, MOMENTS)
def test_open_is_what_the_zones_clock_says_but_around_a_change(of, moment):
    """The same question answered from the clock's face; in the days around a change the two may differ."""
    zone = ZoneInfo(of.zone)
    around = {(moment + timedelta(days=days)).astimezone(zone).utcoffset() for days in (-2, 2)}
    if len(around) > 1:
        return
    local = moment.astimezone(zone)
    yesterday = (local - timedelta(days=1)).weekday()
    if of.begins < of.ends:
        expected = local.weekday() in of.days and of.begins <= local.time() < of.ends
    else:
        today = local.weekday() in of.days and local.time() >= of.begins
        expected = today or (yesterday in of.days and local.time() < of.ends)
    assert windows.is_open(of, moment) == expected


def test_days_are_read_as_people_write_them():
    assert windows.read_days("mon-fri") == frozenset(range(5))
    assert windows.read_days("Fri-Mon, wed") == {4, 5, 6, 0, 2}
    assert windows.read_days("saturday") == {5}
    assert windows.read_days("every") == frozenset(WEEK)
    with pytest.raises(ValueError, match="'someday' is no day: write mon"):
        windows.read_days("mon,someday")
    assert windows.day_names([0, 1, 2, 3, 4]) == "Mon to Fri"
    assert windows.day_names([0, 2]) == "Mon, Wed"
    assert [windows.day_names(days) for days in ([1, 2, 3], [0, 1, 3], WEEK)] == ["Tue to Thu", "Mon, Tue, Thu", "every day"]
    assert str(window("22:00", "06:00", days=[4, 5])) == "Fri, Sat 22:00 to 06:00, Europe/Berlin"


def test_zones_are_those_of_the_database():
    assert windows.is_zone("Asia/Jakarta")
    assert not windows.is_zone("Europe/Atlantis")
    assert not windows.is_zone("../../etc/passwd")
