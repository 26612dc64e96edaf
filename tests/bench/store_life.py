"""A job's life, one operation after the other, on any store: what each costs the server and us in processor time.

Wall time says little on a machine that others use too; what the kernel accounts to each process does.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from time import perf_counter

from msgspec import Struct

from callboard.metadata.contract import Ending, Inspection, Jobs, Outcome, Retention, Sent, Store, Ticket, Workers
from callboard.metadata.job import Keep, NewJob, State
from callboard.runtime.clock import SystemClock

QUEUE, BOOT = "bench", "0123456789abcdef0123456789abcdef"
PAYLOAD, RESULT, HISTORY = bytes(300), bytes(50), bytes(200)
WEEK = 7 * 24 * 3600 * 1000
_OF_ANY_PROCESS = 2  # CPUCLOCK_SCHED of <linux/posix-timers.h>


class Spent(Struct, frozen=True):
    """Microseconds: of the server's processor time, of ours, and by the clock."""

    server: float
    own: float
    wall: float

    def per(self, count: int) -> Spent:
        return Spent(self.server / count, self.own / count, self.wall / count)


def server_seconds(pid: int) -> float:
    """Processor time that a process has used, of all its threads, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | _OF_ANY_PROCESS)


async def spent(pid: int, call: Callable[[], Awaitable[object]]) -> Spent:
    server, own, wall = server_seconds(pid), time.process_time(), perf_counter()
    await call()
    return Spent((server_seconds(pid) - server) * 1e6, (time.process_time() - own) * 1e6, (perf_counter() - wall) * 1e6)


class Life:
    """Jobs from `enqueue` to `finish`, in calls of `batch`; `keep` is what their ends say."""

    def __init__(self, store: Store, *, batch: int, keep: Keep) -> None:
        self.store, self.batch, self.keep = store, batch, keep
        self.jobs = store.get(Jobs)
        self.clock = SystemClock()
        self.made: dict[str, int] = {}  # when each job was enqueued, until it is finished

    async def beat(self) -> None:
        await self.store.get(Workers).heartbeat(BOOT, [QUEUE], info=b"", now=self.clock.now())

    def _batches(self, ids: Sequence[str]) -> Iterator[Sequence[str]]:
        return (ids[start : start + self.batch] for start in range(0, len(ids), self.batch))

    async def enqueue(self, ids: Sequence[str]) -> None:
        for some in self._batches(ids):
            now = self.clock.now()
            self.made |= dict.fromkeys(some, now)
            new = [NewJob(id=id, queue=QUEUE, task="bench.task", payload=PAYLOAD, created_at=now) for id in some]
            await self.jobs.enqueue(new, now=now, grace=60_000)

    async def published(self, ids: Sequence[str]) -> None:
        for some in self._batches(ids):
            await self.jobs.published([Sent(QUEUE, id, 1) for id in some], now=self.clock.now())

    async def claim(self, ids: Sequence[str]) -> None:
        for some in self._batches(ids):
            tickets = [Ticket(id, 1, created_at=self.made[id]) for id in some]
            answers = await self.jobs.claim(QUEUE, BOOT, tickets, now=self.clock.now(), keep_expired=self.keep)
            assert {answer.verdict for answer in answers} == {"claimed"}

    async def finish(self, ids: Sequence[str]) -> None:
        for some in self._batches(ids):
            done = [
                Outcome(
                    id=id, dispatch=1, owner=BOOT, ending=Ending.COMPLETED, result=RESULT, history=HISTORY,
                    keep=self.keep,
                )
                for id in some
            ]  # fmt: skip
            answers = await self.jobs.finish(QUEUE, done, now=self.clock.now(), grace=60_000)
            assert {answer.finish for answer in answers} == {"done"}
            for id in some:
                del self.made[id]

    async def counts(self, _: Sequence[str] = ()) -> None:
        await self.store.get(Inspection).counts([QUEUE])

    async def page(self, offset: int = 0) -> None:
        await self.store.get(Inspection).page(QUEUE, State.COMPLETED, offset=offset, limit=50, newest_first=True)

    async def prune(self, now: int = 0) -> None:
        await self.store.get(Retention).prune([QUEUE], now=now, adoption_window=0, limit=self.batch)
