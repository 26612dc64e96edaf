"""What a task returns, or how it failed, on its way back to who waits for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from callboard import (
    Callboard,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobUnknown,
    ResultTimeout,
)
from callboard.runtime.handle import LOOK_AGAIN_SECONDS
from callboard.runtime.testing import running, settled
from path.place import Place

VALUES = [
    [], {}, "", 0, False, True, 2**63, 2**64 + 1, -(2**63), 1e308, 5e-324, 0.1, -0.0, 1.0,
    [[], {}, [None, {"a": None}]], {"": "", "a": [], "b": {}}, "ä€😀\x00\n\"\\", {"nested": [{"deep": [[[]]]}]},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
async def test_a_value_comes_to_the_task_and_back_exactly_as_it_was_sent(app: Callboard, value: Any) -> None:
    received: list[Any] = []

    @app.task(name="echo")
    async def echo(first: Any, **named: Any) -> Any:
        received.append((first, named))
        return [first, named]

    async with running(app):
        job = await echo.enqueue(value, other=value)
        result = await job.result(5)
    info = await app.queue("default").get_job(job.id)
    assert info is not None
    same = [repr(value), repr({"other": value})]  # repr tells 1 from 1.0 and True, and -0.0 from 0.0
    assert list(map(repr, received[0])) == same
    assert list(map(repr, result)) == same
    assert [repr(info.args[0]), repr(info.kwargs)] == same
    assert repr(await app.queue("default").get_job_result(job.id)) == repr(result)


async def test_a_value_survives_retries_and_a_manual_retry_unchanged(app: Callboard) -> None:
    received: list[str] = []
    value = [2**63, 1e308, 0.1, [], {}, "", None, {"a": [None]}]

    @app.task(name="echo", retries=1, backoff=0)
    async def echo(it: Any) -> None:
        received.append(repr(it))
        raise ValueError

    async with running(app):
        job = await echo.enqueue(value)
        with pytest.raises(JobFailed):
            await job.result(5)
        assert await app.queue("default").retry_job(job.id)
        with pytest.raises(JobFailed):
            await job.result(5)
    assert received == [repr(value)] * 4


async def test_who_waits_for_a_result_is_woken_long_before_it_would_look_again(app: Callboard) -> None:
    loop = asyncio.get_running_loop()
    may_end = asyncio.Event()
    ended_at: list[float] = []

    @app.task(name="slow")
    async def slow() -> str:
        await may_end.wait()
        ended_at.append(loop.time())
        return "done"

    async with running(app):
        job = await slow.enqueue()
        waiting = [asyncio.create_task(job.result(10)) for _ in range(3)]
        await until_active(app, job.id)
        may_end.set()
        assert await asyncio.gather(*waiting) == ["done"] * 3
        assert loop.time() - ended_at[0] < LOOK_AGAIN_SECONDS / 5


async def test_who_waits_is_woken_when_a_waiting_job_is_cancelled(app: Callboard) -> None:
    loop = asyncio.get_running_loop()
    job_id = await app.queue("default").add("t")
    job = app.queue("default").handle(job_id)
    waiting = asyncio.create_task(job.result(10))
    connections = app.connections
    async with asyncio.timeout(5):
        while not (depth := await connections.broker.depth(connections.names.listener(connections.boot))) or (
            depth.consumers == 0
        ):
            await asyncio.sleep(0.01)
    assert await job.state() == "waiting"  # and who waits has seen that too: its question went out before this one
    before = loop.time()
    await job.cancel()
    with pytest.raises(JobCancelled):
        await waiting
    assert loop.time() - before < LOOK_AGAIN_SECONDS / 5


async def test_a_result_is_there_for_who_asks_after_the_end(app: Callboard) -> None:
    @app.task(name="none")
    async def none() -> None: ...

    async with running(app):
        job = await none.enqueue()
        await settled(app, "default")
    assert await job.result(5) is None
    assert await app.queue("default").handle(job.id).result() is None


async def test_a_result_that_does_not_come_in_time_raises_a_timeout_and_the_job_goes_on(app: Callboard) -> None:
    may_end = asyncio.Event()

    @app.task(name="slow")
    async def slow() -> str:
        await may_end.wait()
        return "done"

    async with running(app):
        job = await slow.enqueue()
        await until_active(app, job.id)
        with pytest.raises(ResultTimeout, match=r"is active after 0\.1 s and goes on") as missed:
            await job.result(0.1)
        assert isinstance(missed.value, TimeoutError)
        assert missed.value.state == "active"
        may_end.set()
        assert await job.result(5) == "done"


async def test_a_failed_job_raises_its_error_as_text(app: Callboard) -> None:
    class OutOfStamps(Exception):
        pass

    @app.task(name="send")
    async def send() -> None:
        raise OutOfStamps("no stamps") from ValueError("empty drawer")

    async with running(app):
        job = await send.enqueue()
        with pytest.raises(JobFailed, match="OutOfStamps: no stamps") as failed:
            await job.result(5)
    assert failed.value.error_type.endswith("OutOfStamps")
    assert failed.value.message == "no stamps"
    assert "ValueError: empty drawer" in failed.value.traceback
    assert 'raise OutOfStamps("no stamps")' in failed.value.traceback
    with pytest.raises(JobFailed):
        await app.queue("default").get_job_result(job.id)


async def test_a_cancelled_job_and_an_unknown_one_each_raise_what_they_are(app: Callboard) -> None:
    queue = app.queue("default")
    job_id = await queue.add("t")
    await queue.cancel_job(job_id)
    with pytest.raises(JobCancelled, match=f"job {job_id}: was cancelled"):
        await queue.handle(job_id).result(5)
    with pytest.raises(JobCancelled):
        await queue.get_job_result(job_id)
    with pytest.raises(JobUnknown, match="job nobody: is not recorded"):
        await queue.handle("nobody").result(5)
    assert await queue.get_job_result("nobody") is None


async def test_a_job_whose_ttl_passes_before_it_starts_expires_and_never_runs(app: Callboard) -> None:
    runs: list[str] = []

    @app.task(name="stale", ttl=60)
    async def stale(which: str) -> None:
        runs.append(which)

    job = await stale.options(ttl=0.05).enqueue("short")
    other = await stale.enqueue("long")
    await asyncio.sleep(0.1)  # what is tested is that time passes
    async with running(app):
        with pytest.raises(JobExpired, match="expired before it started"):
            await job.result(5)
        await other.result(5)
    assert runs == ["long"]
    assert await job.state() == "expired"
    with pytest.raises(JobExpired):
        await app.queue("default").get_job_result(job.id)


async def test_a_ttl_does_not_end_a_job_that_has_started(app: Callboard) -> None:
    @app.task(name="slow", ttl=3, retries=1, backoff=0.1)
    async def slow(ctx: Any) -> str:
        await asyncio.sleep(3.1)
        return "done"

    async with running(app):
        assert await (await slow.enqueue(None)).result(20) == "done"


@pytest.mark.parametrize(
    ("result", "complaint"),
    [
        ([1, {"a": object()}], r"result\[1\]\.a: a builtins\.object has no JSON form"),
        (float("inf"), r"result: inf has no JSON form"),
        ({1: 2}, r"result: the key 1 is a int"),
        ("\ud800", "lone surrogate"),
    ],
    ids=["object", "inf", "key", "surrogate"],
)
async def test_a_result_that_json_cannot_hold_fails_the_job_once_and_the_worker_lives(
    app: Callboard, result: Any, complaint: str
) -> None:
    runs: list[int] = []

    @app.task(name="odd", retries=3, backoff=0)
    async def odd() -> Any:
        runs.append(1)
        return result

    @app.task(name="plain")
    def plain() -> str:
        return "fine"

    async with running(app):
        job = await odd.enqueue()
        with pytest.raises(JobFailed, match=complaint):
            await job.result(5)
        assert await (await plain.enqueue()).result(5) == "fine"
    assert runs == [1]


async def test_a_cyclic_result_fails_the_job_and_the_worker_lives(app: Callboard) -> None:
    @app.task(name="cycle")
    async def cycle() -> Any:
        ring: list[Any] = []
        ring.append(ring)
        return ring

    @app.task(name="plain")
    def plain() -> str:
        return "fine"

    async with running(app):
        with pytest.raises(JobFailed, match="nested deeper than 64 levels, or contains itself"):
            await (await cycle.enqueue()).result(5)
        assert await (await plain.enqueue()).result(5) == "fine"


async def test_a_result_beyond_its_limit_fails_the_job_and_says_both_sizes(place: Place) -> None:
    async with place.open(result_limit=1000) as app:

        @app.task(name="large")
        async def large(size: int) -> str:
            return "x" * (size - 2)

        @app.task(name="larger", result_limit=2000)
        def larger(size: int) -> str:
            return "x" * (size - 2)

        async with running(app):
            assert len(await (await large.enqueue(1000)).result(5)) == 998
            with pytest.raises(JobFailed, match=r"takes 1001 bytes, the limit is 1000"):
                await (await large.enqueue(1001)).result(5)
            assert len(await (await larger.enqueue(2000)).result(5)) == 1998
            with pytest.raises(JobFailed, match=r"takes 2001 bytes, the limit is 2000"):
                await (await larger.enqueue(2001)).result(5)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Exits(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


@pytest.mark.parametrize("kind", ["async", "thread"])
@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (Unspeakable(), "whose __str__ and __repr__ fail"),
        (Exits(), "Exits"),
        (ValueError("x" * 10_000_000), r"x\.\.\. \(10000000 bytes\)"),
        (ValueError("\ud800"), "ValueError"),
        (SystemExit(1), "the task raised SystemExit"),
        (KeyboardInterrupt(), "the task raised KeyboardInterrupt"),
        (StopIteration(1), "StopIteration"),
        (asyncio.CancelledError(), "the task raised CancelledError"),
        (ExceptionGroup("many", [ValueError(str(i)) for i in range(1000)]), "many"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_whatever_a_task_raises_fails_its_job_alone_and_within_bounds(
    app: Callboard, error: BaseException, shown: str, kind: str
) -> None:
    def in_thread() -> None:
        raise error

    async def on_loop() -> None:
        raise error

    hostile = app.task(name="hostile")(on_loop if kind == "async" else in_thread)

    @app.task(name="plain")
    async def plain() -> str:
        return "fine"

    async with running(app):
        job = await hostile.enqueue()
        with pytest.raises(JobFailed, match=shown) as failed:
            await job.result(5)
        assert len(failed.value.message) <= 4096
        assert len(failed.value.traceback) <= 16_384
        assert await (await plain.enqueue()).result(5) == "fine"


async def until_active(app: Callboard, job_id: str, queue: str = "default") -> None:
    async with asyncio.timeout(5):
        while await app.queue(queue).get_job_state(job_id) != "active":
            await asyncio.sleep(0.01)
