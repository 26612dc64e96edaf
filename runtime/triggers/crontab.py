"""Crontab expressions: the port, and the engine behind it.

An engine turns an expression into a `WallCalendar`. croniter reads the language (names, ranges, steps, `L`, `#`, `W`,
`?`, `@daily`); finding the next reading is common to all engines and to the named fields (`wall_calendar`).
"""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Protocol

from croniter import CroniterError, croniter

from ..json_value import shown
from .contract import TriggerInvalid
from .wall_calendar import DayRule, NthWeekday, WallCalendar

MAX_CHARACTERS = 256
MAX_ITEMS = 64
_MEMBER = "expression"
_CHARACTERS = re.compile(r"[A-Za-z0-9*/,\-#?@ \t]*", re.ASCII)
_HASHED = re.compile(r"[hr]([(/].*)?", re.ASCII)
_RANGE = re.compile(r"([a-z0-9]+)-([a-z0-9]+)(/\d+)?", re.ASCII)


class CronEngine(Protocol):
    """`stamp` names the engine and its version; a schedule keeps the stamp of the engine that computed it."""

    @property
    def stamp(self) -> str: ...

    def parse(self, expression: str) -> WallCalendar:
        """Raises TriggerInvalid for what it does not read, in bounded time whatever the expression."""
        ...


class CroniterEngine:
    """Five fields (minute, hour, day of month, month, day of week) or six (the seconds last, as croniter has them);
    weekdays 0 and 7 are Sunday. A day of month and a weekday that are both restricted are one enough of the two.

    Refused, besides what croniter refuses: `H` and `R`, whose meaning is not in the expression; a seventh field; `5-5`,
    which croniter takes for the whole cycle; `#`, `L5` and `15W` beside another restriction of the day, which croniter
    takes for both or for never.
    """

    @property
    def stamp(self) -> str:
        return f"croniter {_VERSION}"

    def parse(self, expression: str) -> WallCalendar:
        _check(expression)
        try:
            engine = croniter(expression, 0.0)
        except (CroniterError, ValueError, KeyError) as error:
            raise TriggerInvalid(member=_MEMBER, value=expression, reason=str(error)[:200]) from None
        minutes, hours, _, months, _, *seconds = engine.expanded
        return WallCalendar(
            seconds=_values(seconds[0], 0, 59) if seconds else (0,),
            minutes=_values(minutes, 0, 59),
            hours=_values(hours, 0, 23),
            day_rule=_day_rule(engine, expression),
            months=_values(months, 1, 12),
        )


_VERSION = version("croniter")


def _check(expression: object) -> None:
    """What croniter would take, or would take long to refuse."""
    if not isinstance(expression, str):
        reason = f"wants a crontab expression as a string, not {type(expression).__name__}"
        raise TriggerInvalid(member=_MEMBER, value=expression, reason=reason)
    if len(expression) > MAX_CHARACTERS:
        raise TriggerInvalid(member=_MEMBER, value=expression, reason=f"is longer than {MAX_CHARACTERS} characters")
    if not _CHARACTERS.fullmatch(expression):
        raise TriggerInvalid(member=_MEMBER, value=expression, reason="has characters that no expression has")
    fields = expression.lower().split()
    if not expression.startswith("@") and len(fields) not in (5, 6):
        raise TriggerInvalid(member=_MEMBER, value=expression, reason=f"has {len(fields)} fields, not 5 or 6")
    for field in fields:
        _check_field(field, expression)


def _check_field(field: str, expression: str) -> None:
    items = field.split(",")
    if len(items) > MAX_ITEMS:
        reason = f"has {len(items)} items in a field, more than {MAX_ITEMS}"
        raise TriggerInvalid(member=_MEMBER, value=expression, reason=reason)
    for item in items:
        if _HASHED.fullmatch(item):
            reason = f"{shown(item)}: H and R stand for values that are not in the expression; write them out"
            raise TriggerInvalid(member=_MEMBER, value=expression, reason=reason)
        ends = _RANGE.fullmatch(item)
        if ends and ends[1] == ends[2]:
            reason = f"{shown(item)} is a range of one value, or the whole cycle, depending on who reads it"
            raise TriggerInvalid(member=_MEMBER, value=expression, reason=reason)


def _values(expanded: list[int | str], low: int, high: int) -> tuple[int, ...]:
    if "*" in expanded:
        return tuple(range(low, high + 1))
    return tuple(sorted(value for value in expanded if isinstance(value, int)))


def _day_rule(engine: croniter, expression: str) -> DayRule:
    _, _, days, _, weekdays, *_ = engine.expanded
    by_day = None if "*" in days else frozenset(day for day in days if isinstance(day, int))
    by_weekday = None if "*" in weekdays else frozenset(day for day in weekdays if isinstance(day, int))
    nth = tuple(
        NthWeekday(nth=-1 if number == "l" else number, weekday=weekday)
        for weekday, numbers in sorted(engine.nth_weekday_of_month.items(), key=str)
        for number in sorted(numbers, key=str)
    )
    if (nth or engine.nearest_weekday) and by_day is not None and by_weekday is not None:
        reason = "has #, L or W beside another restriction of the day, which means both, one or never, depending on "
        raise TriggerInvalid(member=_MEMBER, value=expression, reason=f"{reason}who reads it; use named fields")
    if nth:
        return DayRule(nth_weekdays=nth)
    if engine.nearest_weekday:
        return DayRule(nearest_workday=next(iter(engine.nearest_weekday)))
    return DayRule(
        days=by_day,
        last_day="l" in days,
        weekdays=by_weekday,
        either=by_day is not None and by_weekday is not None,
    )
