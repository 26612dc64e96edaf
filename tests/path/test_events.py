"""What is told on `callboard.events` about each end, to anyone who binds a queue to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from msgspec import UNSET, Raw

from callboard import Callboard
from callboard.brokers.message import Delivery
from callboard.brokers.topology import Binding, Queue, Topology
from callboard.runtime.finisher import EVENT_RESULT_BYTES
from callboard.runtime.testing import running
from callboard.runtime.wire import Event, decode_events


class Listener:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.keys: list[str] = []
        self._arrived = asyncio.Event()

    def receive(self, delivery: Delivery) -> None:
        self.events += decode_events(delivery.body)
        self.keys.append(delivery.routing_key)
        self._arrived.set()
        delivery.ack()

    async def of(self, job_id: str, name: str) -> Event:
        """The first event of that name about the job, waited for."""
        async with asyncio.timeout(5):
            while True:
                for event in self.events:
                    if (event.job, event.event) == (job_id, name):
                        return event
                self._arrived.clear()
                await self._arrived.wait()


@asynccontextmanager
async def listening(app: Callboard, pattern: str) -> AsyncIterator[Listener]:
    broker, names = app.connections.broker, app.connections.names
    queue = f"{names.namespace}.{uuid4().hex}"
    await broker.declare(
        Topology(queues=(Queue(queue, exclusive=True),), bindings=(Binding(queue, names.events, pattern),))
    )
    listener = Listener()
    consumer = await broker.consume(queue, listener.receive, prefetch=100)
    yield listener
    await consumer.cancel()


async def test_each_end_of_a_job_is_told_with_who_ran_it_and_why_it_failed(app: Callboard) -> None:
    began = asyncio.Event()

    @app.task(queue="emails", name="t", retries=1, backoff=0)
    async def t(how: str) -> None:
        if how == "fail":
            raise ValueError("no stamps")
        if how == "hang":
            began.set()
            await asyncio.sleep(600)

    async with listening(app, "emails.*") as listener, running(app):
        completed = await t.enqueue("well")
        event = await listener.of(completed.id, "completed")
        assert (event.queue, event.task, event.attempt, event.dispatch, event.error) == ("emails", "t", 1, 1, None)
        assert isinstance(event.result, Raw)
        assert bytes(event.result) == b"null"
        info = await app.queue("emails").get_job(completed.id)
        assert info is not None
        assert event.worker == info.history[0].worker

        failed = await t.enqueue("fail")
        assert (await listener.of(failed.id, "retried")).attempt == 1
        event = await listener.of(failed.id, "failed")
        assert (event.attempt, event.error) == (2, "ValueError: no stamps")

        cancelled = await t.enqueue("hang")
        await began.wait()
        await cancelled.cancel()
        await listener.of(cancelled.id, "cancelled")

        delayed = await t.options(delay=60).enqueue("well")
        await delayed.cancel()
        await listener.of(delayed.id, "cancelled")

        expired = await t.options(ttl=0.01, delay=0.05).enqueue("well")
        assert (await listener.of(expired.id, "expired")).task == "t"
    ends = ("completed", "retried", "failed", "cancelled", "expired")
    assert set(listener.keys) >= {f"emails.{name}" for name in ends}


async def test_who_binds_one_kind_of_event_hears_no_other(app: Callboard) -> None:
    @app.task(queue="emails", name="t")
    async def t(how: str) -> None:
        if how == "fail":
            raise ValueError

    async with listening(app, "*.failed") as listener, running(app):
        await (await t.enqueue("well")).result(5)
        failed = await t.enqueue("fail")
        await listener.of(failed.id, "failed")
        assert {event.event for event in listener.events} == {"failed"}


async def test_a_release_is_told(app: Callboard) -> None:
    began = asyncio.Event()

    @app.task(queue="emails", name="t")
    async def t() -> None:
        began.set()
        await asyncio.sleep(600)

    async with listening(app, "emails.*") as listener:
        async with running(app, actors=["worker"], grace_seconds=0.1):
            job = await t.enqueue()
            await began.wait()
        await listener.of(job.id, "released")


async def test_a_result_that_is_large_is_not_told_and_a_waiter_gets_it_all_the_same(app: Callboard) -> None:
    @app.task(queue="emails", name="t")
    async def t(size: int) -> str:
        return "x" * size

    async with listening(app, "emails.*") as listener, running(app):
        small, large = await t.enqueue(10), await t.enqueue(EVENT_RESULT_BYTES)
        assert await small.result(timeout=60) == "x" * 10
        assert len(await large.result(timeout=60)) == EVENT_RESULT_BYTES
        told = (await listener.of(small.id, "completed")).result
        assert isinstance(told, Raw)
        assert bytes(told) == b'"xxxxxxxxxx"'
        assert (await listener.of(large.id, "completed")).result is UNSET
