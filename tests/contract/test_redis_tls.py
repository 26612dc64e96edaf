"""A part of the conformance suite on a Redis Cluster and on sentinels' master, all of whose connections are encrypted.

Which node answers, and at which port, is told by the servers themselves: that is what differs here from one server.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from callboard.metadata.errors import StoreUnavailable
from callboard.metadata.redis import RedisStore
from callboard.runtime.testing.stores import QueueConformance
from certificates import make_certificate
from integration.redis_private import require
from redis_servers import RedisCluster, RedisSentinel
from redis_suite import OnRedis
from servers import LOOPBACK


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("certificates")
    authority = make_certificate(folder, "authority")
    return {
        "authority": authority,
        "certificate": make_certificate(folder, "server", signer="authority", host=LOOPBACK),
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, signed: dict[str, Path]) -> Iterator[RedisCluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with require(lambda: RedisCluster(folder, appendonly="no", **signed)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, signed: dict[str, Path]) -> Iterator[RedisSentinel]:
    folder = tmp_path_factory.mktemp("sentinel")
    with require(lambda: RedisSentinel(folder, sentinels=1, appendonly="no", **signed)) as watched:
        yield watched


@pytest.mark.asyncio
class TestRedisClusterByTls(OnRedis, QueueConformance):
    @pytest.fixture(autouse=True)
    def _servers(self, cluster: RedisCluster) -> None:
        self.use(cluster.url, nodes=[node.url for node in cluster.nodes])


@pytest.mark.asyncio
class TestRedisSentinelByTls(OnRedis, QueueConformance):
    @pytest.fixture(autouse=True)
    def _servers(self, watched: RedisSentinel) -> None:
        self.use(watched.url, nodes=[watched.master.url])


async def test_a_cluster_whose_certificates_nobody_vouches_for_is_refused(cluster: RedisCluster) -> None:
    store = RedisStore.from_url(cluster.url.partition("?")[0], namespace="any")
    with pytest.raises(StoreUnavailable, match="its certificate is not trusted"):
        await store.open()


async def test_sentinels_whose_certificates_nobody_vouches_for_are_refused(watched: RedisSentinel) -> None:
    store = RedisStore.from_url(watched.url.partition("?")[0], namespace="any")
    with pytest.raises(StoreUnavailable, match="certificate verify failed"):
        await store.open()
