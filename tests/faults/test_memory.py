"""The memory of one worker that runs a million jobs (SOAK_JOBS for another number).

Passes: what it holds at the end, when nothing is left to do, is within a tenth of what it held after the first 50,000;
every job was completed, by one and the same process. Jobs are of 0 to 400 bytes of text; one in a hundred fails at its
first attempt, one in fifty runs in a thread.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from random import Random

import pytest

from callboard import Callboard
from faults.door import resident
from faults.fleet import SERVES, actor
from faults.scene import SETTINGS, Scene
from faults.tireless_tasks import APP, QUEUE, THREADED

JOBS = int(os.environ.get("SOAK_JOBS") or 1_000_000)
FIRST = min(50_000, JOBS // 4)
BATCH = 500
AHEAD = 10_000  # jobs that wait for the worker at most
SETTLING_SECONDS = 120.0
KEPT = {"CALLBOARD_KEEP_COMPLETED_COUNT": "1000", "CALLBOARD_LEASE_SECONDS": "10"}


class Feeder:
    """Adds jobs, no more at a time than AHEAD beyond what is done."""

    def __init__(self, app: Callboard, random: Random) -> None:
        self.added = 0
        self._queue = app.queue(QUEUE)
        self._random = random

    async def open_jobs(self) -> int:
        counts = await self._queue.queue_counts()
        assert counts.failed == 0
        return counts.waiting + counts.delayed + counts.active

    async def add_up_to(self, total: int) -> None:
        while self.added < total:
            if await self.open_jobs() > AHEAD:
                await asyncio.sleep(0.05)
                continue
            numbers = range(self.added, min(total, self.added + BATCH))
            await self._queue.add_bulk([self._job(number) for number in numbers])
            self.added = numbers.stop

    async def drained(self) -> None:
        deadline = time.monotonic() + SETTLING_SECONDS
        while left := await self.open_jobs():
            assert time.monotonic() < deadline, f"{left} jobs are not done after {SETTLING_SECONDS:g} s"
            await asyncio.sleep(0.1)

    def _job(self, number: int) -> dict[str, object]:
        text = "x" * self._random.randrange(400)
        return {"task_id": "mark-in-thread" if number % THREADED == 1 else "mark", "args": [number, text]}


@pytest.mark.soak
@pytest.mark.parametrize("given", ["redis_url", "mongo_url"])
async def test_a_worker_needs_no_more_memory_for_a_million_jobs_than_for_fifty_thousand(
    tmp_path: Path, seed: int, given: str, request: pytest.FixtureRequest, amqp_url: str
) -> None:
    store = request.getfixturevalue(given)
    async with Scene(
        tmp_path,
        seed=seed,
        store=store,
        broker=amqp_url,
        shares_store=True,
        shares_broker=True,
        settings={**SETTINGS, **KEPT},
    ) as scene:
        worker = scene.fleet.start("worker-1", actor("worker", app=APP, queues=[QUEUE], concurrency=100))
        scene.fleet.start("others", actor("stalled-recovery", "delayed-scanner", "retention", app=APP))
        await scene.until(lambda: worker.said(SERVES), "the worker serves", 60)
        async with Callboard(broker=amqp_url, store=store, namespace=scene.namespace) as app:
            feeder = Feeder(app, scene.random)
            held: dict[int, int] = {}
            since = time.monotonic()
            for total in range(FIRST, JOBS + 1, FIRST):
                await feeder.add_up_to(total)
                await feeder.drained()
                held[total] = resident(worker.pid)
                spent = time.monotonic() - since
                print(f"{total} jobs: {held[total] / 1e6:.1f} MB; {total / spent:.0f} a second", flush=True)
        first, last = held[FIRST], held[max(held)]
        print(f"{(last / first - 1) * 100:+.1f} % from {FIRST} to {max(held)} jobs")
        assert (worker.running, worker.lives) == (True, 1)
        await scene.stop()
        assert scene.fleet.complaints(r"FailsOnce") == []
        assert last <= first * 1.1
