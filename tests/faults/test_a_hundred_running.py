"""A worker ends while it runs a hundred jobs: killed, or told to stop with a grace that suffices, or not.

Injects: SIGKILL, or SIGTERM with `--grace 5` and `--grace 0.2`, while the ledger shows a hundred handlers under way.
Bites: it does show them, and where they cannot end in time, all of them run again, in a worker that waits for work.
Passes: killed, all are completed, and in the median started again within the lease + 2 s (the soak: all of them, with
the lease of 10 s that is shipped). Stopped, the exit code is 0; with grace enough each ran once, without it each is
released, uses up no retry, and is soon started elsewhere (the soak: within a second of the other's last word).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import pytest

from callboard import Callboard
from callboard.metadata.job import Job, State
from callboard.runtime.job_view import view
from faults.fleet import ENDED, LEASE_SECONDS, SERVES, actor
from faults.scene import SETTINGS, Scene, elapsed

APP = "faults.held_tasks:app"
QUEUE = "images"
COUNT = 100
FOR_EVER = 600.0
PATIENCE_SECONDS = 90.0
SHIPPED_LEASE_SECONDS = 10.0


class Hall:
    """One worker that runs everything, and another that has room for it."""

    def __init__(self, scene: Scene, broker: str, store: str) -> None:
        self.scene = scene
        self._app = Callboard(broker=broker, store=store, namespace=scene.namespace)

    async def begin(self, task: str, seconds: float, *, grace: float = 25) -> None:
        """A hundred jobs under way in worker-1, then worker-2 and a recovery beside it."""
        scene = self.scene
        worker = [*actor("worker", app=APP, queues=[QUEUE], concurrency=COUNT), "--grace", str(grace)]
        scene.fleet.start("worker-1", worker)
        scene.fleet.start("stalled-recovery-1", actor("stalled-recovery", app=APP))
        await scene.until(lambda: scene.fleet["worker-1"].said(SERVES), "worker-1 serves", PATIENCE_SECONDS)
        async with self._app as app:
            await app.queue(QUEUE).add_bulk(
                [{"task_id": task, "args": [seconds], "job_id": f"job-{n}"} for n in range(COUNT)]
            )
        await scene.until(lambda: len(scene.running()) == COUNT, "all are under way", PATIENCE_SECONDS)

    async def colleague(self) -> None:
        worker = actor("worker", app=APP, queues=[QUEUE], concurrency=COUNT)
        self.scene.fleet.start("worker-2", worker)
        await self.scene.until(lambda: self.scene.fleet["worker-2"].said(SERVES), "worker-2 serves", PATIENCE_SECONDS)

    async def completed(self) -> Mapping[str, Job]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(jobs := await self.scene.finals()) < COUNT:
                await asyncio.sleep(0.1)
        assert {job.state for job in jobs.values()} == {State.COMPLETED}
        assert await self.scene.audit() == []
        return jobs

    def waits(self, since: float) -> list[float]:
        """For each job, from that moment to its next start."""
        found = {entry.run.job: entry.elapsed - since for entry in self.scene.started() if entry.elapsed > since}
        return sorted(found.values())


async def kill(hall: Hall) -> list[float]:
    await hall.begin("lasts-at-first", FOR_EVER)
    await hall.colleague()
    killed = await asyncio.to_thread(hall.scene.kill, hall.scene.fleet["worker-1"])
    jobs = await hall.completed()
    assert {(job.attempts, job.stalled, job.failures) for job in jobs.values()} == {(2, 1, 0)}
    assert {view(job).history[0].beside for job in jobs.values()} == {COUNT - 1}
    waits = hall.waits(killed.elapsed)
    assert len(waits) == COUNT
    print(f"kill to start: {waits[0]:.2f} to {waits[-1]:.2f} s")
    return waits


async def stop(hall: Hall, *, seconds: float, grace: float, help: bool) -> tuple[list[float], Mapping[str, Job]]:
    await hall.begin("lasts-at-first", seconds, grace=grace)
    if help:
        await hall.colleague()
    worker = hall.scene.fleet["worker-1"]
    assert len(hall.scene.running(process=worker.pid)) == COUNT
    worker.signal(signal.SIGTERM)
    told = elapsed()
    jobs = await hall.completed()
    await asyncio.to_thread(worker.stop)
    assert worker.said(ENDED)  # the last word of a process that ends with 0
    return hall.waits(told), jobs


@pytest.mark.slow
@pytest.mark.alone
async def test_what_a_killed_worker_ran_runs_again_after_the_lease(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    async with Scene(
        tmp_path, seed=seed, store=redis_url, broker=amqp_url, shares_store=True, shares_broker=True
    ) as scene:
        waits = await kill(Hall(scene, amqp_url, redis_url))
        assert median(waits) <= LEASE_SECONDS + 2
        assert waits[-1] <= 3 * (LEASE_SECONDS + 2)


@pytest.mark.soak
async def test_what_a_killed_worker_ran_runs_again_within_two_seconds_of_the_lease_that_is_shipped(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    settings = {**SETTINGS, "CALLBOARD_LEASE_SECONDS": str(SHIPPED_LEASE_SECONDS)}
    async with Scene(
        tmp_path,
        seed=seed,
        store=redis_url,
        broker=amqp_url,
        shares_store=True,
        shares_broker=True,
        settings=settings,
    ) as scene:
        assert (await kill(Hall(scene, amqp_url, redis_url)))[-1] <= SHIPPED_LEASE_SECONDS + 2


@pytest.mark.slow
async def test_a_worker_that_is_stopped_with_grace_enough_completes_what_it_runs(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    async with Scene(
        tmp_path, seed=seed, store=redis_url, broker=amqp_url, shares_store=True, shares_broker=True
    ) as scene:
        waits, jobs = await stop(Hall(scene, amqp_url, redis_url), seconds=5, grace=60, help=False)
        assert waits == []
        assert {(job.attempts, job.stalled, job.failures) for job in jobs.values()} == {(1, 0, 0)}


@pytest.mark.slow
async def test_what_a_stopped_worker_cannot_end_runs_elsewhere_and_uses_up_nothing(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    async with Scene(
        tmp_path, seed=seed, store=redis_url, broker=amqp_url, shares_store=True, shares_broker=True
    ) as scene:
        waits, jobs = await stop(Hall(scene, amqp_url, redis_url), seconds=FOR_EVER, grace=0.2, help=True)
        print(f"SIGTERM to start elsewhere: {waits[0]:.2f} to {waits[-1]:.2f} s, 0.2 s of them grace")
        assert len(waits) == COUNT
        assert {(job.attempts, job.stalled, job.failures) for job in jobs.values()} == {(2, 0, 0)}
        assert {view(job).history[0].outcome for job in jobs.values()} == {"released"}
        assert median(waits) <= 5


@pytest.mark.soak
async def test_a_grace_of_five_seconds_is_enough_for_a_hundred_jobs_of_one(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    async with Scene(
        tmp_path, seed=seed, store=redis_url, broker=amqp_url, shares_store=True, shares_broker=True
    ) as scene:
        waits, jobs = await stop(Hall(scene, amqp_url, redis_url), seconds=1, grace=5, help=False)
        assert waits == []
        assert {(job.attempts, job.stalled, job.failures) for job in jobs.values()} == {(1, 0, 0)}


@pytest.mark.soak
async def test_what_is_handed_back_runs_elsewhere_within_a_second(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    async with Scene(
        tmp_path, seed=seed, store=redis_url, broker=amqp_url, shares_store=True, shares_broker=True
    ) as scene:
        waits, _ = await stop(Hall(scene, amqp_url, redis_url), seconds=FOR_EVER, grace=0.2, help=True)
        print(f"end of the grace to start elsewhere: {waits[0] - 0.2:.2f} to {waits[-1] - 0.2:.2f} s")
        assert len(waits) == COUNT
        assert waits[-1] <= 0.2 + 1
