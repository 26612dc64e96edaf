"""P8: every worker is told to stop, one after the other, under load, and a new one takes its place.

Injects: SIGTERM to each of three workers while the ledger shows handlers under way in it; it is started again once it
has ended, and serves before the next one is told. Bites: each of them has just been running handlers, and at least one
still was when the signal was sent.
Passes: each ends in order and within the grace; no job is lost, none is run twice, no end of a run is refused, no lease
is lost; the audit clean, the broker's queues empty.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from faults.fleet import ENDED, SERVES, Member, actor
from faults.scene import LOOK_SECONDS, UP_SECONDS, Scene, elapsed
from faults.storm import Tail
from faults.workload import APP, QUEUES

WORKERS = 3
GRACE_SECONDS = 20.0  # far more than any handler of the load takes
RATE = 100.0
SOAK_ROUNDS = 10


async def restart_each(scene: Scene, *, rounds: int) -> None:
    worker = [*actor("worker", app=APP, queues=QUEUES), "--grace", str(GRACE_SECONDS)]
    for number in range(1, WORKERS + 1):
        scene.fleet.start(f"worker-{number}", worker)
    scene.fleet.start("stalled-recovery-1", actor("stalled-recovery", "delayed-scanner", app=APP))
    scene.start_producers(rate=RATE)
    await scene.up()

    tail = Tail(scene)
    ends = [await restart(scene, tail, member) for _ in range(rounds) for member in scene.workers]
    await scene.settle()
    verdict = await scene.judge()
    finals = (await scene.finals()).values()
    print(
        f"{len(ends)} workers told to stop with {sum(caught for caught, _ in ends)} handlers under way, "
        f"gone after {min(took for _, took in ends):.2f} to {max(took for _, took in ends):.2f} s"
    )
    assert any(caught for caught, _ in ends)
    assert verdict.repeated == ()
    assert scene.refused() == []
    assert [job.id for job in finals if job.stalled] == []
    assert max(took for _, took in ends) <= GRACE_SECONDS


async def restart(scene: Scene, tail: Tail, worker: Member) -> tuple[int, float]:
    """How many handlers it ran when it was told to stop, and the seconds until it was gone."""
    await scene.until(lambda: tail.running(worker.pid) > 0, f"{worker.name} runs a handler", UP_SECONDS)
    told = elapsed()
    worker.signal(signal.SIGTERM)
    caught = tail.running(worker.pid)
    while worker.running and elapsed() < told + UP_SECONDS:
        await asyncio.sleep(LOOK_SECONDS / 10)
    took = elapsed() - told
    assert worker.said(ENDED), f"{worker.name} did not end in order, {took:.1f} s after SIGTERM"
    worker.start()
    await scene.until(lambda: worker.said(SERVES), f"{worker.name} serves again", UP_SECONDS)
    return caught, took


@pytest.mark.slow
async def test_workers_that_are_restarted_one_after_the_other_lose_no_job_and_repeat_none(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    async with Scene(
        tmp_path, seed=seed, store=redis_url, broker=amqp_url, shares_store=True, shares_broker=True
    ) as scene:
        await restart_each(scene, rounds=1)


@pytest.mark.soak
@pytest.mark.parametrize("given", ["redis_url", "mongo_url"])
async def test_so_it_is_ten_times_over_on_either_store(
    tmp_path: Path, seed: int, given: str, request: pytest.FixtureRequest, amqp_url: str
) -> None:
    store = request.getfixturevalue(given)
    async with Scene(tmp_path, seed=seed, store=store, broker=amqp_url, shares_store=True, shares_broker=True) as scene:
        await restart_each(scene, rounds=SOAK_ROUNDS)
