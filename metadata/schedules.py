"""The capability `Schedules`: schedules that are kept, and fired once for each occurrence by any number of schedulers.

The rules of `contract.py` hold here too: one atomic step for each entry, one round trip a batch, repeatable, no scan.
A schedule lives beside the jobs of its queue, so that `fire` records the jobs and moves the schedule in one step. A
store whose steps are single documents moves the schedule and notes the jobs in it, which decides who fires, and records
them then, under the ids that the firing gives them: whoever finds them noted goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from msgspec import Struct

from .schedule import Firing, NewSchedule, Resumption, Schedule

if TYPE_CHECKING:
    from .contract import Enqueued  # contract.py lists this capability, so it imports this module


class Upsert(StrEnum):
    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"  # it has this trigger and this definition already: also a repeat
    CONFLICT = "conflict"  # it is at another revision than the entry names: nothing was changed
    GONE = "gone"  # the entry names a revision, and there is no schedule


class Upserted(Struct, frozen=True):
    """`next_run` and `revision`: the schedule's after the call; None and 0 where it is GONE."""

    id: str
    upsert: Upsert
    next_run: int | None
    revision: int


class DueSchedules(Struct, frozen=True):
    """`next_due`: the earliest next_run beyond `schedules`, None if there is none. `gap`: store clock - `now`."""

    schedules: Sequence[Schedule]
    next_due: int | None
    gap: int = 0


class Fire(StrEnum):
    FIRED = "fired"  # also for a repeat by the same `by`
    MOVED = "moved"  # another next_run or revision: somebody else has fired or changed it
    PAUSED = "paused"
    GONE = "gone"


class Fired(Struct, frozen=True):
    """`enqueued`: what became of each job, as `Jobs.enqueue` answers it; nothing unless FIRED."""

    id: str
    fire: Fire
    enqueued: Sequence[Enqueued] = ()


class Resume(StrEnum):
    RESUMED = "resumed"
    RUNNING = "running"  # it was not paused: nothing was changed; also a repeat
    MOVED = "moved"  # it is at another revision: read it again
    GONE = "gone"


@runtime_checkable
class Schedules(Protocol):
    """Schedules by (queue, id)."""

    async def upsert(self, schedules: Sequence[NewSchedule], *, now: int) -> Sequence[Upserted]:
        """Make or change schedules, of one queue or several.

        An equal trigger keeps next_run and state; another one takes those of the entry. A paused schedule stays so.
        A change adds 1 to the revision."""
        ...

    async def get(self, queue: str, ids: Sequence[str]) -> Sequence[Schedule | None]: ...

    async def page(self, queue: str, *, offset: int, limit: int) -> Sequence[Schedule]:
        """In the order of their ids' bytes. Cost grows with offset + limit only."""
        ...

    async def count(self, queues: Sequence[str]) -> Mapping[str, int]: ...

    async def due(self, queues: Sequence[str], *, now: int, limit: int) -> DueSchedules:
        """Up to `limit` schedules per queue that are not paused, with next_run <= min(now, store clock), the earliest
        first. Reads only: `fire` decides who gets them."""
        ...

    async def fire(self, queue: str, firings: Sequence[Firing], *, now: int, grace: int) -> Sequence[Fired]:
        """Move schedules that are at (`due`, `revision`) and not paused, and enqueue their jobs, as by `Jobs.enqueue`.

        Of several that fire one schedule from one next_run, one is answered FIRED. A job whose id is taken, be it by
        another job, is answered so and does not keep the schedule from moving. Of a repeat, which may come late, jobs
        that were forgotten meanwhile are not recorded again: they are answered as created, and completed."""
        ...

    async def pause(self, queue: str, ids: Sequence[str], *, now: int) -> Sequence[bool]:
        """No firing begins after this returned. False: there is no such schedule."""
        ...

    async def resume(self, queue: str, resumptions: Sequence[Resumption], *, now: int) -> Sequence[Resume]: ...

    async def remove(self, queue: str, ids: Sequence[str]) -> Sequence[bool]:
        """Forget schedules; their jobs stay. False: there was none."""
        ...
