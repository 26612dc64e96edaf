"""A broker in this process: for development, tests, the demo and the simulator.

It routes, orders and redelivers as RabbitMQ does (memory_server.py) and can be cut and mended by hand:

    broker = MemoryBroker(name="demo")
    broker.disconnect()     # as if the TCP connection was lost: `connected` is False, what is unsettled goes back
    broker.reconnect()      # declares every topology again, starts every consumer again

Queues hold what is published until somebody takes it, without a limit: they are as large as the process allows.
Messages live as long as the server, which each object makes for itself unless it is given that of another one;
exclusive queues as long as the connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import ClassVar, Self

from .contract import BODY_LIMIT, Consumer, Depth, Receive
from .errors import BrokerError, BrokerUnavailable
from .memory_server import MemoryConsumer, MemoryQueue, MemoryServer
from .message import Message, Receipt
from .topology import Topology

log = logging.getLogger(__name__)


class MemoryBroker:
    """`shared` is False: two objects never see each other's messages, whatever their URLs say."""

    scheme: ClassVar[str] = "memory"
    shared: ClassVar[bool] = False
    version = "memory"

    def __init__(self, *, name: str = "callboard", server: MemoryServer | None = None) -> None:
        self.name = name
        self.server = server or MemoryServer()
        self._connected = False
        self._connections = 0
        self._watchers: list[Callable[[bool], None]] = []
        self._topologies: dict[Topology, None] = {}
        self._consumers: list[MemoryConsumer] = []

    @classmethod
    def from_url(cls, url: str, *, name: str) -> Self:
        return cls(name=name)

    @property
    def connected(self) -> bool:
        return self._connected

    def watch(self, changed: Callable[[bool], None]) -> None:
        self._watchers.append(changed)

    async def open(self) -> None:
        self.reconnect()

    async def close(self) -> None:
        for consumer in self._consumers:
            await consumer.cancel()
        self.disconnect()

    def disconnect(self) -> None:
        """Lose the connection until `reconnect`: exclusive queues are deleted, unsettled deliveries lost and requeued,
        publishes in flight UNKNOWN."""
        if not self._connected:
            return
        self._connected = False
        self._connections += 1
        for consumer in self._consumers:
            consumer.stop()
            consumer.lose()
        self.server.connections.remove(self)
        self.server.remove_exclusive(self)
        self._tell()

    def reconnect(self) -> None:
        if self._connected:
            return
        self._connected = True
        self.server.connections.append(self)
        self._recover(self._connections)
        self._tell()

    async def declare(self, topology: Topology) -> None:
        if self._connected:
            self.server.declare(topology, owner=self)
        self.remember(topology)
        self._require_connection()
        self._start_consumers()

    def remember(self, topology: Topology) -> None:
        """Declare it with the next connection."""
        self._topologies[topology] = None

    async def redeclare(self, topology: Topology) -> None:
        await self.declare(topology)

    async def publish(self, messages: Sequence[Message], *, timeout: float) -> Sequence[Receipt]:
        if not self._connected:
            return [Receipt.UNKNOWN] * len(messages)
        connection = self._connections
        receipts = [self.server.put(message) for message in messages]
        # A confirm takes a turn of the loop, as it does with a server; the connection may be lost in it.
        await asyncio.sleep(0)
        return receipts if connection == self._connections else [Receipt.UNKNOWN] * len(messages)

    async def consume(
        self, queue: str, receive: Receive, *, prefetch: int, exclusive: bool = False, body_limit: int = BODY_LIMIT
    ) -> Consumer:
        if prefetch < 1:
            raise ValueError(f"prefetch is {prefetch}: it must be 1 or more")
        self._require_connection()
        found = self.server.find(queue)
        if found is None:
            raise BrokerError(f"there is no queue {queue!r}")
        if found.consumers and (exclusive or any(consumer.exclusive for consumer in found.consumers)):
            raise BrokerError(f"queue {queue!r} has a consumer already, and one of the two is exclusive")
        consumer = MemoryConsumer(found, receive, prefetch=prefetch, exclusive=exclusive, body_limit=body_limit)
        self._consumers = [known for known in self._consumers if not known.cancelled or known.unsettled]
        self._consumers.append(consumer)
        consumer.start(found)
        return consumer

    async def depth(self, queue: str) -> Depth | None:
        self._require_connection()
        found = self.server.find(queue)
        if found is None:
            return None
        found.drop_expired()
        return Depth(ready=len(found.ready), consumers=len(found.consumers))

    async def purge(self, queue: str) -> None:
        self._require_connection()
        if (found := self.server.find(queue)) is not None:
            found.ready.clear()

    async def delete(self, queue: str) -> None:
        """Consumers of a queue that is among the declared ones go on with a new, empty one, as on a server."""
        self._require_connection()
        found = self.server.find(queue)
        if found is None:
            return
        self.server.delete(found)

    def queue_deleted(self, queue: MemoryQueue) -> None:
        bereft = [consumer for consumer in self._consumers if consumer.on is queue]
        again = any(consumer.active for consumer in bereft)
        for consumer in bereft:
            consumer.stop()
            consumer.lose()
        queue.ready.clear()
        if again:
            asyncio.get_running_loop().call_soon(self._recover, self._connections)

    def _recover(self, connection: int) -> None:
        if not self._connected or connection != self._connections:
            return
        for topology in self._topologies:
            try:
                self.server.declare(topology, owner=self)
            except BrokerError as error:
                log.error("A remembered topology cannot be declared: %s", error)
        self._start_consumers()

    def _tell(self) -> None:
        for changed in self._watchers:
            changed(self._connected)

    def _require_connection(self) -> None:
        if not self._connected:
            raise BrokerUnavailable("memory://", "not connected")

    def _start_consumers(self) -> None:
        for consumer in self._consumers:
            queue = self.server.find(consumer.queue)
            if queue is not None and not consumer.active and not consumer.cancelled:
                consumer.start(queue)
