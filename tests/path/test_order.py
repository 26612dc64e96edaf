"""Which job is next: priorities, the order of queues, weights."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from callboard import Callboard, Context, InvalidJob
from callboard.runtime.testing import running, settled


async def test_with_one_slot_jobs_of_higher_priority_overtake_those_that_wait(app: Callboard) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()
    order: list[int] = []

    @app.task(name="hold")
    async def hold() -> None:
        began.set()
        await may_end.wait()

    @app.task(name="note")
    async def note(i: int) -> None:
        order.append(i)

    async with running(app, concurrency=1):
        await hold.enqueue()
        await began.wait()
        for priority in (10, 5, 9, 1, 7, 3, 2, 8, 6, 4):
            await note.options(priority=priority).enqueue(priority)
        await asyncio.sleep(0.3)
        may_end.set()
        await settled(app, "default")
    assert order == sorted(order)


async def test_a_job_of_higher_priority_overtakes_a_bulk_that_waits(app: Callboard) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()
    order: list[str] = []

    @app.task(name="hold")
    async def hold() -> None:
        began.set()
        await may_end.wait()

    @app.task(name="note")
    async def note(which: str) -> None:
        order.append(which)

    async with running(app, concurrency=1):
        await hold.enqueue()
        await began.wait()
        await app.queue("default").add_bulk([{"task_id": "note", "args": ["low"]}] * 300)
        await asyncio.sleep(0.3)
        await note.options(priority=1).enqueue("high")
        await asyncio.sleep(0.3)
        may_end.set()
        await settled(app, "default", timeout=20)
    assert order.index("high") < 5, order.index("high")


async def test_jobs_of_one_priority_run_in_the_order_they_were_added(app: Callboard) -> None:
    order: list[int] = []

    @app.task(name="note")
    async def note(i: int) -> None:
        order.append(i)

    for i in range(30):
        await note.enqueue(i)
    async with running(app, concurrency=1):
        await settled(app, "default")
    assert order == list(range(30))


@pytest.mark.parametrize("priority", [0, 11, -1, 1.5, "1", True, None], ids=repr)
async def test_a_priority_that_is_not_from_1_to_10_is_refused(app: Callboard, priority: Any) -> None:
    if priority is None:  # means: the task's
        assert await app.queue("default").add("t", priority=None)
        return
    with pytest.raises(InvalidJob, match=f"a whole number from 1 .first. to 10 .last., not {priority!r}"):
        await app.queue("default").add("t", priority=priority)


async def test_one_worker_serves_two_queues(app: Callboard) -> None:
    @app.task(queue="emails", name="send")
    async def send(ctx: Context) -> str:
        return ctx.queue

    @app.task(queue="reports", name="report")
    def report(ctx: Context) -> str:
        return ctx.queue

    async with running(app):
        assert await (await send.enqueue()).result(5) == "emails"
        assert await (await report.enqueue()).result(5) == "reports"


async def order_of(app: Callboard, **options: Any) -> list[str]:
    """Which queue each of the jobs that ran was from, with one slot and two full queues."""
    order: list[str] = []

    @app.task(name="note", queue="a")
    async def note(ctx: Context) -> None:
        order.append(ctx.queue)

    @app.task(name="note-too", queue="b")
    async def note_too(ctx: Context) -> None:
        order.append(ctx.queue)

    for name, task in (("b", "note-too"), ("a", "note")):
        await app.queue(name).add_bulk([{"task_id": task}] * 120)
    async with running(app, concurrency=1, **options):
        await settled(app, "a", "b", timeout=20)
    assert sorted(order) == ["a"] * 120 + ["b"] * 120
    return order


async def test_without_weights_the_first_queue_comes_first(app: Callboard) -> None:
    order = await order_of(app, queues=["a", "b"])
    assert order[5:115] == ["a"] * 110  # what arrives first is started while the other queue's bundle is on its way


async def test_weights_give_each_queue_its_share(app: Callboard) -> None:
    order = await order_of(app, queues=["a", "b"], weights=[3, 1])
    assert 60 < order[:100].count("a") < 90, order[:100].count("a")
    assert order[:40].count("b") >= 8, order[:40]


async def test_queues_that_nobody_put_in_order_take_turns(app: Callboard) -> None:
    order = await order_of(app)
    assert 40 < order[:100].count("a") < 60, order[:100].count("a")
