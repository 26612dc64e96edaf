"""Many workers that die at once, and a store that takes its time to declare each of them dead."""

from __future__ import annotations

import asyncio
from typing import Any

from callboard import Callboard, Context
from callboard.actors.stalled_recovery import StalledRecovery
from callboard.runtime.actor import Stage
from callboard.runtime.testing import Simulation, simulate

QUEUES = ("images", "mail", "orders", "reports")
WORKERS = 4
LEASE_SECONDS = 4.0  # of which a look may come late by a second
DECLARATION_SECONDS = 1.0


class SlowWorkers:
    """As on MongoDB, where claims that are under way are waited for."""

    def __init__(self, workers: Any) -> None:
        self._workers = workers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._workers, name)

    async def declare_dead(self, *given: Any, **named: Any) -> bool:
        declared: bool = await self._workers.declare_dead(*given, **named)
        await asyncio.sleep(DECLARATION_SECONDS)
        return declared


class PatientRecovery(StalledRecovery):
    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._workers: Any = SlowWorkers(self._workers)


def test_what_many_dead_workers_of_many_queues_ran_runs_again_soon_after_the_lease() -> None:
    app = Callboard(broker="memory://", store="memory://", lease_seconds=LEASE_SECONDS)
    died: list[float] = []

    for queue in QUEUES:

        @app.task(name=f"work-{queue}", queue=queue)
        async def work(ctx: Context) -> None:
            await asyncio.sleep(3600 if ctx.attempt == 1 else 0)

    async def a_power_cut(world: Simulation) -> None:
        await world.sleep(1)
        for queue in QUEUES:
            for _ in range(WORKERS):  # singly, for every worker to have some
                await app.queue(queue).add(f"work-{queue}")
        await world.sleep(2)
        loop = world.world.loop
        died.append(loop.time())
        for slot in list(world.world.slots.values()):
            if slot.name.startswith("worker") and slot.process is not None:
                loop.crash(slot.process)
        await world.settled(timeout=60)

    runs = simulate(app, a_power_cut, actors=("worker", PatientRecovery), replicas=WORKERS).runs
    again = [run.began - died[0] for run in runs if run.began > died[0]]
    assert len(again) == len(runs) / 2 == WORKERS * len(QUEUES)
    assert max(again) <= LEASE_SECONDS + 2 + DECLARATION_SECONDS
