"""L3: a flood of jobs while no worker is there.

Injects: producers at ten times the standard rate for a while (SOAK_SECONDS, a minute at most), one job in five by
intake, without a worker; every actor is a process of its own, two of each that shares its work. Then workers start.
Bites: at least half of what was wanted was accepted, and nothing of it had started when the workers came; the broker
held most of it, and what was delayed had become due.
Passes: no process, producers included, came to hold 30 MB more than before the flood; who was told that an enqueue is
uncertain was told so, and nothing raised; nothing is lost, repeated without a reason, or early; the audit clean, the
broker's queues empty.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from faults.door import resident
from faults.fleet import CONNECTED, SERVES, Member, actor
from faults.scene import LOOK_SECONDS, SETTINGS, UP_SECONDS, WORKERS, Scene, elapsed
from faults.workload import APP, QUEUES
from servers import RedisServer

RATE = 2000.0
FLOOD_SECONDS = min(60.0, float(os.environ.get("SOAK_SECONDS") or 60))
BY_INTAKE = 0.2
MORE_BYTES = 30_000_000
DRAIN_SECONDS = 600.0
ACTORS = ("delayed-scanner", "stalled-recovery", "intake", "repeatable-scheduler")
# The machine is busy with the producers: nobody shall be given up for that.
UNHURRIED = {"CALLBOARD_LEASE_SECONDS": "10", "CALLBOARD_CONFIRM_TIMEOUT": "10"}


class Memory:
    """The most that each process has held more than when it was first seen."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._first: dict[str, int] = {}
        self.more: dict[str, int] = {}

    async def watch(self, seconds: float) -> None:
        until = elapsed() + seconds
        while elapsed() < until:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        for member in self._scene.fleet:
            if member.running:
                held = resident(member.pid)
                more = held - self._first.setdefault(member.name, held)
                self.more[member.name] = max(more, self.more.get(member.name, 0))


@pytest.mark.soak
async def test_a_flood_without_workers_is_held_by_store_and_broker_and_done_when_they_come(
    tmp_path: Path, seed: int, durable_redis: RedisServer, amqp_url: str
) -> None:
    async with Scene(
        tmp_path,
        seed=seed,
        store=durable_redis.url,
        broker=amqp_url,
        shares_broker=True,
        settings={**SETTINGS, **UNHURRIED},
        settle_seconds=DRAIN_SECONDS,
    ) as scene:
        members = [scene.fleet.start(f"{kind}-{number}", actor(kind, app=APP)) for kind in ACTORS for number in (1, 2)]
        members.append(scene.fleet.start("retention", actor("retention", app=APP)))
        await scene.until(lambda: all(said(m, CONNECTED) for m in members), "all actors are connected", UP_SECONDS)
        memory = Memory(scene)
        memory.look()

        scene.start_producers(rate=RATE, submitted=BY_INTAKE)
        await scene.until(
            lambda: len({line.job.rpartition("-")[0] for line in scene.journals("accepted")}) == 2,
            "producers send",
            UP_SECONDS,
        )
        await memory.watch(FLOOD_SECONDS)
        await scene.all_recorded()
        flooded, held = len(scene.journals("accepted")), await scene.depths()
        at_first = dict(memory.more)
        assert scene.started() == []
        assert flooded >= RATE * FLOOD_SECONDS / 2

        since = elapsed()
        for number in range(1, WORKERS + 1):
            scene.fleet.start(f"worker-{number}", actor("worker", app=APP, queues=QUEUES))
        await scene.until(lambda: all(said(m, SERVES) for m in scene.workers), "all workers serve", UP_SECONDS)
        memory.look()
        watching = asyncio.create_task(memory.watch(DRAIN_SECONDS))
        await scene.drain()
        took = elapsed() - since
        watching.cancel()
        await asyncio.wait([watching])
        await scene.stop()
        verdict = await scene.judge()

        print(
            f"{flooded} jobs accepted in {FLOOD_SECONDS:g} s, {len(scene.journals('uncertain'))} uncertain answers; "
            f"at the broker {held}; drained in {took:.0f} s, {flooded / took:.0f} jobs a second; MB more in the flood "
            f"{in_megabytes(at_first)}, until all was done {in_megabytes(memory.more)}"
        )
        assert verdict.finals == flooded
        assert max(memory.more.values()) < MORE_BYTES


def said(member: Member, text: str) -> bool:
    assert member.running, f"{member.name} ended"
    return member.said(text)


def in_megabytes(more: dict[str, int]) -> dict[str, float]:
    return {name: round(held / 1e6, 1) for name, held in more.items()}
