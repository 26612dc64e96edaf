from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from callboard import Callboard
from integration.redis_private import require
from path.place import Errors, Place
from redis_servers import RedisCluster

STORES = {"rabbitmq+redis": "redis_url", "rabbitmq+mongodb": "mongo_url", "rabbitmq+cluster": "redis_cluster_url"}
# On a Redis Cluster, whose store differs from that on one Redis in the way to a key alone, these are run each time; the
# others by tests/soak.
ON_A_CLUSTER = {"test_app.py", "test_deduplication.py", "test_schedules.py"}


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "rabbitmq+cluster" in item.name and item.path.name not in ON_A_CLUSTER:
            item.add_marker("soak")


@pytest.fixture(scope="session")
def redis_cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("redis-cluster")
    with require(lambda: RedisCluster(folder, masters=3, appendonly="no")) as cluster:
        yield cluster.url


@pytest.fixture(params=["memory", *STORES])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "memory":
        place = Place(broker="memory://", store="memory://")
    else:
        store = request.getfixturevalue(STORES[request.param])
        place = Place(broker=request.getfixturevalue("amqp_url"), store=store)
    await place.prepare()
    errors = Errors(place)
    logging.getLogger().addHandler(errors)
    try:
        yield place
    finally:
        logging.getLogger().removeHandler(errors)
        await place.clean()
    assert place.errors == []


@pytest.fixture
async def app(place: Place) -> AsyncIterator[Callboard]:
    """Open, and looked through for leftovers when the test is over."""
    async with place.open() as app:
        yield app
