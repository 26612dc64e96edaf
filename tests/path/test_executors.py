"""Where tasks run: on the loop, in threads, in processes; and what ends those that take too long."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from callboard import Callboard, ConfigurationError, Context, InvalidJob, JobFailed
from callboard.runtime.testing import running, settled
from path import process_tasks
from path.place import Place

TIMED_OUT = r"TaskTimeout: the task took longer than its timeout of 0\.2 s"


async def test_an_async_task_that_takes_too_long_is_interrupted(app: Callboard) -> None:
    interrupted = asyncio.Event()

    @app.task(name="slow", timeout=0.2)
    async def slow(ctx: Context) -> None:
        try:
            await asyncio.sleep(600)
        finally:
            assert ctx.cancelled
            interrupted.set()

    async with running(app):
        with pytest.raises(JobFailed, match=TIMED_OUT):
            await (await slow.enqueue()).result(5)
        async with asyncio.timeout(1):
            await interrupted.wait()


async def test_a_sync_task_that_takes_too_long_is_told_and_its_slot_stays_taken_until_it_ends(app: Callboard) -> None:
    may_end, told = threading.Event(), threading.Event()

    @app.task(name="slow", timeout=0.2)
    def slow(ctx: Context) -> None:
        while not ctx.cancelled:
            time.sleep(0.01)
        told.set()
        may_end.wait(10)

    @app.task(name="next")
    async def following() -> str:
        return "ran"

    async with running(app, concurrency=1):
        with pytest.raises(JobFailed, match=TIMED_OUT):
            await (await slow.enqueue()).result(5)
        assert await asyncio.to_thread(told.wait, 5)
        job = await following.enqueue()
        with pytest.raises(TimeoutError):
            await job.result(0.3)
        may_end.set()
        assert await job.result(5) == "ran"


async def test_a_process_that_takes_too_long_is_killed(app: Callboard, tmp_path: Path) -> None:
    slow = app.task(name="slow", executor="process", timeout=0.2)(process_tasks.sleep)
    async with running(app):
        with pytest.raises(JobFailed, match=TIMED_OUT):
            await (await slow.enqueue(str(tmp_path / "pid"))).result(10)
        child = int((tmp_path / "pid").read_text())
        async with asyncio.timeout(5):
            while await asyncio.to_thread(alive, child):
                await asyncio.sleep(0.01)


async def test_a_timeout_of_the_call_counts_before_that_of_the_task(app: Callboard) -> None:
    @app.task(name="slow", timeout=60)
    async def slow() -> None:
        await asyncio.sleep(600)

    async with running(app):
        with pytest.raises(JobFailed, match=TIMED_OUT):
            await (await slow.options(timeout=0.2).enqueue()).result(5)
    with pytest.raises(InvalidJob, match="timeout must be more than 0 seconds"):
        slow.options(timeout=0)


async def test_a_run_that_timed_out_is_retried_like_one_that_failed(app: Callboard) -> None:
    @app.task(name="slow", timeout=0.1, retries=1, backoff=0)
    async def slow(ctx: Context) -> int:
        if ctx.attempt == 1:
            await asyncio.sleep(600)
        return ctx.attempt

    async with running(app):
        assert await (await slow.enqueue()).result(5) == 2


async def test_sync_tasks_do_not_hold_up_the_loop(app: Callboard) -> None:
    may_end = threading.Event()

    @app.task(name="block")
    def block() -> bool:
        return may_end.wait(10)

    @app.task(name="release")
    async def release() -> str:
        may_end.set()
        return "released"

    async with running(app, concurrency=4):
        blocked = [await block.enqueue() for _ in range(3)]
        async with asyncio.timeout(5):
            while (await app.queue("default").queue_counts()).active < 3:
                await asyncio.sleep(0.01)
        assert await (await release.enqueue()).result(5) == "released"
        assert [await job.result(5) for job in blocked] == [True] * 3


async def test_sync_tasks_run_beside_one_another_as_many_as_there_are_slots(app: Callboard) -> None:
    meeting = threading.Barrier(4, timeout=5)

    @app.task(name="meet")
    def meet() -> str:
        meeting.wait()
        return threading.current_thread().name

    async with running(app, concurrency=4):
        jobs = [await meet.enqueue() for _ in range(4)]
        assert len({await job.result(5) for job in jobs}) == 4


async def test_no_more_jobs_run_at_once_than_the_worker_has_slots(app: Callboard) -> None:
    now = most = 0

    @app.task(name="count")
    async def count() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1

    async with running(app, concurrency=3):
        await app.queue("default").add_bulk([{"task_id": "count"}] * 40)
        await settled(app, "default")
    assert most == 3


async def test_a_process_task_runs_in_a_process_that_is_used_again(app: Callboard) -> None:
    pid = app.task(name="pid", executor="process")(process_tasks.pid)
    async with running(app, executor_processes=1):
        pids = {await (await pid.enqueue()).result(10) for _ in range(3)}
    assert len(pids) == 1
    assert os.getpid() not in pids


async def test_an_async_task_can_run_in_a_process_with_its_context(app: Callboard) -> None:
    task = app.task(name="loop", executor="process")(process_tasks.on_a_loop)
    async with running(app):
        job = await task.enqueue()
        attempt, fence = await job.result(10)
        info = await app.queue("default").get_job(job.id)
    assert info is not None
    assert (attempt, fence) == (1, info.fence)


async def test_a_process_task_returns_ten_megabytes(place: Place) -> None:
    async with place.open(result_limit=11_000_000) as app:
        large = app.task(name="large", executor="process")(process_tasks.large)
        async with running(app):
            assert len(await (await large.enqueue(10_000_000)).result(20)) == 10_000_000


async def test_a_process_that_exits_fails_its_job_alone_and_the_next_job_runs(app: Callboard) -> None:
    leave = app.task(name="leave", executor="process")(process_tasks.leave)
    pid = app.task(name="pid", executor="process")(process_tasks.pid)
    async with running(app, executor_processes=1):
        first = await (await pid.enqueue()).result(10)
        with pytest.raises(JobFailed, match=r"WorkerProcessDied: the child process exited with code 3 under its task"):
            await (await leave.enqueue(3)).result(10)
        assert await (await pid.enqueue()).result(10) != first


async def test_an_error_in_a_process_is_told_with_its_traceback_and_retried_by_its_class(app: Callboard) -> None:
    fail = app.task(name="fail", executor="process", retries=1, backoff=0, retry_on=LookupError)(process_tasks.fail)
    async with running(app):
        job = await fail.enqueue("lost")
        with pytest.raises(JobFailed, match="LookupError: lost") as failed:
            await job.result(10)
        info = await app.queue("default").get_job(job.id)
    assert "raise LookupError(message)" in failed.value.traceback
    assert info is not None
    assert info.attempts == 2


async def test_a_function_that_no_process_could_find_is_refused_where_it_is_declared(app: Callboard) -> None:
    def local() -> None: ...

    with pytest.raises(ConfigurationError, match="defined within a function; move it to the top of the module"):
        app.task(name="local", executor="process")(local)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
