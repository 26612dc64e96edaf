"""What a scheduler costs the store while nothing is due."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from callboard import Callboard
from callboard.runtime.options import CallOptions
from callboard.runtime.testing import running
from callboard.runtime.triggers import Every, Policy
from integration.redis_private import private_redis
from redis_space import RedisSpace, more_calls

SCHEDULES = 10_000
SECONDS = 10.0
CALLS = {"cmdstat_evalsha", "cmdstat_eval", "cmdstat_smembers"}  # what comes from the scheduler, not from its scripts


@pytest.mark.slow
async def test_ten_thousand_schedules_of_tomorrow_cost_less_than_two_round_trips_in_ten_seconds(
    tmp_path: Path,
) -> None:
    with private_redis(tmp_path) as server:
        space = RedisSpace(server.url)
        async with Callboard(broker="memory://", store=server.url, namespace=space.namespace) as app:
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
                before = await space.calls()
                await asyncio.sleep(SECONDS)
                grown = more_calls(await space.calls(), before)
    assert sum(count for name, count in grown.items() if name in CALLS) < 2, grown
