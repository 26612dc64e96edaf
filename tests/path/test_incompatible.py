"""Jobs that this worker cannot run: of tasks it does not know, with arguments their function does not take."""

from __future__ import annotations

import asyncio

import pytest

from callboard import Callboard, JobFailed
from callboard.runtime.testing import running
from path.place import Place


async def test_a_job_of_an_unknown_task_is_parked_with_its_reason_then_fails(place: Place) -> None:
    async with place.open(unknown_task_grace=0.6) as app:
        queue = app.queue("default")
        job = queue.handle(await queue.add("not.here", [1]))
        async with running(app, queues=["default"]):
            async with asyncio.timeout(5):
                while await job.state() != "delayed":
                    await asyncio.sleep(0.01)
            parked = await queue.get_job(job.id)
            with pytest.raises(JobFailed, match=r"UnknownTask: no worker of queue 'default' knows the task 'not"):
                await job.result(5)
        assert parked is not None
        assert parked.parked_at is not None
        assert (parked.failures, parked.history[-1].outcome) == (0, "parked")
        assert parked.history[-1].reason == "no worker of queue 'default' knows the task 'not.here'"
        failed = await queue.get_job(job.id)
        assert failed is not None
        assert failed.finished_at is not None
        assert (failed.finished_at - parked.parked_at).total_seconds() >= 0.6


async def test_a_parked_job_runs_when_a_worker_comes_that_knows_its_task(place: Place) -> None:
    async with place.open(unknown_task_grace=1) as app:
        queue = app.queue("default")
        job = queue.handle(await queue.add("late", ["x"]))
        async with running(app, queues=["default"]):
            async with asyncio.timeout(5):
                while await job.state() != "delayed":
                    await asyncio.sleep(0.01)

            @app.task(name="late")
            async def late(x: str) -> str:
                return f"ran {x}"

            assert await job.result(5) == "ran x"


async def test_an_unknown_task_keeps_no_other_job_waiting(app: Callboard) -> None:
    @app.task(name="known")
    async def known() -> str:
        return "ran"

    await app.queue("default").add_bulk([{"task_id": f"not.here{i}"} for i in range(20)])
    async with running(app, concurrency=1):
        assert await (await known.enqueue()).result(5) == "ran"


@pytest.mark.parametrize("kind", ["async", "thread"])
@pytest.mark.parametrize(
    ("args", "kwargs", "complaint"),
    [
        (["1"], {}, r"args\[0\]: Input should be a valid integer, got '1'"),
        ([1], {"name": 5}, r"kwargs\.name: Input should be a valid string, got 5"),
        ([1, 2], {}, r"args\[1\]: takes 1 positional argument, 2 were given, got 2"),
        ([], {}, r"kwargs\.x: the argument 'x' is missing"),
        ([1], {"other": 1}, r"kwargs\.other: is not a parameter of the task, got 1"),
    ],
    ids=["type", "keyword", "many", "missing", "unknown"],
)
async def test_arguments_that_only_the_worker_can_check_fail_the_job_at_once_and_name_path_and_value(
    app: Callboard, args: list[object], kwargs: dict[str, object], complaint: str, kind: str
) -> None:
    queue = app.queue("default")
    job = queue.handle(await queue.add("typed", args, kwargs, retries=3, backoff=0))  # not registered yet: a stranger
    runs: list[int] = []

    async def on_loop(x: int, *, name: str = "") -> None:
        runs.append(x)

    def in_thread(x: int, *, name: str = "") -> None:
        runs.append(x)

    app.task(name="typed")(on_loop if kind == "async" else in_thread)
    async with running(app):
        with pytest.raises(JobFailed, match=complaint) as failed:
            await job.result(5)
    assert failed.value.error_type.endswith("ArgumentsInvalid")
    info = await queue.get_job(job.id)
    assert info is not None
    assert (runs, info.attempts) == ([], 1)


@pytest.mark.parametrize("place", ["rabbitmq+redis"], indirect=True)  # memory:// is one app's own
async def test_an_app_without_the_task_can_add_jobs_for_one_that_has_it(place: Place) -> None:
    async with place.open() as producer, place.open() as consumer:

        @consumer.task(queue="emails", name="send")
        async def send(to: str) -> str:
            return f"sent to {to}"

        async with running(consumer):
            queue = producer.queue("emails")
            job_id = await queue.add("send", ["a@b.c"])
            assert await queue.handle(job_id).result(4) == "sent to a@b.c"
