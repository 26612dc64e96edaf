"""Who waits for a job's end, and a store that tells of ends until a queue cannot be added."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import Raw

from callboard.brokers.topology import Names
from callboard.metadata.ends import Ends
from callboard.metadata.errors import StoreError, StoreUnavailable
from callboard.runtime.listener import Listener
from callboard.runtime.wire import Event, encode_events

RESULT = b"1"


class FakeEnds:
    """One connection for all queues, which a queue that cannot be added ends. `fault`: of the next queue; None where
    nobody answers."""

    def __init__(self) -> None:
        self.fault: StoreError | StoreUnavailable | None = None
        self.answers = True
        self.is_lost_after = False  # the next answer
        self.deaf: Callable[[], None] = lambda: None
        self.hears: set[str] = set()
        self.asked = 0
        self.may_sync = asyncio.Event()

    async def hear(self, *, told: Callable[[str, str, bytes | None], None], deaf: Callable[[], None]) -> FakeEnds:
        self.deaf = deaf
        return self

    async def sync(self) -> None:
        self.asked += 1
        await self.may_sync.wait()

    async def add(self, queue: str) -> None:
        try:
            if self.fault is not None:
                raise self.fault
            if not self.answers:
                await asyncio.get_running_loop().create_future()
            self.hears.add(queue)
            if self.is_lost_after:
                self.deaf()
        except BaseException:
            self.hears.clear()
            raise


class Scene:
    """The broker's events come; the store tells of no end."""

    def __init__(self) -> None:
        self.ends = FakeEnds()
        self.receive: Callable[[Any], None] | None = None
        store: Any = SimpleNamespace(capabilities={Ends}, get=lambda _: self.ends)
        broker: Any = self
        self.listener = Listener(broker=broker, store=store, names=Names("test"), boot="boot")

    async def declare(self, topology: object) -> None: ...

    async def consume(self, queue: str, receive: Callable[[Any], None], *, prefetch: int) -> object:
        self.receive = receive
        return self

    def event(self, queue: str, id: str) -> None:
        assert self.receive is not None
        event = Event(event="completed", job=id, queue=queue, task="t", at=1, result=Raw(RESULT))
        self.receive(SimpleNamespace(body=encode_events([event]), ack=lambda: None))


@pytest.fixture
async def scene() -> Scene:
    scene = Scene()
    scene.listener.unwatch("a", "first", await scene.listener.watch("a", "first"))
    assert scene.ends.hears == {"a"}
    return scene


async def forbidden(scene: Scene) -> None:
    scene.ends.fault = StoreError("no permission")
    await scene.listener.watch("b", "job")


async def given_up(scene: Scene) -> None:
    scene.ends.answers = False
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await scene.listener.watch("b", "job")


async def away(scene: Scene) -> None:
    scene.ends.fault = StoreUnavailable("redis", "gone")
    await scene.listener.watch("b", "job")


async def lost(scene: Scene) -> None:
    scene.ends.is_lost_after = True
    await scene.listener.watch("b", "job")


FAILING = pytest.mark.parametrize("fails", [forbidden, given_up, away, lost], ids=lambda one: one.__name__)


@FAILING
async def test_where_a_queue_cannot_be_added_the_brokers_word_on_the_others_counts(
    scene: Scene, fails: Callable[[Scene], Any]
) -> None:
    ended, other = await scene.listener.watch("a", "chosen"), await scene.listener.watch("a", "other")
    await fails(scene)
    scene.event("a", "chosen")
    assert ended.done()
    assert not other.done()


async def test_of_a_queue_whose_connection_was_lost_behind_its_answer_the_brokers_word_counts(scene: Scene) -> None:
    scene.ends.is_lost_after = True
    ended = await scene.listener.watch("b", "chosen")
    scene.event("b", "chosen")
    assert ended.done()


async def test_while_nothing_is_told_the_store_is_asked_whether_the_way_is_there_once_at_a_time(scene: Scene) -> None:
    for _ in range(3):
        scene.listener.doubt()
        await asyncio.sleep(0)
    assert scene.ends.asked == 1
    scene.ends.may_sync.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    scene.listener.doubt()
    await asyncio.sleep(0)
    assert scene.ends.asked == 2
