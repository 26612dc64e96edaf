"""The Redis store at a master that sentinels watch over: found through them, and left when another one takes over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import pytest_asyncio

from callboard.metadata.contract import Inspection, Jobs, Ticket, Verdict, Workers
from callboard.metadata.errors import StoreUnavailable
from callboard.metadata.job import Keep, NewJob
from callboard.metadata.redis import RedisStore
from callboard.runtime.clock import SystemClock
from integration.redis_private import require
from redis_servers import SERVICE, RedisSentinel, Sentinel, command, wait_until
from servers import free_port

QUEUE = "emails"

T = TypeVar("T")


@pytest_asyncio.fixture
async def watched(tmp_path: Path) -> AsyncIterator[RedisSentinel]:
    watched = require(lambda: RedisSentinel(tmp_path))
    try:
        yield await asyncio.to_thread(watched.start)
    finally:
        await asyncio.to_thread(watched.kill)


@pytest_asyncio.fixture
async def store(watched: RedisSentinel) -> AsyncIterator[RedisStore]:
    store = RedisStore.from_url(f"{watched.url}?timeout=2", namespace="sentinel")
    await store.open()
    yield store
    await store.close()


async def _enqueue(store: RedisStore, *ids: str) -> None:
    jobs = [NewJob(id=id, queue=QUEUE, task="task", payload=b"", created_at=0) for id in ids]
    await store.get(Jobs).enqueue(jobs, now=SystemClock().now(), grace=0)


async def _claim(store: RedisStore, *ids: str) -> list[Verdict]:
    now = SystemClock().now()
    await store.get(Workers).heartbeat("boot", [QUEUE], info=b"", now=now)
    tickets = [Ticket(id, 1) for id in ids]
    return [c.verdict for c in await store.get(Jobs).claim(QUEUE, "boot", tickets, now=now, keep_expired=Keep())]


async def _until_answered(call: Callable[[], Awaitable[T]]) -> T:
    async with asyncio.timeout(60):
        while True:  # ends by the timeout
            try:
                return await call()
            except StoreUnavailable:
                await asyncio.sleep(0.05)


async def test_the_store_goes_on_at_the_new_master_after_a_failover(store: RedisStore, watched: RedisSentinel) -> None:
    epoch = store.epoch
    await _enqueue(store, "kept", "other")
    assert await asyncio.to_thread(command, watched.master, "WAIT", 1, 10_000) == 1
    await asyncio.to_thread(watched.master.kill)
    with pytest.raises(StoreUnavailable):
        await _enqueue(store, "meanwhile")
    assert await _until_answered(lambda: _claim(store, "kept")) in ([Verdict.CLAIMED], [Verdict.MINE])
    await _until_answered(lambda: _enqueue(store, "meanwhile"))
    assert await asyncio.to_thread(watched.promoted) is watched.replica
    assert (await store.get(Inspection).counts([QUEUE]))[QUEUE].waiting == 2
    assert await store.get(Inspection).audit(QUEUE) == []

    # A store that is opened when the old master is back, as a master still, finds the new one.
    await asyncio.to_thread(watched.master.start)
    late = RedisStore.from_url(watched.url, namespace="sentinel")
    await late.open()
    assert late.epoch == epoch
    await _enqueue(late, "later")
    await late.close()
    assert (await store.get(Inspection).counts([QUEUE]))[QUEUE].waiting == 3


async def test_a_master_that_hangs_is_left_for_the_new_one(store: RedisStore, watched: RedisSentinel) -> None:
    await asyncio.gather(*(_enqueue(store, f"job-{n}") for n in range(20)), *(store.ping() for _ in range(4)))
    assert await asyncio.to_thread(command, watched.master, "WAIT", 1, 10_000) == 1
    await asyncio.to_thread(watched.master.pause)
    await _until_answered(lambda: _enqueue(store, "meanwhile"))
    assert (await store.get(Inspection).counts([QUEUE]))[QUEUE].waiting == 21
    await _until_answered(store.ping)

    # When it wakes up it still takes itself for the master, until the sentinels tell it.
    watched.master.cont()
    await _enqueue(store, "after")
    assert (await store.get(Inspection).counts([QUEUE]))[QUEUE].waiting == 22


async def test_a_master_that_was_made_a_replica_is_left(store: RedisStore, watched: RedisSentinel) -> None:
    await _enqueue(store, "job")
    await asyncio.to_thread(command, watched.sentinels[0], "SENTINEL", "FAILOVER", SERVICE)
    await asyncio.to_thread(wait_until, lambda: watched.promoted() is watched.replica, "a new master")
    await _until_answered(lambda: _enqueue(store, "job", "later"))
    assert await _until_answered(lambda: _claim(store, "job", "later")) != [Verdict.UNKNOWN] * 2


async def test_one_sentinel_is_enough_and_one_that_knows_no_such_master_is_quoted(watched: RedisSentinel) -> None:
    for sentinel in watched.sentinels[:2]:
        await asyncio.to_thread(sentinel.kill)
    store = RedisStore.from_url(watched.url, namespace="sentinel")
    await store.open()
    await store.close()
    url = watched.url.replace(f"/{SERVICE}/", "/other/")
    with pytest.raises(StoreUnavailable, match=r"no sentinel names a master called 'other'.*No such master"):
        await RedisStore.from_url(url, namespace="sentinel").open()


async def test_sentinels_have_a_password_of_their_own(tmp_path: Path) -> None:
    with require(lambda: Sentinel(tmp_path, requirepass="right-hunter2")) as sentinel:
        reasons = {}
        for password in ("wrong-hunter2", "right-hunter2"):
            url = f"redis+sentinel://127.0.0.1:{sentinel.port}/shop?sentinel_password={password}"
            with pytest.raises(StoreUnavailable) as refused:
                await RedisStore.from_url(url, namespace="sentinel").open()
            reasons[password] = str(refused.value)
    assert "invalid username-password pair" in reasons["wrong-hunter2"]
    assert "No such master" in reasons["right-hunter2"]
    assert "hunter2" not in "".join(reasons.values())


async def test_sentinels_that_are_not_there_are_named() -> None:
    port = free_port()
    store = RedisStore.from_url(f"redis+sentinel://:hunter2@127.0.0.1:{port}/shop", namespace="sentinel")
    with pytest.raises(StoreUnavailable, match=rf"no sentinel names a master.*sentinel 127\.0\.0\.1:{port}") as refused:
        await store.open()
    assert "hunter2" not in str(refused.value)
