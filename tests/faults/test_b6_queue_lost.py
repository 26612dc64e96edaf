"""B6: somebody purges a job queue at the broker, deletes it, or takes its binding away.

Injects: each of the three, one after the other, while a worker takes jobs from that queue and others are enqueued.
Bites: the queue held messages when it was purged and when it was deleted; what is enqueued after the binding was taken
away reaches nobody.
Passes: each job is completed after one run, the worker is still the same process, nothing was put aside, and the audit
is clean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from aio_pika import connect

from callboard import Callboard
from callboard.metadata.job import State
from faults.fleet import SERVES, actor
from faults.scene import Scene

APP = "faults.held_tasks:app"
QUEUE = "images"
COUNT = 100
SECONDS = 0.05
SLOTS = 2
PATIENCE_SECONDS = 120.0


async def completed(scene: Scene, ids: Sequence[str]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not all(job and job.state is State.COMPLETED for job in await scene.find(QUEUE, ids)):
            await asyncio.sleep(0.2)


@pytest.mark.slow
async def test_a_queue_that_is_purged_deleted_or_unbound_costs_no_job_and_no_second_run(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    async with (
        Scene(tmp_path, seed=seed, store=redis_url, broker=amqp_url, shares_store=True, shares_broker=True) as scene,
        Callboard(broker=amqp_url, store=redis_url, namespace=scene.namespace) as app,
        await connect(amqp_url) as connection,
    ):
        channel = await connection.channel()
        name = scene.names.job_queue(QUEUE)
        worker = scene.fleet.start("worker-1", actor("worker", app=APP, queues=[QUEUE], concurrency=SLOTS))
        scene.fleet.start("stalled-recovery-1", actor("stalled-recovery", app=APP))
        await scene.until(lambda: worker.said(SERVES), "the worker serves", PATIENCE_SECONDS)
        ids: list[str] = []

        async def enqueue(kind: str, count: int) -> None:
            # One by one, each in a message of its own: a bundle would be with the worker at once.
            for number in range(count):
                ids.append(await app.queue(QUEUE).add("lasts", [SECONDS], job_id=f"{kind}-{number}"))

        async def held_by_broker() -> int:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (depth := await app.connections.broker.depth(name)) is None or not depth.ready:
                    await asyncio.sleep(0.05)
            return depth.ready

        lost = []
        for kind in ("purged", "deleted"):
            await enqueue(kind, COUNT)
            lost.append(await held_by_broker())
            if kind == "purged":
                await (await channel.get_queue(name)).purge()
            else:
                await channel.queue_delete(name)
            await completed(scene, ids)
        await (await channel.get_queue(name)).unbind(scene.names.jobs, QUEUE)
        await enqueue("unbound", COUNT // 4)
        await completed(scene, ids)

        runs = [entry.run.job for entry in scene.started()]
        resent = scene.fleet.lines("stalled-recovery", "sent again")
        print(f"the queue held {lost} messages; {resent}")
        assert sorted(runs) == sorted(ids)
        assert (worker.running, worker.lives) == (True, 1)
        assert await scene.audit() == []
        dead = await app.connections.broker.depth(scene.names.dead)
        assert dead is None or dead.ready == 0
        await scene.stop()
        assert scene.fleet.complaints() == []
