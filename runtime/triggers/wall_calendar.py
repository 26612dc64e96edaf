"""Which readings of a clock on the wall a cron trigger names: sets of seconds, minutes, hours and a rule for days.

Readings are naive datetimes of whole seconds. What they are in UTC, and what becomes of those that a change to or
from daylight saving time leaves out or repeats, is decided in `daylight`.

The days of a month are a mask, bit d for day d, so that a rule is a few operations on integers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from calendar import monthrange
from datetime import date, datetime, timedelta
from functools import lru_cache

from msgspec import Struct

# The search for the next day ends so many years ahead. The rarest dates that a calendar year can name return within
# eight years: 29 February around 2100, and week 53, which leaves out up to six.
LOOK_AHEAD_YEARS = 8
_CYCLE = range(2001, 2029)  # dates and weekdays come back every 28 years, from 1901 to 2099
_SUNDAYS = sum(1 << day for day in range(0, 38, 7))
ALL_HOURS = tuple(range(24))


class NthWeekday(Struct, frozen=True, kw_only=True):
    """`nth` 1 to 5, or -1 for the last; weekdays from Sunday, 0, to Saturday, 6."""

    nth: int
    weekday: int


class DayRule(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Which days of a month. None: not restricted. All the parts that are set must hold, except that `either` takes
    the days of which one of `days` (with `last_day`, `nearest_workday`) and `weekdays` (with `nth_weekdays`) holds."""

    days: frozenset[int] | None = None
    last_day: bool = False
    nearest_workday: int | None = None
    nth_days: tuple[NthWeekday, ...] = ()
    weekdays: frozenset[int] | None = None
    nth_weekdays: tuple[NthWeekday, ...] = ()
    weeks: frozenset[int] | None = None
    either: bool = False

    @lru_cache(maxsize=4096)  # noqa: B019 - a rule is a small value, and the cache is bounded
    def mask(self, year: int, month: int) -> int:
        first_weekday, length = _shape(year, month)
        whole = (2 << length) - 2
        by_day = self._by_day(whole, first_weekday, length)
        by_weekday = self._by_weekday(whole, first_weekday, length)
        if by_day is None:
            chosen = whole if by_weekday is None else by_weekday
        elif by_weekday is None:
            chosen = by_day
        else:
            chosen = by_day | by_weekday if self.either else by_day & by_weekday
        if self.weeks is not None and chosen:
            chosen &= _mask_of_weeks(self.weeks, year, month, length)
        return chosen & whole

    def _by_day(self, whole: int, first_weekday: int, length: int) -> int | None:
        if self.days is None and not self.last_day and self.nearest_workday is None and not self.nth_days:
            return None
        mask = sum(1 << day for day in self.days or ())
        if self.last_day:
            mask |= 1 << length
        if self.nearest_workday is not None:
            mask |= 1 << _nearest_workday(self.nearest_workday, first_weekday, length)
        return mask | _mask_of_nth(self.nth_days, whole, first_weekday)

    def _by_weekday(self, whole: int, first_weekday: int, length: int) -> int | None:
        if self.weekdays is None and not self.nth_weekdays:
            return None
        mask = _mask_of_nth(self.nth_weekdays, whole, first_weekday)
        for weekday in self.weekdays or ():
            mask |= _mask_of_weekday(weekday, first_weekday)
        return mask


