"""What the connections of one memory broker share: exchanges, queues and what is in them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from heapq import heappop, heappush
from typing import Any, Protocol

from .contract import BODY_KEPT, Receive
from .errors import BrokerError, TopologyMismatch
from .message import Message, Receipt
from .routing import Bindings
from .topology import Binding, Exchange, Queue, Topology

DELIVERIES_A_TICK = 64  # a queue hands out at most this many before other callbacks of the loop have their turn

log = logging.getLogger(__name__)


class _Exchange:
    def __init__(self, declared: Exchange) -> None:
        self.declared = declared
        self.bindings: Bindings[MemoryQueue] = Bindings(topic=declared.type == "topic")


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


class MemoryQueue:
    def __init__(self, declared: Queue, loop: asyncio.AbstractEventLoop, owner: object) -> None:
        self.declared = declared
        self.owner = owner
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
    def __init__(self, on: MemoryQueue, receive: Receive, *, prefetch: int, exclusive: bool, body_limit: int) -> None:
        self.queue = on.declared.name
        self.body_limit = body_limit
        self.receive = receive
        self.prefetch = prefetch
        self.exclusive = exclusive
        self.on = on
        self.active = False
        self.cancelled = False
        self.unsettled: dict[MemoryDelivery, _Entry] = {}

    def start(self, queue: MemoryQueue) -> None:
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


class Connection(Protocol):
    def queue_deleted(self, queue: MemoryQueue) -> None:
        """The server has it no more."""
        ...


class MemoryServer:
    """Every method is one step; nothing here waits. `connections`: those that are up."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self._exchanges: dict[str, _Exchange] = {}
        self._queues: dict[str, MemoryQueue] = {}
        self._boot = secrets.token_hex(6)
        self._published = 0

    def find(self, queue: str) -> MemoryQueue | None:
        return self._queues.get(queue)

    def declare(self, topology: Topology, *, owner: object) -> None:
        """`owner`: the connection, with which its exclusive queues go. Raises TopologyMismatch, BrokerError."""
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
                self._queues[queue.name] = MemoryQueue(queue, asyncio.get_running_loop(), owner)
            elif there.declared.exclusive and there.owner is not owner:
                raise BrokerError(f"queue {queue.name!r} belongs to another connection")
            elif there.declared.exclusive != queue.exclusive or dict(there.declared.arguments) != dict(queue.arguments):
                raise TopologyMismatch(f"queue is declared as {queue} and exists as {there.declared}")
        for binding in topology.bindings:
            self._bind(binding)

    def put(self, message: Message) -> Receipt:
        if message.exchange == "":
            queue = self._queues.get(message.routing_key)
            queues: tuple[MemoryQueue, ...] = (queue,) if queue is not None else ()
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

    def delete(self, queue: MemoryQueue) -> None:
        self._remove(queue)
        for connection in list(self.connections):
            connection.queue_deleted(queue)

    def remove_exclusive(self, owner: object) -> None:
        for queue in [queue for queue in self._queues.values() if queue.declared.exclusive and queue.owner is owner]:
            self._remove(queue)

    def _remove(self, queue: MemoryQueue) -> None:
        del self._queues[queue.declared.name]
        queue.ready.clear()
        for exchange in self._exchanges.values():
            exchange.bindings.unbind(queue)

    def _bind(self, binding: Binding) -> None:
        exchange, queue = self._exchanges.get(binding.exchange), self._queues.get(binding.queue)
        if exchange is None:
            raise BrokerError(f"queue {binding.queue!r} is bound to exchange {binding.exchange!r}, which is not there")
        if queue is None:
            raise BrokerError(f"exchange {binding.exchange!r} is bound to queue {binding.queue!r}, which is not there")
        exchange.bindings.bind(binding.routing_key, queue)
