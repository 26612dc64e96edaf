"""A worker's inflow while the broker is away, or refuses."""

from __future__ import annotations

import asyncio

from callboard.brokers.contract import BODY_LIMIT, Consumer, Receive
from callboard.brokers.errors import BrokerError
from callboard.brokers.memory import MemoryBroker
from callboard.brokers.message import Delivery, Message
from callboard.brokers.topology import Names
from callboard.runtime.inflow import FEWEST, FIRST, Inflow

NAMES = Names("inflow")
WANTED = 1000  # jobs: far more than the first prefetch, so that another consumer is due


class Inbox:
    """Keeps what it gets, unsettled."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self._came = asyncio.Condition()
        self._telling: set[asyncio.Task[None]] = set()

    def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        task = asyncio.get_running_loop().create_task(self._tell())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def holds(self, count: int) -> None:
        async with asyncio.timeout(5), self._came:
            await self._came.wait_for(lambda: len(self.deliveries) >= count)

    async def _tell(self) -> None:
        async with self._came:
            self._came.notify_all()


async def busy(broker: MemoryBroker, inbox: Inbox) -> Inflow:
    """Started, with as many messages as it takes to adapt."""
    await broker.open()
    await broker.declare(NAMES.exchanges())
    await broker.declare(NAMES.jobs_topology("mail"))
    inflow = Inflow(broker, NAMES, "mail", inbox)
    await inflow.start()
    count_messages(inflow)
    return inflow


async def after_an_outage_during_adapt(inbox: Inbox) -> tuple[MemoryBroker, Inflow]:
    broker = MemoryBroker.from_url("memory://", name="inflow")
    inflow = await busy(broker, inbox)
    broker.disconnect()
    await inflow.adapt(WANTED)
    broker.reconnect()
    return broker, inflow


def count_messages(inflow: Inflow) -> None:
    for _ in range(FEWEST):
        inflow.counted(1)


async def publish(broker: MemoryBroker, count: int) -> None:
    message = Message(exchange=NAMES.jobs, routing_key="mail", body=b"{}")
    await broker.publish([message] * count, timeout=1)


async def test_a_change_of_prefetch_that_meets_an_outage_leaves_the_old_consumer() -> None:
    inbox = Inbox()
    broker, inflow = await after_an_outage_during_adapt(inbox)

    await publish(broker, FIRST)
    await inbox.holds(FIRST)
    await inflow.stop()
    await broker.close()


async def test_the_prefetch_is_changed_once_the_broker_is_back() -> None:
    inbox = Inbox()
    broker, inflow = await after_an_outage_during_adapt(inbox)
    count_messages(inflow)
    await inflow.adapt(WANTED)

    await publish(broker, 10 * FIRST)
    await inbox.holds(10 * FIRST)
    await inflow.stop()
    await broker.close()


class RefusingBroker(MemoryBroker):
    """Refuses to let anybody consume, once it is told to."""

    refuses = False
    asked = 0

    async def consume(
        self, queue: str, receive: Receive, *, prefetch: int, exclusive: bool = False, body_limit: int = BODY_LIMIT
    ) -> Consumer:
        self.asked += 1
        if self.refuses:
            raise BrokerError("ACCESS_REFUSED")
        return await super().consume(queue, receive, prefetch=prefetch, exclusive=exclusive, body_limit=body_limit)


async def test_a_change_of_prefetch_that_is_refused_leaves_the_old_consumer_and_waits_for_messages() -> None:
    inbox, broker = Inbox(), RefusingBroker()
    inflow = await busy(broker, inbox)
    broker.refuses = True
    for _ in range(10):
        await inflow.adapt(WANTED)
    assert broker.asked == 2

    await publish(broker, FIRST)
    await inbox.holds(FIRST)
    await inflow.stop()
    await broker.close()
