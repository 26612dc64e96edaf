"""What a running task is told, and what it tells."""

from __future__ import annotations

import asyncio
import logging
import threading
from itertools import pairwise
from typing import Any

import pytest

from callboard import Callboard, Context, JobFailed
from callboard.runtime.testing import running
from path.place import Place


async def test_a_task_is_told_all_about_its_run(app: Callboard) -> None:
    told: dict[str, Any] = {}

    @app.task(queue="emails", name="t")
    async def t(ctx: Context) -> None:
        for name in ("job_id", "id", "queue", "task", "attempt", "dispatch", "worker", "meta", "idempotency_key"):
            told[name] = getattr(ctx, name)
        told["cancelled"], told["lease_uncertain"] = ctx.cancelled, ctx.lease_uncertain

    async with running(app):
        job = await t.options(meta={"tenant": ["t1", None]}).enqueue()
        await job.result(5)
    info = await app.queue("emails").get_job(job.id)
    assert info is not None
    assert told == {
        "job_id": job.id, "id": job.id, "idempotency_key": job.id, "queue": "emails", "task": "t", "attempt": 1,
        "dispatch": 1, "worker": info.history[0].worker, "meta": {"tenant": ["t1", None]}, "cancelled": False,
        "lease_uncertain": False,
    }  # fmt: skip


async def test_the_fence_grows_with_each_run_and_the_idempotency_key_stays(app: Callboard) -> None:
    seen: list[tuple[int, int, str]] = []

    @app.task(name="t", retries=3, backoff=0)
    def t(ctx: Context) -> None:
        seen.append((ctx.attempt, ctx.fence, ctx.idempotency_key))
        raise ValueError

    async with running(app):
        job = await t.enqueue()
        for _ in range(2):
            with pytest.raises(JobFailed):
                await job.result(5)
            await app.queue("default").retry_job(job.id)
        with pytest.raises(JobFailed):
            await job.result(5)
    attempts, fences, keys = zip(*seen, strict=True)
    assert list(attempts) == list(range(1, 13))
    assert all(later > earlier for earlier, later in pairwise(fences))
    assert set(keys) == {job.id}


async def test_the_context_may_stand_at_any_place_and_is_not_the_callers_to_give(app: Callboard) -> None:
    @app.task(name="t")
    async def t(a: int, ctx: Context, b: int = 2, *, c: int = 3) -> list[Any]:
        return [a, b, c, ctx.attempt]

    async with running(app):
        assert await (await t.enqueue(1, 5, c=6)).result(5) == [1, 5, 6, 1]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is filled in by the worker and cannot be sent"):
        await app.queue("default").add("t", [1], {"ctx": 1})


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_progress_can_be_read_while_the_job_runs_and_the_newest_stays(app: Callboard, kind: str) -> None:
    may_end = threading.Event()

    def in_thread(ctx: Context) -> None:
        for i in range(100):
            ctx.progress({"done": i, "of": 100})
        may_end.wait(5)

    async def on_loop(ctx: Context) -> None:
        for i in range(100):
            ctx.progress({"done": i, "of": 100})
        await asyncio.to_thread(may_end.wait, 5)

    task = app.task(name="t")(on_loop if kind == "async" else in_thread)
    queue = app.queue("default")
    assert await queue.get_job_progress("nobody") is None
    async with running(app):
        job = await task.enqueue()
        async with asyncio.timeout(5):
            while await queue.get_job_progress(job.id) != {"done": 99, "of": 100}:
                await asyncio.sleep(0.01)
        assert await job.state() == "active"
        may_end.set()
        await job.result(5)


async def test_a_progress_that_json_cannot_hold_is_an_error_in_the_task(app: Callboard) -> None:
    @app.task(name="t")
    async def t(ctx: Context) -> None:
        ctx.progress(object())

    async with running(app):
        with pytest.raises(JobFailed, match=r"NotJson: progress: a builtins\.object has no JSON form"):
            await (await t.enqueue()).result(5)


async def test_the_logger_of_a_run_names_the_task_and_carries_the_job(
    app: Callboard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    @app.task(name="t")
    def t(ctx: Context) -> None:
        ctx.logger.info("hello")

    async with running(app):
        job = await t.enqueue()
        await job.result(5)
    (record,) = [record for record in caplog.records if record.name == "callboard.task.t"]
    assert record.getMessage() == "hello"
    assert (record.__dict__["job"], record.__dict__["queue"], record.__dict__["attempt"]) == (job.id, "default", 1)


async def test_the_context_knows_the_app_and_the_worker(place: Place) -> None:
    async with place.open() as app:

        @app.task(queue="ctx")
        async def first(ctx: Context) -> str:
            assert ctx.app is app
            await ctx.app.queue("ctx").add("second", [ctx.worker_id], job_id="second")
            return ctx.worker_id

        @app.task(queue="ctx", name="second")
        async def second(ctx, other: str) -> bool:  # type: ignore[no-untyped-def]  # as code without hints has it
            return bool(ctx.worker_id == other == ctx.worker)

        async with running(app, actors=["worker"]):
            job = await first.enqueue()
            assert len(await job.result(timeout=30)) == 32
            assert await app.queue("ctx").handle("second").result(timeout=30) is True
