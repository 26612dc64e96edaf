"""B8: the broker closes the channel of whoever keeps a message unacknowledged for longer than `consumer_timeout`.

Injects: RabbitMQ with a `consumer_timeout` of 3 s (30 min by default) that is looked at every second (every 60 s by
default: `channel_tick_interval`, for which rabbitmq.conf has no line). First, handlers of 12 s that have a slot each;
then more handlers of 4 s than slots, so that tickets wait in both workers for longer than the timeout. Bites: a
consumer of the test's own that acknowledges nothing loses its channel while the first handlers run; in the second part
channels of both workers are closed.
Passes: the first handlers cost no channel, since their tickets are acknowledged at the claim; in the second, a worker
opens another channel each time, and says so in one line with the broker's reason (of a consumer that was replaced and
only waited for its last acknowledgements it says nothing); every job is completed after one run, both workers are the
same processes, nobody was given up, the audit is clean and the broker's queue empty.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import aiormq
import pytest

from callboard import Callboard
from callboard.brokers.contract import Depth
from callboard.metadata.job import State
from faults.fleet import SERVES, actor
from faults.scene import Scene, elapsed
from servers import RabbitMQServer, RedisServer

APP = "faults.held_tasks:app"
QUEUE = "images"
SLOTS = 4
TIMEOUT_SECONDS = 3
LASTING_SECONDS = 4.0 * TIMEOUT_SECONDS
WAITED_FOR_SECONDS = 4.0
WAITING = 60  # for two workers' slots: the last of them waits for half a minute
PATIENCE_SECONDS = 180.0
SHORT = f"application:set_env(rabbit, consumer_timeout, {TIMEOUT_SECONDS * 1000})"
OFTEN = "application:set_env(rabbit, channel_tick_interval, 1000)"
CLOSED = re.compile(r"(<[\d.]+>) Consumer \d+ on channel \d+ has timed out waiting for delivery acknowledgement")
TOLD = "The consumer of queue .* ended and is started again: 406 .*delivery acknowledgement .* timed out"


async def seconds_to_the_end_of_a_channel(url: str) -> float:
    """Of one that got a message and acknowledges nothing."""
    connection = await aiormq.connect(url)
    try:
        channel = await connection.channel()
        await channel.queue_declare("unacknowledged", auto_delete=True)
        await channel.basic_publish(b"", routing_key="unacknowledged")
        got = asyncio.Event()

        async def receive(_: object) -> None:
            got.set()

        await channel.basic_consume("unacknowledged", receive)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await got.wait()
            since = elapsed()
            while not channel.is_closed:
                await asyncio.sleep(0.05)
        return elapsed() - since
    finally:
        await connection.close()


async def completed(scene: Scene, ids: Sequence[str]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not all(job and job.state is State.COMPLETED for job in await scene.find(QUEUE, ids)):
            await asyncio.sleep(0.2)


def closed_by(server: RabbitMQServer) -> int:
    """Channels that the broker says it has closed for that reason; it says so of each message that waited."""
    return len({*CLOSED.findall(server.log.read_text("utf-8", "replace"))})


@pytest.mark.soak
async def test_handlers_may_outlast_the_consumer_timeout_and_tickets_that_do_cost_a_channel_and_no_job(
    tmp_path: Path, seed: int, durable_redis: RedisServer, own_rabbitmq: RabbitMQServer
) -> None:
    store, broker = durable_redis.url, own_rabbitmq.url
    await asyncio.to_thread(own_rabbitmq.ctl, "eval", f"{SHORT}, {OFTEN}.")
    async with (
        Scene(tmp_path, seed=seed, store=store, broker=broker) as scene,
        Callboard(broker=broker, store=store, namespace=scene.namespace) as app,
    ):
        for number in (1, 2):
            scene.fleet.start(f"worker-{number}", actor("worker", app=APP, queues=[QUEUE], concurrency=SLOTS))
        scene.fleet.start("stalled-recovery-1", actor("stalled-recovery", app=APP))
        await scene.until(lambda: all(w.said(SERVES) for w in scene.workers), "the workers serve", PATIENCE_SECONDS)

        async def enqueue(kind: str, count: int, seconds: float) -> list[str]:
            # One by one, each in a message of its own: a bundle would be with one worker at once.
            names = [f"{kind}-{number}" for number in range(count)]
            for name in names:
                await app.queue(QUEUE).add("lasts", [seconds], job_id=name)
            return names

        lasting = await enqueue("lasting", SLOTS, LASTING_SECONDS)
        await scene.until(lambda: len(scene.running()) == SLOTS, "they run", PATIENCE_SECONDS)
        bitten = await seconds_to_the_end_of_a_channel(broker)
        assert len(scene.running()) == SLOTS, "they ended before the broker closed a channel"
        own = closed_by(own_rabbitmq)
        await completed(scene, lasting)
        assert own == closed_by(own_rabbitmq) == 1, "a handler cost a channel"
        assert scene.fleet.lines("", TOLD) == []

        waiting = await enqueue("waiting", WAITING, WAITED_FOR_SECONDS)
        await completed(scene, waiting)
        copies = await scene.copies_refused()
        closed = closed_by(own_rabbitmq) - own
        await scene.stop()

        told = {worker.name: len(scene.fleet.lines(worker.name, TOLD)) for worker in scene.workers}
        other = scene.fleet.lines("", r"WARNING|ERROR|CRITICAL")
        other = [line for line in other if "ended and is started again" not in line]
        runs = [entry.run.job for entry in scene.started()]
        print(
            f"the test's own channel was closed after {bitten:.1f} s; {closed} of the workers' channels, told {told}; "
            f"{copies} copies refused; {len(runs)} runs of {len(lasting) + len(waiting)} jobs; other lines: {other}"
        )
        print(scene.fleet.lines("worker", TOLD)[0])
        assert min(told.values()) > 0
        assert sum(told.values()) <= closed  # one line for a channel
        assert sorted(runs) == sorted([*lasting, *waiting])
        assert [(worker.running, worker.lives) for worker in scene.workers] == [(False, 1), (False, 1)]
        assert scene.fleet.lines("", "declared dead|is gone|failed; starting it again") == []
        # Some were claimed for a slot that did not come free in time, and given back: that is no run.
        assert [job.id for job in (await scene.finals()).values() if job.stalled] == []
        assert await scene.audit() == []
        assert (await scene.depths())[QUEUE] == Depth(ready=0, consumers=0)
        assert scene.fleet.complaints() == []
