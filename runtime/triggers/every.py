"""A grid of equal steps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ..duration import Duration
from .contract import (
    LATEST,
    MAX_STEPS,
    MILLISECOND,
    Tally,
    TriggerInvalid,
    before_first,
    checked_duration,
    checked_jitter,
    checked_window,
    in_utc,
    within_end,
)
from .grid import Grid, from_ms, to_ms

MIN_INTERVAL_MS = 1000
_LATEST_MS = to_ms(LATEST)


@dataclass(frozen=True, slots=True, init=False)
class Every:
    """An occurrence at `start` and one each interval after it: `Every(90)`, `Every(timedelta(hours=1))`,
    `Every(hours=1, minutes=30)`; `seconds` takes a number or a timedelta, and the parts are added up.

    Without a `start` the grid hangs on the Unix epoch until `anchored` gives it one. Steps are of elapsed time: a
    change to daylight saving time does not move them. The interval is of 1 s to ten years, in whole milliseconds;
    `shortest` (at least 1 ms) allows less, for schedules that are not stored: no store takes them.
    """

    interval_ms: int
    start: datetime | None
    end: datetime | None
    jitter_ms: int

    def __init__(
        self,
        seconds: Duration = 0,
        *,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        start: datetime | None = None,
        end: datetime | None = None,
        jitter: Duration = 0,
        shortest: Duration = 1,
    ) -> None:
        interval_ms = _interval_ms(seconds, weeks=weeks, days=days, hours=hours, minutes=minutes)
        shortest_ms = max(1, checked_duration(shortest, "shortest"))
        if interval_ms < shortest_ms:
            reason = f"is shorter than {shortest_ms / 1000:g} s"
            raise TriggerInvalid(member="interval", value=interval_ms / 1000, reason=reason)
        first, last = checked_window(start, end)
        _set(self, "interval_ms", interval_ms)
        _set(self, "start", first)
        _set(self, "end", last)
        _set(self, "jitter_ms", checked_jitter(jitter))

    @property
    def interval(self) -> timedelta:
        return timedelta(milliseconds=self.interval_ms)

    @property
    def grid(self) -> Grid:
        return Grid(first=0 if self.start is None else to_ms(self.start), step=self.interval_ms)

    def next_after(self, moment: datetime) -> datetime | None:
        occurrence = self.grid.next_after(to_ms(before_first(moment, self.start)))
        return None if occurrence >= _LATEST_MS else within_end(from_ms(occurrence), self.end)

    def count(self, after: datetime, until: datetime, limit: int = MAX_STEPS) -> Tally:
        """Exact, by division: `limit` is not needed."""
        last = min(in_utc(until), LATEST - MILLISECOND) if self.end is None else min(in_utc(until), self.end)
        grid = self.grid
        count = grid.count_until(to_ms(last)) - grid.count_until(to_ms(before_first(after, self.start)))
        return Tally(count=max(0, count))

    def anchored(self, moment: datetime) -> Every:
        if self.start is not None:
            return self
        anchored = object.__new__(Every)  # past the checks: a start after the end means here that it never occurs
        _set(anchored, "interval_ms", self.interval_ms)
        _set(anchored, "start", from_ms(to_ms(in_utc(moment)) + self.interval_ms))
        _set(anchored, "end", self.end)
        _set(anchored, "jitter_ms", self.jitter_ms)
        return anchored


_set = object.__setattr__  # for making values alone: they are frozen from then on


def _interval_ms(seconds: Duration, **parts: float) -> int:
    given = {name: value for name, value in parts.items() if value != 0}
    for name, value in given.items():
        checked_duration(value, name)
    total = checked_duration(seconds, "seconds")
    if not given:
        return total
    try:
        return checked_duration(timedelta(milliseconds=total, **given), "interval")
    except OverflowError:
        raise TriggerInvalid(member="interval", value=given, reason="is longer than ten years") from None
