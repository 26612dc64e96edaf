"""The Redis store on a cluster whose slots move and whose nodes fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
import pytest_asyncio
from redis.crc import key_slot

from callboard.metadata.contract import Ending, Finish, Inspection, Jobs, Outcome, Ticket, Verdict, Workers
from callboard.metadata.errors import StoreUnavailable
from callboard.metadata.job import Keep, NewJob
from callboard.metadata.redis import RedisStore
from callboard.metadata.redis.keys import Keys
from callboard.runtime.clock import SystemClock
from integration.redis_private import require
from redis_servers import RedisCluster, command
from servers import RedisServer

NAMESPACE = "cluster"
QUEUES = [f"queue-{n}" for n in range(24)]

T = TypeVar("T")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """For tests that leave it as it was; its third node has no replica and may be away for a while."""
    with require(lambda: RedisCluster(tmp_path_factory.mktemp("cluster"), masters=3, replicas=1)) as cluster:
        yield cluster


@pytest_asyncio.fixture
async def store(shared: RedisCluster) -> AsyncIterator[RedisStore]:
    async with _opened(shared) as store:
        yield store


@asynccontextmanager
async def _opened(cluster: RedisCluster) -> AsyncIterator[RedisStore]:
    store = RedisStore.from_url(f"{cluster.url}?timeout=2", namespace=NAMESPACE)
    await _until_answered(store.open)
    try:
        yield store
    finally:
        await store.close()


def _slot(queue: str) -> int:
    return int(key_slot(Keys(NAMESPACE).of_queue(queue).encode()))


def _queue_of(cluster: RedisCluster, node: RedisServer, *, place: int = 0) -> str:
    """The first of `QUEUES` that the node serves, or another one."""
    return [queue for queue in QUEUES if cluster.owner_of(_slot(queue)) is node][place]


async def _enqueue(store: RedisStore, queue: str, *ids: str) -> None:
    now = SystemClock().now()
    jobs = [NewJob(id=id, queue=queue, task="task", payload=id.encode(), created_at=0) for id in ids]
    await store.get(Jobs).enqueue(jobs, now=now, grace=0)


async def _run(store: RedisStore, queue: str, *ids: str) -> None:
    now, jobs = SystemClock().now(), store.get(Jobs)
    await store.get(Workers).heartbeat("boot", [queue], info=b"", now=now)
    claimed = await jobs.claim(queue, "boot", [Ticket(id, 1) for id in ids], now=now, keep_expired=Keep())
    assert {answer.verdict for answer in claimed} <= {Verdict.CLAIMED, Verdict.MINE}
    outcomes = [Outcome(id=id, dispatch=1, owner="boot", ending=Ending.COMPLETED) for id in ids]
    finished = await jobs.finish(queue, outcomes, now=now, grace=0)
    assert {answer.finish for answer in finished} <= {Finish.DONE, Finish.RECORDED}


async def _until_answered(call: Callable[[], Awaitable[T]]) -> T:
    async with asyncio.timeout(60):
        while True:  # ends by the timeout
            try:
                return await call()
            except StoreUnavailable:
                await asyncio.sleep(0.05)


def _begin_move(cluster: RedisCluster, slot: int, source: RedisServer, target: RedisServer) -> None:
    command(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.id_of(source))
    command(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.id_of(target))


def _move_keys(slot: int, source: RedisServer, target: RedisServer, *, limit: int) -> int:
    keys = command(source, "CLUSTER", "GETKEYSINSLOT", slot, limit)
    if keys:
        command(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 10_000, "KEYS", *keys)
    return len(keys)


def _end_move(cluster: RedisCluster, slot: int, target: RedisServer) -> None:
    for node in cluster.nodes[:3]:
        command(node, "CLUSTER", "SETSLOT", slot, "NODE", cluster.id_of(target))


async def test_a_queue_whose_slot_is_moved_waits_and_is_whole_at_its_new_place(
    store: RedisStore, shared: RedisCluster
) -> None:
    source, target = shared.nodes[1], shared.nodes[2]
    queue, other = _queue_of(shared, source), _queue_of(shared, target)
    slot = _slot(queue)
    ids = [f"job-{n}" for n in range(20)]
    await _enqueue(store, queue, *ids)
    await _run(store, queue, *ids[:5])
    keys = len(await asyncio.to_thread(command, source, "CLUSTER", "GETKEYSINSLOT", slot, 1000))
    assert keys > 5

    await asyncio.to_thread(_begin_move, shared, slot, source, target)
    for moved in range(keys + 1):  # with none of its keys moved, some, all
        with pytest.raises(StoreUnavailable, match="slot of this queue is being moved"):
            await _enqueue(store, queue, f"during-{moved}")
        with pytest.raises(StoreUnavailable, match="slot of this queue is being moved"):
            await _run(store, queue, ids[6])
        await _enqueue(store, other, f"job-{moved}")
        await asyncio.to_thread(_move_keys, slot, source, target, limit=1)
    await asyncio.to_thread(_end_move, shared, slot, target)

    # Without an error: the call is sent where MOVED says.
    await _run(store, queue, *ids[5:])
    await _enqueue(store, queue, *ids, "later")
    counts = (await store.get(Inspection).counts([queue, other]))[queue]
    assert (counts.completed, counts.waiting) == (20, 1)
    assert await store.get(Inspection).audit(queue) == []
    assert await asyncio.to_thread(command, source, "CLUSTER", "COUNTKEYSINSLOT", slot) == 0


async def test_connections_that_a_restart_has_cut_are_not_noticed(store: RedisStore, shared: RedisCluster) -> None:
    node = shared.nodes[1]
    await _enqueue(store, _queue_of(shared, node), "job")
    await asyncio.to_thread(command, node, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await asyncio.gather(*(_enqueue(store, queue, "later") for queue in QUEUES))
    counts = await store.get(Inspection).counts(QUEUES)
    assert all(counts[queue].waiting for queue in QUEUES)


async def test_what_an_operator_should_know_names_the_nodes(store: RedisStore, shared: RedisCluster) -> None:
    first, second, third, _ = (f"127.0.0.1:{node.port}" for node in shared.nodes)
    found = {check.name: check.message for check in await store.check()}
    alone = ", ".join(sorted((second, third), key=lambda name: int(name.rpartition(":")[2])))
    assert found["redis-replicas"] == f"{alone}: no replica is connected: nothing takes over when this server fails"
    assert found["redis-replication"].startswith(f"{first}: 1 replicas are connected and min-replicas-to-write is 0")
    assert not store.durable


async def test_a_node_that_hangs_is_unavailable_in_bounded_time_and_used_again_when_it_answers(
    store: RedisStore, shared: RedisCluster
) -> None:
    node = shared.nodes[2]  # without a replica
    queue = _queue_of(shared, node)
    await _enqueue(store, queue, "before")
    await asyncio.to_thread(node.pause)
    try:
        async with asyncio.timeout(30):
            with pytest.raises(StoreUnavailable):
                await _enqueue(store, queue, "meanwhile")
            with pytest.raises(StoreUnavailable):
                await store.get(Inspection).counts(QUEUES)
    finally:
        node.cont()
    await _until_answered(lambda: _run(store, queue, "before"))
    await _until_answered(lambda: _enqueue(store, queue, "meanwhile"))
    assert await store.get(Inspection).audit(queue) == []


async def test_a_replica_takes_over_and_the_store_goes_on(tmp_path: Path) -> None:
    cluster = require(lambda: RedisCluster(tmp_path, masters=3, replicas=1))
    try:
        await asyncio.to_thread(cluster.start)
        async with _opened(cluster) as store:
            await _follow_a_failover(store, cluster)
    finally:
        await asyncio.to_thread(cluster.kill)


async def _follow_a_failover(store: RedisStore, cluster: RedisCluster) -> None:
    master = cluster.nodes[0]
    queue, others = _queue_of(cluster, master), [_queue_of(cluster, node) for node in cluster.nodes[1:3]]
    await _enqueue(store, queue, "kept")
    await _enqueue(store, others[0], "kept")
    assert await asyncio.to_thread(command, master, "WAIT", 1, 10_000) == 1
    await asyncio.to_thread(master.kill)
    with pytest.raises(StoreUnavailable):
        await _enqueue(store, queue, "meanwhile")
    await _until_answered(lambda: _run(store, queue, "kept"))
    await _until_answered(lambda: _enqueue(store, queue, "meanwhile"))
    # Each node finds out for itself that the cluster is up again.
    found = await _until_answered(lambda: store.get(Inspection).counts([queue, *others]))
    assert (found[queue].completed, found[queue].waiting, found[others[0]].waiting) == (1, 1, 1)
    assert await store.get(Inspection).audit(queue) == []
    assert await asyncio.to_thread(cluster.owner_of, _slot(queue)) is cluster.nodes[3]

    # The old master comes back as a replica, and a store that knows only of it finds the others.
    await asyncio.to_thread(master.start)
    late = RedisStore.from_url(f"redis+cluster://127.0.0.1:{master.port}", namespace=NAMESPACE)
    await _until_answered(late.open)
    assert (await late.get(Inspection).counts([queue]))[queue].waiting == 1
    await late.close()


async def test_a_slot_that_nobody_served_is_found_when_it_is_served_again(tmp_path: Path) -> None:
    options = {"cluster_require_full_coverage": "no"}  # else the cluster is down, and its map not used
    cluster = require(lambda: RedisCluster(tmp_path, masters=1, **options))
    try:
        await asyncio.to_thread(cluster.start)
        (node,), slot = cluster.nodes, _slot(QUEUES[0])
        await asyncio.to_thread(command, node, "CLUSTER", "DELSLOTS", slot)
        async with _opened(cluster) as store:
            with pytest.raises(StoreUnavailable, match=f"slot {slot}"):
                await _enqueue(store, QUEUES[0], "job")
            await asyncio.to_thread(command, node, "CLUSTER", "ADDSLOTS", slot)
            await _until_answered(lambda: _enqueue(store, QUEUES[0], "job"))
    finally:
        await asyncio.to_thread(cluster.kill)
