"""Times as read on the clocks of a time zone."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo

from ..duration import Duration
from .contract import (
    MAX_STEPS,
    Tally,
    TriggerInvalid,
    before_first,
    checked_jitter,
    checked_window,
    counted_by_steps,
    within_end,
)
from .crontab import CronEngine, CroniterEngine
from .daylight import Daylight, checked_zone, next_moment, zone_of
from .named_fields import FieldValue, field_texts, parse_fields
from .wall_calendar import WallCalendar

CRONITER = CroniterEngine()
_set = object.__setattr__  # for __init__ alone: the values are frozen from then on


@dataclass(frozen=True, slots=True, init=False)
class Cron:
    """A crontab expression, `Cron("0 9 * * mon-fri", zone="Europe/Berlin")`, or named fields, `Cron(day="last",
    hour=18)`; what each may hold is told in `crontab` and `named_fields`.

    `zone` is the name of an IANA time zone or a ZoneInfo. `daylight` says what becomes of times that a change of the
    clocks leaves out or repeats; by default, what is told in `daylight`. Refused are expressions of more than 256
    characters or with more than 64 items in a field, and dates that do not exist or come back more rarely than every
    eight years.
    """

    expression: str | None
    fields: tuple[tuple[str, str], ...]
    zone: str
    daylight: Daylight
    start: datetime | None
    end: datetime | None
    jitter_ms: int
    _calendar: WallCalendar = field(compare=False, repr=False)
    _zone: tzinfo = field(compare=False, repr=False)
    _settled: Daylight = field(compare=False, repr=False)

    def __init__(
        self,
        expression: str | None = None,
        *,
        year: FieldValue | None = None,
        month: FieldValue | None = None,
        day: FieldValue | None = None,
        week: FieldValue | None = None,
        day_of_week: FieldValue | None = None,
        hour: FieldValue | None = None,
        minute: FieldValue | None = None,
        second: FieldValue | None = None,
        zone: str | ZoneInfo = "UTC",
        daylight: Daylight | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        jitter: Duration = 0,
        engine: CronEngine = CRONITER,
    ) -> None:
        named: dict[str, FieldValue | None] = {
            "year": year,
            "month": month,
            "day": day,
            "week": week,
            "day_of_week": day_of_week,
        }
        named |= {"hour": hour, "minute": minute, "second": second}
        fields = field_texts(named)
        if expression is not None and fields:
            raise TriggerInvalid(member="expression", value=expression, reason=f"comes with {', '.join(fields)}")
        calendar = parse_fields(fields) if expression is None else engine.parse(expression)
        if not calendar.recurs:
            member, value = ("expression", expression) if expression is not None else ("fields", fields)
            raise TriggerInvalid(member=member, value=value, reason="names a date that never or hardly ever comes")
        name = checked_zone(zone)
        first, last = checked_window(start, end)
        policy = Daylight() if daylight is None else daylight
        _set(self, "expression", expression)
        _set(self, "fields", tuple(fields.items()))
        _set(self, "zone", name)
        _set(self, "daylight", policy)
        _set(self, "start", first)
        _set(self, "end", last)
        _set(self, "jitter_ms", checked_jitter(jitter))
        _set(self, "_calendar", calendar)
        _set(self, "_zone", zone_of(name))
        _set(self, "_settled", policy.settled(every_hour=calendar.every_hour))

    @property
    def whole_minutes(self) -> bool:
        """Whether all occurrences are whole minutes of UTC, as the offsets of all zones are since 1972."""
        return self._calendar.seconds == (0,)

    def next_after(self, moment: datetime) -> datetime | None:
        after = before_first(moment, self.start)
        return within_end(next_moment(self._calendar, self._zone, self._settled, after), self.end)

    def count(self, after: datetime, until: datetime, limit: int = MAX_STEPS) -> Tally:
        return counted_by_steps(self, after, until, limit)

    def anchored(self, moment: datetime) -> Cron:
        return self
