"""From readings of a clock on the wall to moments: time zones, and what daylight saving time does to a schedule.

A zone's change leaves readings out (02:00 to 03:00 in Berlin on the last Sunday of March) or repeats them (the same in
October). What then becomes of an occurrence is the trigger's `Daylight`:

    missing    usual    as `shift`, where the trigger names hours; as `skip`, where it runs in every hour
               shift    it occurs when the clock jumps, once however many readings were left out
               skip     it does not occur
    repeated   usual    as `first`, where the trigger names hours; as `both`, where it runs in every hour
               first    it occurs once, at the first of the two moments
               second   it occurs once, at the second
               both     it occurs twice

"In every hour" are all 24, however they are written. Such a trigger keeps its rhythm through both nights: every ten
minutes (`*/10 * * * *`) neither stops for an hour in October nor gets an extra run in March, while `30 2 * * *` runs
once on every day.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from functools import lru_cache
from typing import TypeVar
from zoneinfo import ZoneInfo, available_timezones

from msgspec import Struct

from .contract import TriggerInvalid
from .wall_calendar import LOOK_AHEAD_YEARS, WallCalendar

SECOND = timedelta(seconds=1)


class Missing(StrEnum):
    USUAL = "usual"
    SHIFT = "shift"
    SKIP = "skip"


class Repeated(StrEnum):
    USUAL = "usual"
    FIRST = "first"
    SECOND = "second"
    BOTH = "both"


class Daylight(Struct, frozen=True, kw_only=True):
    """See the module. `create` takes the names as strings, too, and checks them."""

    missing: Missing = Missing.USUAL
    repeated: Repeated = Repeated.USUAL

    @classmethod
    def create(cls, *, missing: str = "usual", repeated: str = "usual") -> Daylight:
        """Raises TriggerInvalid for other names."""
        return cls(missing=named(Missing, missing, "missing"), repeated=named(Repeated, repeated, "repeated"))

    def settled(self, *, every_hour: bool) -> Daylight:
        """Without `usual`."""
        missing, repeated = self.missing, self.repeated
        if missing is Missing.USUAL:
            missing = Missing.SKIP if every_hour else Missing.SHIFT
        if repeated is Repeated.USUAL:
            repeated = Repeated.BOTH if every_hour else Repeated.FIRST
        return Daylight(missing=missing, repeated=repeated)


Name = TypeVar("Name", bound=StrEnum)


def named(names: type[Name], value: object, member: str) -> Name:
    """The name that `value` is, or spells. Raises TriggerInvalid."""
    if isinstance(value, str) and value in set(names):
        return names(value)
    raise TriggerInvalid(member=member, value=value, reason=f"is not one of {', '.join(names)}")


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """IANA's names that this machine knows: a walk through the zone files, done once a process."""
    return frozenset(available_timezones()) | {"UTC"}


def checked_zone(value: object) -> str:
    """The zone's name. Raises TriggerInvalid for what is not a ZoneInfo or the name of a zone: a name is looked for in
    the list of names, never opened as a path."""
    name = value.key if isinstance(value, ZoneInfo) else "UTC" if value is UTC else value
    if not isinstance(name, str):
        reason = f"wants the name of a time zone, such as 'Europe/Berlin', not {type(value).__name__}"
        raise TriggerInvalid(member="zone", value=value, reason=reason)
    if name not in zone_names():
        reason = f"is not one of the {len(zone_names())} time zones known here"
        raise TriggerInvalid(member="zone", value=value, reason=reason)
    return name


def zone_of(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)


class Change(Struct, frozen=True, kw_only=True):
    """A zone's clocks go from one offset to another at `moment` (UTC, naive)."""

    moment: datetime
    before: timedelta
    after: timedelta


def next_moment(calendar: WallCalendar, zone: tzinfo, daylight: Daylight, moment: datetime) -> datetime | None:
    """The first moment, in UTC, later than `moment` at which the clocks of `zone` show a reading of `calendar`, with
    `daylight` (settled) for the readings that are missing or repeated."""
    if zone is UTC:
        return _utc(calendar.next_after(moment.replace(tzinfo=None)))
    local = moment.astimezone(zone)
    reading = local.replace(tzinfo=None, fold=0)
    before, after = _offsets(reading, zone)
    if before > after:
        change = _change(reading, zone, before, after)
        return _utc(_from_repeated(calendar, zone, daylight, reading, change, second_time=bool(local.fold)))
    return _utc(_from_unique(calendar, zone, daylight, reading))


def _from_unique(calendar: WallCalendar, zone: tzinfo, daylight: Daylight, excluded: datetime) -> datetime | None:
    """What comes after a reading that is shown once, or of which nothing later has been shown yet."""
    reading = calendar.next_after(excluded)
    while reading is not None:
        before, after = _offsets(reading, zone)
        if before == after:
            return reading - before
        if before > after:
            return reading - (after if daylight.repeated is Repeated.SECOND else before)
        change = _change(reading, zone, before, after)
        if daylight.missing is Missing.SHIFT:
            return change.moment
        # Each turn passes a whole gap, of which a zone has a few a year; the calendar's search ends after some years,
        # and one that names nothing but gaps has one or two a year.
        reading = calendar.next_after(change.moment + after - SECOND)
        if reading is not None and reading.year > excluded.year + LOOK_AHEAD_YEARS:
            return None
    return None


def _from_repeated(
    calendar: WallCalendar,
    zone: tzinfo,
    daylight: Daylight,
    excluded: datetime,
    change: Change,
    *,
    second_time: bool,
) -> datetime | None:
    """What comes after a reading that is shown twice."""
    begin, end = change.moment + change.after, change.moment + change.before
    if daylight.repeated is Repeated.FIRST:
        return _from_unique(calendar, zone, daylight, end - SECOND if second_time else excluded)
    if daylight.repeated is Repeated.SECOND:
        return _from_unique(calendar, zone, daylight, excluded if second_time else begin - SECOND)
    if not second_time:
        reading = calendar.next_after(excluded)
        if reading is not None and reading < end:
            return reading - change.before
        excluded = begin - SECOND
    reading = calendar.next_after(excluded)
    if reading is not None and reading < end:
        return reading - change.after
    return _from_unique(calendar, zone, daylight, end - SECOND)


def _offsets(reading: datetime, zone: tzinfo) -> tuple[timedelta, timedelta]:
    """From UTC, as PEP 495 has it: the two differ for a reading that is missing (the first is less) or repeated."""
    before = reading.replace(tzinfo=zone).utcoffset()
    after = reading.replace(tzinfo=zone, fold=1).utcoffset()
    if before is None or after is None:
        raise TypeError(f"{zone!r} has no offset from UTC")
    return before, after


def _change(reading: datetime, zone: tzinfo, before: timedelta, after: timedelta) -> Change:
    """The change that makes `reading` missing or repeated: it lies between the reading's two interpretations."""
    reading = reading.replace(microsecond=0)
    earlier, later = reading - max(before, after), reading - min(before, after)
    while later - earlier > SECOND:
        middle = earlier + (later - earlier) // SECOND // 2 * SECOND
        if middle.replace(tzinfo=UTC).astimezone(zone).utcoffset() == after:
            later = middle
        else:
            earlier = middle
    return Change(moment=later, before=before, after=after)


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)
