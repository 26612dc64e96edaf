from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from callboard import Callboard, Context, JobCancelled
from callboard.metadata.contract import Cancel
from callboard.runtime.handle import LOOK_AGAIN_SECONDS
from callboard.runtime.testing import running, settled
from path import process_tasks


async def test_a_waiting_and_a_delayed_job_that_are_cancelled_never_run(app: Callboard) -> None:
    runs: list[str] = []

    @app.task(name="t")
    async def t(which: str) -> None:
        runs.append(which)

    waiting = await t.enqueue("waiting")
    delayed = await t.options(delay=0.1).enqueue("delayed")
    left = await t.options(delay=0.2).enqueue("left")
    assert [await job.cancel() for job in (waiting, delayed)] == [Cancel.CANCELLED] * 2
    async with running(app):
        await left.result(5)
        for job in (waiting, delayed):
            with pytest.raises(JobCancelled):
                await job.result(5)
    assert runs == ["left"]


async def test_a_running_async_job_is_interrupted_and_may_clean_up(app: Callboard) -> None:
    loop = asyncio.get_running_loop()
    began, cleaned = asyncio.Event(), asyncio.Event()

    @app.task(name="slow", retries=3)
    async def slow(ctx: Context) -> None:
        began.set()
        try:
            await asyncio.sleep(600)
        finally:
            assert ctx.cancelled
            cleaned.set()

    async with running(app):
        job = await slow.enqueue()
        await began.wait()
        asked = loop.time()
        assert await job.cancel() is Cancel.REQUESTED
        with pytest.raises(JobCancelled):
            await job.result(10)
        assert loop.time() - asked < LOOK_AGAIN_SECONDS / 5  # by a message, not by a heartbeat
        await cleaned.wait()
    info = await app.queue("default").get_job(job.id)
    assert info is not None
    assert [(a.attempt, a.outcome) for a in info.history] == [(1, "cancelled")]
    assert (info.failures, info.error) == (0, None)


async def test_a_sync_job_is_told_and_counts_as_cancelled_if_it_then_raises(app: Callboard) -> None:
    began = threading.Event()

    @app.task(name="slow", retries=3)
    def slow(ctx: Context) -> None:
        began.set()
        while not ctx.cancelled:
            time.sleep(0.01)
        raise InterruptedError

    async with running(app):
        job = await slow.enqueue()
        await asyncio.to_thread(began.wait, 5)
        assert await job.cancel() is Cancel.REQUESTED
        with pytest.raises(JobCancelled):
            await job.result(5)


async def test_a_sync_job_that_completes_though_it_was_cancelled_is_completed(app: Callboard) -> None:
    began = threading.Event()

    @app.task(name="slow")
    def slow(ctx: Context) -> str:
        began.set()
        while not ctx.cancelled:
            time.sleep(0.01)
        return "done anyway"

    async with running(app):
        job = await slow.enqueue()
        await asyncio.to_thread(began.wait, 5)
        assert await job.cancel() is Cancel.REQUESTED
        assert await job.result(5) == "done anyway"
    assert await job.state() == "completed"


async def test_a_job_in_a_process_that_is_cancelled_is_killed(app: Callboard, tmp_path: Path) -> None:
    slow = app.task(name="slow", executor="process")(process_tasks.sleep)
    async with running(app):
        job = await slow.enqueue(str(tmp_path / "pid"))
        async with asyncio.timeout(10):
            while not (tmp_path / "pid").exists():
                await asyncio.sleep(0.01)
        assert await job.cancel() is Cancel.REQUESTED
        with pytest.raises(JobCancelled):
            await job.result(5)


async def test_an_async_job_that_swallows_its_cancellation_holds_up_only_its_slot(app: Callboard) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    @app.task(name="stubborn")
    async def stubborn() -> str:
        began.set()
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue
        return "ignored"

    @app.task(name="plain")
    async def plain() -> str:
        return "ran"

    async with running(app, concurrency=2):
        job = await stubborn.enqueue()
        await began.wait()
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result(5)
        assert await (await plain.enqueue()).result(5) == "ran"
        may_end.set()
        await settled(app, "default")


async def test_cancelling_again_or_too_late_or_the_unknown_says_so(app: Callboard) -> None:
    @app.task(name="t")
    async def t() -> None: ...

    queue = app.queue("default")
    job = await t.options(delay=60).enqueue()
    assert await job.cancel() is Cancel.CANCELLED
    assert await job.cancel() is Cancel.CANCELLED
    async with running(app):
        done = await t.enqueue()
        await done.result(5)
        assert await done.cancel() is Cancel.FINAL
    assert await queue.cancel_job("nobody") is Cancel.UNKNOWN
    assert await done.state() == "completed"


async def test_a_cancelled_job_can_be_run_again_by_hand(app: Callboard) -> None:
    @app.task(name="t")
    async def t() -> str:
        return "ran"

    job = await t.enqueue()
    await job.cancel()
    async with running(app):
        assert await app.queue("default").retry_job(job.id) is True
        assert await job.result(5) == "ran"
