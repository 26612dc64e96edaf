"""S1: the store is killed and comes back.

Injects: SIGKILL of a store that keeps what it has answered (a Redis with `appendfsync always`, a MongoDB), started
again 0 to 2 leases later, under the standard load, until it has hit five times. Bites: an outage hits if handlers ran
when it began; half of them have to, and an enqueue is under way when each ends (one driver waits for its server, the
other says that the enqueue is uncertain).
Passes: every accepted job completed after one run (or one more than its own failures), so nothing was repeated and no
handler stopped; no worker declared dead; handlers start again within 5 s of each return; the audit clean, the broker's
queues empty.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from faults.fleet import LEASE_SECONDS
from faults.scene import Scene, elapsed
from servers import MongoServer, RedisServer

OUTAGES = 5
RATE = 150.0
RESUME_SECONDS = 5.0


@pytest.mark.slow
@pytest.mark.alone
async def test_a_store_that_dies_and_comes_back_costs_nothing_but_time(
    tmp_path: Path, seed: int, durable_store: RedisServer | MongoServer, amqp_url: str
) -> None:
    async with Scene(tmp_path, seed=seed, store=durable_store.url, broker=amqp_url, shares_broker=True) as scene:
        scene.start_actors()
        scene.start_producers(rate=RATE)
        await scene.up()

        returns: list[float] = []
        hit = 0  # outages that began while a handler ran
        while hit < OUTAGES:
            assert len(returns) < 2 * OUTAGES, "too few handlers were running when the store died"
            await scene.note_finals()
            await asyncio.sleep(scene.random.uniform(0, 1))
            await scene.a_long_run()
            killed = elapsed()
            await asyncio.to_thread(durable_store.kill)
            hit += bool(scene.running(at=killed))
            await asyncio.sleep(scene.random.uniform(0, 2 * LEASE_SECONDS))
            await scene.until(lambda: len(scene.unanswered()) > 0, "an enqueue waits for the store", LEASE_SECONDS)
            await asyncio.to_thread(durable_store.start)
            returns.append(elapsed())
            await scene.working()

        await scene.settle()
        verdict = await scene.judge()

        waits = [scene.next_start(moment) or float("inf") for moment in returns]
        print(
            f"{len(returns)} outages, {hit} hit, {len(scene.journals('uncertain'))} uncertain answers; "
            f"from the return to the next start {min(waits):.2f} to {max(waits):.2f} s"
        )
        assert verdict.repeated == ()
        await scene.assert_nobody_was_given_up()
        assert max(waits) <= RESUME_SECONDS
