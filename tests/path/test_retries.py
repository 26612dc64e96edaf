from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from callboard import Backoff, Callboard, Context, InvalidJob, JobFailed, Retry
from callboard.runtime.job_view import JobInfo
from callboard.runtime.testing import running


async def failed(app: Callboard, job_id: str) -> JobInfo:
    with pytest.raises(JobFailed):
        await app.queue("default").handle(job_id).result(10)
    info = await app.queue("default").get_job(job_id)
    assert info is not None
    return info


def pauses(info: JobInfo) -> list[float]:
    """Seconds between the end of each run and the start of the next."""
    return [((b.started_at or 0) - (a.ended_at or 0)) / 1000 for a, b in pairwise(info.history)]


async def test_a_job_that_fails_runs_again_until_its_retries_are_used_up(app: Callboard) -> None:
    runs: list[int] = []

    @app.task(name="broken", retries=2, backoff=0)
    async def broken(ctx: Context) -> None:
        runs.append(ctx.attempt)
        raise ValueError(f"attempt {ctx.attempt}")

    async with running(app):
        info = await failed(app, (await broken.enqueue()).id)
    assert runs == [1, 2, 3]
    assert (info.attempts, info.failures, info.stalled, info.state) == (3, 3, 0, "failed")
    assert info.error is not None
    assert (info.error.type, info.error.message) == ("ValueError", "attempt 3")


async def test_the_history_of_a_job_tells_each_attempt(app: Callboard) -> None:
    @app.task(name="third", retries=2, backoff=0.05)
    def third(ctx: Context) -> str:
        if ctx.attempt < 3:
            raise ValueError(f"attempt {ctx.attempt}")
        return ctx.worker

    async with running(app):
        job = await third.enqueue()
        worker = await job.result(5)
    info = await app.queue("default").get_job(job.id)
    assert info is not None
    assert [(a.attempt, a.outcome) for a in info.history] == [(1, "retried"), (2, "retried"), (3, "completed")]
    assert [a.error.message if a.error else None for a in info.history] == ["attempt 1", "attempt 2", None]
    assert {a.worker for a in info.history} == {worker}
    dispatches = [a.dispatch for a in info.history]
    assert dispatches == sorted(set(dispatches))
    moments = [moment for a in info.history for moment in (a.started_at, a.ended_at)]
    assert None not in moments
    assert moments == sorted(moments, key=lambda moment: moment or 0)
    assert (info.attempts, info.failures, info.error) == (3, 2, None)


@pytest.mark.parametrize(
    ("backoff", "expected"),
    [
        (0.1, [0.1, 0.1, 0.1]),
        (timedelta(milliseconds=100), [0.1, 0.1, 0.1]),
        (Backoff.fixed(0.1), [0.1, 0.1, 0.1]),
        (Backoff.linear(0.1, jitter=0), [0.1, 0.2, 0.3]),
        (Backoff.exponential(0.1, jitter=0), [0.1, 0.2, 0.4]),
        (Backoff.exponential(0.1, factor=3, cap=0.2, jitter=0), [0.1, 0.2, 0.2]),
        ({"type": "linear", "delay": 0.1, "jitter": 0}, [0.1, 0.2, 0.3]),
    ],
    ids=["seconds", "timedelta", "fixed", "linear", "exponential", "capped", "json"],
)
@pytest.mark.parametrize("given_to", ["task", "call"])
async def test_retries_wait_as_the_backoff_says(
    app: Callboard, backoff: Any, expected: list[float], given_to: str
) -> None:
    async def broken() -> None:
        raise ValueError

    task = app.task(name="broken", retries=3, backoff=backoff if given_to == "task" else 30)(broken)
    async with running(app):
        call = task if given_to == "task" else task.options(backoff=backoff)
        info = await failed(app, (await call.enqueue()).id)
    for pause, least in zip(pauses(info), expected, strict=True):
        # The pause begins a moment before the end is noted. Exactly: tests/unit/test_retry.py
        assert least - 0.05 <= pause < least + 2, (pauses(info), expected)


async def test_jitter_takes_a_share_of_the_pause_away_and_never_adds(app: Callboard) -> None:
    @app.task(name="broken", retries=5, backoff=Backoff.fixed(0.1, jitter="full"))
    async def broken() -> None:
        raise ValueError

    async with running(app):
        infos = [await failed(app, (await broken.enqueue()).id)]
    waited = pauses(infos[0])
    assert all(pause < 0.1 + 2 for pause in waited)
    assert max(waited) - min(waited) > 0.01


async def test_only_the_errors_named_by_retry_on_are_retried(app: Callboard) -> None:
    @app.task(name="picky", retries=3, backoff=0, retry_on=OSError)
    async def picky(kind: str) -> None:
        raise ConnectionError if kind == "connection" else ValueError

    async with running(app):
        assert (await failed(app, (await picky.enqueue("connection")).id)).attempts == 4
        assert (await failed(app, (await picky.enqueue("value")).id)).attempts == 1


