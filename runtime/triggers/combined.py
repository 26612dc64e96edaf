"""Triggers made of triggers.

Bounds, so that the slowest tree answers in tens of milliseconds: a tree has at most 16 parts that are not made of
others, three levels, and one AllOf, which asks its parts at most 2,048 times.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from msgspec import Struct

from ..duration import Duration
from .contract import (
    LATEST,
    MAX_STEPS,
    MILLISECOND,
    Tally,
    Trigger,
    TriggerInvalid,
    before_first,
    checked_jitter,
    checked_window,
    counted_by_steps,
    within_end,
)
from .cron import Cron
from .every import Every
from .grid import Grid, from_ms, to_ms

MAX_PARTS = 16
MAX_LEVELS = 3
MAX_QUESTIONS = 2048
_SECONDS = Grid(first=0, step=1000)
_MINUTES = Grid(first=0, step=60_000)


@dataclass(frozen=True, slots=True, init=False)
class AnyOf:
    """Every occurrence of any part; one that several parts have counts once. Ends when all parts have ended."""

    parts: tuple[Trigger, ...]
    start: datetime | None
    end: datetime | None
    jitter_ms: int

    def __init__(
        self, *parts: Trigger, start: datetime | None = None, end: datetime | None = None, jitter: Duration = 0
    ) -> None:
        _make(self, parts, start, end, jitter)
        _check_tree(self)

    def next_after(self, moment: datetime) -> datetime | None:
        after = before_first(moment, self.start)
        candidates = [one for part in self.parts if (one := part.next_after(after)) is not None]
        return within_end(min(candidates), self.end) if candidates else None

    def count(self, after: datetime, until: datetime, limit: int = MAX_STEPS) -> Tally:
        return counted_by_steps(self, after, until, limit)

    def anchored(self, moment: datetime) -> AnyOf:
        parts = (part.anchored(moment) for part in self.parts)
        return AnyOf(*parts, start=self.start, end=self.end, jitter=self.jitter_ms / 1000)


@dataclass(frozen=True, slots=True, init=False)
class AllOf:
    """The moments that are occurrences of all parts. Ends when one part has ended.

    Grids (`Every`) are met by arithmetic, so "every 2 s and every 3 s" is "every 6 s", and two that never meet are
    known at once. Other parts catch up with one another in turn; where they have not met after 2,048 questions, there
    is taken to be no further occurrence. Two crontabs are so asked for a thousand days, or for a thousand hours if they
    come every hour; a grid is asked for its whole minutes (seconds) alone beside a crontab of five (six) fields.
    """

    parts: tuple[Trigger, ...]
    start: datetime | None
    end: datetime | None
    jitter_ms: int
    _asked: tuple[_Meeting | Trigger, ...] = field(compare=False, repr=False)

    def __init__(
        self, *parts: Trigger, start: datetime | None = None, end: datetime | None = None, jitter: Duration = 0
    ) -> None:
        _make(self, parts, start, end, jitter)
        object.__setattr__(self, "_asked", _asked(self.parts))
        _check_tree(self)

    def next_after(self, moment: datetime) -> datetime | None:
        candidate = before_first(moment, self.start) + MILLISECOND
        candidate = candidate.replace(microsecond=candidate.microsecond // 1000 * 1000)
        agreed = 0
        for question in range(MAX_QUESTIONS):
            occurrence = self._asked[question % len(self._asked)].next_after(candidate - MILLISECOND)
            if occurrence is None or (self.end is not None and occurrence > self.end):
                return None
            agreed = agreed + 1 if occurrence == candidate else 1
            candidate = occurrence
            if agreed == len(self._asked):
                return candidate
        return None

    def count(self, after: datetime, until: datetime, limit: int = MAX_STEPS) -> Tally:
        return counted_by_steps(self, after, until, limit)

    def anchored(self, moment: datetime) -> AllOf:
        parts = (part.anchored(moment) for part in self.parts)
        return AllOf(*parts, start=self.start, end=self.end, jitter=self.jitter_ms / 1000)


class _Meeting(Struct, frozen=True, kw_only=True):
    """Where several grids meet; `grid` None: nowhere."""

    grid: Grid | None
    end: datetime | None

    def next_after(self, moment: datetime) -> datetime | None:
        if self.grid is None:
            return None
        occurrence = self.grid.next_after(to_ms(moment))
        return None if occurrence >= _LATEST_MS else within_end(from_ms(occurrence), self.end)


_LATEST_MS = to_ms(LATEST)


def _asked(parts: tuple[Trigger, ...]) -> tuple[_Meeting | Trigger, ...]:
    """The parts, with all grids put together into the one of their meetings."""
    grids = [part for part in parts if isinstance(part, Every)]
    others = tuple(part for part in parts if not isinstance(part, Every))
    if not grids:
        return others
    # Times on clocks are whole seconds, mostly whole minutes: of a grid of 7 s every 60th step is enough.
    clocks = [_MINUTES if part.whole_minutes else _SECONDS for part in others if isinstance(part, Cron)]
    meeting: Grid | None = grids[0].grid
    for grid in (*(part.grid for part in grids[1:]), *clocks):
        meeting = None if meeting is None else meeting.meeting(grid)
    ends = [part.end for part in grids if part.end is not None]
    return (_Meeting(grid=meeting, end=min(ends, default=None)), *others)


def _make(trigger: AnyOf | AllOf, parts: tuple[Trigger, ...], start: object, end: object, jitter: Duration) -> None:
    first, last = checked_window(start, end)
    for part in parts:
        if not isinstance(part, Trigger):
            raise TriggerInvalid(member="parts", value=part, reason="is not a trigger")
        if part.jitter_ms:
            raise TriggerInvalid(member="parts", value=part, reason="has a jitter of its own; give it to the whole")
    object.__setattr__(trigger, "parts", parts)
    object.__setattr__(trigger, "start", first)
    object.__setattr__(trigger, "end", last)
    object.__setattr__(trigger, "jitter_ms", checked_jitter(jitter))


def _check_tree(trigger: AnyOf | AllOf) -> None:
    leaves, levels, meetings = _measure(trigger)
    if len(trigger.parts) < 2:
        raise TriggerInvalid(member="parts", value=trigger.parts, reason="wants at least two triggers")
    if leaves > MAX_PARTS:
        raise TriggerInvalid(member="parts", value=leaves, reason=f"is more than {MAX_PARTS} parts")
    if levels > MAX_LEVELS:
        raise TriggerInvalid(member="parts", value=levels, reason=f"is more than {MAX_LEVELS} levels")
    if meetings > 1:
        raise TriggerInvalid(member="parts", value=meetings, reason="is more than one AllOf; make schedules of them")


def _measure(trigger: Trigger) -> tuple[int, int, int]:
    """Leaves, levels and AllOfs. Ends: parts have been measured themselves when they were made."""
    if not isinstance(trigger, AnyOf | AllOf):
        return 1, 1, 0
    leaves, levels, meetings = zip(*map(_measure, trigger.parts), strict=True) if trigger.parts else ((), (), ())
    return sum(leaves), 1 + max(levels, default=0), sum(meetings) + isinstance(trigger, AllOf)
