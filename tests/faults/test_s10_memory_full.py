"""S10: Redis has no memory left, and somebody lets it evict.

Injects: `maxmemory` set to less than what is in use, under the standard load, for two leases; then, on the running
server, a `maxmemory-policy` that evicts. Bites: a handler was running when memory was out, and producers were told that
an enqueue is uncertain.
Passes: an enqueue is refused with the reason; what ran and what was enqueued before ends meanwhile; every accepted job
completed after one run (or one more than its own failures); no worker declared dead; the policy that evicts is told as
an error within 30 s, with its name and what to set; the audit clean, the broker's queues empty.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis

from callboard import Callboard, EnqueueUncertain
from callboard.metadata.errors import StoreUnavailable
from faults.fleet import LEASE_SECONDS
from faults.lasting import begin_lasting, lasts
from faults.scene import Scene, elapsed, unfinished
from faults.workload import QUEUES
from servers import RedisServer

RATE = 120.0
FULL_SECONDS = 2 * LEASE_SECONDS
PATIENCE_SECONDS = 60.0
ALARM_SECONDS = 30.0
EVICTS = r"ERROR.*maxmemory-policy is allkeys-lru.*set it to noeviction"


@pytest.mark.soak
async def test_a_redis_without_memory_refuses_jobs_and_lets_those_that_run_end(
    tmp_path: Path, seed: int, durable_redis: RedisServer, amqp_url: str
) -> None:
    async with (
        Scene(tmp_path, seed=seed, store=durable_redis.url, broker=amqp_url, shares_broker=True) as scene,
        Callboard(broker=amqp_url, store=durable_redis.url, namespace=scene.namespace) as app,
        Redis.from_url(durable_redis.url) as redis,
    ):
        scene.start_actors()
        scene.start_producers(rate=RATE)
        await scene.up()
        await scene.note_finals()
        await app.queue(QUEUES[0]).add("work", [0, False], job_id="asked-for")
        await begin_lasting(scene, app)

        await redis.config_set("maxmemory", "1mb")
        since = elapsed()
        running = scene.running(at=since)
        assert lasts(scene, at=since), "the lasting job was over when memory was out"
        with pytest.raises(EnqueueUncertain, match="maxmemory") as told:
            await app.queue(QUEUES[0]).add("work", [0, False], job_id="asked-for-in-vain")
        assert isinstance(told.value.__cause__, StoreUnavailable)
        async with asyncio.timeout(PATIENCE_SECONDS):  # nothing comes in, so all that is there ends
            while unfinished(await scene.counts()):
                await asyncio.sleep(0.1)
        uncertain = [line for line in scene.journals("uncertain") if line.value > since]
        assert uncertain, "no producer was told"
        assert {entry.run.job for entry in running} <= set(await scene.finals())
        await asyncio.sleep(since + FULL_SECONDS - elapsed())
        await redis.config_set("maxmemory", "0")
        await scene.working()

        await redis.config_set("maxmemory-policy", "allkeys-lru")
        since = elapsed()
        await scene.until(
            lambda: bool(scene.fleet.lines("stalled-recovery", EVICTS)), "the policy is told", ALARM_SECONDS
        )
        alarmed = elapsed() - since
        await redis.config_set("maxmemory-policy", "noeviction")

        scene.occurrences |= {"asked-for"}
        await scene.settle()
        verdict = await scene.judge()
        print(f"{len(uncertain)} uncertain answers; told: {told.value}; the policy was told after {alarmed:.1f} s")
        assert verdict.repeated == ()
        await scene.assert_nobody_was_given_up()