class WallCalendar(Struct, frozen=True, kw_only=True):
    """Sorted values of each field. `years` None: every year."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    day_rule: DayRule
    months: tuple[int, ...]
    years: tuple[int, ...] | None = None

    @property
    def every_hour(self) -> bool:
        return self.hours == ALL_HOURS

    def next_after(self, reading: datetime) -> datetime | None:
        """The first reading later than `reading`; None when there is none within `LOOK_AHEAD_YEARS` (with `years`:
        within those)."""
        today = reading.date()
        if self._has_day(today):
            later = self._later_that_day(reading)
            if later is not None:
                return later
        day = self.next_day(today)
        if day is None:
            return None
        return datetime(day.year, day.month, day.day, self.hours[0], self.minutes[0], self.seconds[0])

    def next_day(self, after: date) -> date | None:
        """The first day later than `after`."""
        if self.years is None:
            years: tuple[int, ...] | range = range(after.year, after.year + LOOK_AHEAD_YEARS + 1)
        else:
            years = self.years[bisect_left(self.years, after.year) :]
        for year in years:
            begins = after.month if year == after.year else 1
            for month in self.months[bisect_left(self.months, begins) :]:
                mask = self.day_rule.mask(year, month)
                if year == after.year and month == after.month:
                    mask &= -2 << after.day
                if mask:
                    return date(year, month, (mask & -mask).bit_length() - 1)
        return None

    @property
    def recurs(self) -> bool:
        """Whether `next_after` always finds a day: there is none only for dates that do not exist (30 February), or
        that come back after more than `LOOK_AHEAD_YEARS` (a Monday that is 29 February)."""
        if self.years is not None:
            return self.next_day(date(self.years[0] - 1, 12, 31)) is not None
        gap, limit = 0, LOOK_AHEAD_YEARS * 12
        months = frozenset(self.months)
        for year in (*_CYCLE, *_CYCLE[: LOOK_AHEAD_YEARS + 1]):
            for month in range(1, 13):
                gap = 0 if month in months and self.day_rule.mask(year, month) else gap + 1
                if gap >= limit:
                    return False
        return True

    def _has_day(self, day: date) -> bool:
        if day.month not in self.months or (self.years is not None and day.year not in self.years):
            return False
        return bool(self.day_rule.mask(day.year, day.month) >> day.day & 1)

    def _later_that_day(self, reading: datetime) -> datetime | None:
        """Like an odometer: the second moves on; where none is left, the minute; then the hour."""
        hour, minute = reading.hour, reading.minute
        if hour in self.hours:
            if minute in self.minutes:
                place = bisect_right(self.seconds, reading.second)
                if place < len(self.seconds):
                    return reading.replace(second=self.seconds[place], microsecond=0)
            place = bisect_right(self.minutes, minute)
            if place < len(self.minutes):
                return reading.replace(minute=self.minutes[place], second=self.seconds[0], microsecond=0)
        place = bisect_right(self.hours, hour)
        if place == len(self.hours):
            return None
        return reading.replace(hour=self.hours[place], minute=self.minutes[0], second=self.seconds[0], microsecond=0)


@lru_cache(maxsize=512)
def _shape(year: int, month: int) -> tuple[int, int]:
    """The weekday of the first (Sunday 0) and the number of days."""
    weekday, length = monthrange(year, month)
    return (weekday + 1) % 7, length


def _mask_of_weekday(weekday: int, first_weekday: int) -> int:
    return _SUNDAYS << (weekday - first_weekday) % 7 << 1


def _mask_of_nth(nth_weekdays: tuple[NthWeekday, ...], whole: int, first_weekday: int) -> int:
    mask = 0
    for one in nth_weekdays:
        days = _mask_of_weekday(one.weekday, first_weekday) & whole
        if one.nth == -1:
            mask |= 1 << days.bit_length() - 1
        else:
            first = (days & -days) << 7 * (one.nth - 1)
            mask |= first & days
    return mask


def _mask_of_weeks(weeks: frozenset[int], year: int, month: int, length: int) -> int:
    """By ISO 8601; its weeks begin on Mondays, so that every seventh day is enough."""
    mask = 0
    first = date(year, month, 1)
    monday = 1 - first.weekday()
    while monday <= length:
        if (first + timedelta(days=monday - 1)).isocalendar().week in weeks:
            mask |= 0b1111111 << monday if monday >= 0 else 0b1111111 >> -monday
        monday += 7
    return mask & ~1


def _nearest_workday(day: int, first_weekday: int, length: int) -> int:
    """The day from Monday to Friday that is nearest to `day` and in the same month."""
    day = min(day, length)
    weekday = (first_weekday + day - 1) % 7
    if weekday == 6:
        return day - 1 if day > 1 else day + 2
    if weekday == 0:
        return day + 1 if day < length else day - 2
    return day
