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
import re
from collections import deque
from collections.abc import Callable, Sequence

from aiormq.abc import AbstractChannel

from ..errors import BrokerError
from ..message import Message, Receipt
from . import codec, tolerant
from .link import Link, close_channel

WINDOW = 256  # messages in flight; a confirm with `multiple` walks over all of them
FORGOTTEN = 4096  # messages in flight whose publisher stopped waiting: at this many the channel is replaced
WRITE_BYTES = 64 * 1024  # about this much is encoded and written at once

_TOO_LARGE = re.compile(r"message size \d+ is larger than configured max size (\d+)")

log = logging.getLogger(__name__)


class _Batch:
    def __init__(self, size: int, done: asyncio.Future[None]) -> None:
        self.receipts = [Receipt.UNKNOWN] * size
        self.open = size
        self.done = done

    def settle(self, index: int, receipt: Receipt) -> None:
        self.receipts[index] = receipt
        self.open -= 1
        if not self.open and not self.done.done():
            self.done.set_result(None)


class _Flight:
    """One message, from `publish` to its confirm."""

    __slots__ = ("batch", "body", "counted", "exchange", "header", "index", "message_id", "method", "returned")

    def __init__(self, message: Message, message_id: str, batch: _Batch, index: int) -> None:
        self.method, self.header = codec.publish_payloads(message, message_id)
        self.body = message.body
        self.exchange = message.exchange
        self.message_id = message_id
        self.batch = batch
        self.index = index
        self.returned = False
        self.counted = False  # in the window

    @property
    def given_up(self) -> bool:
        return self.batch.done.done()


def _fate(flight: _Flight, code: int, reason: str) -> Receipt | None:
    """What the closing of the channel says of one message; None for those that have nothing to do with it."""
    if code == 404 and f"no exchange '{flight.exchange}' " in reason:
        return Receipt.RETURNED
    too_large = _TOO_LARGE.search(reason) if code == 406 else None
    return Receipt.REFUSED if too_large is not None and len(flight.body) > int(too_large[1]) else None


class Publisher:
    """The publishing half of one connection. `missing` is told when an exchange turned out not to be there."""

    def __init__(self, link: Link, *, new_id: Callable[[], str], missing: Callable[[], None]) -> None:
        self._link = link
        self._new_id = new_id
        self._missing = missing
        self._channel: AbstractChannel | None = None
        self._number = 0
        self._frame_max = 0
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
        self._frame_max = self._link.frame_max
        self._in_flight.clear()
        self._first, self._counted = 1, 0
        self._link.listen(self._number, self)
        self._link.when_writable(self._pump)
        self._pump()

    async def publish(self, messages: Sequence[Message], *, timeout: float) -> Sequence[Receipt]:
        batch = _Batch(len(messages), asyncio.get_running_loop().create_future())
        if not messages or self._link.blocked or not self._link.up:
            return batch.receipts
        self._waiting.extend([_Flight(message, self._new_id(), batch, index) for index, message in enumerate(messages)])
        self._idle.clear()
        self._pump()
        try:
            async with asyncio.timeout(timeout):
                await batch.done
        except TimeoutError:
            self._leave(batch)
        except asyncio.CancelledError:
            batch.done.cancel()
            self._leave(batch)
            raise
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

    def content(self, method: int, arguments: bytes, header: bytes, body: bytes) -> None:
        """A returned message; its confirm follows."""
        message_id = tolerant.properties(header).message_id
        for flight in self._in_flight:
            if flight is not None and flight.message_id == message_id:
                flight.returned = True
                return

    def confirm(self, method: int, arguments: bytes) -> None:
        tag, multiple = codec.read_confirm(arguments)
        receipt = Receipt.CONFIRMED if method == codec.BASIC_ACK else Receipt.REFUSED
        last = tag - self._first
        if not 0 <= last < len(self._in_flight):
            return
        for offset in range(0 if multiple else last, last + 1):
            flight = self._in_flight[offset]
            if flight is not None:
                self._in_flight[offset] = None
                self._settle(flight, Receipt.RETURNED if flight.returned else receipt)
        while self._in_flight and self._in_flight[0] is None:
            self._in_flight.popleft()
            self._first += 1
        self._pump()

    def ended(self, code: int, reason: str) -> None:
        self._link.forget(self._number, self)
        self._channel = None
        if not self._link.up or not code:
            self._lose_all()
            return
        log.warning("RabbitMQ closed the publishing channel of %s: %s %s", self._link.broker, code, reason)
        if code == 404:
            self._missing()
        for offset, flight in enumerate(self._in_flight):
            if flight is not None and (receipt := _fate(flight, code, reason)) is not None:
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
                self._link.forget(self._number, self)
                self._lose_flights()
                await close_channel(channel, self._link.broker)
            await self.open()
        except BrokerError as error:
            log.warning("The publishing channel of %s cannot be opened again: %s", self._link.broker, error)
            self._lose_all()
            self._link.abort()

    def _pump(self) -> None:
        link = self._link
        while self._waiting and self._counted < WINDOW and self._channel is not None and link.writable:
            frames: list[bytes] = []
            size = 0
            while self._waiting and self._counted < WINDOW and size < WRITE_BYTES:
                flight = self._waiting.popleft()
                if flight.given_up:
                    continue
                self._in_flight.append(flight)
                self._count(flight, True)
                frames.append(
                    codec.content_frames(
                        channel=self._number,
                        method=flight.method,
                        header=flight.header,
                        body=flight.body,
                        frame_max=self._frame_max,
                    )
                )
                size += len(frames[-1])
            link.write(b"".join(frames))
        if not self._waiting and not self._counted:
            self._idle.set()

    def _count(self, flight: _Flight, counted: bool) -> None:
        if flight.counted != counted:
            flight.counted = counted
            self._counted += 1 if counted else -1

    def _settle(self, flight: _Flight, receipt: Receipt) -> None:
        self._count(flight, False)
        if not flight.given_up:
            flight.batch.settle(flight.index, receipt)

    def _leave(self, batch: _Batch) -> None:
        """Its publisher waits no longer: it takes no room any more."""
        if not batch.done.done():
            batch.done.set_result(None)
        for flight in self._in_flight:
            if flight is not None and flight.batch is batch:
                self._count(flight, False)
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
