"""A process's connection to the broker of a simulated world: a memory broker's, at the other end of a line that takes
time, mixes up what it carries, and can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ....brokers.contract import BODY_LIMIT, Consumer, Depth, Receive
from ....brokers.errors import BrokerUnavailable
from ....brokers.memory import MemoryBroker
from ....brokers.memory_server import MemoryConsumer, MemoryDelivery
from ....brokers.message import Delivery, Message, Receipt
from ....brokers.topology import Topology
from .loop import Process
from .store import step

if TYPE_CHECKING:
    from .world import World


class SimulatedBroker:
    """What the process knows of the connection lags behind what the broker knows."""

    scheme: ClassVar[str] = "simulated"
    shared: ClassVar[bool] = False
    version = "simulated"

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._loop = world.loop
        self._process = process
        self._memory = MemoryBroker(name=process.name, server=world.broker)
        self._watchers: list[Callable[[bool], None]] = []
        self._waiting: dict[asyncio.Future[Any], None] = {}  # for answers, of this connection
        self._consumers: list[SimulatedConsumer] = []
        self._connected = False
        self._closed = False
        self.number = 0  # of the connection, counted where the broker is

    @classmethod
    def from_url(cls, url: str, *, name: str) -> Self:
        raise TypeError("a simulated broker is made by its world")

    @property
    def connected(self) -> bool:
        return self._connected

    def watch(self, changed: Callable[[bool], None]) -> None:
        self._watchers.append(changed)

    async def open(self) -> None:
        if not self._world.reaches_broker(self._process):
            await asyncio.sleep(self._world.weather.patience())
            raise BrokerUnavailable("simulated://", "connection refused")
        await self._ask(self._memory.reconnect, connected=False)
        self._connected = True

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for consumer in list(self._consumers):
            await consumer.cancel()
        self._connected = False
        self.at_server(self._world.weather.latency(), self.disconnect)

    async def declare(self, topology: Topology) -> None:
        self._memory.remember(topology)
        await self._ask(lambda: step(self._memory.declare(topology)))

    async def redeclare(self, topology: Topology) -> None:
        await self.declare(topology)

    async def publish(self, messages: Sequence[Message], *, timeout: float) -> Sequence[Receipt]:
        if not self._connected:
            return [Receipt.UNKNOWN] * len(messages)
        receipts = [Receipt.UNKNOWN] * len(messages)
        open_ones = len(messages)
        confirmed: asyncio.Future[None] = self._loop.create_future()

        def confirm(index: int, receipt: Receipt) -> None:
            nonlocal open_ones
            receipts[index] = receipt
            open_ones -= 1
            if not open_ones and not confirmed.done():
                confirmed.set_result(None)

        for index, message in enumerate(messages):
            self._send(message, partial(confirm, index))
        giving_up = self._loop.call_later(timeout, _set, confirmed)
        self._waiting[confirmed] = None
        try:
            await confirmed
        except BrokerUnavailable:
            pass
        finally:
            giving_up.cancel()
            self._waiting.pop(confirmed, None)
        return self._world.receipts(list(receipts))

    async def consume(
        self, queue: str, receive: Receive, *, prefetch: int, exclusive: bool = False, body_limit: int = BODY_LIMIT
    ) -> Consumer:
        consumer = SimulatedConsumer(self, receive)

        def begin() -> None:
            there = step(
                self._memory.consume(
                    queue, consumer.arrived, prefetch=prefetch, exclusive=exclusive, body_limit=body_limit
                )
            )
            consumer.begun(there)

        await self._ask(begin)
        self._consumers.append(consumer)
        return consumer

    async def depth(self, queue: str) -> Depth | None:
        found: Depth | None = await self._ask(lambda: step(self._memory.depth(queue)))
        return found

    async def purge(self, queue: str) -> None:
        await self._ask(lambda: step(self._memory.purge(queue)))

    async def delete(self, queue: str) -> None:
        await self._ask(lambda: step(self._memory.delete(queue)))

    # --- the line ---

    def at_server(self, delay: float, call: Callable[..., object], *args: Any) -> None:
        self._loop.call_later(delay, call, *args, context=self._loop.outside.context)

    def at_process(self, delay: float, call: Callable[..., object], *args: Any) -> None:
        self._loop.call_later(delay, call, *args, context=self._process.context)

    def latency(self) -> float:
        return self._world.weather.latency()

    def _send(self, message: Message, told: Callable[[Receipt], None]) -> None:
        arrivals, back = self._world.weather.of_message()
        number = self.number

        def arrive(first: bool) -> None:
            if first and (self.number != number or not self._memory.connected):  # lost with its connection
                return  # a copy is not: it is one that the broker made itself
            receipt = self._memory.server.put(message)
            if first and back is not None:
                self.at_process(back, told, receipt)

        for index, delay in enumerate(arrivals):
            self.at_server(delay, arrive, index == 0)

    async def _ask(self, call: Callable[[], Any], *, connected: bool = True) -> Any:
        if connected and not self._connected:
            raise BrokerUnavailable("simulated://", "not connected")
        answer: asyncio.Future[Any] = self._loop.create_future()
        number = self.number

        def serve() -> None:
            if self.number != number:
                return
            said: object = None
            error: Exception | None = None
            try:
                said = call()
            except Exception as raised:
                error = raised
            self.at_process(self.latency(), _answer, answer, said, error)

        self.at_server(self.latency(), serve)
        self._waiting[answer] = None
        try:
            return await answer
        finally:
            self._waiting.pop(answer, None)

    # --- its end and its beginning, where the broker is ---

    def cut(self, seconds: float) -> None:
        """Lose the connection; after so long there is another one, if the broker can be reached then."""
        if self._closed or not self._memory.connected:
            return
        self.disconnect()
        latency = self.latency()
        self.at_process(latency, self._notice, False)
        self.at_server(max(seconds, latency), self._reconnect)  # a client connects again once it has seen the loss

    def disconnect(self) -> None:
        self.number += 1
        self._memory.disconnect()

    def _reconnect(self) -> None:
        if self._closed or not self._process.alive:
            return
        if not self._world.reaches_broker(self._process):
            self.at_server(0.05 + self._world.weather.patience(), self._reconnect)
            return
        self._memory.reconnect()
        self.at_process(self.latency(), self._notice, True, self.number)

    def _notice(self, connected: bool, number: int | None = None) -> None:
        if self._closed or (number is not None and number != self.number):
            return
        self._connected = connected
        if not connected:
            for answer in self._waiting:
                if not answer.done():
                    answer.set_exception(BrokerUnavailable("simulated://", "the connection was lost"))
        for changed in self._watchers:
            changed(connected)


class SimulatedConsumer:
    def __init__(self, broker: SimulatedBroker, receive: Receive) -> None:
        self._broker = broker
        self._receive = receive
        self._there: MemoryConsumer | None = None
        self._cancelled = False
        self._under_way: dict[SimulatedDelivery, None] = {}

    @property
    def active(self) -> bool:
        return self._there is not None and self._there.active and self._broker.connected

    def begun(self, there: MemoryConsumer) -> None:
        self._there = there

    def arrived(self, delivery: Delivery) -> None:
        """Where the broker is: it is on its way to the process now."""
        assert isinstance(delivery, MemoryDelivery)
        coming = SimulatedDelivery(delivery, self._broker)
        self._under_way[coming] = None
        self._broker.at_process(self._broker.latency(), self._deliver, coming)

    async def cancel(self, *, requeue: bool = True) -> None:
        there = self._there
        if requeue:
            self._cancelled = True
        if there is None or not self._broker.connected:
            self._cancelled = True
            if there is not None:  # the broker has lost it with the connection, and must not start it again
                self._broker.at_server(0.0, step_of(there, requeue))
            return
        try:
            await self._broker._ask(lambda: step(there.cancel(requeue=requeue)))
        except BrokerUnavailable:
            self._broker.at_server(0.0, step_of(there, requeue))
        for coming in list(self._under_way):  # what was sent before the broker's answer is here before it
            self._deliver(coming)
        self._cancelled = True

    def _deliver(self, coming: SimulatedDelivery) -> None:
        if coming in self._under_way:
            del self._under_way[coming]
            if not self._cancelled:
                self._receive(coming)


class SimulatedDelivery:
    """As the process has it; settling it takes a while to reach the broker."""

    def __init__(self, there: MemoryDelivery, broker: SimulatedBroker) -> None:
        self._there = there
        self._broker = broker
        self.body = there.body
        self.size = there.size
        self.redelivered = there.redelivered
        self.exchange = there.exchange
        self.routing_key = there.routing_key
        self.message_id = there.message_id
        self.correlation_id = there.correlation_id
        self.reply_to = there.reply_to
        self.content_type = there.content_type
        self.content_encoding = there.content_encoding
        self.headers = there.headers

    @property
    def lost(self) -> bool:
        return self._there.lost

    def ack(self) -> None:
        self._broker.at_server(self._broker.latency(), self._there.ack)

    def requeue(self) -> None:
        self._broker.at_server(self._broker.latency(), self._there.requeue)

    def reject(self) -> None:
        self._broker.at_server(self._broker.latency(), self._there.reject)


def step_of(there: MemoryConsumer, requeue: bool) -> Callable[[], None]:
    def cancel() -> None:
        step(there.cancel(requeue=requeue))

    return cancel


def _set(confirmed: asyncio.Future[None]) -> None:
    if not confirmed.done():
        confirmed.set_result(None)


def _answer(answer: asyncio.Future[Any], said: object, error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(said)
    else:
        answer.set_exception(error)
