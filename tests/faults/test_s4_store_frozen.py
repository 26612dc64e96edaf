"""S4: the store stands still, or answers as through a narrow line.

Injects: SIGSTOP to the store for three leases, under the standard load; or, for as long, a line of 32 kbit/s in each
direction of every connection to Redis. Bites: a handler was running when it began; while the store stood still no
enqueue was accepted; through the narrow line fewer than half as many as before, and some.
Passes: every accepted job completed after one run (or one more than its own failures), so nothing was repeated and no
handler stopped; no worker declared dead; handlers start again within 10 s; no process holds 50 MB more than before; the
audit clean, the broker's queues empty.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from yarl import URL

from callboard import Callboard
from faults.door import resident
from faults.fleet import LEASE_SECONDS, Member
from faults.lasting import begin_lasting, lasts
from faults.proxy import Conditions, Proxy
from faults.scene import LOOK_SECONDS, Scene, elapsed
from servers import MongoServer, RedisServer

RATE = 60.0
NARROW_RATE = 150.0  # more than the narrow line carries
STILL_SECONDS = 3 * LEASE_SECONDS
SETTLING_SECONDS = 0.5  # for answers that were under way
NARROW = 4000.0  # bytes a second: 32 kbit/s, with room for some thirty jobs
BEFORE_SECONDS = 3.0
SETTLE_SECONDS = 120.0
RESUME_SECONDS = 10.0
MORE_BYTES = 50_000_000


class Memory:
    """What each process holds, and the most that one of them has come to hold more."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._before = self._now()
        self.more = 0

    async def watch(self, seconds: float) -> None:
        until = elapsed() + seconds
        while elapsed() < until:
            await asyncio.sleep(LOOK_SECONDS)
            self.more = max(self.more, *(held - self._before[member] for member, held in self._now().items()))

    def _now(self) -> dict[Member, int]:
        return {member: resident(member.pid) for member in self._scene.fleet}


def accepted(scene: Scene, since: float, until: float) -> int:
    return sum(since < line.value < until for line in scene.journals("accepted"))


@pytest.mark.soak
async def test_a_store_that_stands_still_costs_nothing_but_time(
    tmp_path: Path, seed: int, durable_store: RedisServer | MongoServer, amqp_url: str
) -> None:
    async with (
        Scene(
            tmp_path,
            seed=seed,
            store=durable_store.url,
            broker=amqp_url,
            shares_broker=True,
            settle_seconds=SETTLE_SECONDS,
        ) as scene,
        Callboard(broker=amqp_url, store=durable_store.url, namespace=scene.namespace) as app,
    ):
        scene.start_actors()
        scene.start_producers(rate=RATE)
        await scene.up()
        await scene.note_finals()
        memory = Memory(scene)
        await begin_lasting(scene, app)
        await asyncio.to_thread(durable_store.pause)
        since = elapsed()
        try:
            assert lasts(scene, at=since), "the lasting job was over when the store stood still"
            await memory.watch(STILL_SECONDS)
        finally:
            until = elapsed()
            durable_store.cont()
        await scene.working()

        await scene.settle()
        verdict = await scene.judge()
        wait = scene.next_start(until) or float("inf")
        print(
            f"stood still for {until - since:.1f} s, {len(scene.journals('uncertain'))} uncertain answers, at most "
            f"{memory.more / 1e6:.1f} MB more in a process; to the next start {wait:.2f} s"
        )
        assert accepted(scene, since + SETTLING_SECONDS, until) == 0
        assert verdict.repeated == ()
        await scene.assert_nobody_was_given_up()
        assert memory.more < MORE_BYTES
        assert wait <= RESUME_SECONDS


@pytest.mark.soak
async def test_a_narrow_line_to_the_store_costs_nothing_but_time(
    tmp_path: Path, seed: int, durable_redis: RedisServer, amqp_url: str
) -> None:
    async with Proxy("127.0.0.1", durable_redis.port) as proxy:
        narrow = str(URL(durable_redis.url).with_port(proxy.port))
        async with (
            Scene(
                tmp_path,
                seed=seed,
                store=narrow,
                broker=amqp_url,
                shares_broker=True,
                settle_seconds=SETTLE_SECONDS,
            ) as scene,
            Callboard(broker=amqp_url, store=durable_redis.url, namespace=scene.namespace) as app,
        ):
            scene.start_actors()
            scene.start_producers(rate=NARROW_RATE)
            await scene.up()
            await scene.note_finals()
            began = elapsed()
            await asyncio.sleep(BEFORE_SECONDS)
            memory = Memory(scene)
            await begin_lasting(scene, app)
            since = elapsed()
            proxy.both_ways(Conditions(bytes_per_second=NARROW))
            assert lasts(scene, at=since), "the lasting job was over when the line became narrow"
            await memory.watch(STILL_SECONDS)
            proxy.heal()
            until = elapsed()
            await scene.working()

            await scene.settle()
            verdict = await scene.judge()
            wait = scene.next_start(until) or float("inf")
            usual = accepted(scene, began, since) / (since - began)
            slow = accepted(scene, since + SETTLING_SECONDS, until) / (until - since - SETTLING_SECONDS)
            print(
                f"{usual:.0f} jobs accepted a second before, {slow:.1f} through the narrow line; "
                f"{len(scene.journals('uncertain'))} uncertain answers, at most {memory.more / 1e6:.1f} MB more in a "
                f"process; to the next start {wait:.2f} s"
            )
            assert 0 < slow < usual / 2
            assert verdict.repeated == ()
            await scene.assert_nobody_was_given_up()
            assert memory.more < MORE_BYTES
            assert wait <= RESUME_SECONDS
