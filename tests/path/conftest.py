from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from callboard import Callboard
from integration.redis_private import require
from path.place import MOTOR, Errors, Place
from redis_servers import RedisCluster

HERE = Path(__file__).parent
# The fixture that has the store's URL, and what is added to it.
STORES = {
    "rabbitmq+redis": ("redis_url", ""),
    "rabbitmq+cluster": ("redis_cluster_url", ""),
    "rabbitmq+mongodb": ("mongo_url", ""),
    "rabbitmq+mongodb-replica-set": ("mongo_replica_url", ""),
    "rabbitmq+motor": ("mongo_url", MOTOR),
    "rabbitmq+motor-replica-set": ("mongo_replica_url", MOTOR),
}

# The files that are run each time; the others by tests/soak. On MongoDB, what is a matter of the store; a few where it
# is the same store but for the way to it: a Redis Cluster, a replica set, the other driver.
FEW = {"test_app", "test_deduplication"}
EACH_TIME = {
    "rabbitmq+cluster": {*FEW, "test_schedules"},
    "rabbitmq+mongodb-replica-set": FEW,
    "rabbitmq+motor": FEW,
    "rabbitmq+motor-replica-set": FEW,
    "rabbitmq+mongodb": {
        "test_app", "test_cancel", "test_deduplication", "test_enqueue", "test_inspection", "test_job_ids",
        "test_pause", "test_retention", "test_retries", "test_schedules", "test_schedules_from_afar", "test_stopping",
        "test_telemetry",
    },
}  # fmt: skip
# Where a test runs with many values, they are looked at above the broker and the store: all of them in memory, and by
# tests/soak, so many on real servers.
VALUES_ON_SERVERS = 2


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seen: Counter[tuple[str, str]] = Counter()
    for item in items:
        if item.path.parent != HERE or not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
            continue
        place = item.callspec.params.get("place", "memory")
        if place == "memory":
            continue
        test = item.nodeid.partition("[")[0], place
        seen[test] += 1
        if seen[test] > VALUES_ON_SERVERS or item.path.stem not in EACH_TIME.get(place, {item.path.stem}):
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
        url, more = STORES[request.param]
        store = request.getfixturevalue(url) + more
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


@pytest.fixture
def audited(request: pytest.FixtureRequest) -> Iterator[None]:
    """Look through what a test has left in a store that outlives it."""
    place = request.getfixturevalue("place") if "place" in request.fixturenames else None

    async def look(place: Place) -> None:
        async with place.open():
            pass

    yield
    if place is not None and place.shared:
        asyncio.run(look(place))
