"""The conformance suite on a Redis Cluster of three nodes, and what is particular to a cluster while all is well.

The cluster is a private one, started once for this module.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from redis.crc import key_slot

from callboard.metadata.contract import Inspection, Jobs, QueueControl, Store, Workers
from callboard.metadata.errors import StoreRefused
from callboard.metadata.job import NewJob
from callboard.metadata.redis import RedisStore
from callboard.metadata.redis.keys import Keys
from callboard.runtime.clock import SystemClock
from callboard.runtime.testing.stores import Cut, Line
from integration.redis_private import require
from redis_servers import RedisCluster, command
from redis_space import RedisSpace
from redis_suite import RedisConformance
from servers import LOOPBACK


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    cluster = require(lambda: RedisCluster(tmp_path_factory.mktemp("cluster"), masters=3, appendonly="no"))
    with cluster:
        yield cluster


class TestRedisClusterStore(RedisConformance):
    @pytest.fixture(autouse=True)
    def _servers(self, cluster: RedisCluster) -> None:
        self.use(cluster.url)
        self._cluster = cluster

    async def make_cut(self, store: Store, stack: AsyncExitStack) -> Cut:
        """Ways to all nodes, of which the nodes tell in place of their own addresses."""
        first, *others = [node.port for node in self._cluster.nodes]
        ways: dict[bytes, bytes] = {}

        def tells(data: bytes) -> bytes:
            for port, way in ways.items():
                data = data.replace(port, way)
            return data

        line = await stack.enter_async_context(Line(LOOPBACK, first, tells=tells))
        ways[_as_integer(first)] = _as_integer(line.port)
        for port in others:
            ways[_as_integer(port)] = _as_integer(await line.lead_to(LOOPBACK, port))
        url = f"redis+cluster://{LOOPBACK}:{line.port}?timeout={self.time_limit}"
        return Cut(RedisStore.from_url(url, namespace=self._spaces[store].namespace), line)


def _as_integer(port: int) -> bytes:
    """As a Redis writes a number, in CLUSTER SLOTS as elsewhere."""
    return b":%d\r\n" % port


def test_the_queues_of_the_tests_below_are_on_every_node() -> None:
    slots = {key_slot(Keys("any").of_queue(queue).encode()) * 3 // 16_384 for queue in QUEUES}
    assert slots == {0, 1, 2}


QUEUES = [f"queue-{n}" for n in range(12)]


async def test_a_call_on_queues_of_several_nodes_is_answered_in_order(cluster: RedisCluster) -> None:
    space, now = RedisSpace(cluster.url), SystemClock().now()
    store = space.store()
    await store.open()
    jobs = [
        NewJob(id=f"{queue}-{n}", queue=queue, task="task", payload=queue.encode(), created_at=now)
        for n in range(3)
        for queue in QUEUES
    ]
    answers = await store.get(Jobs).enqueue(jobs, now=now, grace=0)
    assert [answer.id for answer in answers] == [job.id for job in jobs]
    counts = await store.get(Inspection).counts(QUEUES)
    assert [counts[queue].waiting for queue in QUEUES] == [3] * len(QUEUES)
    taken = await store.get(Jobs).take_unpublished(QUEUES, now=now + 1, grace=0, limit=10)
    assert [(row.queue, row.payload) for row in taken[::3]] == [(queue, queue.encode()) for queue in QUEUES]
    await store.get(Workers).heartbeat("boot", QUEUES, info=b"info", now=now)
    assert [row.queue for row in await store.get(Workers).workers(QUEUES)] == QUEUES
    await store.get(QueueControl).pause(QUEUES[7])
    assert await store.get(QueueControl).paused(QUEUES) == [QUEUES[7]]
    held = [len(await RedisSpace(node.url).command("KEYS", f"{space.namespace}*")) for node in cluster.nodes]
    assert all(held)
    await store.close()
    await space.delete()


async def test_scripts_that_a_node_has_forgotten_are_sent_again(cluster: RedisCluster) -> None:
    space, now = RedisSpace(cluster.url), SystemClock().now()
    store = space.store()
    await store.open()
    for node in cluster.nodes[:2]:
        await asyncio.to_thread(command, node, "SCRIPT", "FLUSH")
    jobs = [NewJob(id="job", queue=queue, task="task", payload=b"", created_at=now) for queue in QUEUES]
    await store.get(Jobs).enqueue(jobs, now=now, grace=0)
    counts = await store.get(Inspection).counts(QUEUES)
    assert {counts[queue].waiting for queue in QUEUES} == {1}
    await store.close()
    await space.delete()


async def test_a_single_server_is_no_cluster_and_told_so(redis_url: str) -> None:
    url = redis_url.replace("redis://", "redis+cluster://")
    with pytest.raises(StoreRefused, match=r"is not a node of a cluster \(cluster-enabled no\): use redis://"):
        await RedisStore.from_url(url, namespace="any").open()
