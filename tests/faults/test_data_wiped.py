"""One side forgets everything: RabbitMQ's data directory is wiped, or Redis is flushed, in the middle of the work.

Injects: SIGKILL of RabbitMQ, its data directory removed, started again; or FLUSHALL, with an adoption window so short
that every ticket is older. Bites: the broker held tickets; after it came back without them, the recovery sent them
again; or the store held records, and no job that it knows afterwards was recorded by its producer.
Passes: with the broker's data gone, every accepted job is completed after one run, those accepted while it was away
too. With the store's gone, every job that no worker had claimed is completed after one run: its ticket was with
the broker. Nothing is put aside, and the audit is clean.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from redis.asyncio import Redis

from callboard import Callboard
from callboard.metadata.job import State
from faults.fleet import SERVES, actor
from faults.scene import CONNECTION_LOST, SETTINGS, Scene
from servers import RabbitMQServer, RedisServer

APP = "faults.held_tasks:app"
QUEUE = "images"
COUNT = 400
SECONDS = 0.05
SLOTS = 8
BEGUN = 60
PATIENCE_SECONDS = 120.0
WIPES = 3
RATE = 120.0


async def deploy(scene: Scene) -> None:
    scene.fleet.start("worker-1", actor("worker", app=APP, queues=[QUEUE], concurrency=SLOTS))
    scene.fleet.start("stalled-recovery-1", actor("stalled-recovery", app=APP))
    await scene.until(lambda: scene.fleet["worker-1"].said(SERVES), "worker-1 serves", PATIENCE_SECONDS)


async def enqueue(app: Callboard, name: str, count: int) -> Sequence[str]:
    return await app.queue(QUEUE).add_bulk(
        [{"task_id": "lasts", "args": [SECONDS], "job_id": f"{name}-{n}"} for n in range(count)]
    )


async def finish(scene: Scene, ids: Sequence[str]) -> None:
    """Wait until they are completed, and see that nothing is left over."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not all(job and job.state is State.COMPLETED for job in await scene.find(QUEUE, ids)):
            await asyncio.sleep(0.2)
    assert await scene.audit() == []
    await scene.stop()
    assert not (complaints := scene.fleet.complaints(CONNECTION_LOST)), complaints[:3]


async def wipe(server: RabbitMQServer, folder: Path) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(shutil.rmtree, folder / "rabbitmq" / "data")


@pytest.mark.slow
async def test_a_broker_that_forgot_everything_costs_no_job(
    tmp_path: Path, seed: int, durable_redis: RedisServer, own_rabbitmq: RabbitMQServer
) -> None:
    store, broker = durable_redis.url, own_rabbitmq.url
    async with Scene(tmp_path, seed=seed, store=store, broker=broker) as scene:
        await deploy(scene)
        async with Callboard(broker=broker, store=store, namespace=scene.namespace, confirm_timeout=2) as app:
            ids = list(await enqueue(app, "before", COUNT))
            await scene.until(lambda: len(scene.started()) >= BEGUN, "the work goes on", PATIENCE_SECONDS)
            depth = await app.connections.broker.depth(scene.names.job_queue(QUEUE))
            await wipe(own_rabbitmq, tmp_path)
            ids += await enqueue(app, "meanwhile", 20)
            await asyncio.to_thread(own_rabbitmq.start)
            await finish(scene, ids)
        runs = [entry.run.job for entry in scene.started()]
        resent = scene.fleet.lines("stalled-recovery", "sent again")
        print(f"{depth} when it was wiped; {resent}")
        assert sorted(runs) == sorted(ids)
        assert resent


@pytest.mark.slow
async def test_a_store_that_forgot_everything_costs_no_job_whose_ticket_the_broker_has(
    tmp_path: Path, seed: int, durable_redis: RedisServer, amqp_url: str
) -> None:
    store = durable_redis.url
    settings = {**SETTINGS, "CALLBOARD_ADOPTION_WINDOW_SECONDS": "1"}
    async with Scene(tmp_path, seed=seed, store=store, broker=amqp_url, shares_broker=True, settings=settings) as scene:
        async with Callboard(broker=amqp_url, store=store, namespace=scene.namespace) as app:
            ids = await enqueue(app, "job", COUNT)
        await asyncio.sleep(1.1)  # longer than the adoption window
        await deploy(scene)
        await scene.until(lambda: len(scene.started()) >= BEGUN, "the work goes on", PATIENCE_SECONDS)
        scene.fleet["worker-1"].signal(signal.SIGSTOP)  # so that it claims nothing while this looks
        jobs = await scene.find(QUEUE, ids)
        waiting = [job.id for job in jobs if job and job.state is State.WAITING]
        async with Redis.from_url(store) as redis:
            await redis.flushall()
        scene.fleet["worker-1"].signal(signal.SIGCONT)
        assert len(waiting) >= COUNT / 4, "too much had begun when the store was emptied"
        await finish(scene, waiting)
        runs = [entry.run.job for entry in scene.started()]
        print(f"{len(waiting)} of {len(ids)} were with the broker; {len(runs)} runs")
        assert [runs.count(job_id) for job_id in waiting] == [1] * len(waiting)
        depth = await dead_letters(amqp_url, scene)
        assert depth == 0


async def dead_letters(url: str, scene: Scene) -> int:
    async with Callboard(broker=url, store=scene.fleet.deployed.store, namespace=scene.namespace) as app:
        depth = await app.connections.broker.depth(scene.names.dead)
    return 0 if depth is None else depth.ready


@pytest.mark.soak
async def test_a_broker_that_forgets_again_and_again_costs_no_job_of_the_standard_load(
    tmp_path: Path, seed: int, durable_redis: RedisServer, own_rabbitmq: RabbitMQServer
) -> None:
    async with Scene(tmp_path, seed=seed, store=durable_redis.url, broker=own_rabbitmq.url) as scene:
        scene.start_actors()
        scene.start_producers(rate=RATE)
        await scene.up()
        for _ in range(WIPES):
            await scene.until(lambda: bool(scene.running()), "handlers run", PATIENCE_SECONDS)
            await wipe(own_rabbitmq, tmp_path)
            await asyncio.to_thread(own_rabbitmq.start)
            await scene.working()
            await asyncio.sleep(5)
        await scene.settle()
        verdict = await scene.judge(CONNECTION_LOST)
        print(scene.fleet.lines("stalled-recovery", "sent again"))
        assert verdict.repeated == ()
        await scene.assert_nobody_was_given_up()
