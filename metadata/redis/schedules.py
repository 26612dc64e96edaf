"""Schedules on Redis: arguments to script calls, answers to values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..contract import Admission, Enqueued
from ..schedule import Firing, NewSchedule, Resumption, Schedule
from ..schedules import DueSchedules, Fire, Fired, Resume, Upsert, Upserted
from .connection import RedisConnection
from .rows import STATES, job_row, text


class RedisSchedules:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def upsert(self, schedules: Sequence[NewSchedule], *, now: int) -> Sequence[Upserted]:
        places: dict[str, list[int]] = {}
        for place, new in enumerate(schedules):
            places.setdefault(new.queue, []).append(place)
        answers = await self._connection.run_each(
            "upsert_schedules",
            [(queue, (now, [_new_row(schedules[place]) for place in ours])) for queue, ours in places.items()],
        )
        upserted: dict[int, Upserted] = {}
        for ours, rows in zip(places.values(), answers, strict=True):
            for place, at in zip(ours, range(0, len(rows), 3), strict=True):
                word, next_run, revision = rows[at : at + 3]
                upserted[place] = Upserted(schedules[place].id, Upsert(word.decode()), _moment(next_run), revision)
        return [upserted[place] for place in range(len(schedules))]

    async def get(self, queue: str, ids: Sequence[str]) -> Sequence[Schedule | None]:
        if not ids:
            return []
        rows = await self._connection.run("get_schedules", queue, list(ids))
        return [_schedule(queue, row) for row in rows]

    async def page(self, queue: str, *, offset: int, limit: int) -> Sequence[Schedule]:
        if limit < 1:
            return []
        return _schedules(queue, await self._connection.run("page_schedules", queue, (offset, limit)))

    async def count(self, queues: Sequence[str]) -> Mapping[str, int]:
        if not queues:
            return {}
        of_queue = self._connection.keys.of_queue
        answers = await self._connection.commands([("HLEN", of_queue(queue) + "schedule") for queue in queues])
        return dict(zip(queues, answers, strict=True))

    async def due(self, queues: Sequence[str], *, now: int, limit: int) -> DueSchedules:
        answers = await self._connection.run_each("due_schedules", [(queue, (now, limit)) for queue in queues])
        found = [
            schedule for queue, (_, rows) in zip(queues, answers, strict=True) for schedule in _schedules(queue, rows)
        ]
        left = [int(float(first)) for (first, _), _ in answers if first != b""]
        gap = answers[-1][0][1] - now if answers else 0
        return DueSchedules(found, min(left, default=None), gap)

    async def fire(self, queue: str, firings: Sequence[Firing], *, now: int, grace: int) -> Sequence[Fired]:
        if not firings:
            return []
        rows = await self._connection.run("fire", queue, (now, grace, [_firing_row(firing) for firing in firings]))
        return [
            Fired(firing.id, Fire(word.decode()), _enqueued(jobs))
            for firing, (word, jobs) in zip(firings, rows, strict=True)
        ]

    async def pause(self, queue: str, ids: Sequence[str], *, now: int) -> Sequence[bool]:
        if not ids:
            return []
        return [bool(found) for found in await self._connection.run("pause_schedules", queue, (now, list(ids)))]

    async def resume(self, queue: str, resumptions: Sequence[Resumption], *, now: int) -> Sequence[Resume]:
        if not resumptions:
            return []
        entries = [(one.id, one.revision, one.next_run, text(one.state)) for one in resumptions]
        words = await self._connection.run("resume_schedules", queue, (now, entries))
        return [Resume(word.decode()) for word in words]

    async def remove(self, queue: str, ids: Sequence[str]) -> Sequence[bool]:
        if not ids:
            return []
        return [bool(found) for found in await self._connection.run("remove_schedules", queue, list(ids))]


def _new_row(new: NewSchedule) -> tuple[Any, ...]:
    return new.id, text(new.trigger), text(new.definition), text(new.state), new.next_run, new.revision


def _firing_row(firing: Firing) -> tuple[Any, ...]:
    jobs = [job_row(job) for job in firing.jobs]
    return firing.id, firing.due, firing.revision, firing.next_run, text(firing.state), firing.by, jobs


def _enqueued(rows: Sequence[Any]) -> tuple[Enqueued, ...]:
    return tuple(
        Enqueued(
            rows[at + 1].decode(),
            Admission(rows[at].decode()),
            STATES[rows[at + 2]],
            rows[at + 3],
            rows[at + 4].decode() or None,
        )
        for at in range(0, len(rows), 5)
    )


def _schedules(queue: str, rows: Sequence[Any]) -> list[Schedule]:
    return [schedule for row in rows if (schedule := _schedule(queue, row)) is not None]


def _schedule(queue: str, row: Sequence[Any]) -> Schedule | None:
    """`row`: a description of timetable.lua."""
    if len(row) == 1:
        return None
    id, trigger, definition, state, next_run, paused, revision, created_at, updated_at = row
    return Schedule(
        id=id.decode(),
        queue=queue,
        trigger=trigger,
        definition=definition,
        state=state,
        next_run=_moment(next_run),
        paused=bool(paused),
        revision=revision,
        created_at=created_at,
        updated_at=updated_at,
    )


def _moment(value: int | bytes) -> int | None:
    return value if isinstance(value, int) else None
