"""Triggers by the names that users of Asyncz and APScheduler know: as aliases with arguments, and as calls.

    interval    weeks, days, hours, minutes, seconds                     Every
    cron        year, month, day, week, day_of_week, hour, minute, second, or expression    Cron
    date        run_at (or run_date)                                     At
    and, or     triggers                                                 AllOf, AnyOf

All but `date` also take start_at, end_at and jitter; `cron` and `date` a timezone. The calls make values of this
package, so what they make is equal to what its own names make. Weekdays as numbers count from Sunday (see
named_fields.py); names mean the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from ..duration import Duration
from .at import At
from .combined import AllOf, AnyOf
from .contract import Trigger, TriggerInvalid
from .cron import Cron
from .daylight import checked_zone, zone_of
from .every import Every
from .named_fields import FieldValue

Zone = str | tzinfo

NO_INTERVAL_SECONDS = 1  # what an interval without any part is taken for, as Asyncz does


def zone_name(zone: Zone) -> str:
    """The IANA name of a time zone given as a name, a ZoneInfo or `datetime.timezone.utc`. Raises TriggerInvalid."""
    if isinstance(zone, str | ZoneInfo):
        return checked_zone(zone)
    if zone is UTC or (isinstance(zone, timezone) and zone.utcoffset(None) == timedelta()):
        return "UTC"
    key = getattr(zone, "zone", None) or getattr(zone, "key", None)  # pytz and its like
    if isinstance(key, str):
        return zone_name(key)
    reason = "has no name of the IANA's by which it could be stored; give one, such as 'Europe/Berlin'"
    raise TriggerInvalid(member="timezone", value=zone, reason=reason)


def moment_in(value: datetime | str, zone: Zone, member: str) -> datetime:
    """An aware datetime. One without a zone, or ISO 8601 text without an offset, is read on the clocks of `zone`."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise TriggerInvalid(member=member, value=value, reason="is not a moment as ISO 8601 has it") from None
    if not isinstance(moment, datetime):
        raise TriggerInvalid(member=member, value=value, reason="wants a datetime or ISO 8601 text")
    return moment.replace(tzinfo=zone_of(zone_name(zone))) if moment.tzinfo is None else moment


def interval_trigger(
    *,
    weeks: float = 0,
    days: float = 0,
    hours: float = 0,
    minutes: float = 0,
    seconds: float = 0,
    start_at: datetime | str | None = None,
    end_at: datetime | str | None = None,
    timezone: Zone = "UTC",
    jitter: Duration | None = None,
) -> Every:
    if not any((weeks, days, hours, minutes, seconds)):
        seconds = NO_INTERVAL_SECONDS
    window = _window(start_at, end_at, timezone, jitter)
    return Every(seconds, weeks=weeks, days=days, hours=hours, minutes=minutes, **window)


def cron_trigger(
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
    start_at: datetime | str | None = None,
    end_at: datetime | str | None = None,
    timezone: Zone = "UTC",
    jitter: Duration | None = None,
) -> Cron:
    window = _window(start_at, end_at, timezone, jitter)
    return Cron(
        expression, year=year, month=month, day=day, week=week, day_of_week=day_of_week, hour=hour, minute=minute,
        second=second, zone=zone_name(timezone), **window,
    )  # fmt: skip


def date_trigger(run_at: datetime | str, *, timezone: Zone = "UTC", jitter: Duration | None = None) -> At:
    return At(moment_in(run_at, timezone, "run_at"), jitter=jitter or 0)


def and_trigger(triggers: Sequence[Trigger], jitter: Duration | None = None) -> AllOf:
    return AllOf(*triggers, jitter=jitter or 0)


def or_trigger(triggers: Sequence[Trigger], jitter: Duration | None = None) -> AnyOf:
    return AnyOf(*triggers, jitter=jitter or 0)


class CronTrigger:
    """`CronTrigger(day_of_week="mon,wed", hour=8)` is a `Cron`."""

    def __new__(cls, **fields: Any) -> Cron:  # type: ignore[misc]  # the name is Asyncz's, the value our own
        return cron_trigger(**fields)

    @staticmethod
    def from_crontab(expression: str, timezone: Zone = "UTC") -> Cron:
        return cron_trigger(expression, timezone=timezone)


IntervalTrigger = interval_trigger
DateTrigger = date_trigger
AndTrigger = and_trigger
OrTrigger = or_trigger

_MAKERS: Mapping[str, Callable[..., Trigger]] = {
    "interval": interval_trigger,
    "cron": cron_trigger,
    "date": date_trigger,
    "and": and_trigger,
    "or": or_trigger,
}
_OTHER_NAMES = {"run_date": "run_at", "start_date": "start_at", "end_date": "end_at"}  # APScheduler's


def trigger_of(trigger: Trigger | str, arguments: Mapping[str, Any], *, timezone: Zone = "UTC") -> Trigger:
    """A trigger, or the one of an alias and its arguments; `timezone` counts where they name none. Raises
    TriggerInvalid."""
    if not isinstance(trigger, str):
        if not isinstance(trigger, Trigger):
            reason = f"is no trigger and no alias of one; known are {', '.join(_MAKERS)}"
            raise TriggerInvalid(member="trigger", value=trigger, reason=reason)
        if arguments:
            reason = f"has its own arguments: give it {', '.join(arguments)} where it is made"
            raise TriggerInvalid(member="trigger", value=trigger, reason=reason)
        return trigger
    make = _MAKERS.get(trigger)
    if make is None:
        raise TriggerInvalid(member="trigger", value=trigger, reason=f"is not one of {', '.join(_MAKERS)}")
    given = {_OTHER_NAMES.get(name, name): value for name, value in arguments.items()}
    if trigger not in ("and", "or"):
        given.setdefault("timezone", timezone)
    try:
        return make(**given)
    except TypeError as error:
        reason = f"does not take these arguments: {error}"
        raise TriggerInvalid(member="trigger", value=trigger, reason=reason) from None


def alias_of(trigger: Trigger) -> str:
    match trigger:
        case Every():
            return "interval"
        case Cron():
            return "cron"
        case At():
            return "date"
        case AllOf():
            return "and"
        case AnyOf(parts=(At(moment=first), Cron() as rest)) if first == trigger.start:
            return alias_of(rest)  # which was given a first run
        case AnyOf():
            return "or"
    return type(trigger).__name__.lower()


def description_of(trigger: Trigger) -> str:
    """In a few words, such as `every 600 s` or `30 2 * * * in Europe/Berlin`."""
    match trigger:
        case Every():
            text = f"every {trigger.interval_ms / 1000:g} s"
        case Cron():
            text = trigger.expression or " ".join(f"{name}={value}" for name, value in trigger.fields)
            text += "" if trigger.zone == "UTC" else f" in {trigger.zone}"
        case At():
            return f"at {trigger.moment.isoformat()}"
        case AllOf() | AnyOf():
            joint = " and " if isinstance(trigger, AllOf) else " or "
            text = joint.join(f"({description_of(part)})" for part in trigger.parts)
        case _:
            return repr(trigger)
    start = "" if trigger.start is None else f", from {trigger.start.isoformat()}"
    end = "" if trigger.end is None else f", until {trigger.end.isoformat()}"
    return text + start + end


def _window(
    start_at: datetime | str | None, end_at: datetime | str | None, zone: Zone, jitter: Duration | None
) -> dict[str, Any]:
    return {
        "start": None if start_at is None else moment_in(start_at, zone, "start_at"),
        "end": None if end_at is None else moment_in(end_at, zone, "end_at"),
        "jitter": jitter or 0,
    }
