"""Questions about the occurrences of any trigger, answered with `next_after` alone."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import blake2b

from .contract import EARLIEST, MILLISECOND, Trigger, TriggerInvalid, checked_moment, in_utc
from .grid import to_ms

MAX_PREVIEW = 1000
_FIRST_LOOK_BACK = timedelta(seconds=1)


def preview(trigger: Trigger, after: datetime, count: int) -> list[datetime]:
    """The next `count` occurrences (at most 1,000) later than `after`, in UTC; fewer where they end."""
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_PREVIEW:
        raise TriggerInvalid(member="count", value=count, reason=f"is not a whole number from 0 to {MAX_PREVIEW}")
    occurrences: list[datetime] = []
    moment: datetime | None = checked_moment(after, "after")
    while len(occurrences) < count and moment is not None:
        moment = trigger.next_after(moment)
        if moment is not None:
            occurrences.append(moment)
    return occurrences


def latest_until(trigger: Trigger, moment: datetime, since: datetime) -> datetime | None:
    """The last occurrence not later than `moment`, if it is not before `since` either.

    Triggers only look forward, so the search looks back twice as far each time until it meets an occurrence, then
    halves what is left after it. `next_after` never decreases, so some sixty calls are enough for a century.
    """
    until, floor = in_utc(moment), max(in_utc(since), EARLIEST)
    look_back = _FIRST_LOOK_BACK
    while True:
        after = max(until - look_back, floor - MILLISECOND)
        found = trigger.next_after(after)
        if found is not None and found <= until:
            return _last_between(trigger, found, until)
        if after < floor:
            return None
        look_back *= 2


def _last_between(trigger: Trigger, found: datetime, until: datetime) -> datetime:
    """The last occurrence from `found`, which is one, to `until`."""
    beyond = until  # no occurrence is later than this and not later than `until`
    while True:
        following = trigger.next_after(found)
        if following is None or following > until:
            return found
        found = following
        middle = found + (beyond - found) / 2
        following = trigger.next_after(middle)
        if following is not None and following <= until:
            found = following
        else:
            beyond = middle


def fires_at(trigger: Trigger, occurrence: datetime, seed: str) -> datetime:
    """When `occurrence` is to run: put off by a part of the trigger's jitter.

    The part follows from `seed` (the schedule's id) and the occurrence: every replica and every restart finds the same
    moment, and schedules with the same trigger spread. It stays before the next occurrence and not after `end`, so
    that occurrences run in their order.
    """
    if not trigger.jitter_ms:
        return occurrence
    room = timedelta(milliseconds=trigger.jitter_ms)
    following = trigger.next_after(occurrence)
    if following is not None:
        room = min(room, following - occurrence - MILLISECOND)
    if trigger.end is not None:
        room = min(room, trigger.end - occurrence)
    digest = blake2b(f"{seed}@{to_ms(occurrence)}".encode(), digest_size=8).digest()
    share = int.from_bytes(digest) / 2**64
    return occurrence + MILLISECOND * round(max(room, timedelta()) / MILLISECOND * share)
