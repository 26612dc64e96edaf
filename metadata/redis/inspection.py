"""Inspection on Redis. Cost depends on what is asked for, never on how many jobs are kept, `audit` excepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..contract import Counts
from ..job import Job, State
from .audit import audit
from .connection import RedisConnection
from .rows import INDEXES, read_job


class RedisInspection:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def get(self, queue: str, ids: Sequence[str]) -> Sequence[Job | None]:
        if not ids:
            return []
        rows = await self._connection.run("get", queue, ids)
        return [read_job(queue, id, row) for id, row in zip(ids, rows, strict=True)]

    async def counts(self, queues: Sequence[str]) -> Mapping[str, Counts]:
        answers = await self._connection.run_each("counts", [(queue, ()) for queue in queues])
        return {queue: _counts(row) for queue, row in zip(queues, answers, strict=True)}

    async def page(self, queue: str, state: State, *, offset: int, limit: int, newest_first: bool) -> Sequence[Job]:
        if limit <= 0:
            return []
        index = INDEXES.get(state, "")
        ids, rows = await self._connection.run("page", queue, (index, offset, limit, newest_first))
        jobs = [read_job(queue, id.decode(), row) for id, row in zip(ids, rows, strict=True)]
        return [job for job in jobs if job is not None]

    async def progress(self, queue: str, id: str) -> bytes | None:
        value: bytes | None = await self._connection.command(
            "HGET", self._connection.keys.of_queue(queue) + "progress", id
        )
        return value

    async def audit(self, queue: str) -> Sequence[str]:
        return await audit(self._connection, queue)


def _counts(row: Sequence[int]) -> Counts:
    waiting, delayed, children, completed, failed, cancelled, expired, outbox, held, paused, active = row
    return Counts(
        waiting=waiting,
        delayed=delayed,
        waiting_children=children,
        active=active,
        completed=completed,
        failed=failed,
        cancelled=cancelled,
        expired=expired,
        unpublished=outbox + held,
        held=held,
        paused=bool(paused),
    )
