"""A command that is lost while the broker is away costs no time once it is back: actors look by themselves then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from callboard import Callboard
from callboard.brokers.memory import MemoryBroker
from callboard.metadata.contract import Inspection
from callboard.metadata.job import State
from callboard.runtime.testing import running


async def reaches(look: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(8):
        while not await look():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("queue", ["known", "new"])
async def test_a_scanner_looks_at_once_when_the_broker_is_back(queue: str) -> None:
    async with Callboard(broker="memory://", store="memory://", scan_interval=60) as app:
        broker = app.connections.broker
        assert isinstance(broker, MemoryBroker)
        await app.queue("known").add("task", delay=600)
        async with running(app, actors=("delayed-scanner",)):
            await asyncio.sleep(0.05)
            broker.disconnect()
            job = await app.queue(queue).add("task", delay=0.05)
            await asyncio.sleep(0.1)
            (record,) = await app.connections.store.get(Inspection).get(queue, [job])
            assert record is not None
            assert record.state is State.DELAYED
            broker.reconnect()
            await reaches(lambda: state_is(app, queue, job, State.WAITING))


async def test_a_scheduler_looks_at_once_when_the_broker_is_back() -> None:
    async with Callboard(broker="memory://", store="memory://") as app:
        broker = app.connections.broker
        assert isinstance(broker, MemoryBroker)
        queue = app.queue("reports")
        await queue.upsert_repeatable("report", id="later", every=3600)
        async with running(app, actors=("repeatable-scheduler",)):
            await asyncio.sleep(0.05)
            broker.disconnect()
            await queue.upsert_repeatable("report", id="soon", every=1)
            await asyncio.sleep(1.2)
            assert (await queue.queue_counts()).waiting == 0
            broker.reconnect()
            await reaches(lambda: has_jobs(app))


async def state_is(app: Callboard, queue: str, job: str, state: State) -> bool:
    return await app.queue(queue).get_job_state(job) is state


async def has_jobs(app: Callboard) -> bool:
    return (await app.queue("reports").queue_counts()).waiting > 0
