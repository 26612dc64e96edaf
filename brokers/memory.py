"""A broker in this process: for development, tests, the demo and the simulator.

It routes, orders and redelivers as RabbitMQ does and can be cut and mended by hand:

    broker = MemoryBroker(name="demo")
    broker.disconnect()     # as if the TCP connection was lost: `connected` is False, what is unsettled goes back
    broker.reconnect()      # declares every topology again, starts every consumer again

Queues hold what is published until somebody takes it, without a limit: they are as large as the process allows.
Messages live as long as the object; exclusive queues as long as the connection.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any, ClassVar, Self

from .contract import BODY_KEPT, BODY_LIMIT, Consumer, Depth, Receive
from .errors import BrokerError, BrokerUnavailable, TopologyMismatch
from .message import Message, Receipt
from .routing import Bindings
from .topology import Binding, Exchange, Queue, Topology

DELIVERIES_A_TICK = 64  # a queue hands out at most this many before other callbacks of the loop have their turn

log = logging.getLogger(__name__)


class _Exchange:
    def __init__(self, declared: Exchange) -> None:
        self.declared = declared
        self.bindings: Bindings[_Queue] = Bindings(topic=declared.type == "topic")


class _Entry:
    """A message in one queue. `number` is its place, which it takes again when it comes back."""

    __slots__ = ("expires", "message", "message_id", "number", "rank", "redelivered")

    def __init__(self, message: Message, message_id: str, rank: int, number: int, expires: float | None) -> None:
        self.message = message
        self.message_id = message_id
        self.rank = rank
        self.number = number
        self.expires = expires
        self.redelivered = False

    def __lt__(self, other: _Entry) -> bool:
        return (self.rank, self.number) < (other.rank, other.number)


class _Queue:
    def __init__(self, declared: Queue, loop: asyncio.AbstractEventLoop) -> None:
        self.declared = declared
        self.ready: list[_Entry] = []  # a heap
        self.consumers: deque[MemoryConsumer] = deque()
        self.highest = int(dict(declared.arguments).get("x-max-priority", 0))
        self.loop = loop
        self.put_in = 0
        self.scheduled = False

    def put(self, message: Message, message_id: str) -> None:
        self.put_in += 1
        rank = -min(message.priority or 0, self.highest)
        expires = None if message.expiration is None else self.loop.time() + message.expiration / 1000
        heappush(self.ready, _Entry(message, message_id, rank, self.put_in, expires))
        self.schedule()

    def put_back(self, entry: _Entry) -> None:
        entry.redelivered = True
        heappush(self.ready, entry)
        self.schedule()

    def schedule(self) -> None:
        if not self.scheduled and self.ready and self.consumers:
            self.scheduled = True
            self.loop.call_soon(self.hand_out)

    def drop_expired(self) -> None:
        """At the head only, as RabbitMQ does: behind a message that may stay, an expired one waits."""
        while self.ready and self.ready[0].expires is not None and self.ready[0].expires <= self.loop.time():
            heappop(self.ready)

    def hand_out(self) -> None:
        self.scheduled = False
        for _ in range(DELIVERIES_A_TICK):
            self.drop_expired()
            consumer = self.next_free() if self.ready else None
            if consumer is None:
                return
            if not consumer.take(heappop(self.ready)):
                break
        self.schedule()

    def next_free(self) -> MemoryConsumer | None:
        for _ in range(len(self.consumers)):
            consumer = self.consumers[0]
            self.consumers.rotate(-1)
            if len(consumer.unsettled) < consumer.prefetch:
                return consumer
        return None


class MemoryDelivery:
    __slots__ = (
        "_consumer",
        "_entry",
        "body",
        "content_encoding",
        "content_type",
        "correlation_id",
        "exchange",
        "headers",
        "lost",
        "message_id",
        "redelivered",
        "reply_to",
        "routing_key",
        "size",
    )

    def __init__(self, entry: _Entry, consumer: MemoryConsumer) -> None:
        message = entry.message
        self.size = len(message.body)
        self.body = message.body if self.size <= consumer.body_limit else message.body[:BODY_KEPT]
        self.exchange, self.routing_key = message.exchange, message.routing_key
        self.redelivered = entry.redelivered
        self.message_id: str | None = entry.message_id
        self.correlation_id, self.reply_to = message.correlation_id, message.reply_to
        self.content_type: str | None = message.content_type
        self.content_encoding: str | None = None
        self.headers: dict[str, Any] = dict(message.headers or {})
        self.lost = False
        self._entry, self._consumer = entry, consumer

    def ack(self) -> None:
        self._consumer.settle(self)

    def requeue(self) -> None:
        if self._consumer.settle(self):
            self._consumer.on.put_back(self._entry)

    def reject(self) -> None:
        self._consumer.settle(self)


class MemoryConsumer:
    def __init__(self, on: _Queue, receive: Receive, *, prefetch: int, exclusive: bool, body_limit: int) -> None:
        self.queue = on.declared.name
        self.body_limit = body_limit
        self.receive = receive
        self.prefetch = prefetch
        self.exclusive = exclusive
        self.on = on
        self.active = False
        self.cancelled = False
        self.unsettled: dict[MemoryDelivery, _Entry] = {}

    def start(self, queue: _Queue) -> None:
        self.on = queue
        self.active = True
        queue.consumers.append(self)
        queue.schedule()

    def stop(self) -> None:
        if self.active:
            self.active = False
            self.on.consumers.remove(self)

    def take(self, entry: _Entry) -> bool:
        """False: the receiver raised, so that the message is back in its queue."""
        delivery = MemoryDelivery(entry, self)
        self.unsettled[delivery] = entry
        try:
            self.receive(delivery)
        except Exception:  # the contract's: whatever a receiver raises stops nothing
            log.exception("The receiver of queue %s raised; the message is requeued", self.queue)
            delivery.requeue()
            return False
        return True

    def settle(self, delivery: MemoryDelivery) -> bool:
        """False: it was settled before, or is lost."""
        if self.unsettled.pop(delivery, None) is None:
            return False
        self.on.schedule()
        return True

    def lose(self) -> None:
        for delivery, entry in self.unsettled.items():
            delivery.lost = True
            self.on.put_back(entry)
        self.unsettled.clear()

    async def cancel(self, *, requeue: bool = True) -> None:
        self.cancelled = True
        self.stop()
        if requeue:
            self.lose()


class MemoryBroker:
    """`shared` is False: two objects never see each other's messages, whatever their URLs say."""

    scheme: ClassVar[str] = "memory"
    shared: ClassVar[bool] = False
    version = "memory"

    def __init__(self, *, name: str = "callboard") -> None:
        self.name = name
        self._connected = False
        self._connections = 0
        self._watchers: list[Callable[[bool], None]] = []
        self._topologies: dict[Topology, None] = {}
        self._exchanges: dict[str, _Exchange] = {}
        self._queues: dict[str, _Queue] = {}
        self._consumers: list[MemoryConsumer] = []
        self._boot = secrets.token_hex(6)
        self._published = 0

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
        for queue in [queue for queue in self._queues.values() if queue.declared.exclusive]:
            self._remove(queue)
        self._tell()

    def reconnect(self) -> None:
        if self._connected:
            return
        self._connected = True
        self._recover(self._connections)
        self._tell()

    async def declare(self, topology: Topology) -> None:
        if self._connected:
            self._declare(topology)
        self._topologies[topology] = None
        self._require_connection()
        self._start_consumers()

    async def redeclare(self, topology: Topology) -> None:
        await self.declare(topology)

    async def publish(self, messages: Sequence[Message], *, timeout: float) -> Sequence[Receipt]:
        if not self._connected:
            return [Receipt.UNKNOWN] * len(messages)
        connection = self._connections
        receipts = [self._put(message) for message in messages]
        # A confirm takes a turn of the loop, as it does with a server; the connection may be lost in it.
        await asyncio.sleep(0)
        return receipts if connection == self._connections else [Receipt.UNKNOWN] * len(messages)

    async def consume(
        self, queue: str, receive: Receive, *, prefetch: int, exclusive: bool = False, body_limit: int = BODY_LIMIT
    ) -> Consumer:
        if prefetch < 1:
            raise ValueError(f"prefetch is {prefetch}: it must be 1 or more")
        self._require_connection()
        found = self._queues.get(queue)
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
        found = self._queues.get(queue)
        if found is None:
            return None
        found.drop_expired()
        return Depth(ready=len(found.ready), consumers=len(found.consumers))

    async def purge(self, queue: str) -> None:
        self._require_connection()
        if queue in self._queues:
            self._queues[queue].ready.clear()

    async def delete(self, queue: str) -> None:
        """Consumers of a queue that is among the declared ones go on with a new, empty one, as on a server."""
        self._require_connection()
        found = self._queues.get(queue)
        if found is None:
            return
        bereft = list(found.consumers)
        for consumer in bereft:
            consumer.stop()
        for consumer in self._consumers:
            if consumer.on is found:
                consumer.lose()
        self._remove(found)
        if bereft:
            asyncio.get_running_loop().call_soon(self._recover, self._connections)

    def _recover(self, connection: int) -> None:
        if not self._connected or connection != self._connections:
            return
        for topology in self._topologies:
            try:
                self._declare(topology)
            except BrokerError as error:
                log.error("A remembered topology cannot be declared: %s", error)
        self._start_consumers()

    def _tell(self) -> None:
        for changed in self._watchers:
            changed(self._connected)

    def _require_connection(self) -> None:
        if not self._connected:
            raise BrokerUnavailable("memory://", "not connected")

    def _declare(self, topology: Topology) -> None:
        for exchange in topology.exchanges:
            known = self._exchanges.setdefault(exchange.name, _Exchange(exchange))
            if known.declared != exchange:
                raise TopologyMismatch(
                    f"exchange {exchange.name!r} is declared with type {exchange.type!r} "
                    f"and exists with type {known.declared.type!r}"
                )
        for queue in topology.queues:
            there = self._queues.get(queue.name)
            if there is None:
                self._queues[queue.name] = _Queue(queue, asyncio.get_running_loop())
            elif there.declared.exclusive != queue.exclusive or dict(there.declared.arguments) != dict(queue.arguments):
                raise TopologyMismatch(f"queue is declared as {queue} and exists as {there.declared}")
        for binding in topology.bindings:
            self._bind(binding)

    def _bind(self, binding: Binding) -> None:
        exchange, queue = self._exchanges.get(binding.exchange), self._queues.get(binding.queue)
        if exchange is None:
            raise BrokerError(f"queue {binding.queue!r} is bound to exchange {binding.exchange!r}, which is not there")
        if queue is None:
            raise BrokerError(f"exchange {binding.exchange!r} is bound to queue {binding.queue!r}, which is not there")
        exchange.bindings.bind(binding.routing_key, queue)

    def _start_consumers(self) -> None:
        for consumer in self._consumers:
            queue = self._queues.get(consumer.queue)
            if queue is not None and not consumer.active and not consumer.cancelled:
                consumer.start(queue)

    def _remove(self, queue: _Queue) -> None:
        del self._queues[queue.declared.name]
        queue.ready.clear()
        for exchange in self._exchanges.values():
            exchange.bindings.unbind(queue)

    def _put(self, message: Message) -> Receipt:
        if message.exchange == "":
            queue = self._queues.get(message.routing_key)
            queues: tuple[_Queue, ...] = (queue,) if queue is not None else ()
        elif message.exchange in self._exchanges:
            queues = self._exchanges[message.exchange].bindings.targets(message.routing_key)
        else:
            return Receipt.RETURNED
        if not queues:
            return Receipt.RETURNED if message.mandatory else Receipt.CONFIRMED
        self._published += 1
        message_id = f"{self._boot}-{self._published}"
        for queue in queues:
            queue.put(message, message_id)
        return Receipt.CONFIRMED
