"""Delays on MongoDB."""

from __future__ import annotations

from collections.abc import Sequence

from ..contract import Delay, Due, Ready
from ..job import State
from .connection import MongoConnection
from .names import job_name
from .record import LEAN, TICKETS, Record
from .taking import take_due
from .work import Work, settle


class MongoDelays:
    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection

    async def take_due(self, queues: Sequence[str], *, now: int, grace: int, limit: int) -> Due:
        return await take_due(self._connection, queues, now=now, grace=grace, limit=limit)

    async def reschedule(
        self, queue: str, delays: Sequence[Delay], *, now: int, grace: int
    ) -> Sequence[Ready | State | None]:
        async def load(work: Work, some: Sequence[Delay]) -> None:
            await work.load((job_name(queue, delay.id) for delay in some), without=TICKETS)

        def decide(work: Work, delay: Delay) -> Ready | State | None:
            record = work.find_job(job_name(queue, delay.id))
            if record is None or not _delayed(record):
                return None if record is None else record.job_state
            assert work.clock is not None  # it came with the record
            if delay.run_at is not None and delay.run_at > min(now, work.clock):
                record.delay(delay.run_at)
                return State.DELAYED
            record.run_at = now if delay.run_at is None else delay.run_at
            record.wait(dispatch=record.dispatch + 1, due=now + grace, now=now)
            return record.ready()

        return await settle(self._connection, delays, load, decide) if delays else []

    async def remove(self, queue: str, ids: Sequence[str], *, now: int) -> Sequence[bool]:
        async def load(work: Work, some: Sequence[str]) -> None:
            await work.load((job_name(queue, id) for id in some), without=LEAN)

        def decide(work: Work, id: str) -> bool:
            record = work.find_job(job_name(queue, id))
            if record is None or not _delayed(record):
                return False
            record.bury(now, whatever_ttl=True)
            return True

        return await settle(self._connection, ids, load, decide) if ids else []


def _delayed(record: Record) -> bool:
    return record.state == State.DELAYED
