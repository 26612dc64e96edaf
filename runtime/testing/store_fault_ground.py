"""What the cases of `store_fault_cases.py` stand on: one queue of a store, and the steps that lead to a case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...metadata.contract import (
    Claimed,
    Ending,
    Inspection,
    Jobs,
    Outcome,
    QueueControl,
    Sent,
    Store,
    Ticket,
    Workers,
)
from ...metadata.job import Keep, NewJob
from ...metadata.schedule import NewSchedule
from ...metadata.schedules import Schedules
from .store_scene import BOOT, GRACE

LATER = 5_000  # ms
IDS = ("a", "b", "c")
EVERY_ID = (*IDS, "d", "e", *(f"{schedule}@{n}" for schedule in ("x", "y", "nobody") for n in range(2)))
KEPT = Keep(age=LATER, count=2)


class Ground:
    """One queue of a store, which nobody else uses, at one moment (ms)."""

    def __init__(self, store: Store, queue: str, now: int) -> None:
        self.store = store
        self.queue = queue
        self.now = now
        self.jobs = store.get(Jobs)
        self.workers = store.get(Workers)
        self.control = store.get(QueueControl)
        self.inspection = store.get(Inspection)

    def at(self, store: Store) -> Ground:
        """The same queue by another store."""
        return Ground(store, self.queue, self.now)

    def new(self, id: str, **fields: Any) -> NewJob:
        return NewJob(id=id, queue=self.queue, task="task", payload=id.encode(), created_at=self.now, **fields)

    async def enqueue(self, *jobs: NewJob, ago: int = 0) -> object:
        return await self.jobs.enqueue(jobs, now=self.now - ago, grace=GRACE)

    async def wait(self, *, ago: int = 0) -> object:
        return await self.enqueue(*(self.new(id) for id in IDS), ago=ago)

    async def send(self, *, ago: int = 0) -> None:
        await self.wait(ago=ago)
        await self.jobs.published([Sent(self.queue, id, 1) for id in IDS], now=self.now - ago)

    async def beat(self, boot: str = BOOT) -> object:
        return await self.workers.heartbeat(boot, [self.queue], info=b"info", now=self.now)

    async def claim(self, *tickets: Ticket) -> Sequence[Claimed]:
        tickets = tickets or tuple(Ticket(id, 1) for id in IDS)
        return await self.jobs.claim(self.queue, BOOT, tickets, now=self.now, keep_expired=KEPT)

    async def start(self) -> None:
        await self.beat()
        await self.wait()
        await self.claim()

    async def finish(self, *endings: Ending, run_at: int | None = None, ago: int = 0) -> object:
        outcomes = [
            Outcome(id=id, dispatch=1, owner=BOOT, ending=ending, result=b"result", error=b"error", history=b"history",
                    run_at=run_at, keep=KEPT)
            for id, ending in zip(IDS, endings, strict=True)
        ]  # fmt: skip
        return await self.jobs.finish(self.queue, outcomes, now=self.now - ago, grace=GRACE)

    async def end(self, *, ago: int = 0) -> None:
        await self.start()
        await self.finish(Ending.COMPLETED, Ending.FAILED, Ending.COMPLETED, ago=ago)

    async def declare_dead(self) -> object:
        return await self.workers.declare_dead(self.queue, BOOT, beat=1, now=self.now)

    async def schedule(self, *ids: str) -> object:
        return await self.store.get(Schedules).upsert([self.schedule_of(id) for id in ids], now=self.now)

    def schedule_of(self, id: str, **fields: Any) -> NewSchedule:
        given: dict[str, Any] = {"trigger": b"nightly", "definition": b"", "state": b"", "next_run": self.now}
        return NewSchedule(id=id, queue=self.queue, **given | fields)
