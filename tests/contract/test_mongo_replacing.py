"""Replacing a delayed job on MongoDB takes several writes: what is there when the process dies before one of them, and
when somebody else writes in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from typing import Any

import pytest
import pytest_asyncio

from callboard.metadata.contract import (
    Admission,
    Claimed,
    Deduplicating,
    Delay,
    Delays,
    Ending,
    Enqueued,
    Inspection,
    Jobs,
    Outcome,
    Retention,
    Ticket,
    Verdict,
    Workers,
)
from callboard.metadata.job import Deduplication, Keep, NewJob, State
from callboard.metadata.mongo import MongoStore
from callboard.metadata.mongo.enqueuing import enqueue
from callboard.runtime.clock import SystemClock
from mongo_space import MongoSpace

BOOT, MINUTE = "boot-a", 60_000
MOST_WRITES = 12  # of one call


@pytest.fixture(params=["mongo_url", "mongo_replica_url"])
def space(request: pytest.FixtureRequest) -> MongoSpace:
    return MongoSpace(request.getfixturevalue(request.param), again=True)


@pytest_asyncio.fixture
async def store(space: MongoSpace) -> AsyncIterator[MongoStore]:
    store = space.store()
    await store.open()
    yield store
    await store.close()
    await space.delete()


@pytest_asyncio.fixture
async def peer(store: MongoStore, space: MongoSpace) -> AsyncIterator[MongoStore]:
    peer = space.store()
    await peer.open()
    yield peer
    await peer.close()


class Died(Exception):
    """The process, between two writes."""


class Watched:
    """A connection on which something happens before each write, counted from 0."""

    def __init__(self, connection: Any, before: Callable[[int], Awaitable[None]]) -> None:
        self._connection = connection
        self._before = before
        self._writes = count()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def write(self, statements: list[Any]) -> Any:
        if statements:
            await self._before(next(self._writes))
        return await self._connection.write(statements)

    async def insert(self, documents: list[Any]) -> Any:
        if documents:
            await self._before(next(self._writes))
        return await self._connection.insert(documents)


class Scene:
    """`old` was sent, failed, and waits for its next attempt under the deduplication id `key`; `new` ran, was
    forgotten, and still holds `other`."""

    def __init__(self, store: MongoStore, queue: str) -> None:
        self.store = store
        self.queue = queue
        self.now = SystemClock().now()
        self.jobs = store.get(Jobs)

    def job(self, id: str, key: str = "key", **fields: Any) -> NewJob:
        mode = Deduplication(id=key, ttl=10 * MINUTE, replace=True)
        return NewJob(
            id=id, queue=self.queue, task="task", payload=b"", created_at=self.now, deduplication=mode, **fields
        )

    async def set(self) -> None:
        await self.store.get(Workers).heartbeat(BOOT, [self.queue], info=b"", now=self.now)
        await self._run(self.job("new", "other"), Ending.COMPLETED, keep=Keep(age=-1))
        await self.store.get(Retention).prune([self.queue], now=self.now, adoption_window=MINUTE, limit=10)
        await self._run(self.job("old"), Ending.RETRY, run_at=self.now + MINUTE)

    async def _run(self, job: NewJob, ending: Ending, **more: Any) -> None:
        await self.jobs.enqueue([job], now=self.now, grace=0)
        assert (await self.late_ticket(job.id)).verdict is Verdict.CLAIMED
        outcome = Outcome(id=job.id, dispatch=1, owner=BOOT, ending=ending, **more)
        await self.jobs.finish(self.queue, [outcome], now=self.now, grace=0)

    async def replace(self, by: str = "new", *, on: Any = None) -> Enqueued:
        newcomer = self.job(by, run_at=self.now + MINUTE)
        (answer,) = await enqueue(on or self.store._connection, [newcomer], now=self.now, grace=0)
        return answer

    async def late_ticket(self, id: str) -> Claimed:
        """Of the first dispatch, as by a worker who would adopt the job."""
        ticket = Ticket(id, 1, self.job(id))
        (answer,) = await self.jobs.claim(self.queue, BOOT, [ticket], now=self.now, keep_expired=Keep())
        return answer

    async def check_that_nothing_old_can_run_and_no_window_is_lost(self) -> None:
        old, new = await self.late_ticket("old"), await self.late_ticket("new")
        assert old.verdict in (Verdict.GONE, Verdict.NOT_DUE), old
        assert new.verdict in (Verdict.GONE, Verdict.NOT_DUE), new
        assert await self.holder("other") == "new"
        assert await self.holder("key") == ("old" if old.verdict is Verdict.NOT_DUE else "new")
        assert await self.store.get(Inspection).audit(self.queue) == []

    async def check_that_the_newcomer_took_its_place(self) -> None:
        await self.check_that_nothing_old_can_run_and_no_window_is_lost()
        old, new = await self.store.get(Inspection).get(self.queue, ["old", "new"])
        assert old is None
        assert new is not None
        assert (new.state, new.dispatch) == (State.DELAYED, 0)
        assert (await self.late_ticket("old")).verdict is Verdict.GONE

    async def holder(self, key: str) -> str | None:
        return await self.store.get(Deduplicating).holder(self.queue, key, now=self.now)


async def test_whichever_write_is_the_last_of_a_process_no_replaced_job_runs_and_no_window_is_lost(
    store: MongoStore,
) -> None:
    for last in range(MOST_WRITES):
        scene = Scene(store, f"dies-{last}")
        await scene.set()

        async def die(number: int, last: int = last) -> None:
            if number == last:
                raise Died

        try:
            await scene.replace(on=Watched(store._connection, die))
            died = False
        except Died:
            died = True
            await scene.check_that_nothing_old_can_run_and_no_window_is_lost()
            await scene.replace()
        await scene.check_that_the_newcomer_took_its_place()
        if not died:
            assert last == 5, "insert, tombstones, their names' windows, the job, the tombstones' names"
            return
    pytest.fail(f"there were more than {MOST_WRITES} writes")


async def test_late_tickets_and_other_writers_between_its_writes_cost_nothing(store: MongoStore) -> None:
    delays = store.get(Delays)
    for moment in range(5):
        scene = Scene(store, f"disturbed-{moment}")
        await scene.set()
        seen = []

        async def disturb(number: int, scene: Scene = scene, moment: int = moment, seen: list[int] = seen) -> None:
            seen.append(number)
            if number == moment:
                await delays.reschedule(scene.queue, [Delay("old", scene.now + 2 * MINUTE)], now=scene.now, grace=0)
            await scene.check_that_nothing_old_can_run_and_no_window_is_lost()

        answer = await scene.replace(on=Watched(store._connection, disturb))
        assert (answer.admission, answer.replaced) == (Admission.REPLACED, "old")
        assert len(seen) > moment
        await scene.check_that_the_newcomer_took_its_place()


async def test_of_two_that_replace_one_job_at_once_one_is_left_and_the_tickets_of_none_run(
    store: MongoStore, peer: MongoStore
) -> None:
    for turn in range(5):
        scene = Scene(store, f"both-{turn}")
        await scene.set()
        await asyncio.gather(scene.replace(), scene.replace("third", on=peer._connection), scene.replace())
        jobs = await store.get(Inspection).get(scene.queue, ["old", "new", "third"])
        (left,) = [job.id for job in jobs if job is not None]
        assert await scene.holder("key") == left
        assert await scene.holder("other") == "new"
        assert (await scene.late_ticket("old")).verdict is Verdict.GONE
        assert await store.get(Inspection).audit(scene.queue) == []


async def die_before_the_tombstone_has_its_name(scene: Scene, store: MongoStore) -> None:
    async def die(number: int) -> None:
        if number == 4:
            raise Died

    with pytest.raises(Died):
        await scene.replace(on=Watched(store._connection, die))


async def test_a_tombstone_that_never_got_its_name_keeps_a_schedules_job_from_being_recorded_again(
    store: MongoStore,
) -> None:
    scene = Scene(store, "fired")
    await scene.set()
    await die_before_the_tombstone_has_its_name(scene, store)
    fired = [scene.job("old", "free")]
    await enqueue(store._connection, fired, now=scene.now, grace=0, anew=False)
    assert await store.get(Inspection).get(scene.queue, ["old"]) == [None]
    await scene.jobs.enqueue(fired, now=scene.now, grace=0)  # whoever asks for it gets it
    assert (await scene.late_ticket("old")).verdict is Verdict.CLAIMED


async def test_a_laid_tombstone_is_forgotten_as_others_are(store: MongoStore, space: MongoSpace) -> None:
    scene = Scene(store, "pruned")
    await scene.set()
    await die_before_the_tombstone_has_its_name(scene, store)
    much_later = scene.now + 20 * MINUTE
    await store.get(Retention).prune([scene.queue], now=much_later, adoption_window=MINUTE, limit=10)
    left = space.documents(queue=scene.queue, id={"$exists": True})
    assert [(one["id"], one["state"]) for one in left] == [("new", State.DELAYED.value)]
    assert await store.get(Inspection).audit(scene.queue) == []
