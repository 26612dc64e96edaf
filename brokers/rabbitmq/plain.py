"""Consuming through aiormq's own framing: it reads each delivery and makes a task of it, and writes what settles it.

For versions of aiormq that our own frames are not tested with, and for whoever asks for it: see framing.py.

What came from the socket together is told together, though aiormq takes a turn of the loop for each: a worker would
claim job by job otherwise, at a store call each. So a delivery is held while aiormq has more of them to bring.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress

from aiormq import AMQPError
from aiormq.abc import AbstractChannel, DeliveredMessage

from .delivery import Address, RabbitMQDelivery
from .link import Link
from .settling import Settled
from .speech import Told
from .tolerant import Properties

HELD = 64  # deliveries at most
HELD_SECONDS = 0.05  # at most, should aiormq bring less than it was given

log = logging.getLogger(__name__)


class PlainSpeech:
    def __init__(self, link: Link, channel: AbstractChannel, told: Told, *, body_limit: int) -> None:
        self._link = link
        self._channel = channel
        self._told = told
        self._settled: deque[Settled] = deque()  # at most one for each tick in which aiormq's queue is full
        self._sending: asyncio.Task[None] | None = None
        self._strainer = link.strain(channel.number, self, body_limit=body_limit)
        self._brought = 0
        self._held: list[RabbitMQDelivery] = []
        self._loop = asyncio.get_running_loop()
        self._telling: asyncio.TimerHandle | None = None

    async def consume(self, queue: str, *, exclusive: bool, tag: str) -> None:
        await self._channel.basic_consume(queue, self._received, exclusive=exclusive, consumer_tag=tag)

    def settle(self, settled: Settled) -> None:
        self._settled.append(settled)
        if self._sending is None or self._sending.done():
            self._sending = self._loop.create_task(self._send())

    async def flushed(self) -> None:
        if self._sending is not None:
            await asyncio.wait([self._sending])

    def forget(self) -> None:
        self._link.forget(self._channel.number, self)

    async def _received(self, message: DeliveredMessage) -> None:
        tag = message.delivery_tag or 0
        size = self._strainer.size(tag)
        properties = message.header.properties
        self._held.append(
            RabbitMQDelivery(
                tag,
                bool(message.redelivered),
                Address(message.exchange or "", message.routing_key or ""),
                message.body,
                len(message.body) if size is None else size,
                self._told,
                b"",
                Properties(
                    content_type=properties.content_type,
                    content_encoding=properties.content_encoding,
                    headers=properties.headers or {},
                    correlation_id=properties.correlation_id,
                    reply_to=properties.reply_to,
                    message_id=properties.message_id,
                ),
            )
        )
        self._brought += 1
        if self._brought >= self._strainer.passed or len(self._held) >= HELD:
            self._tell()
        elif self._telling is None:
            self._telling = self._loop.call_later(HELD_SECONDS, self._tell)

    def _tell(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        held, self._held = self._held, []
        for delivery in held:
            self._told.arrived(delivery)

    async def _send(self) -> None:
        channel = self._channel
        # A channel that ends meanwhile takes its deliveries with it.
        with suppress(AMQPError, RuntimeError, ConnectionError):
            while self._settled:
                settled = self._settled.popleft()
                for tag, requeue in settled.returned:
                    await channel.basic_nack(tag, requeue=requeue, wait=False)
                for tag, multiple in settled.acks:
                    await channel.basic_ack(tag, multiple=multiple, wait=False)

    def ended(self, code: int, reason: str) -> None:
        self._told.ended(code, reason)
