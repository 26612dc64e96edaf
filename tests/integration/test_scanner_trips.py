"""What delayed jobs cost the store before they are due."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

from callboard import Callboard
from callboard.runtime.testing import running
from callboard.runtime.turns import AT_FIRST_SECONDS, Turns
from integration.redis_private import private_redis
from redis_space import RedisSpace

JOBS = 50


async def test_scanners_that_are_told_of_jobs_ask_the_store_for_none_before_it_is_due(tmp_path: Path) -> None:
    with private_redis(tmp_path) as server:
        space = RedisSpace(server.url)

        async def scripts() -> int:
            calls = await space.calls()
            return calls.get("cmdstat_evalsha", 0) + calls.get("cmdstat_eval", 0)

        async with Callboard(
            broker="memory://", store=server.url, namespace=space.namespace, scan_interval=60, confirm_timeout=1
        ) as app:
            queue = app.queue("emails")
            await queue.add("send", delay=59)
            async with running(app, actors=("delayed-scanner",)), running(app, actors=("delayed-scanner",)):
                await asyncio.sleep(0.5)
                before = await scripts()
                for number in range(JOBS):
                    await queue.add("send", delay=55 - number / 10)  # each is due before all others, and wakes
                await asyncio.sleep(0.5)
                assert await scripts() - before == JOBS, "one call for each enqueue, and none of the scanners"


def test_who_came_late_looks_later_until_it_gets_some() -> None:
    turns = Turns(Random(1), most=0.1)
    assert turns.wait == 0
    turns.came_late()
    assert 0 < turns.wait <= AT_FIRST_SECONDS
    for _ in range(20):
        turns.came_late()
        assert turns.wait <= 0.1
    assert turns.wait > AT_FIRST_SECONDS
    turns.got_some()
    assert turns.wait == 0
