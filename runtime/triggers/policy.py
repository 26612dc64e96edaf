"""What becomes of occurrences that were not run in time, and of those whose forerunners still run.

Values and decisions only: `Policy.plan` says what to do with the occurrences that are due, `Policy.admit` with one of
them while others of its schedule run. Each occurrence ends in one of the ways of `Fate`, which is what is recorded.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from msgspec import Struct

from ..duration import Duration
from .contract import MAX_STEPS, MILLISECOND, Tally, Trigger, TriggerInvalid, checked_duration, in_utc
from .daylight import named
from .occurrences import fires_at, latest_until

MAX_CATCH_UP = 1000
MAX_INSTANCES = 10_000
MAX_QUEUED = 10_000


class Fate(StrEnum):
    RAN = "ran"
    COALESCED = "coalesced"  # a later occurrence ran in its place
    MISSED = "missed"  # later than the grace, or beyond the catch-up
    SKIPPED = "skipped"  # too many instances were running


class Overlap(StrEnum):
    """What happens to an occurrence while `max_instances` of its schedule run."""

    SKIP = "skip"
    QUEUE = "queue"  # it waits until one of them ends
    CANCEL = "cancel"  # the oldest of them is cancelled


class Plan(Struct, frozen=True, kw_only=True):
    """`run`: occurrences to run now, oldest first. `coalesced` and `missed`: how many met these fates. `following`: the
    next occurrence, None when the trigger has ended; `fires_at` of it is when to look again."""

    run: tuple[datetime, ...]
    coalesced: Tally = Tally(count=0)
    missed: Tally = Tally(count=0)
    following: datetime | None


class Admission(Struct, frozen=True, kw_only=True):
    """What to do with one occurrence: `run` it now (after cancelling the `cancel` oldest), or let it wait (`queue`), or
    neither: skip it."""

    run: bool = False
    queue: bool = False
    cancel: int = 0


class Policy(Struct, frozen=True, kw_only=True):
    """Use `create`, which checks the values.

    misfire_grace_ms  an occurrence that is later than this is missed; None: it is never too late
    coalesce          of several that are due at once only the latest runs; false: each of them, up to `catch_up`, the
                      latest ones, oldest first; those before them are missed
    max_instances     so many jobs of the schedule at a time; None: no limit
    overlap           what happens to the next one then; with `queue` at most `max_queued` wait, the others are skipped
    """

    misfire_grace_ms: int | None = None
    coalesce: bool = True
    catch_up: int = 100
    max_instances: int | None = None
    overlap: Overlap = Overlap.SKIP
    max_queued: int = 1

    @classmethod
    def create(
        cls,
        *,
        misfire_grace: Duration | None = None,
        coalesce: bool = True,
        catch_up: int = 100,
        max_instances: int | None = None,
        overlap: str = "skip",
        max_queued: int = 1,
    ) -> Policy:
        """`misfire_grace` in seconds or as a timedelta. Raises TriggerInvalid."""
        if not isinstance(coalesce, bool):
            raise TriggerInvalid(member="coalesce", value=coalesce, reason="wants True or False")
        return cls(
            misfire_grace_ms=None if misfire_grace is None else checked_duration(misfire_grace, "misfire_grace"),
            coalesce=coalesce,
            catch_up=_whole(catch_up, "catch_up", MAX_CATCH_UP),
            max_instances=None if max_instances is None else _whole(max_instances, "max_instances", MAX_INSTANCES),
            overlap=named(Overlap, overlap, "overlap"),
            max_queued=_whole(max_queued, "max_queued", MAX_QUEUED),
        )

    def plan(self, trigger: Trigger, expected: datetime, now: datetime, *, seed: str, limit: int = MAX_STEPS) -> Plan:
        """What to do at `now` with a schedule whose next occurrence is `expected`.

        `seed` is that of `fires_at`. What is neither run nor counted by arithmetic is counted up to `limit`, so that
        years of downtime cost no more than an hour of it.
        """
        last = self._last_due(trigger, expected, now, seed)
        if last is None:
            return Plan(run=(), following=expected)
        following = trigger.next_after(last)
        if self.coalesce:
            if self._timely(trigger, last, now, seed):
                earlier = _tally(trigger, expected, last - MILLISECOND, limit)
                return Plan(run=(last,), coalesced=earlier, following=following)
            return Plan(run=(), missed=_tally(trigger, expected, last, limit), following=following)
        run = self._to_catch_up(trigger, expected, last, now, seed)
        oldest = run[0] - MILLISECOND if run else last
        return Plan(run=run, missed=_tally(trigger, expected, oldest, limit), following=following)

    def admit(self, *, running: int, queued: int = 0) -> Admission:
        """`running`: jobs of the schedule that have not ended; `queued`: occurrences that wait for them."""
        if self.max_instances is None or (running < self.max_instances and not queued):
            return Admission(run=True)
        match self.overlap:
            case Overlap.CANCEL:
                return Admission(run=True, cancel=max(0, running - self.max_instances + 1))
            case Overlap.QUEUE if queued < self.max_queued:
                return Admission(queue=True)
        return Admission()

    def _timely(self, trigger: Trigger, occurrence: datetime, now: datetime, seed: str) -> bool:
        if self.misfire_grace_ms is None:
            return True
        return in_utc(now) - fires_at(trigger, occurrence, seed) <= timedelta(milliseconds=self.misfire_grace_ms)

    def _last_due(self, trigger: Trigger, expected: datetime, now: datetime, seed: str) -> datetime | None:
        """The latest occurrence that is to have run by `now`. The jitter keeps the order, so at most one that has come
        is not to run yet."""
        last = latest_until(trigger, now, expected)
        if last is not None and fires_at(trigger, last, seed) > now:
            last = latest_until(trigger, last - MILLISECOND, expected)
        return last

    def _to_catch_up(
        self, trigger: Trigger, expected: datetime, last: datetime, now: datetime, seed: str
    ) -> tuple[datetime, ...]:
        run: list[datetime] = []
        occurrence: datetime | None = last
        while occurrence is not None and len(run) < self.catch_up and self._timely(trigger, occurrence, now, seed):
            run.append(occurrence)
            occurrence = latest_until(trigger, occurrence - MILLISECOND, expected)
        return tuple(reversed(run))


def _tally(trigger: Trigger, first: datetime, last: datetime, limit: int) -> Tally:
    """The occurrences from `first` to `last`."""
    return trigger.count(first - MILLISECOND, last, limit)


def _whole(value: object, member: str, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
        raise TriggerInvalid(member=member, value=value, reason=f"is not a whole number from 1 to {high}")
    return value
