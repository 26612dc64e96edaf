"""What the tests of a broker stand on: a receiver that keeps what it gets, and a queue with its exchanges."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest_asyncio

from ...brokers.contract import BODY_LIMIT, Broker, Consumer
from ...brokers.message import Delivery, Message, Receipt
from ...brokers.topology import Binding, Exchange, Queue, Topology

PATIENCE_SECONDS = 20.0
PUBLISH_SECONDS = 10.0


class Inbox:
    """A receiver that keeps what it gets, in order; `settle` is done to each delivery as it comes."""

    def __init__(self, settle: Callable[[Delivery], None] = lambda delivery: None) -> None:
        self.received: list[Delivery] = []
        self._settle = settle
        self._arrived = asyncio.Event()

    def __call__(self, delivery: Delivery) -> None:
        self.received.append(delivery)
        self._arrived.set()
        self._settle(delivery)

    async def take(self, number: int) -> list[Delivery]:
        """Wait until there are so many, counted from the beginning."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.received) < number:
                self._arrived.clear()
                await self._arrived.wait()
        return self.received

    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.received]


def acknowledge(delivery: Delivery) -> None:
    delivery.ack()


async def eventually(question: Callable[[], Awaitable[Any]], wanted: Any) -> None:
    """Ask until the answer is the wanted one; a server counts its messages a moment later than it confirms them."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_SECONDS
    while (answer := await question()) != wanted:
        assert loop.time() < deadline, f"it is still {answer!r}, not {wanted!r}"
        await asyncio.sleep(0.01)


class Stage:
    """An open broker with two exchanges and a queue of its own, and what tests do with them."""

    def __init__(self, broker: Broker, prefix: str) -> None:
        self.broker = broker
        self.topic = Exchange(f"{prefix}.topic", "topic")
        self.direct = Exchange(f"{prefix}.direct", "direct")
        self.queue = f"{prefix}.queue"
        self.prefix = prefix
        self.queues = [self.queue]
        self.topology = Topology(
            exchanges=(self.topic, self.direct),
            queues=(Queue(self.queue),),
            bindings=(Binding(self.queue, self.direct.name, "key"),),
        )

    def name(self, of: str) -> str:
        """A queue's name that is removed afterwards."""
        name = f"{self.prefix}.{of}"
        self.queues.append(name)
        return name

    def message(self, body: bytes = b"body", routing_key: str = "key", **properties: Any) -> Message:
        return Message(**{"exchange": self.direct.name, "routing_key": routing_key, "body": body} | properties)

    async def publish(self, *messages: Message) -> Sequence[Receipt]:
        return await self.broker.publish(messages, timeout=PUBLISH_SECONDS)

    async def confirmed(self, *bodies: bytes, **properties: Any) -> None:
        receipts = await self.publish(*(self.message(body, **properties) for body in bodies))
        assert list(receipts) == [Receipt.CONFIRMED] * len(bodies)

    async def consume(
        self, receive: Callable[[Delivery], None], prefetch: int = 10, *, body_limit: int = BODY_LIMIT
    ) -> Consumer:
        return await self.broker.consume(self.queue, receive, prefetch=prefetch, body_limit=body_limit)

    async def ready(self) -> int | None:
        depth = await self.broker.depth(self.queue)
        return None if depth is None else depth.ready

    async def wait_connected(self, connected: bool) -> None:
        reached = asyncio.Event()
        self.broker.watch(lambda now: reached.set() if now == connected else None)
        if self.broker.connected != connected:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await reached.wait()


class OnStage:
    """What the parts of the suite share: how to make, cut and mend a broker, and a stage for each test."""

    async def make_broker(self) -> Broker:
        """A closed broker; where it is `shared`, each one is connected to the same server."""
        raise NotImplementedError

    async def cut(self, broker: Broker) -> None:
        """Take the connection of this broker away, until `mend`."""
        raise NotImplementedError

    async def mend(self, broker: Broker) -> None:
        raise NotImplementedError

    async def remove_exchanges(self, names: Sequence[str]) -> None:
        """Needed where exchanges outlive the broker."""

    @pytest_asyncio.fixture
    async def stage(self) -> AsyncIterator[Stage]:
        broker = await self.make_broker()
        await broker.open()
        stage = Stage(broker, f"conformance.{secrets.token_hex(6)}")
        await broker.declare(stage.topology)
        yield stage
        await self.mend(broker)
        await broker.close()
        # Another one deletes the queues: this one's consumers would declare theirs again.
        cleaner = await self.make_broker()
        await cleaner.open()
        for queue in stage.queues:
            await cleaner.delete(queue)
        await cleaner.close()
        await self.remove_exchanges([stage.topic.name, stage.direct.name])

    async def cut_and_mend(self, stage: Stage) -> None:
        await self.cut(stage.broker)
        await stage.wait_connected(False)
        await self.mend(stage.broker)
        await stage.wait_connected(True)
