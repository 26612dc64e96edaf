"""S12: Redis forgets its scripts, again and again.

Injects: SCRIPT FLUSH, every 20 ms or so, from before the first job is sent until the last one is over, under the
standard load with schedules. Bites: the server counts how often it was asked for a script that it did not have.
Passes: nobody saw it: no enqueue was uncertain, no process warned of anything (but of a machine that stands still), no
run was repeated, and the standard pass.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis

from faults.fleet import actor
from faults.scene import SETTINGS, Scene
from faults.workload import APP, QUEUES
from servers import RedisServer

JOBS = 800
RATE = 200.0
PAUSE_SECONDS = 0.02
FEWEST = 100  # calls that found no script
PATIENCE_SECONDS = 60.0
# On a slow machine tickets that are late would be taken for lost, and that is told.
UNHURRIED = {"CALLBOARD_OVERTAKEN_SECONDS": "60", "CALLBOARD_RECONCILE_GRACE_SECONDS": "60"}
# But for what tells of a machine that stands still, and of jobs of the load, some of which fail once.
COMPLAINTS = r"^(?!.*callboard\.watch:).*\b(WARNING|ERROR|CRITICAL)\b(?!.*FailsOnce)"
OTHERS = ("delayed-scanner", "repeatable-scheduler", "stalled-recovery", "intake", "retention")
SUBMITTED = 0.1


async def forget(redis: Redis, over: asyncio.Event) -> int:
    times = 0
    while not over.is_set():
        await redis.script_flush()
        times += 1
        await asyncio.sleep(PAUSE_SECONDS)
    return times


async def unknown_scripts(redis: Redis) -> int:
    told = await redis.info("errorstats")
    return int(told.get("errorstat_NOSCRIPT", {}).get("count", 0))


@pytest.mark.slow
async def test_scripts_that_are_forgotten_under_load_cost_nothing_that_anybody_sees(
    tmp_path: Path, seed: int, durable_redis: RedisServer, amqp_url: str
) -> None:
    over = asyncio.Event()
    async with (
        Scene(
            tmp_path,
            seed=seed,
            store=durable_redis.url,
            broker=amqp_url,
            shares_broker=True,
            settings={**SETTINGS, **UNHURRIED},
        ) as scene,
        Redis.from_url(durable_redis.url) as redis,
    ):
        for name in ("worker-1", "worker-2"):
            scene.fleet.start(name, actor("worker", app=APP, queues=QUEUES))
        scene.fleet.start("others-1", actor(*OTHERS, app=APP))
        scene.start_producers(rate=RATE, limit=JOBS, submitted=SUBMITTED)
        forgetting = asyncio.create_task(forget(redis, over))
        try:
            await scene.up()
            await scene.until(lambda: not any(p.running for p in scene.producers), "all were sent", PATIENCE_SECONDS)
            await scene.all_recorded()
            await scene.drain()
        finally:
            over.set()
            times = await forgetting
        await scene.stop()
        verdict = await scene.judge()

        print(f"{times} times forgotten, {(missed := await unknown_scripts(redis))} calls found no script")
        assert missed >= FEWEST
        assert verdict.accepted == JOBS
        assert verdict.repeated == ()
        assert scene.journals("uncertain") == []
        assert scene.fleet.lines("", COMPLAINTS) == []
        await scene.assert_nobody_was_given_up()
