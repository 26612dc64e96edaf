"""What no producer of ours sends, and what a task does to itself: it costs no other job."""

import asyncio
from typing import Any

import pytest
from msgspec.json import encode

from callboard import Callboard, JobFailed
from callboard.brokers.message import Message
from callboard.runtime.testing import running, settled


async def publish(app: Callboard, *jobs: dict[str, Any], queue: str = "default") -> None:
    names, broker = app.connections.names, app.connections.broker
    body = encode({"v": 1, "epoch": "elsewhere", "at": app.clock.now(), "jobs": list(jobs)})
    await broker.declare(names.jobs_topology(queue))
    await broker.publish([Message(exchange=names.jobs, routing_key=queue, body=body)], timeout=5)


def ticket(**members: Any) -> dict[str, Any]:
    return {"dispatch": 1, "id": "stranger", "queue": "default", "task": "t", "created_at": 1, "args": []} | members


@pytest.mark.parametrize(
    "members",
    [
        {"dispatch": 2**64},
        {"dispatch": -1},
        {"expires_at": 2**64},
        {"priority": 300},
        {"timeout": 10**20},
        {"id": ""},
        {"id": "x" * 300_000},
        {"queue": "another"},
        {"retries": -1},
    ],
    ids=lambda members: next(iter(members)),
)
async def test_a_foreign_ticket_becomes_a_dead_letter_and_its_neighbours_run(
    app: Callboard, members: dict[str, Any]
) -> None:
    ran: list[str] = []

    @app.task(name="t")
    async def note(who: str = "stranger") -> None:
        ran.append(who)

    async with running(app):
        await publish(app, ticket(**members), ticket(id="neighbour", args=["neighbour"]))
        await (await note.enqueue("own")).result(5)
        async with asyncio.timeout(5):
            while sorted(ran) != ["neighbour", "own"]:
                await asyncio.sleep(0.02)
            depth = await app.connections.broker.depth(app.connections.names.dead)
            while depth is None or depth.ready != 1:
                await asyncio.sleep(0.02)
                depth = await app.connections.broker.depth(app.connections.names.dead)


async def test_a_new_job_under_the_id_of_a_removed_one_runs_with_its_own_arguments(app: Callboard) -> None:
    @app.task(name="say")
    async def say(what: str) -> str:
        return what

    call = say.options(job_id="x")
    queue = app.queue("default")
    await call.enqueue("old")
    assert await queue.remove_job("x")
    await asyncio.sleep(0.01)
    job = await call.enqueue("new")
    async with running(app):
        assert await job.result(5) == "new"
        await settled(app, "default")


async def test_a_handler_that_cancels_itself_fails_its_job(app: Callboard) -> None:
    @app.task(name="self")
    async def give_up() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(10)

    async with running(app):
        with pytest.raises(JobFailed, match="CancelledError"):
            await (await give_up.enqueue()).result(5)
