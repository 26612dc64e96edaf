"""The Redis store on servers that are full, gone, frozen, restarted, or told to forget their scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from callboard.metadata.contract import (
    Ending,
    Finish,
    Inspection,
    Jobs,
    Outcome,
    Retention,
    Sent,
    Ticket,
    Verdict,
    Workers,
)
from callboard.metadata.errors import StoreUnavailable
from callboard.metadata.job import Keep, NewJob
from callboard.metadata.leases import Leases
from callboard.metadata.redis import RedisStore
from callboard.runtime.clock import SystemClock
from integration.redis_private import private_redis
from redis_space import RedisSpace
from servers import RedisServer

QUEUE = "emails"


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    with private_redis(tmp_path, appendfsync="always") as server:
        yield server


@pytest_asyncio.fixture
async def store(server: RedisServer) -> AsyncIterator[RedisStore]:
    store = RedisSpace(server.url).store("timeout=2")
    await store.open()
    yield store
    await store.close()


def _job(id: str, payload: bytes = b"payload") -> NewJob:
    return NewJob(id=id, queue=QUEUE, task="task", payload=payload, created_at=0)


def _done(id: str) -> Outcome:
    return Outcome(id=id, dispatch=1, owner="boot", ending=Ending.COMPLETED, result=b"result", history=b"entry")


async def _enqueue(store: RedisStore, id: str, payload: bytes = b"payload") -> None:
    now = SystemClock().now()
    await store.get(Jobs).enqueue([_job(id, payload)], now=now, grace=0)


async def _claim(store: RedisStore, *ids: str) -> list[Verdict]:
    now = SystemClock().now()
    await store.get(Workers).heartbeat("boot", [QUEUE], info=b"info", now=now)
    tickets = [Ticket(id, 1) for id in ids]
    return [c.verdict for c in await store.get(Jobs).claim(QUEUE, "boot", tickets, now=now, keep_expired=Keep())]


async def _finish(store: RedisStore, *ids: str) -> list[Finish]:
    now = SystemClock().now()
    return [f.finish for f in await store.get(Jobs).finish(QUEUE, [_done(id) for id in ids], now=now, grace=0)]


async def _fill(store: RedisStore) -> int:
    """Enqueue until the server has no room for one more; the number of jobs that it took."""
    for n in range(10_000):
        try:
            await _enqueue(store, f"job-{n}", bytes(4096))
        except StoreUnavailable:
            return n
    raise AssertionError("10,000 jobs of 4 KiB fit into 6 MB")


async def test_a_full_server_refuses_jobs_and_lets_running_ones_end(tmp_path: Path) -> None:
    with private_redis(tmp_path, maxmemory="6mb") as server:
        space = RedisSpace(server.url)
        store = space.store()
        await store.open()
        await _enqueue(store, "running")
        assert await _claim(store, "running") == [Verdict.CLAIMED]
        taken = await _fill(store)
        assert taken > 10
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            await _enqueue(store, f"job-{taken}", bytes(4096))

        # Nothing of a refused enqueue was written.
        assert await store.get(Inspection).get(QUEUE, [f"job-{taken}"]) == [None]
        assert await store.get(Inspection).audit(QUEUE) == []
        # Leases go on, runs end, others begin, tickets are confirmed, retention makes room.
        now = SystemClock().now()
        assert (await store.get(Workers).heartbeat("boot", [QUEUE], info=b"info", now=now)).alive
        assert await _finish(store, "running") == [Finish.DONE]
        await store.get(Jobs).published([Sent(QUEUE, "job-0", 1)], now=now)
        assert await _claim(store, "job-0") == [Verdict.CLAIMED]
        ids = [f"job-{n}" for n in range(1, taken)]
        for start in range(0, len(ids), 100):
            batch = ids[start : start + 100]
            assert set(await _claim(store, *batch)) == {Verdict.CLAIMED}
            outcomes = [
                Outcome(id=id, dispatch=1, owner="boot", ending=Ending.COMPLETED, keep=Keep(age=0)) for id in batch
            ]
            await store.get(Jobs).finish(QUEUE, outcomes, now=now, grace=0)
        rows = await store.get(Workers).workers([QUEUE])
        assert await store.get(Workers).declare_dead(QUEUE, "boot", beat=rows[0].beat, now=now)
        stalled = await store.get(Workers).take_stalled(
            QUEUE, "boot", now=now, grace=0, max_stalled=1, error=b"e", history=b"h", keep=Keep(), limit=100
        )
        assert [ready.id for ready in stalled.ready] == ["job-0"]
        while (await store.get(Retention).prune([QUEUE], now=now + 10_000, adoption_window=0, limit=100)).more:
            pass  # ends: each turn removes a hundred of a finite number
        assert await store.get(Inspection).audit(QUEUE) == []
        await _enqueue(store, "fits-again")
        await store.close()


async def test_forgotten_scripts_are_loaded_again_under_load_without_an_error(
    store: RedisStore, server: RedisServer
) -> None:
    space, stop = RedisSpace(server.url), asyncio.Event()

    async def forget() -> int:
        times = 0
        while not stop.is_set():
            await space.command("SCRIPT", "FLUSH")
            times += 1
        return times

    async def work(worker: int) -> None:
        for n in range(25):
            id, now = f"{worker}-{n}", SystemClock().now()
            other = NewJob(id=id, queue="other", task="task", payload=b"", created_at=0)
            await store.get(Jobs).enqueue([_job(id), other], now=now, grace=0)
            assert await _claim(store, id) == [Verdict.CLAIMED]
            assert await _finish(store, id) == [Finish.DONE]

    forgetting = asyncio.create_task(forget())
    await asyncio.gather(*(work(n) for n in range(4)))
    stop.set()
    assert await forgetting > 10
    counts = await store.get(Inspection).counts([QUEUE, "other"])
    assert (counts[QUEUE].completed, counts["other"].waiting) == (100, 100)


async def test_the_store_comes_back_after_the_server_was_killed(store: RedisStore, server: RedisServer) -> None:
    await asyncio.gather(*(_enqueue(store, f"job-{n}") for n in range(8)))
    await asyncio.to_thread(server.kill)
    with pytest.raises(StoreUnavailable):
        await _enqueue(store, "meanwhile")
    await asyncio.to_thread(server.start)
    await asyncio.gather(*(_enqueue(store, f"later-{n}") for n in range(8)))
    assert await _claim(store, "job-0", "later-7", "meanwhile") == [Verdict.CLAIMED, Verdict.CLAIMED, Verdict.UNKNOWN]


async def test_connections_that_a_restart_has_cut_are_not_noticed(store: RedisStore, server: RedisServer) -> None:
    await asyncio.gather(*(_enqueue(store, f"job-{n}") for n in range(8)))
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    await asyncio.gather(*(_enqueue(store, f"later-{n}") for n in range(8)))


async def test_a_frozen_server_is_unavailable_in_bounded_time(store: RedisStore, server: RedisServer) -> None:
    server.pause()
    try:
        async with asyncio.timeout(10):
            with pytest.raises(StoreUnavailable):
                await _enqueue(store, "job")
    finally:
        server.cont()
    await store.ping()


async def test_a_cancelled_call_leaves_no_answer_for_the_next(store: RedisStore, server: RedisServer) -> None:
    await _enqueue(store, "job")
    server.pause()
    calls = [asyncio.ensure_future(store.get(Inspection).counts([QUEUE])) for _ in range(20)]
    done, pending = await asyncio.wait(calls, timeout=0.2)
    assert not done
    for call in pending:
        call.cancel()
    await asyncio.wait(pending)
    server.cont()
    for _ in range(20):
        assert [job and job.id for job in await store.get(Inspection).get(QUEUE, ["job"])] == ["job"]


async def test_refused_writes_on_a_bad_disk_are_unavailable(store: RedisStore, server: RedisServer) -> None:
    space = RedisSpace(server.url)
    await space.command("CONFIG", "SET", "min-replicas-to-write", "1")
    with pytest.raises(StoreUnavailable, match=r"NOREPLICAS|Not enough good replicas"):
        await _enqueue(store, "job")
    await space.command("CONFIG", "SET", "min-replicas-to-write", "0")
    await _enqueue(store, "job")


async def test_where_nobody_can_write_nobody_watches_leases(store: RedisStore, server: RedisServer) -> None:
    """Counters stand still then, though their owners live: who is declared dead by that would lose what it runs."""
    space = RedisSpace(server.url)
    workers, leases = store.get(Workers), store.get(Leases)
    await workers.heartbeat("boot", [QUEUE], info=b"info", now=0)
    assert (await leases.take("lock", "holder", ttl=1000, still=None, now=0)).granted
    await space.command("CONFIG", "SET", "min-replicas-to-write", "1")
    refused = r"NOREPLICAS|Not enough good replicas"
    with pytest.raises(StoreUnavailable, match=refused):
        await workers.heartbeat("boot", [QUEUE], info=b"info", now=0)
    with pytest.raises(StoreUnavailable, match=refused):
        await workers.workers([QUEUE])
    with pytest.raises(StoreUnavailable, match=refused):
        await leases.take("lock", "other", ttl=1000, still=None, now=0)
    await space.command("CONFIG", "SET", "min-replicas-to-write", "0")
    assert [row.boot for row in await workers.workers([QUEUE])] == ["boot"]
    assert not (await leases.take("lock", "other", ttl=1000, still=None, now=0)).granted
