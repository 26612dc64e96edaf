"""Schedules in memory. No method awaits, so each call is one atomic step in its loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from ..contract import Admission, Enqueued
from ..job import NewJob, State
from ..schedule import Firing, NewSchedule, Resumption, Schedule
from ..schedules import DueSchedules, Fire, Fired, Resume, Upsert, Upserted
from .jobs import enqueue_one
from .queue import QueueData
from .state import Queues


class MemorySchedules:
    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    async def upsert(self, schedules: Sequence[NewSchedule], *, now: int) -> Sequence[Upserted]:
        return [_upsert(self._queues[new.queue], new, now) for new in schedules]

    async def get(self, queue: str, ids: Sequence[str]) -> Sequence[Schedule | None]:
        return [self._queues[queue].schedules.get(id) for id in ids]

    async def page(self, queue: str, *, offset: int, limit: int) -> Sequence[Schedule]:
        schedules = self._queues[queue].schedules
        return [schedules[id] for id in sorted(schedules, key=str.encode)[offset : offset + limit]]

    async def count(self, queues: Sequence[str]) -> Mapping[str, int]:
        return {name: len(self._queues[name].schedules) for name in queues}

    async def due(self, queues: Sequence[str], *, now: int, limit: int) -> DueSchedules:
        found: list[Schedule] = []
        next_due: int | None = None
        for name in queues:
            data = self._queues[name]
            ids = data.runs.below(now + 1, limit)
            found += [data.schedules[id] for id in ids]
            for id in data.runs.slice(len(ids), 1, descending=False):
                left = data.runs.score(id)
                if left is not None and (next_due is None or left < next_due):
                    next_due = left
        return DueSchedules(found, next_due)

    async def fire(self, queue: str, firings: Sequence[Firing], *, now: int, grace: int) -> Sequence[Fired]:
        data = self._queues[queue]
        return [_fire(data, firing, now, grace) for firing in firings]

    async def pause(self, queue: str, ids: Sequence[str], *, now: int) -> Sequence[bool]:
        data = self._queues[queue]
        for schedule in [data.schedules[id] for id in ids if id in data.schedules]:
            if not schedule.paused:
                _put(data, schedule, paused=True, revision=schedule.revision + 1, updated_at=now)
        return [id in data.schedules for id in ids]

    async def resume(self, queue: str, resumptions: Sequence[Resumption], *, now: int) -> Sequence[Resume]:
        data = self._queues[queue]
        return [_resume(data, resumption, now) for resumption in resumptions]

    async def remove(self, queue: str, ids: Sequence[str]) -> Sequence[bool]:
        data = self._queues[queue]
        return [_remove(data, id) for id in ids]


def _put(data: QueueData, schedule: Schedule, **changes: object) -> None:
    changed = data.schedules[schedule.id] = msgspec.structs.replace(schedule, **changes)
    if changed.paused or changed.next_run is None:
        data.runs.discard(changed.id)
    elif data.runs.score(changed.id) != changed.next_run:
        data.runs.add(changed.id, changed.next_run)


def _upsert(data: QueueData, new: NewSchedule, now: int) -> Upserted:
    known = data.schedules.get(new.id)
    if known is None:
        if new.revision is not None:
            return Upserted(new.id, Upsert.GONE, None, 0)
        made = Schedule(
            id=new.id,
            queue=new.queue,
            trigger=new.trigger,
            definition=new.definition,
            state=new.state,
            next_run=new.next_run,
            created_at=now,
            updated_at=now,
        )
        _put(data, made)
        return Upserted(new.id, Upsert.CREATED, made.next_run, made.revision)
    if known.trigger == new.trigger and known.definition == new.definition:
        return Upserted(known.id, Upsert.UNCHANGED, known.next_run, known.revision)
    if new.revision is not None and new.revision != known.revision:
        return Upserted(known.id, Upsert.CONFLICT, known.next_run, known.revision)
    same = known.trigger == new.trigger
    next_run, state = (known.next_run, known.state) if same else (new.next_run, new.state)
    _put(
        data,
        known,
        trigger=new.trigger,
        definition=new.definition,
        next_run=next_run,
        state=state,
        revision=known.revision + 1,
        updated_at=now,
    )
    return Upserted(known.id, Upsert.UPDATED, next_run, known.revision + 1)


def _fire(data: QueueData, firing: Firing, now: int, grace: int) -> Fired:
    schedule = data.schedules.get(firing.id)
    if schedule is None:
        return Fired(firing.id, Fire.GONE)
    if schedule.revision == firing.revision and data.fired.get(firing.id) == (firing.due, firing.revision, firing.by):
        return Fired(firing.id, Fire.FIRED, tuple(_enqueued_before(data, job, now, grace) for job in firing.jobs))
    if schedule.paused:
        return Fired(firing.id, Fire.PAUSED)
    if (schedule.next_run, schedule.revision) != (firing.due, firing.revision):
        return Fired(firing.id, Fire.MOVED)
    _put(data, schedule, next_run=firing.next_run, state=firing.state)
    data.fired[firing.id] = (firing.due, firing.revision, firing.by)
    return Fired(firing.id, Fire.FIRED, _enqueued(data, firing, now, grace))


def _enqueued(data: QueueData, firing: Firing, now: int, grace: int) -> tuple[Enqueued, ...]:
    return tuple(enqueue_one(data, job, now, grace) for job in firing.jobs)


def _enqueued_before(data: QueueData, job: NewJob, now: int, grace: int) -> Enqueued:
    if job.id in data.tombstones and job.id not in data.records:
        return Enqueued(job.id, Admission.CREATED, State.COMPLETED, 0)
    return enqueue_one(data, job, now, grace)


def _resume(data: QueueData, resumption: Resumption, now: int) -> Resume:
    schedule = data.schedules.get(resumption.id)
    if schedule is None:
        return Resume.GONE
    if not schedule.paused:
        return Resume.RUNNING
    if schedule.revision != resumption.revision:
        return Resume.MOVED
    _put(
        data,
        schedule,
        paused=False,
        next_run=resumption.next_run,
        state=resumption.state,
        revision=schedule.revision + 1,
        updated_at=now,
    )
    return Resume.RESUMED


def _remove(data: QueueData, id: str) -> bool:
    if data.schedules.pop(id, None) is None:
        return False
    data.runs.discard(id)
    data.fired.pop(id, None)
    return True
