"""What `Ends` promises: who waits for a job's end is told of it as soon as it is final."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ...metadata.contract import Ending, Store
from ...metadata.ends import Ends, EndsHearing
from ...metadata.job import Keep
from .store_scene import BOOT, QUEUE, Scene, StoreSuite

TOLD_SECONDS = 5.0

End = tuple[str, str, bytes | None]


class Ear:
    """What was told, in order: queue, id and result."""

    def __init__(self, store: Store) -> None:
        self._ends = store.get(Ends)
        self._told: asyncio.Queue[End] = asyncio.Queue()

    async def hear(self, *queues: str) -> EndsHearing:
        hearing = await self._ends.hear(told=lambda *end: self._told.put_nowait(end), deaf=lambda: None)
        for queue in queues:
            await hearing.add(queue)
        return hearing

    async def next(self) -> End:
        async with asyncio.timeout(TOLD_SECONDS):
            return await self._told.get()

    @property
    def silent(self) -> bool:
        return self._told.empty()


class EndsConformance(StoreSuite):
    @pytest_asyncio.fixture
    async def ear(self, store: Store, scene: Scene) -> AsyncIterator[Ear]:
        if Ends not in store.capabilities:
            pytest.skip(f"the store {store.scheme} does not offer Ends")
        ear = Ear(store)
        hearing = await ear.hear(QUEUE)
        yield ear
        await hearing.close()

    async def test_a_result_is_told_with_its_end(self, scene: Scene, ear: Ear) -> None:
        await scene.start()
        await scene.finish(result=b'"\xc3\xa9 and 7:8:9"', history=b"run")
        assert await ear.next() == (QUEUE, "job", b'"\xc3\xa9 and 7:8:9"')
        assert ear.silent

    async def test_an_end_without_a_result_is_told_without(self, scene: Scene, ear: Ear) -> None:
        await scene.start("null")
        await scene.finish("null", history=b"run")
        await scene.start("lost")
        await scene.finish("lost", Ending.FAILED, error=b"no")
        assert [await ear.next(), await ear.next()] == [(QUEUE, "null", None), (QUEUE, "lost", None)]

    async def test_a_large_result_is_left_in_the_record(self, scene: Scene, ear: Ear) -> None:
        await scene.start()
        await scene.finish(result=b"x" * 100_000, history=b"run")
        assert await ear.next() == (QUEUE, "job", None)

    async def test_ends_of_one_call_are_told_one_by_one(self, scene: Scene, ear: Ear) -> None:
        await scene.start("a")
        await scene.start("\N{GREEK SMALL LETTER BETA}")
        await scene.finish("a", result=b"1", history=b"run")
        await scene.finish("\N{GREEK SMALL LETTER BETA}", result=b"2", history=b"run")
        assert [(await ear.next())[1:], (await ear.next())[1:]] == [("a", b"1"), ("\N{GREEK SMALL LETTER BETA}", b"2")]

    async def test_what_was_told_before_has_been_heard_after_a_sync(self, store: Store, scene: Scene, ear: Ear) -> None:
        another = Ear(store)
        hearing = await another.hear(QUEUE)
        await scene.run("job")
        await hearing.sync()
        assert not another.silent
        await hearing.close()

    async def test_a_retry_is_no_end(self, scene: Scene, ear: Ear) -> None:
        await scene.start()
        await scene.finish(ending=Ending.RETRY)
        await scene.claim(dispatch=2)
        await scene.finish(dispatch=2, result=b"2")
        assert await ear.next() == (QUEUE, "job", b"2")

    async def test_other_ends_are_told_too(self, scene: Scene, ear: Ear) -> None:
        await scene.add("cancelled")
        await scene.jobs.cancel(QUEUE, ["cancelled"], now=scene.now, keep=Keep())
        await scene.beat()
        await scene.add("expired", expires_at=scene.now)
        await scene.claim("expired")
        await scene.start("stalled")
        await scene.lose(BOOT)
        await scene.stalled(max_stalled=0)
        assert [(await ear.next())[1] for _ in range(3)] == ["cancelled", "expired", "stalled"]

    async def test_only_queues_that_were_asked_for_are_told_of(self, scene: Scene, ear: Ear) -> None:
        await scene.add("there", queue="reports")
        await scene.jobs.cancel("reports", ["there"], now=scene.now, keep=Keep())
        await scene.run("here")
        assert (await ear.next())[:2] == (QUEUE, "here")
        assert ear.silent
