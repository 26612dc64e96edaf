"""Schedules of the standard load's task, and the ids of the jobs that they have to make."""

from __future__ import annotations

from datetime import datetime, timedelta

from callboard.runtime.options import CallOptions
from callboard.runtime.queue import Queue
from callboard.runtime.schedule_record import stamp
from callboard.runtime.triggers import Every, Policy

EACH = Policy.create(coalesce=False, catch_up=1000)  # however late


async def every_second(
    queue: Queue, name: str, *, start: datetime, times: int, milliseconds: int = 5
) -> frozenset[str]:
    """Make a schedule that occurs so many times, first at `start`, a whole second; `milliseconds`: of each handler."""
    trigger = Every(1, start=start, end=start + timedelta(seconds=times - 1))
    args, options = (milliseconds, False), CallOptions()
    new = queue.new_schedule("work", trigger, id=name, args=args, kwargs={}, options=options, policy=EACH, since=start)
    await queue.upsert_schedules([new])
    return frozenset(f"{name}@{stamp(round((start.timestamp() + step) * 1000))}" for step in range(times))
