"""B2, with handlers of two seconds: cuts of connections while they run.

Injects: the workers reach RabbitMQ through proxies, whose connections are reset or closed in one direction, one after
the other, while they run jobs of 2 s: 25 cuts, or 100 in a soak. Bites: each cut had a connection to cut, of a worker
that was in the middle of its handlers.
Passes: each handler ran once, and nobody was given up.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from yarl import URL

from callboard import Callboard
from callboard.metadata.job import State
from faults.fleet import SERVES, actor
from faults.proxy import Direction, Proxy
from faults.scene import CONNECTION_LOST, Scene

APP = "faults.held_tasks:app"
QUEUE = "images"
WORKERS = ("worker-1", "worker-2")
SLOTS = 20
SECONDS = 2.0
PAUSE_SECONDS = 0.2  # between two cuts, on the average
FEED_SECONDS = 0.04  # between two jobs: a little more than the workers can take
PATIENCE_SECONDS = 120.0


async def feed(app: Callboard, ids: list[str]) -> None:
    """Singly, so that many tickets are under way in place of a few bundles."""
    while True:
        ids.append(f"job-{len(ids)}")
        await asyncio.shield(app.queue(QUEUE).add("lasts", [SECONDS], job_id=ids[-1]))
        await asyncio.sleep(FEED_SECONDS)


async def cut_while_they_run(tmp_path: Path, *, seed: int, redis_url: str, amqp_url: str, cuts: int) -> None:
    target = URL(amqp_url)
    assert target.host
    async with AsyncExitStack() as stack:
        scene = await stack.enter_async_context(
            Scene(tmp_path, seed=seed, store=redis_url, broker=amqp_url, shares_store=True, shares_broker=True)
        )
        proxies: dict[str, Proxy] = {}
        for name in WORKERS:
            proxy = await stack.enter_async_context(Proxy(target.host, target.port or 5672))
            proxies[name] = proxy
            url = str(target.with_host("127.0.0.1").with_port(proxy.port))
            arguments = actor("worker", app=APP, queues=[QUEUE], concurrency=SLOTS)
            scene.fleet.start(name, arguments, CALLBOARD_BROKER=url)
        scene.fleet.start("stalled-recovery-1", actor("stalled-recovery", app=APP))
        await scene.until(lambda: all(m.said(SERVES) for m in scene.workers), "the workers serve", PATIENCE_SECONDS)
        app = await stack.enter_async_context(Callboard(broker=amqp_url, store=redis_url, namespace=scene.namespace))
        ids: list[str] = []
        feeding = asyncio.create_task(feed(app, ids))
        done = 0
        async with asyncio.timeout(PATIENCE_SECONDS + 3 * cuts):
            while done < cuts:
                await asyncio.sleep(scene.random.uniform(0, 2 * PAUSE_SECONDS))
                # One that runs something, and so would have something to lose.
                able = [
                    p for name, p in proxies.items() if p.connections and scene.running(process=scene.fleet[name].pid)
                ]
                if able:
                    proxy = scene.random.choice(able)
                    if scene.random.random() < 0.5:
                        done += proxy.reset() > 0
                    else:
                        done += proxy.half_close(scene.random.choice(list(Direction))) > 0
        feeding.cancel()
        await asyncio.wait([feeding])
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not all(job and job.state is State.COMPLETED for job in await scene.find(QUEUE, ids)):
                await asyncio.sleep(0.2)
        copies = await scene.copies_refused()
        await scene.stop()
        runs = [entry.run.job for entry in scene.started()]
        print(f"{done} cuts, {copies} copies refused; {len(runs)} runs of {len(ids)} jobs")
        assert sorted(runs) == sorted(ids)
        assert await scene.audit() == []
        assert not (complaints := scene.fleet.complaints(CONNECTION_LOST)), complaints[:3]
        assert scene.fleet.lines("worker", "declared dead") == []
        assert scene.fleet.lines("stalled-recovery", "is gone") == []
        assert [(job.id, job.stalled) for job in (await scene.finals()).values() if job.stalled] == []


@pytest.mark.slow
async def test_handlers_of_two_seconds_run_once_though_their_connections_are_cut(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    await cut_while_they_run(tmp_path, seed=seed, redis_url=redis_url, amqp_url=amqp_url, cuts=25)


@pytest.mark.soak
async def test_a_hundred_cuts_repeat_no_handler_of_two_seconds(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    await cut_while_they_run(tmp_path, seed=seed, redis_url=redis_url, amqp_url=amqp_url, cuts=100)
