"""B5: the broker's machine loses its power.

Injects: a disk that forgets what was not flushed (power_disk.py), in the middle of the work, while job queues hold
tickets and `callboard.intake` holds submissions that a plain producer had confirmed; on quorum queues and on classic
ones of both versions. Bites: the disk proves that it forgets; both kinds of queue held messages; classic queues of
version 2 lose what they held.
Passes: every accepted job completes after one run, within 90 s of the return, and so does every submission; nothing was
put aside, and the audit is clean.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from callboard import Callboard
from callboard.brokers.message import Message, Receipt
from callboard.metadata.job import State
from faults.fleet import actor
from faults.power_disk import PowerDisk
from faults.scene import CONNECTION_LOST, SETTINGS, Scene, elapsed
from servers import RabbitMQServer, RedisServer

APP = "faults.held_tasks:app"
QUEUE = "images"
COUNT = 800
SUBMITTED = 200
SECONDS = 0.05
SLOTS = 8
BEGUN = 60
MEGABYTES = 800
REST_SECONDS = 6.0  # a fresh node writes what it knows of its virtual host that late
BACK_SECONDS = 90.0
PATIENCE_SECONDS = 60.0
QUEUES: Mapping[str, tuple[str, str]] = {  # type, version of the classic ones
    "quorum": ("quorum", "1"),
    "classic 1": ("classic", "1"),
    "classic 2": ("classic", "2"),
}


@pytest.mark.soak
@pytest.mark.parametrize("kind", QUEUES)
async def test_a_broker_that_loses_its_power_costs_no_job_and_no_second_run(
    tmp_path: Path, seed: int, disk: PowerDisk, kind: str, durable_redis: RedisServer
) -> None:
    queue_type, version = QUEUES[kind]
    settings = {**SETTINGS, "CALLBOARD_QUEUE_TYPE": queue_type}
    with RabbitMQServer(disk.folder / "rabbitmq", classic_queue__default_version=version) as broker:
        async with Scene(tmp_path, seed=seed, store=durable_redis.url, broker=broker.url, settings=settings) as scene:
            async with Callboard(
                broker=broker.url, store=durable_redis.url, namespace=scene.namespace, queue_type=queue_type
            ) as app:
                await app.connections.dispatcher.declare(QUEUE)
                await asyncio.sleep(REST_SECONDS)
                await asyncio.to_thread(disk.settle)
                ids = await submit(app)
                # One by one, each in a message of its own: a bundle would be with the worker at once.
                ids += [await app.queue(QUEUE).add("lasts", [SECONDS], job_id=f"job-{n}") for n in range(COUNT)]
                scene.fleet.start("worker-1", actor("worker", app=APP, queues=[QUEUE], concurrency=SLOTS))
                scene.fleet.start("stalled-recovery-1", actor("stalled-recovery", app=APP))
                await scene.until(lambda: len(scene.started()) >= BEGUN, "the work goes on", PATIENCE_SECONDS)
                names, depth = scene.names, app.connections.broker.depth
                held = [await depth(names.job_queue(QUEUE)), await depth(names.intake)]
                assert all(one and one.ready for one in held), held
                await asyncio.to_thread(disk.lose_power, broker)
                assert len(scene.started()) < COUNT, "all had begun when the power was lost"
                await asyncio.to_thread(broker.start)
                back = elapsed()
                scene.fleet.start("intake-1", actor("intake", app=APP))
                async with asyncio.timeout(BACK_SECONDS):
                    while not all(job and job.state is State.COMPLETED for job in await scene.find(QUEUE, ids)):
                        await asyncio.sleep(0.2)
                took = elapsed() - back
                dead = await depth(names.dead)
            await scene.stop()

            resent = scene.fleet.lines("stalled-recovery", "sent again")
            print(f"{kind}: {held} at the power loss; all complete {took:.1f} s after the return; {resent}")
            runs = [entry.run.job for entry in scene.started()]
            assert sorted(runs) == sorted(ids)
            assert dead is None or dead.ready == 0
            assert kind != "classic 2" or resent, "classic queues of version 2 have lost nothing"
            assert await scene.audit() == []
            assert not (complaints := scene.fleet.complaints(CONNECTION_LOST)), complaints[:3]


async def submit(app: Callboard) -> list[str]:
    """As any producer does that knows AMQP alone; no intake takes them yet."""
    ids = [f"submitted-{n}" for n in range(SUBMITTED)]
    messages = [
        Message(
            exchange=app.connections.names.submit,
            routing_key=QUEUE,
            body=json.dumps({"task": "lasts", "args": [SECONDS], "id": job}).encode(),
        )
        for job in ids
    ]
    receipts = await app.connections.broker.publish(messages, timeout=PATIENCE_SECONDS)
    assert set(receipts) == {Receipt.CONFIRMED}
    return ids
