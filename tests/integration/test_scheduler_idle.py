"""What a scheduler in a process of its own costs the store while nothing is due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from callboard.actors.repeatable_scheduler import IDLE_SECONDS
from callboard.runtime.options import CallOptions
from callboard.runtime.triggers import Every, Policy
from faults.timed import QUEUE, Timed
from integration.redis_private import private_redis
from mongo_space import MongoSpace
from redis_space import RedisSpace

SCHEDULES = 10_000
SECONDS = 10.0
CALLS = {"cmdstat_evalsha", "cmdstat_eval", "cmdstat_smembers"}  # what comes from the scheduler, not from its scripts

Count = Callable[[], Awaitable[int]]


async def trips_of_an_idle_scheduler(timed: Timed, count: Count) -> int:
    """In ten seconds; where this machine let more than twelve pass, less those that are then right."""
    queue = timed.app.queue(QUEUE)
    await queue.upsert_schedules(
        [
            queue.new_schedule(
                "tick", Every(86_400), id=f"s{number}", args=(), kwargs={}, options=CallOptions(), policy=Policy()
            )
            for number in range(SCHEDULES)
        ]
    )
    assert await queue.count_repeatables() == SCHEDULES
    made = seen = await count()
    await timed.start(schedulers=1, workers=0, recovery=0)
    async with asyncio.timeout(60):
        while (before := await count()) == made or before != seen:  # it has begun, and come to rest
            seen = before
            await asyncio.sleep(0.5)
    began = time.monotonic()
    await asyncio.sleep(SECONDS)
    trips = await count() - before
    return trips - int((time.monotonic() - began) / IDLE_SECONDS)


@pytest.mark.slow
async def test_ten_thousand_schedules_of_tomorrow_cost_redis_less_than_two_round_trips_in_ten_seconds(
    amqp_url: str, tmp_path: Path
) -> None:
    with private_redis(tmp_path) as server:
        async with Timed(tmp_path / "timed", store=server.url, broker=amqp_url) as timed:
            space = timed.space
            assert isinstance(space, RedisSpace)

            async def count() -> int:
                return sum(calls for name, calls in (await space.calls()).items() if name in CALLS)

            assert await trips_of_an_idle_scheduler(timed, count) < 2


@pytest.mark.slow
async def test_ten_thousand_schedules_of_tomorrow_cost_mongodb_less_than_two_round_trips_in_ten_seconds(
    mongo_url: str, amqp_url: str, tmp_path: Path
) -> None:
    async with Timed(tmp_path / "timed", store=mongo_url, broker=amqp_url) as timed:
        space = timed.space
        assert isinstance(space, MongoSpace)
        async with counted(space) as count:
            assert await trips_of_an_idle_scheduler(timed, count) < 2


@asynccontextmanager
async def counted(space: MongoSpace) -> AsyncIterator[Count]:
    """How many operations the server has noted on this namespace, its profiler being on meanwhile."""
    ours = f"{space.database}.{space.namespace}.jobs"
    with MongoClient[dict[str, Any]](space.url) as client:
        database = client[space.database]
        database.command("profile", 0)
        database["system.profile"].drop()
        database.create_collection("system.profile", capped=True, size=64 * 1024 * 1024)
        database.command("profile", 2)

        async def count() -> int:
            return database["system.profile"].count_documents({"ns": ours})

        try:
            yield count
        finally:
            database.command("profile", 0)
