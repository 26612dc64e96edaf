"""What each operation costs: how often the store waits for the server, whatever the size of the batch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from callboard.metadata.contract import Delays, Inspection, Jobs, Workers
from callboard.metadata.job import Keep
from callboard.metadata.mongo import MongoStore
from callboard.runtime.clock import SystemClock
from integration.operations import BEFORE, DONE, ENQUEUED, OPERATIONS, QUEUES
from mongo_space import MongoSpace

TRIPS = 2  # one to look and one to write
# What is done once in a while: marks that are waited out, a boot's row, what is old by several indexes; of a group,
# once an hour, three trips to compare its counter.
MORE = {"leave": 3, "declare_dead": 4, "take_stalled": 4, "pause": 4, "prune": 7 + 3}
# What takes many at a time, from queue to queue: a look and a write each, and a look at what concerns all of them.
MORE |= {"take_overtaken": 1 + TRIPS * len(QUEUES), "take_due": 2 + TRIPS * len(QUEUES)}


class Trips(CommandListener):
    """Counts how often something was asked while nothing else was under way."""

    def __init__(self) -> None:
        self.made = 0
        self._under_way = 0

    def started(self, event: CommandStartedEvent) -> None:
        self.made += not self._under_way
        self._under_way += 1

    def succeeded(self, event: CommandSucceededEvent) -> None:
        self._under_way -= 1

    def failed(self, event: CommandFailedEvent) -> None:
        self._under_way -= 1


@pytest_asyncio.fixture
async def counted(mongo_replica_url: str) -> AsyncIterator[tuple[Trips, MongoStore]]:
    space, trips = MongoSpace(mongo_replica_url, again=True), Trips()
    client: Any = AsyncMongoClient(space.url, event_listeners=[trips])
    store = space.store_on(client)
    await store.open()
    yield trips, store
    await store.close()
    await space.delete()


@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_operation_on_a_whole_batch_is_a_look_and_a_write(
    counted: tuple[Trips, MongoStore], name: str
) -> None:
    (trips, store), now = counted, SystemClock().now()
    await store.get(Workers).heartbeat("boot", QUEUES, info=b"", now=now)
    for earlier in BEFORE.get(name, ENQUEUED):
        await earlier(store, now)
    before = trips.made
    answer = await OPERATIONS[name](store, now)
    assert trips.made - before <= MORE.get(name, TRIPS)
    assert name not in DONE or DONE[name](answer) > 0, answer


@pytest.mark.parametrize("name", ["enqueue", "published", "finish"])
async def test_what_a_job_costs_beside_its_claim_is_one_write(counted: tuple[Trips, MongoStore], name: str) -> None:
    (trips, store), now = counted, SystemClock().now()
    await store.get(Workers).heartbeat("boot", QUEUES, info=b"", now=now)
    for earlier in ("enqueue", "published", "claim", "finish"):
        before = trips.made
        await OPERATIONS[earlier](store, now)
        if earlier == name:
            assert trips.made - before == 1


async def test_an_empty_batch_makes_no_trip(counted: tuple[Trips, MongoStore]) -> None:
    trips, store = counted
    before, none = trips.made, store.get(Jobs)
    assert await none.enqueue([], now=0, grace=0) == []
    await none.published([], now=0)
    assert await none.claim("emails", "boot", [], now=0, keep_expired=Keep()) == []
    assert await none.finish("emails", [], now=0, grace=0) == []
    assert await none.cancel("emails", [], now=0, keep=Keep()) == []
    assert await none.retry("emails", [], now=0, grace=0) == []
    assert await none.remove("emails", [], now=0) == []
    assert await none.take_unpublished([], now=0, grace=0, limit=1) == []
    assert await store.get(Delays).reschedule("emails", [], now=0, grace=0) == []
    assert await store.get(Delays).remove("emails", [], now=0) == []
    assert (await store.get(Delays).take_due([], now=0, grace=0, limit=1)).ready == []
    assert await store.get(Inspection).get("emails", []) == []
    assert await store.get(Inspection).counts([]) == {}
    assert trips.made == before
