"""What a trigger is: a frozen value that answers which moment comes next. No clock, no store, no state.

    Trigger
    ├── Every       a grid of equal steps from its start
    ├── Cron        a crontab expression or named fields, read on the clocks of a time zone
    ├── At          one moment
    ├── AnyOf       the earliest of several triggers
    └── AllOf       the moments that several triggers have in common

    TriggerInvalid  a trigger or a policy that makes no sense: names the member and holds the value

Moments are aware datetimes; results are in UTC. Whole milliseconds are the finest step: `start`, `end` and the moment
of an `At` lose what is finer. The answer of `next_after` is the occurrence by name, from which a job's id is made; the
jitter comes on top of it, in `occurrences.fires_at`, and so it can never add up.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol, runtime_checkable

from msgspec import Struct

from ..duration import Duration, DurationInvalid, seconds_to_ms
from ..errors import CallboardError
from ..json_value import shown

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
EARLIEST = EPOCH
LATEST = datetime(2200, 1, 1, tzinfo=UTC)  # what is later is a mistake of units
MAX_JITTER_MS = 86_400_000
MAX_STEPS = 1000


class TriggerInvalid(CallboardError, ValueError):
    """A trigger or a policy that can't be accepted as it was given."""

    def __init__(self, *, member: str, value: object, reason: str) -> None:
        super().__init__(f"{member}={shown(value)}: {reason}")
        self.member = member
        self.value = value
        self.reason = reason


class Tally(Struct, frozen=True, kw_only=True):
    """How many; `exact` false: at least so many, counting stopped there."""

    count: int
    exact: bool = True


@runtime_checkable
class Trigger(Protocol):
    """A value: equal triggers answer equally, always and everywhere (given the same time zone data)."""

    @property
    def start(self) -> datetime | None:
        """No occurrence is earlier. None: no limit."""
        ...

    @property
    def end(self) -> datetime | None:
        """No occurrence is later; one exactly then counts. None: no limit."""
        ...

    @property
    def jitter_ms(self) -> int:
        """The longest time by which `occurrences.fires_at` may put an occurrence off."""
        ...

    def next_after(self, moment: datetime) -> datetime | None:
        """The first occurrence later than `moment`, in UTC; None when there is none.

        Never decreases when `moment` grows. Its time is bounded, whatever the distance between `moment` and today.
        """
        ...

    def count(self, after: datetime, until: datetime, limit: int = MAX_STEPS) -> Tally:
        """How many occurrences are later than `after` and not later than `until`.

        By arithmetic where the kind allows it; otherwise by steps, at most `limit` of them.
        """
        ...

    def anchored(self, moment: datetime) -> Trigger:
        """The same trigger with `moment` for what it left open: a grid without a start gets its first occurrence one
        interval later. A trigger that leaves nothing open is returned as it is."""
        ...


def counted_by_steps(trigger: Trigger, after: datetime, until: datetime, limit: int) -> Tally:
    """`Trigger.count` for any trigger: one `next_after` an occurrence."""
    count = 0
    moment = trigger.next_after(after)
    while moment is not None and moment <= until:
        if count == limit:
            return Tally(count=count, exact=False)
        count += 1
        moment = trigger.next_after(moment)
    return Tally(count=count)


def checked_moment(value: object, member: str) -> datetime:
    """In UTC, cut to whole milliseconds. Raises TriggerInvalid for what is not an aware datetime of the years 1970 to
    2199."""
    if not isinstance(value, datetime):
        reason = f"wants an aware datetime, not {type(value).__name__}"
        raise TriggerInvalid(member=member, value=value, reason=reason)
    if value.utcoffset() is None:
        raise TriggerInvalid(
            member=member, value=value, reason="has no time zone; add one: datetime(..., tzinfo=datetime.UTC)"
        )
    if not 1970 <= value.year <= 2199:  # before astimezone, which fails at the ends of the calendar
        raise TriggerInvalid(member=member, value=value, reason="is not in the years 1970 to 2199")
    moment = in_utc(value)
    if not EARLIEST <= moment < LATEST:
        raise TriggerInvalid(member=member, value=value, reason="is not in the years 1970 to 2199")
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def checked_window(start: object, end: object) -> tuple[datetime | None, datetime | None]:
    """`start` and `end` of a trigger. Raises TriggerInvalid, also where the end is not later than the start."""
    first = None if start is None else checked_moment(start, "start")
    last = None if end is None else checked_moment(end, "end")
    if first is not None and last is not None and last < first:
        raise TriggerInvalid(member="end", value=end, reason=f"is before start, {first.isoformat()}")
    return first, last


def checked_jitter(value: Duration) -> int:
    milliseconds = checked_duration(value, "jitter")
    if milliseconds > MAX_JITTER_MS:
        raise TriggerInvalid(member="jitter", value=value, reason="is longer than a day")
    return milliseconds


def checked_duration(value: object, member: str) -> int:
    """Milliseconds. Raises TriggerInvalid for what `seconds_to_ms` refuses."""
    try:
        return seconds_to_ms(value, member)
    except DurationInvalid as error:
        raise TriggerInvalid(member=member, value=value, reason=error.reason) from None


def before_first(moment: datetime, start: datetime | None) -> datetime:
    """Where a search for what is later than `moment` and not before `start` begins: the latest time that is excluded.

    Times before 1970 count as its first moment, those after 2200 as the latest, so that no arithmetic runs out of the
    calendar."""
    floor = EARLIEST if start is None else start
    if moment.year < 1970:
        return floor - MILLISECOND
    if moment.year > LATEST.year:
        return LATEST
    return max(in_utc(moment), floor - MILLISECOND)


def within_end(occurrence: datetime | None, end: datetime | None) -> datetime | None:
    if occurrence is None or occurrence >= LATEST or (end is not None and occurrence > end):
        return None
    return occurrence
