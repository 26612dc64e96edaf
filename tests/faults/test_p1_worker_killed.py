"""P1: workers are killed in the middle of their work.

Injects: SIGKILL of a random one of three workers every 0.3 to 2 s, started again 0 to 1 s later, while 5,000 jobs are
sent. Bites: a kill counts if the ledger shows a handler of that process under way, and most have to.
Passes: every accepted job completed, no run that no kill explains, no more repeated runs than jobs that the store still
had the killed processes run, killed handlers' jobs started again within the lease + 2 s in the median, the audit clean,
the broker's queues empty. The slowest may take three times that: a job that runs again queues behind the backlog, and
where two cores run fourteen processes an observer is late at times, and then has to observe anew.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import median

import pytest

from faults.fleet import LEASE_SECONDS
from faults.ledger import Run
from faults.scene import Scene

JOBS = 5000
RATE = 230.0


@pytest.mark.slow
@pytest.mark.alone
async def test_a_killed_worker_costs_a_repeat_of_what_it_ran_and_nothing_else(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    await kill_at_random(tmp_path, seed=seed, store=redis_url, broker=amqp_url)


@pytest.mark.soak
async def test_so_it_is_on_mongodb(tmp_path: Path, seed: int, mongo_url: str, amqp_url: str) -> None:
    await kill_at_random(tmp_path, seed=seed, store=mongo_url, broker=amqp_url)


async def kill_at_random(folder: Path, *, seed: int, store: str, broker: str) -> None:
    async with Scene(folder, seed=seed, store=store, broker=broker, shares_store=True, shares_broker=True) as scene:
        scene.start_actors()
        scene.start_producers(rate=RATE, limit=JOBS)
        await scene.up()

        cut_short: list[tuple[float, Run]] = []
        hits = held = 0
        while any(producer.running for producer in scene.producers):
            await asyncio.sleep(scene.random.uniform(0.3, 2.0))
            await scene.note_finals()
            worker = await scene.a_worker_at_work()
            kill = await asyncio.to_thread(scene.kill, worker)
            held += await scene.held(kill.process)
            caught = scene.running(process=kill.process)
            hits += bool(caught)
            cut_short += [(kill.elapsed, start.run) for start in caught]
            await asyncio.sleep(scene.random.uniform(0.0, 1.0))
            worker.start()

        await scene.settle()
        verdict = await scene.judge()

        starts = scene.started()
        waits = [
            min(again.elapsed for again in starts if again.run.job == run.job and again.elapsed > killed) - killed
            for killed, run in cut_short
        ]
        print(
            f"{verdict.kills} kills, {hits} of them hit {len(cut_short)} handlers; {held} jobs were held, "
            f"{len(verdict.repeated)} runs repeated; kill to next start {min(waits):.2f} to {max(waits):.2f} s"
        )
        assert verdict.accepted == JOBS
        assert verdict.kills_that_hit == hits >= max(3, verdict.kills // 2)
        assert len(cut_short) <= len(verdict.repeated) <= held
        assert median(waits) <= LEASE_SECONDS + 2
        assert max(waits) <= 3 * (LEASE_SECONDS + 2)
