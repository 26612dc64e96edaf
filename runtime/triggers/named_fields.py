"""The named-field form of a cron trigger: year, month, day, week, day_of_week, hour, minute, second.

A field is a list, by commas, of

    *    */n    a    a-b    a-b/n    a/n    (from a to the field's last value)      for months and weekdays also names
    last        the last day of the month                                           in `day`
    2nd fri     also 1st, 3rd, 4th, 5th, last: that weekday of the month            in `day`

or an int. All fields must hold. Fields before the first that is given are `*`; those after the last that is given have
their least value, except `week` and `day_of_week`, which are `*`: `hour=6` is 06:00:00 on every day.

`week` is the week of ISO 8601, 1 to 53. Weekdays are as in crontabs: 0 and 7 are Sunday, 1 is Monday. (Asyncz, whose
form this is, counts from Monday, 0; names mean the same in both.) Ranges of weekdays and months may go round:
`sat-mon`, `nov-feb`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from .contract import TriggerInvalid
from .crontab import MAX_CHARACTERS, MAX_ITEMS
from .wall_calendar import DayRule, NthWeekday, WallCalendar

FieldValue = int | str

_MONTHS = {
    **{"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6},
    **{"jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12},
}
_WEEKDAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
_NTH = {"1st": 1, "2nd": 2, "3rd": 3, "4th": 4, "5th": 5, "last": -1}
_ITEM = re.compile(r"(?:(\*)|([a-z]+|\d{1,4})(?:-([a-z]+|\d{1,4}))?)(?:/(\d{1,4}))?", re.ASCII)
_POSITION = re.compile(r"(1st|2nd|3rd|4th|5th|last)\s+([a-z]+)", re.ASCII)


class _Field(Struct, frozen=True, kw_only=True):
    name: str
    low: int
    high: int
    default: str
    names: dict[str, int] = {}
    circular: bool = False


_FIELDS = (
    _Field(name="year", low=1970, high=2199, default="*"),
    _Field(name="month", low=1, high=12, default="1", names=_MONTHS, circular=True),
    _Field(name="day", low=1, high=31, default="1"),
    _Field(name="week", low=1, high=53, default="*"),
    _Field(name="day_of_week", low=0, high=6, default="*", names=_WEEKDAYS, circular=True),
    _Field(name="hour", low=0, high=23, default="0"),
    _Field(name="minute", low=0, high=59, default="0"),
    _Field(name="second", low=0, high=59, default="0"),
)
FIELD_NAMES = tuple(field.name for field in _FIELDS)


def field_texts(given: Mapping[str, FieldValue | None]) -> dict[str, str]:
    """The fields that are not None, each as text in small letters. Raises TriggerInvalid naming the field."""
    return {name: _text(name, value) for name, value in given.items() if value is not None}


def parse_fields(texts: Mapping[str, str]) -> WallCalendar:
    """From what `field_texts` made. Raises TriggerInvalid naming the field, or if there is none."""
    if not texts:
        raise TriggerInvalid(member="expression", value=None, reason=f"give it, or one of {', '.join(FIELD_NAMES)}")
    last_given = max(FIELD_NAMES.index(name) for name in texts)
    values: dict[str, tuple[int, ...] | None] = {}
    special = DayRule()
    for place, field in enumerate(_FIELDS):
        text = texts.get(field.name, "*" if place < last_given else field.default)
        items = [item.strip() for item in text.split(",")]
        if len(items) > MAX_ITEMS:
            reason = f"has {len(items)} items, more than {MAX_ITEMS}"
            raise TriggerInvalid(member=field.name, value=text, reason=reason)
        if field.name == "day":
            special, items = _special_days(items)
        values[field.name] = _values(field, items, text)
    return _calendar(values, special)


def _calendar(values: Mapping[str, tuple[int, ...] | None], special: DayRule) -> WallCalendar:
    days, weeks, weekdays = values["day"], values["week"], values["day_of_week"]
    return WallCalendar(
        seconds=_all(values["second"], 60),
        minutes=_all(values["minute"], 60),
        hours=_all(values["hour"], 24),
        day_rule=DayRule(
            days=None if days is None else frozenset(days),
            last_day=special.last_day and days is not None,
            nth_days=special.nth_days if days is not None else (),
            weekdays=None if weekdays is None else frozenset(weekdays),
            weeks=None if weeks is None else frozenset(weeks),
        ),
        months=values["month"] or tuple(range(1, 13)),
        years=values["year"],
    )


def _all(values: tuple[int, ...] | None, size: int) -> tuple[int, ...]:
    return tuple(range(size)) if values is None else values


def _text(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TriggerInvalid(member=name, value=value, reason=f"wants an int or a string, not {type(value).__name__}")
    if isinstance(value, int):
        return str(value) if 0 <= value <= 9999 else _out_of_range(name, value)
    if len(value) > MAX_CHARACTERS:
        raise TriggerInvalid(member=name, value=value, reason=f"is longer than {MAX_CHARACTERS} characters")
    return value.strip().lower()


def _out_of_range(name: str, value: int) -> str:
    field = _FIELDS[FIELD_NAMES.index(name)]
    raise TriggerInvalid(member=name, value=value, reason=f"is not from {field.low} to {field.high}")


def _special_days(items: list[str]) -> tuple[DayRule, list[str]]:
    """The items that only `day` has, and the rest."""
    nth, rest = [], []
    for item in items:
        position = _POSITION.fullmatch(item)
        if position and position[2] in _WEEKDAYS:
            nth.append(NthWeekday(nth=_NTH[position[1]], weekday=_WEEKDAYS[position[2]]))
        elif item != "last":
            rest.append(item)
    return DayRule(nth_days=tuple(nth), last_day="last" in items), rest


def _values(field: _Field, items: list[str], text: str) -> tuple[int, ...] | None:
    """Sorted; None for all of them."""
    values: set[int] = set()
    for item in items:
        values.update(_range(field, item, text))
    if len(values) == field.high - field.low + 1:
        return None
    return tuple(sorted(values))


def _range(field: _Field, item: str, text: str) -> list[int]:
    match = _ITEM.fullmatch(item)
    if not match:
        reason = f"{item!r} is not *, a value, a range or a step" + (
            ", nor last or as in '2nd fri'" if field.name == "day" else ""
        )
        raise TriggerInvalid(member=field.name, value=text, reason=reason)
    star, first, last, step_text = match.groups()
    step = 1 if step_text is None else int(step_text)
    if step == 0:
        raise TriggerInvalid(member=field.name, value=text, reason=f"{item!r} has a step of 0")
    if star:
        return list(range(field.low, field.high + 1, step))
    low = _value(field, first, text)
    if last is None:
        return list(range(low, field.high + 1, step)) if step_text else [low % 7 if _weekday(field) else low]
    high = _value(field, last, text)
    if low > high:
        if not field.circular:
            raise TriggerInvalid(member=field.name, value=text, reason=f"{item!r} ends before it begins")
        high += field.high - field.low + 1
    size = field.high - field.low + 1
    return [(value - field.low) % size + field.low for value in range(low, high + 1, step)]


def _value(field: _Field, written: str, text: str) -> int:
    if written in field.names:
        return field.names[written]
    if not written.isdigit():
        raise TriggerInvalid(member=field.name, value=text, reason=f"{written!r} is not a value of this field")
    value = int(written)
    if not field.low <= value <= field.high + _weekday(field):
        reason = f"{value} is not from {field.low} to {field.high + _weekday(field)}"
        raise TriggerInvalid(member=field.name, value=text, reason=reason)
    return value


def _weekday(field: _Field) -> bool:
    return field.names is _WEEKDAYS  # where 7 is one more name of 0
