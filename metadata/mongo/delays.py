"""Delays on MongoDB.

A look for due jobs reads a few that are due next as well. When their time has come, the next call takes them with its
first trip, by a write that holds only if they are as they were read and the server's clock has reached their time too;
what else there is, it reads meanwhile. Who finds them taken by others foresees nothing until it gets some again: of
several scanners one is first, as a rule, and the others would write in vain. Many jobs that are due at once are taken
as everything else that becomes due.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

from ..contract import Delay, Due, Ready
from ..job import State
from .connection import Document, MongoConnection
from .names import job_name
from .record import LEAN, TICKETS, Record
from .taking import FIELDS, one_of, take
from .work import Work, settle

FEW = 8  # delayed jobs that a look reads; where all of them are due, there may be many

Change = Callable[[Record], None]


class MongoDelays:
    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._foreseen: list[Document] = []
        self._first = True  # of several scanners, as it seems

    async def take_due(self, queues: Sequence[str], *, now: int, grace: int, limit: int, ahead: int = 0) -> Due:
        if not queues:
            return Due([], None)
        until = now + ahead

        def wake(record: Record) -> None:
            record.wait(dispatch=record.dispatch + 1, due=until + grace, now=now)

        timely = [one for one in self._foreseen if one["at"] <= until and one["queue"] in queues]
        foreseen = timely[:limit] if self._first else []
        self._foreseen = []
        taken, found = await asyncio.gather(
            self._take_foreseen(foreseen, wake, ahead), self._earliest(queues, FEW + len(foreseen))
        )
        if foreseen:
            self._first = len(taken) == len(foreseen)
        clock = found[0]["clock"] if found else await self._connection.clock()
        due_by = min(now, clock) + ahead
        names = {record.name for record in taken}
        left = [one for one in found if one["name"] not in names]
        due = [one for one in left if one["at"] <= due_by]
        if due and (len(due) >= FEW or max(Counter(one["queue"] for one in due).values()) > limit):
            return await self._take_many(queues, taken, wake, due_by, limit, ahead, clock - now)
        if due:
            more = await self._take(due, wake)
            self._first = self._first or len(more) == len(due)
            taken += more
        self._foreseen = left[len(due) :]
        next_due = self._foreseen[0]["at"] if self._foreseen else None
        return Due([record.ready(due_by=due_by - ahead) for record in taken], next_due, clock - now)

    async def _take_foreseen(self, foreseen: Sequence[Document], wake: Change, ahead: int) -> list[Record]:
        if not foreseen:
            return []
        return await self._take(foreseen, wake, not_before=max(one["at"] for one in foreseen) - ahead)

    async def _take(self, documents: Sequence[Document], wake: Change, not_before: int | None = None) -> list[Record]:
        """Those of which nobody else has changed the document."""
        work = Work(self._connection)
        work.not_before = not_before
        records = work.take(documents, TICKETS)
        for record in records:
            wake(record)
        lost = await work.commit()
        return [record for record in records if record.name not in lost]

    async def _take_many(
        self, queues: Sequence[str], taken: list[Record], wake: Change, due_by: int, limit: int, ahead: int, gap: int
    ) -> Due:
        for queue in queues:

            async def find(most: int, queue: str = queue) -> list[Document]:
                return [one for one in await self._earliest([queue], most) if one["at"] <= due_by]

            room = limit - sum(record.queue == queue for record in taken)
            taken += await take(self._connection, find, wake, room, TICKETS)
        rest = await self._earliest(queues, 1)
        next_due = rest[0]["at"] if rest else None
        return Due([record.ready(due_by=due_by - ahead) for record in taken], next_due, gap)

    async def _earliest(self, queues: Sequence[str], most: int) -> list[Document]:
        where = {"queue": one_of(queues), "state": State.DELAYED.value}
        return await self._connection.find(where, FIELDS, sort=[("at", 1)], limit=most)

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
