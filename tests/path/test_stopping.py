"""What becomes of jobs when their worker is stopped in order."""

from __future__ import annotations

import asyncio
import threading
import time

from callboard import Callboard, Context
from callboard.metadata.contract import Workers
from callboard.runtime.testing import running, settled

WORKER = ("worker",)


async def test_running_jobs_end_within_the_grace_and_nothing_new_starts(app: Callboard) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()
    runs: list[int] = []

    @app.task(name="slow")
    async def slow(i: int) -> str:
        runs.append(i)
        began.set()
        await may_end.wait()
        return "done"

    async with running(app, actors=WORKER, concurrency=1, grace_seconds=5) as worker:
        first, second = await slow.enqueue(1), await slow.enqueue(2)
        await began.wait()
        worker.stop()
        await asyncio.sleep(0.1)
        may_end.set()
    assert len(runs) == 1
    # A ticket may be there before its record: the second job, a millisecond younger, may have been the one to run.
    ran, left = (first, second) if runs == [1] else (second, first)
    assert await ran.result(5) == "done"
    assert await left.state() == "waiting"
    info = await app.queue("default").get_job(ran.id)
    assert info is not None
    assert info.attempts == 1
    async with running(app):
        assert await left.result(20) == "done"
    assert sorted(runs) == [1, 2]


async def test_what_the_grace_does_not_suffice_for_is_released_and_runs_elsewhere(app: Callboard) -> None:
    began = asyncio.Event()
    patient = [False]

    @app.task(name="slow", retries=0)
    async def slow(ctx: Context) -> tuple[int, str]:
        began.set()
        await asyncio.sleep(0 if patient[0] else 600)
        return ctx.attempt, ctx.worker

    async with running(app, actors=WORKER, grace_seconds=0.2) as first:
        job = await slow.enqueue()
        await began.wait()
        patient[0] = True
        async with running(app):
            first.stop()
            attempt, worker = await job.result(5)
    info = await app.queue("default").get_job(job.id)
    assert info is not None
    assert attempt == 2
    assert (info.attempts, info.failures, info.stalled) == (2, 0, 0)
    assert [(a.outcome, a.reason) for a in info.history] == [("released", "interrupted: stopping"), ("completed", None)]
    assert info.history[0].worker != worker == info.history[1].worker


async def test_a_second_stop_hands_back_at_once(app: Callboard) -> None:
    loop = asyncio.get_running_loop()
    began = asyncio.Event()

    @app.task(name="slow")
    async def slow() -> None:
        began.set()
        await asyncio.sleep(600)

    async with running(app, actors=WORKER, grace_seconds=60) as worker:
        job = await slow.enqueue()
        await began.wait()
        stopped = loop.time()
        worker.stop()
        worker.stop()
    assert loop.time() - stopped < 3
    assert await job.state() == "waiting"


async def test_a_thread_that_does_not_end_in_the_grace_is_told_and_its_job_released(app: Callboard) -> None:
    began, told = threading.Event(), threading.Event()

    @app.task(name="slow")
    def slow(ctx: Context) -> None:
        began.set()
        while not ctx.cancelled:
            time.sleep(0.01)
        told.set()

    async with running(app, actors=WORKER, grace_seconds=0.1):
        job = await slow.enqueue()
        await asyncio.to_thread(began.wait, 5)
    assert await asyncio.to_thread(told.wait, 5)
    info = await app.queue("default").get_job(job.id)
    assert info is not None
    assert (info.state, info.failures, info.history[-1].outcome) == ("waiting", 0, "released")


async def test_jobs_that_were_received_and_not_started_go_back_uncounted(app: Callboard) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    @app.task(name="slow")
    async def slow() -> None:
        began.set()
        await may_end.wait()

    async with running(app, actors=WORKER, concurrency=1) as worker:
        await app.queue("default").add_bulk([{"task_id": "slow"}] * 50)
        await began.wait()
        worker.stop()
        may_end.set()
    counts = await app.queue("default").queue_counts()
    assert (counts.completed, counts.waiting, counts.active) == (1, 49, 0)
    assert {job.attempts for job in await app.queue("default").get_waiting()} == {0}
    async with running(app):
        await settled(app, "default", timeout=20)
    assert {job.attempts for job in await app.queue("default").get_completed()} == {1}


async def test_a_worker_that_stopped_in_order_leaves_no_row_behind(app: Callboard) -> None:
    @app.task(name="t")
    async def t() -> None: ...

    workers = app.connections.store.get(Workers)
    async with running(app, actors=WORKER):
        await (await t.enqueue()).result(5)
        (row,) = await workers.workers(["default"])
        assert row.active == 0
    assert list(await workers.workers(["default"])) == []


async def test_rolling_restarts_lose_no_job_and_run_none_twice(app: Callboard) -> None:
    runs: list[int] = []

    @app.task(name="note")
    async def note(i: int) -> None:
        await asyncio.sleep(0.002)
        runs.append(i)

    await app.queue("default").add_bulk([{"task_id": "note", "args": [i]} for i in range(1500)])
    for _ in range(5):
        async with running(app, actors=WORKER, concurrency=20):
            await asyncio.sleep(0.1)
    async with running(app, concurrency=50):
        await settled(app, "default", timeout=30)
    assert sorted(runs) == list(range(1500))
