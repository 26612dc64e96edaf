"""What each operation costs: round trips counted on the wire, commands counted by the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from callboard.metadata.contract import (
    Delays,
    Ending,
    Inspection,
    Jobs,
    Outcome,
    QueueControl,
    Ticket,
    Workers,
)
from callboard.metadata.job import Keep, NewJob, State
from callboard.metadata.redis import RedisStore
from callboard.runtime.clock import SystemClock
from integration.operations import BEFORE, DONE, ENQUEUED, OPERATIONS, QUEUES
from integration.redis_private import private_redis
from redis_space import RedisSpace, more_calls
from servers import RedisServer


class CountingProxy:
    """Passes bytes on, and counts how often the client spoke after having been answered."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.trips = 0
        self._asking = False

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(self._pass(reader, downstream, True), self._pass(upstream, writer, False))

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, asking: bool) -> None:
        while data := await source.read(1 << 16):
            if asking and not self._asking:
                self.trips += 1
            self._asking = asking
            target.write(data)
            await target.drain()
        target.close()


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    with private_redis(tmp_path) as server:
        yield server


@pytest_asyncio.fixture
async def proxy(server: RedisServer) -> AsyncIterator[tuple[CountingProxy, RedisStore]]:
    proxy = CountingProxy(server.port)
    port = await proxy.start()
    store = RedisSpace(f"redis://127.0.0.1:{port}/0").store("max_connections=1")
    await store.open()
    yield proxy, store
    await store.close()
    await proxy.close()


@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_operation_is_one_round_trip(proxy: tuple[CountingProxy, RedisStore], name: str) -> None:
    counter, store = proxy
    now = SystemClock().now()
    await store.get(Workers).heartbeat("boot", QUEUES, info=b"", now=now)
    for earlier in BEFORE.get(name, ENQUEUED):
        await earlier(store, now)
    before = counter.trips
    answer = await OPERATIONS[name](store, now)
    assert counter.trips - before == 1
    assert name not in DONE or DONE[name](answer) > 0, answer


async def test_an_empty_batch_makes_no_trip(proxy: tuple[CountingProxy, RedisStore]) -> None:
    counter, store = proxy
    before, jobs = counter.trips, store.get(Jobs)
    assert await jobs.enqueue([], now=0, grace=0) == []
    await jobs.published([], now=0)
    assert await jobs.claim("emails", "boot", [], now=0, keep_expired=Keep()) == []
    assert await jobs.finish("emails", [], now=0, grace=0) == []
    assert await jobs.cancel("emails", [], now=0, keep=Keep()) == []
    assert await jobs.retry("emails", [], now=0, grace=0) == []
    assert await jobs.remove("emails", [], now=0) == []
    assert await jobs.take_unpublished([], now=0, grace=0, limit=1) == []
    assert await store.get(Delays).reschedule("emails", [], now=0, grace=0) == []
    assert await store.get(Delays).remove("emails", [], now=0) == []
    assert (await store.get(Delays).take_due([], now=0, grace=0, limit=1)).ready == []
    assert await store.get(Inspection).get("emails", []) == []
    assert await store.get(Inspection).counts([]) == {}
    await store.get(QueueControl).register([])
    assert counter.trips == before


async def test_what_is_asked_of_a_queue_costs_the_same_with_ten_jobs_and_with_a_hundred_thousand(
    server: RedisServer,
) -> None:
    space = RedisSpace(server.url)
    store = space.store()
    await store.open()
    now = SystemClock().now()
    await store.get(Workers).heartbeat("boot", ["emails"], info=b"", now=now)

    async def add(count: int, start: int) -> None:
        ids = range(start, start + count)
        jobs = [NewJob(id=f"job-{n}", queue="emails", task="task", payload=b"", created_at=now) for n in ids]
        for at in range(0, count, 1000):
            await store.get(Jobs).enqueue(jobs[at : at + 1000], now=now - 10_000, grace=0)

    async def ask() -> dict[str, int]:
        before = await space.calls()
        await store.get(Inspection).counts(["emails"])
        await store.get(Inspection).page("emails", State.WAITING, offset=0, limit=5, newest_first=False)
        await store.get(Jobs).take_unpublished(["emails"], now=now - 5_000, grace=10_000, limit=5)
        await store.get(Jobs).claim("emails", "boot", [Ticket("job-9", 1)], now=now, keep_expired=Keep())
        await store.get(Jobs).finish(
            "emails", [Outcome(id="job-9", dispatch=1, owner="boot", ending=Ending.RETRY, run_at=None)],
            now=now, grace=0,
        )  # fmt: skip
        return more_calls(await space.calls(), before)

    await add(10, 0)
    few = await ask()
    await add(100_000, 10)
    await store.get(Jobs).remove("emails", ["job-9"], now=now)
    await store.get(Jobs).enqueue(
        [NewJob(id="job-9", queue="emails", task="task", payload=b"", created_at=now)], now=now - 10_000, grace=0
    )
    many = await ask()
    assert (await store.get(Inspection).counts(["emails"]))["emails"].waiting == 100_010
    assert few == many
    await store.close()
