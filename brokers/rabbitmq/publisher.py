"""Publishing with confirms: a window of messages in flight on one channel.

    publish -> waiting -> (window free, socket writable) -> in flight -> ack / nack -> receipt
                                                                 └ return, before its ack: no queue

Crash cases: a connection or channel that ends leaves everything in flight UNKNOWN. What still waits is UNKNOWN with
the connection, and goes on with the next channel where only the channel ended. A batch whose time is over is UNKNOWN;
what of it was not written never is; what was stays in the window's list, not in its count, until it is confirmed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from aiormq.abc import AbstractChannel
from msgspec import Struct

from ..errors import BrokerError
from ..message import Message, Receipt
from . import codec, tolerant
from .codec import Shape, Shapes
from .delivery import Address
from .fate import fate
from .link import Link, close_channel
from .news import News

WINDOW = 256  # messages in flight; a confirm with `multiple` walks over all of them
FORGOTTEN = 4096  # messages in flight whose publisher stopped waiting: at this many the channel is replaced
WRITE_BYTES = 64 * 1024  # about this much is encoded and written at once

log = logging.getLogger(__name__)


class _Batch:
    def __init__(self, size: int, done: asyncio.Future[None]) -> None:
        self.receipts = [Receipt.UNKNOWN] * size
        self.open = size
        self.done = done
        self.over = False  # nobody waits for it any more

    def settle(self, index: int, receipt: Receipt) -> None:
        self.receipts[index] = receipt
        self.open -= 1
        if not self.open:
            self.over = True
            if not self.done.done():
                self.done.set_result(None)


class _Flight(Struct, eq=False):
    """One message, from `publish` to its confirm."""

    message: Message
    shape: Shape
    message_id: bytes
    batch: _Batch
    index: int
    returned: bool = False
    counted: bool = False  # in the window


class Publisher:
    """The publishing half of one connection. `missing` is told when an exchange turned out not to be there."""

    def __init__(self, link: Link, *, new_id: Callable[[], bytes], missing: Callable[[], None]) -> None:
        self._link = link
        self._new_id = new_id
        self._missing = missing
        self._news = News()
        self._channel: AbstractChannel | None = None
        self._number = 0
        self._frame_max = 0
        self._loop = asyncio.get_running_loop()
        self._shapes = Shapes()
        self._pumped = False  # in this tick of the loop
        self._waiting: deque[_Flight] = deque()
        self._in_flight: deque[_Flight | None] = deque()  # by delivery tag, from `_first`
        self._first = 1
        self._counted = 0
        self._reopening: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    async def open(self) -> None:
        self._channel = await self._link.channel(confirms=True)
        self._number = self._channel.number
        self._frame_max = self._shapes.frame_max = self._link.frame_max
        self._in_flight.clear()
        self._first, self._counted = 1, 0
        self._link.assemble(self._number, self)
        self._link.when_writable(self._pump)
        self._pump()

    async def publish(self, messages: Sequence[Message], *, timeout: float) -> Sequence[Receipt]:
        batch = _Batch(len(messages), self._loop.create_future())
        if not messages or self._link.blocked or not self._link.up:
            return batch.receipts
        shape, new_id = self._shapes.of, self._new_id
        self._waiting.extend(
            [_Flight(message, shape(message), new_id(), batch, index) for index, message in enumerate(messages)]
        )
        self._idle.clear()
        self._pump_soon()
        given_up = self._loop.call_later(timeout, self._leave, batch)
        try:
            await batch.done
        except asyncio.CancelledError:
            self._leave(batch)
            raise
        finally:
            given_up.cancel()
        return batch.receipts

    async def idle(self, *, timeout: float) -> None:
        """Wait until nothing is in flight, or for `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return

    def close(self) -> None:
        """What is in flight is UNKNOWN. The channel goes with its connection."""
        if self._reopening is not None:
            self._reopening.cancel()
        self._link.forget(self._number, self)
        self._channel = None
        self._lose_all()

    def delivered(self, tag: int, redelivered: bool, address: Address, header: bytes, body: bytes) -> None:
        """Nothing is consumed here."""

    def returned(self, header: bytes) -> None:
        """The confirm of the message follows."""
        message_id = (tolerant.properties(header).message_id or "").encode()
        for flight in self._in_flight:
            if flight is not None and flight.message_id == message_id:
                flight.returned = True
                return

    def confirmed(self, tag: int, multiple: bool, taken: bool) -> None:
        receipt = Receipt.CONFIRMED if taken else Receipt.REFUSED
        flights = self._in_flight
        last = tag - self._first
        if not 0 <= last < len(flights):
            return
        if multiple or not last:
            for _ in range(last + 1):
                flight = flights.popleft()
                if flight is not None:
                    self._settle(flight, Receipt.RETURNED if flight.returned else receipt)
            self._first = tag + 1
        else:
            flight, flights[last] = flights[last], None
            if flight is not None:
                self._settle(flight, Receipt.RETURNED if flight.returned else receipt)
        while flights and flights[0] is None:
            flights.popleft()
            self._first += 1
        self._pump_soon()

    def ended(self, code: int, reason: str) -> None:
        self._link.forget(self._number, self)
        self._channel = None
        if not self._link.up or not code:
            self._lose_all()
            return
        if self._news.is_new(f"{code} {reason}", asyncio.get_running_loop().time()):
            log.warning("RabbitMQ closed the publishing channel of %s: %s %s", self._link.broker, code, reason)
        if code == 404:
            self._missing()
        for offset, flight in enumerate(self._in_flight):
            if flight is not None and (receipt := fate(flight.message, code, reason)) is not None:
                self._in_flight[offset] = None
                self._settle(flight, receipt)
        self._lose_flights()
        self._replace()

    def _replace(self) -> None:
        if self._reopening is None or self._reopening.done():
            self._reopening = asyncio.get_running_loop().create_task(self._reopen())

    async def _reopen(self) -> None:
        try:
            if self._channel is not None:
                channel, self._channel = self._channel, None
                self._lose_flights()
                try:  # its confirms and returns are heard until it is closed: aiormq would log an error for each
                    await close_channel(channel, self._link.broker)
                finally:
                    self._link.forget(self._number, self)
            await self.open()
        except BrokerError as error:
            log.warning("The publishing channel of %s cannot be opened again: %s", self._link.broker, error)
            self._lose_all()
            self._link.abort()

    def _pump_soon(self) -> None:
        """At once, and at the end of this tick of the loop for whatever else comes in it: at most two writes."""
        if not self._pumped:
            self._pumped = True
            self._loop.call_soon(self._pump_rest)
            self._pump()

    def _pump_rest(self) -> None:
        self._pumped = False
        self._pump()

    def _pump(self) -> None:
        link, channel, frame_max = self._link, self._number, self._frame_max
        waiting, in_flight = self._waiting, self._in_flight
        while waiting and self._counted < WINDOW and self._channel is not None and link.writable:
            frames: list[bytes] = []
            size = 0
            while waiting and self._counted < WINDOW and size < WRITE_BYTES:
                flight = waiting.popleft()
                if flight.batch.over:
                    continue
                in_flight.append(flight)
                flight.counted = True
                self._counted += 1
                written = codec.publish_frames(
                    channel=channel,
                    shape=flight.shape,
                    message_id=flight.message_id,
                    body=flight.message.body,
                    frame_max=frame_max,
                )
                frames.append(written)
                size += len(written)
            link.write(b"".join(frames))
        if not waiting and not self._counted:
            self._idle.set()

    def _settle(self, flight: _Flight, receipt: Receipt) -> None:
        if flight.counted:
            flight.counted = False
            self._counted -= 1
        if not flight.batch.over:
            flight.batch.settle(flight.index, receipt)

    def _leave(self, batch: _Batch) -> None:
        """Its publisher waits no longer: it takes no room any more."""
        batch.over = True
        if not batch.done.done():
            batch.done.set_result(None)
        for flight in self._in_flight:
            if flight is not None and flight.batch is batch and flight.counted:
                flight.counted = False
                self._counted -= 1
        self._waiting = deque(flight for flight in self._waiting if flight.batch is not batch)
        if len(self._in_flight) > FORGOTTEN:
            self._replace()
        self._pump()

    def _lose_all(self) -> None:
        self._lose_flights()
        for flight in self._waiting:
            self._settle(flight, Receipt.UNKNOWN)
        self._waiting.clear()
        self._idle.set()

    def _lose_flights(self) -> None:
        for flight in self._in_flight:
            if flight is not None:
                self._settle(flight, Receipt.UNKNOWN)
        self._in_flight.clear()
