"""What the conformance tests of stores stand on: a store, its capabilities, and a clock in the test's hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest_asyncio

from ...metadata.contract import (
    Claimed,
    Deduplicating,
    Delay,
    Delays,
    Ending,
    Enqueued,
    Finished,
    Heartbeat,
    Inspection,
    Jobs,
    Outcome,
    QueueControl,
    Ready,
    Retention,
    Sent,
    Stalled,
    Store,
    Ticket,
    Workers,
)
from ...metadata.job import Deduplication, Job, Keep, NewJob, State
from ..clock import SystemClock

GRACE = 1_000  # ms
LAG = 60_000  # ms
MANY = 100  # more rows than any one test makes
ADOPTION_WINDOW = 600_000  # ms
DAY = 24 * 3600 * 1000  # ms
QUEUE = "emails"
BOOT = "boot-a"
OTHER = "boot-b"


class Scene:
    """One queue of a store, acted on with few words.

    Its clock starts two days ago and is moved by `step`, so that a store with a clock of its own, which counts where it
    is earlier, lets the test's clock decide.
    """

    def __init__(self, store: Store, now: int) -> None:
        self.store = store
        self.jobs = store.get(Jobs)
        self.delays = store.get(Delays)
        self.workers = store.get(Workers)
        self.deduplicating = store.get(Deduplicating)
        self.control = store.get(QueueControl)
        self.inspection = store.get(Inspection)
        self.retention = store.get(Retention)
        self.now = now
        self.touched = [QUEUE]

    def step(self, ms: int) -> None:
        self.now += ms

    def new(self, id: str = "job", **fields: Any) -> NewJob:
        fields.setdefault("payload", b"payload of " + id.encode())
        fields.setdefault("queue", QUEUE)
        if fields["queue"] not in self.touched:
            self.touched.append(fields["queue"])
        return NewJob(id=id, task="task", created_at=self.now, **fields)

    async def enqueue(self, *jobs: NewJob) -> Sequence[Enqueued]:
        return await self.jobs.enqueue(jobs, now=self.now, grace=GRACE)

    async def add(self, id: str = "job", **fields: Any) -> Enqueued:
        return (await self.enqueue(self.new(id, **fields)))[0]

    async def add_unique(self, id: str, *, key: str = "key", run_at: int | None = None, **mode: Any) -> Enqueued:
        return await self.add(id, run_at=run_at, deduplication=Deduplication(id=key, **mode))

    async def confirm(self, id: str = "job", dispatch: int = 1, queue: str = QUEUE) -> None:
        await self.jobs.published([Sent(queue, id, dispatch)], now=self.now)

    async def beat(self, boot: str = BOOT, queue: str = QUEUE, info: bytes = b"") -> Heartbeat:
        return await self.workers.heartbeat(boot, [queue], info=info, now=self.now)

    async def claims(
        self, *tickets: Ticket, owner: str = BOOT, queue: str = QUEUE, keep: Keep | None = None
    ) -> Sequence[Claimed]:
        return await self.jobs.claim(queue, owner, tickets, now=self.now, keep_expired=keep or Keep())

    async def claim(
        self, id: str = "job", dispatch: int = 1, *, owner: str = BOOT, adopt: NewJob | None = None
    ) -> Claimed:
        return (await self.claims(Ticket(id, dispatch, adopt), owner=owner))[0]

    async def start(self, id: str = "job", *, owner: str = BOOT, **fields: Any) -> Claimed:
        """Enqueue, be alive, claim."""
        await self.beat(owner)
        await self.add(id, **fields)
        return await self.claim(id, owner=owner)

    async def finish(
        self, id: str = "job", ending: Ending = Ending.COMPLETED, *, dispatch: int = 1, owner: str = BOOT, **more: Any
    ) -> Finished:
        outcome = Outcome(id=id, dispatch=dispatch, owner=owner, ending=ending, **more)
        return (await self.jobs.finish(QUEUE, [outcome], now=self.now, grace=GRACE))[0]

    async def run(self, id: str = "job", ending: Ending = Ending.COMPLETED, *, keep: Keep | None = None) -> Finished:
        """Enqueue, claim and finish."""
        await self.start(id)
        return await self.finish(id, ending, keep=keep or Keep())

    async def lose(self, boot: str = BOOT) -> bool:
        """Declare a boot dead as a recovery actor does, on the counter that it sees."""
        rows = await self.workers.workers([QUEUE])
        beat = next(row.beat for row in rows if row.boot == boot)
        return await self.workers.declare_dead(QUEUE, boot, beat=beat, now=self.now)

    async def stalled(self, boot: str = BOOT, *, max_stalled: int = 1, limit: int = MANY) -> Stalled:
        return await self.workers.take_stalled(
            QUEUE,
            boot,
            now=self.now,
            grace=GRACE,
            max_stalled=max_stalled,
            error=b"lost",
            history=b"stalled",
            keep=Keep(),
            limit=limit,
        )

    async def unpublished(self, *, limit: int = MANY) -> list[tuple[str, int]]:
        """(id, dispatch) of what a relay would send now."""
        rows = await self.jobs.take_unpublished([QUEUE], now=self.now, grace=GRACE, limit=limit)
        return sorted((row.id, row.dispatch) for row in rows)

    async def overtaken(self, *, sent_before: int | None = None, limit: int = MANY) -> list[tuple[str, int]]:
        rows = await self.jobs.take_overtaken(
            [QUEUE], now=self.now, grace=GRACE, lag=LAG, sent_before=sent_before, limit=limit
        )
        return sorted((row.id, row.dispatch) for row in rows)

    async def due(self, *, limit: int = MANY) -> list[tuple[str, int]]:
        rows = await self.delays.take_due([QUEUE], now=self.now, grace=GRACE, limit=limit)
        return sorted((row.id, row.dispatch) for row in rows.ready)

    async def reschedule(self, *delays: Delay) -> list[Ready | State | None]:
        return list(await self.delays.reschedule(QUEUE, delays, now=self.now, grace=GRACE))

    async def prune(self, *, limit: int = MANY) -> int:
        """Prune until nothing is left to prune; the number of records removed."""
        removed = 0
        for _ in range(MANY):
            pruned = await self.retention.prune([QUEUE], now=self.now, adoption_window=ADOPTION_WINDOW, limit=limit)
            removed += pruned.removed
            if not pruned.more:
                return removed
        raise AssertionError("prune never came to an end")

    async def find(self, id: str = "job", queue: str = QUEUE) -> Job | None:
        return (await self.inspection.get(queue, [id]))[0]

    async def job(self, id: str = "job", queue: str = QUEUE) -> Job:
        job = await self.find(id, queue)
        assert job is not None, f"there is no record of {id!r}"
        return job

    async def faults(self) -> list[str]:
        return [fault for queue in self.touched for fault in await self.inspection.audit(queue)]


class StoreSuite:
    """The part of `StoreConformance` that a store's tests fill in."""

    async def make_store(self) -> Store:
        """A store that is closed and holds nothing: every call takes a namespace of its own."""
        raise NotImplementedError

    async def make_peer(self, store: Store) -> Store | None:
        """Another store, closed, on the data of `store`, which is open; None where data cannot be shared."""
        return None

    async def leftovers(self, store: Store) -> Sequence[str]:
        """Names of what the store still keeps about any queue, its own bookkeeping for all queues excepted."""
        return ()

    async def discard(self, store: Store) -> None:
        """Delete what the test has written; the store is still open."""

    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Store]:
        store = await self.make_store()
        await store.open()
        try:
            yield store
        finally:
            await self.discard(store)
            await store.close()

    @pytest_asyncio.fixture
    async def peer(self, store: Store) -> AsyncIterator[Store]:
        peer = await self.make_peer(store)
        if peer is None:
            yield store
            return
        await peer.open()
        try:
            yield peer
        finally:
            await peer.close()

    @pytest_asyncio.fixture
    async def scene(self, store: Store) -> AsyncIterator[Scene]:
        """A queue to act on. Whatever the test did, every record must end up in its waker index and in no other."""
        scene = Scene(store, SystemClock().now() - 2 * DAY)
        await scene.control.register([QUEUE])
        yield scene
        assert await scene.faults() == []
