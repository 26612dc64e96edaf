"""What a scheduler costs the store while nothing is due."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from callboard import Callboard
from callboard.runtime.options import CallOptions
from callboard.runtime.testing import running
from callboard.runtime.triggers import Every, Policy
from integration.redis_private import private_redis
from mongo_space import MongoSpace
from redis_space import RedisSpace

SCHEDULES = 10_000
SECONDS = 10.0
CALLS = {"cmdstat_evalsha", "cmdstat_eval", "cmdstat_smembers"}  # what comes from the scheduler, not from its scripts

Count = Callable[[], Awaitable[int]]


async def trips_of_an_idle_scheduler(store: str, namespace: str, count: Count) -> int:
    async with Callboard(broker="memory://", store=store, namespace=namespace) as app:
        queue = app.queue("reports")
        await queue.upsert_schedules(
            [
                queue.new_schedule(
                    "report",
                    Every(86_400),
                    id=f"report-{number}",
                    args=(),
                    kwargs={},
                    options=CallOptions(),
                    policy=Policy(),
                )
                for number in range(SCHEDULES)
            ]
        )
        assert await queue.count_repeatables() == SCHEDULES
        async with running(app, actors=("repeatable-scheduler",)):
            await asyncio.sleep(1)
            before = await count()
            assert before > 0, "nothing is counted"
            await asyncio.sleep(SECONDS)
            return await count() - before


@pytest.mark.slow
async def test_ten_thousand_schedules_of_tomorrow_cost_redis_less_than_two_round_trips_in_ten_seconds(
    tmp_path: Path,
) -> None:
    with private_redis(tmp_path) as server:
        space = RedisSpace(server.url)

        async def count() -> int:
            return sum(calls for name, calls in (await space.calls()).items() if name in CALLS)

        assert await trips_of_an_idle_scheduler(server.url, space.namespace, count) < 2


@pytest.mark.slow
async def test_ten_thousand_schedules_of_tomorrow_cost_mongodb_less_than_two_round_trips_in_ten_seconds(
    mongo_url: str,
) -> None:
    space = MongoSpace(mongo_url)
    async with counted(space) as count:
        trips = await trips_of_an_idle_scheduler(mongo_url, space.namespace, count)
    await space.delete()
    assert trips < 2


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
