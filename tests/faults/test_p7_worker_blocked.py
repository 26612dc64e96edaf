"""P7: handlers that hold up their process for three leases.

Injects: an async handler that calls `time.sleep`, in a worker whose heart is a thread; a call that holds the
interpreter's lock, in one whose heart is a process, and in one whose heart is a thread and who has a colleague. Bites:
the last one loses its lease, and the end of its run is refused.
Passes: the first two run once, and nobody declares their workers dead; the first is named with its job and its line
while it goes on; the third is completed by the colleague, and its late end told as an event with both workers, and
counted, as the job that stalled is.

In a soak, since a loop is given a minute: an async handler that does not end, and one beside it. Bites: the timeout of
the one beside it passes by, since only a loop that runs can keep it. Passes: a worker that comes later completes both;
the first one names job and line, and says that others will have its jobs; when its loop runs again it goes on under a
new boot id, and runs what comes.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from callboard import Callboard
from callboard.brokers.message import Delivery
from callboard.brokers.topology import Binding, Queue, Topology
from callboard.metadata.job import State
from callboard.runtime.job_view import JobInfo
from callboard.runtime.wire import Event, decode_events
from faults.fleet import LEASE_SECONDS, SERVES, actor
from faults.scene import Scene
from path.test_telemetry import free_port, of, scraped

APP = "faults.blocking_tasks:app"
HOLD = round(3 * LEASE_SECONDS)
TASKS = {"images": "blocks-the-loop", "mail": "holds-the-lock", "orders": "holds-the-lock"}


@pytest.mark.slow
async def test_a_handler_that_blocks_costs_no_lease_and_one_that_starves_a_thread_is_fenced(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    async with Scene(
        tmp_path, seed=seed, store=redis_url, broker=amqp_url, shares_store=True, shares_broker=True
    ) as scene:
        fleet = scene.fleet
        ports = {name: free_port() for name in ("stalled-recovery-1", "worker-orders-1", "worker-orders-2")}
        told = {name: {"CALLBOARD_METRICS": "prometheus", "CALLBOARD_HEALTH_PORT": str(ports[name])} for name in ports}
        fleet.start("stalled-recovery-1", actor("stalled-recovery", app=APP), **told["stalled-recovery-1"])
        fleet.start("worker-images", actor("worker", app=APP, queues=["images"]))
        fleet.start("worker-mail", actor("worker", app=APP, queues=["mail"]), CALLBOARD_HEARTBEAT="process")
        for name in ("worker-orders-1", "worker-orders-2"):
            fleet.start(name, actor("worker", app=APP, queues=["orders"]), **told[name])
        await scene.until(lambda: all(m.said(SERVES) for m in scene.workers), "all workers serve", 60)

        async with Callboard(broker=amqp_url, store=redis_url, namespace=scene.namespace) as app:
            late = await first_event(app, "orders.late")
            for queue, task in TASKS.items():
                await app.queue(queue).add(task, [HOLD], job_id="held")
            async with asyncio.timeout(120):
                refused = await late
                jobs = {queue: await completed(app, queue) for queue in TASKS}
        pages = {name: await asyncio.to_thread(scraped, port) for name, port in ports.items()}
        lates = [of(pages[name], "callboard_late_finishes_total", queue="orders") for name in sorted(ports)[1:]]
        assert sorted(lates) == [0, 1]
        assert of(pages["stalled-recovery-1"], "callboard_stalled_jobs_total", queue="orders", became="again") == 1

        assert {queue: (job.attempts, job.stalled) for queue, job in jobs.items()} == {
            "images": (1, 0),
            "mail": (1, 0),
            "orders": (2, 1),
        }
        (warning, *_) = fleet.lines("worker-images", "has not run for")
        assert "job held of task blocks-the-loop, line" in warning
        assert "blocking_tasks.py in blocks_the_loop" in warning
        assert not [line for line in fleet.lines("worker-", "declared dead") if "orders" not in line.split(":")[0]]
        lost, ended = jobs["orders"].history
        assert (lost.outcome, ended.outcome) == ("stalled", "completed")
        assert (refused.worker, refused.other) == (lost.worker, ended.worker)
        assert lost.worker != ended.worker
        print(f"{warning}\n{fleet.lines('worker-orders', 'refused the end|no thread of this process')}")


@pytest.mark.soak
async def test_a_loop_that_stands_still_for_good_keeps_no_jobs(
    tmp_path: Path, seed: int, redis_url: str, amqp_url: str
) -> None:
    async with Scene(
        tmp_path, seed=seed, store=redis_url, broker=amqp_url, shares_store=True, shares_broker=True
    ) as scene:
        fleet, free = scene.fleet, tmp_path / "free"
        fleet.start("stalled-recovery", actor("stalled-recovery", app=APP))
        stuck = fleet.start("worker-1", actor("worker", app=APP, queues=TASKS))
        await scene.until(lambda: stuck.said(SERVES), "the worker serves", 60)
        async with Callboard(broker=amqp_url, store=redis_url, namespace=scene.namespace) as app:
            await app.queue("images").add("waits", job_id="held", retries=0)
            await reached(app, "images", State.ACTIVE)
            await app.queue("mail").add("stands-still", [str(free)], job_id="held")
            await scene.until(lambda: stuck.said("has not run for"), "the loop stands still", 60)
            other = fleet.start("worker-2", actor("worker", app=APP, queues=TASKS))
            async with asyncio.timeout(60 + 60):
                jobs = [await completed(app, queue) for queue in ("images", "mail")]
            assert [[ran.outcome for ran in job.history] for job in jobs] == [["stalled", "completed"]] * 2
            (told,) = fleet.lines("worker-1", "others will have its jobs")
            assert "job held of task stands-still, line" in told
            print(told)

            free.touch()
            await scene.until(lambda: stuck.said("was declared dead with 2 runs"), "the worker learns of it", 60)
            other.stop()
            await app.queue("orders").add("holds-the-lock", [0], job_id="held")
            async with asyncio.timeout(60):
                assert (await completed(app, "orders")).attempts == 1


async def first_event(app: Callboard, key: str) -> asyncio.Future[Event]:
    names, broker = app.connections.names, app.connections.broker
    queue = f"{names.namespace}.events.test"
    binding = Binding(queue, names.events, key)
    await broker.declare(Topology(queues=(Queue(queue, exclusive=True),), bindings=(binding,)))
    found: asyncio.Future[Event] = asyncio.get_running_loop().create_future()

    def receive(delivery: Delivery) -> None:
        if not found.done():
            found.set_result(decode_events(delivery.body)[0])
        delivery.ack()

    await broker.consume(queue, receive, prefetch=10)
    return found


async def completed(app: Callboard, queue: str) -> JobInfo:
    return await reached(app, queue, State.COMPLETED)


async def reached(app: Callboard, queue: str, state: State) -> JobInfo:
    while True:
        job = await app.queue(queue).get_job("held")
        assert job is not None
        if job.state is state:
            return job
        await asyncio.sleep(0.05)
