from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from callboard import Callboard, Context
from callboard.runtime.testing import running, settled

WITHIN_SECONDS = 1.0


async def test_a_pause_stops_every_worker_and_jobs_added_meanwhile_run_after_resume(app: Callboard) -> None:
    runs: list[int] = []

    @app.task(queue="emails", name="send")
    async def send(i: int) -> None:
        runs.append(i)

    queue = app.queue("emails")
    async with running(app), running(app):
        await queue.add_bulk([{"task_id": "send", "args": [i]} for i in range(20)])
        await settled(app, "emails")
        await queue.pause()
        assert await queue.is_paused() is True
        await queue.add_bulk([{"task_id": "send", "args": [i]} for i in range(20, 60)])
        await asyncio.sleep(0.3)  # that nothing happens can only be seen by waiting
        assert len(runs) == 20
        assert (await queue.queue_counts()).waiting == 40
        await queue.resume()
        await settled(app, "emails", timeout=5)
    assert await queue.is_paused() is False
    assert sorted(runs) == list(range(60))


async def test_both_workers_stop_and_go_on_within_a_second(app: Callboard) -> None:
    loop = asyncio.get_running_loop()
    last: dict[str, float] = {}

    @app.task(queue="emails", name="tick")
    async def tick(ctx: Context) -> None:
        last[ctx.worker] = loop.time()
        await asyncio.sleep(0.005)

    queue = app.queue("emails")
    async with running(app, concurrency=2), running(app, concurrency=2):
        feeding = asyncio.create_task(feed(app, "emails", "tick"))
        await until(lambda: len(last) == 2)
        await queue.pause()
        paused = loop.time()
        await asyncio.sleep(1.2)
        assert max(last.values()) - paused < WITHIN_SECONDS
        last.clear()
        await queue.resume()
        resumed = loop.time()
        await until(lambda: len(last) == 2)
        assert min(last.values()) - resumed < WITHIN_SECONDS
        feeding.cancel()
        await settled(app, "emails", timeout=60)


async def test_running_jobs_run_on_through_a_pause(app: Callboard) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    @app.task(queue="emails", name="slow")
    async def slow() -> str:
        began.set()
        await may_end.wait()
        return "done"

    async with running(app):
        job = await slow.enqueue()
        await began.wait()
        await app.queue("emails").pause()
        may_end.set()
        assert await job.result(3) == "done"


async def test_a_pause_holds_over_a_restart_of_the_worker(app: Callboard) -> None:
    @app.task(queue="emails", name="send")
    async def send() -> str:
        return "sent"

    await app.queue("emails").pause()
    job = await send.enqueue()
    async with running(app):
        with pytest.raises(TimeoutError):
            await job.result(0.3)
    async with running(app):
        await app.queue("emails").resume()
        assert await job.result(3) == "sent"


async def test_a_pause_of_one_queue_leaves_the_others_alone(app: Callboard) -> None:
    @app.task(queue="other", name="send")
    async def send() -> str:
        return "sent"

    async with running(app, queues=["emails", "other"]):
        await app.queue("emails").pause()
        assert await (await send.enqueue()).result(3) == "sent"


async def test_jobs_that_a_worker_had_already_received_run_after_resume_in_any_worker(app: Callboard) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()
    runs: list[int] = []

    @app.task(queue="emails", name="slow", priority=1)
    async def slow() -> None:
        began.set()
        await may_end.wait()

    @app.task(queue="emails", name="send")
    async def send(i: int) -> None:
        runs.append(i)

    queue = app.queue("emails")
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running(app, concurrency=1))
        await slow.enqueue()
        await began.wait()
        await queue.add_bulk([{"task_id": "send", "args": [i]} for i in range(5)])
        await asyncio.sleep(0.1)
        await queue.pause()
        may_end.set()
        await until_inactive(app)
        assert runs == []
        first.stop()
        await stack.enter_async_context(running(app))
        await queue.resume()
        await settled(app, "emails")
    assert sorted(runs) == list(range(5))


async def feed(app: Callboard, queue: str, task: str) -> None:
    while True:
        await app.queue(queue).add_bulk([{"task_id": task}] * 8)
        await asyncio.sleep(0.02)


async def until(question: object) -> None:
    assert callable(question)
    async with asyncio.timeout(5):
        while not question():
            await asyncio.sleep(0.005)


async def until_inactive(app: Callboard) -> None:
    async with asyncio.timeout(5):
        while (await app.queue("emails").queue_counts()).active:
            await asyncio.sleep(0.01)