async def test_the_errors_named_by_give_up_on_are_never_retried(app: Callboard) -> None:
    @app.task(name="picky", retries=3, backoff=0, retry_on=(OSError, ValueError), give_up_on=[ConnectionError])
    async def picky(kind: str) -> None:
        raise ConnectionResetError if kind == "connection" else ValueError

    async with running(app):
        assert (await failed(app, (await picky.enqueue("connection")).id)).attempts == 1
        assert (await failed(app, (await picky.enqueue("value")).id)).attempts == 4


async def test_a_task_that_raises_retry_runs_again_after_the_time_it_names(app: Callboard) -> None:
    @app.task(name="busy", retries=1, backoff=30, give_up_on=Exception)
    def busy(ctx: Context) -> int:
        if ctx.attempt == 1:
            raise Retry(after=0.2, reason="try later")
        return ctx.attempt

    async with running(app):
        job = await busy.enqueue()
        assert await job.result(5) == 2
    info = await app.queue("default").get_job(job.id)
    assert info is not None
    assert 0.2 <= pauses(info)[0] < 20  # its backoff would be 30 s
    assert info.history[0].error is not None
    assert info.history[0].error.message == "try later"


async def test_retry_counts_as_a_retry_and_fails_with_its_reason_when_none_is_left(app: Callboard) -> None:
    @app.task(name="busy", retries=2)
    async def busy() -> None:
        raise Retry(after=0, reason="the printer is busy")

    async with running(app):
        info = await failed(app, (await busy.enqueue()).id)
    assert info.attempts == 3
    assert info.error is not None
    assert info.error.message == "the printer is busy"


async def test_a_call_can_have_more_or_no_retries(app: Callboard) -> None:
    @app.task(name="broken", retries=1, backoff=0)
    async def broken() -> None:
        raise ValueError

    async with running(app):
        assert (await failed(app, (await broken.options(retries=3).enqueue()).id)).attempts == 4
        assert (await failed(app, (await broken.options(retries=0).enqueue()).id)).attempts == 1
        assert (await failed(app, await app.queue("default").add("broken", retries=2))).attempts == 3


async def test_a_job_waits_as_delayed_between_its_attempts_and_can_be_cancelled_there(app: Callboard) -> None:
    runs: list[int] = []
    ran = asyncio.Event()

    @app.task(name="broken", retries=1, backoff=60)
    async def broken() -> None:
        runs.append(1)
        ran.set()
        raise ValueError

    async with running(app):
        job = await broken.enqueue()
        await ran.wait()
        async with asyncio.timeout(5):
            while await job.state() != "delayed":
                await asyncio.sleep(0.01)
        assert await job.cancel() == "cancelled"
    assert await job.state() == "cancelled"
    assert runs == [1]


async def test_a_failed_job_that_is_retried_by_hand_has_all_its_retries_again(app: Callboard) -> None:
    broken_still = [True]

    @app.task(name="broken", retries=1, backoff=0)
    async def broken(ctx: Context) -> int:
        if broken_still[0]:
            raise ValueError
        return ctx.attempt

    async with running(app):
        job = await broken.enqueue()
        assert (await failed(app, job.id)).failures == 2
        assert await app.queue("default").retry_job(job.id) is True
        assert (await failed(app, job.id)).attempts == 4
        broken_still[0] = False
        assert await app.queue("default").retry_job(job.id) is True
        assert await job.result(5) == 5
        info = await app.queue("default").get_job(job.id)
    assert info is not None
    assert (info.failures, info.error) == (0, None)


async def test_a_history_keeps_only_the_newest_attempts(app: Callboard) -> None:
    @app.task(name="broken", retries=30, backoff=0)
    async def broken() -> None:
        raise ValueError

    async with running(app):
        info = await failed(app, (await broken.enqueue()).id)
    assert [a.attempt for a in info.history] == list(range(12, 32))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"retries": -1}, "retries: must be from 0"),
        ({"retries": True}, "retries: wants a whole number, not bool"),
        ({"retries": "3"}, "retries: wants a whole number, not str"),
        ({"backoff": -1}, "backoff: .*must not be negative"),
        ({"backoff": "x"}, "backoff: .*wants seconds"),
        ({"backoff": {"type": "cubic"}}, r"backoff\.type: 'cubic' is not one of"),
        ({"backoff": lambda n: n}, "backoff: .*wants seconds"),
    ],
    ids=["below", "bool", "text", "backoff below", "backoff text", "backoff type", "backoff function"],
)
async def test_a_backoff_or_number_of_retries_that_makes_no_sense_is_refused(
    app: Callboard, options: dict[str, Any], complaint: str
) -> None:
    @app.task(name="t")
    async def t() -> None: ...

    with pytest.raises(InvalidJob, match=complaint):
        t.options(**options)
    with pytest.raises(InvalidJob, match=complaint):
        await app.queue("default").add("t", **options)
