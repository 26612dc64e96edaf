"""Consuming through aiormq's own framing: it reads each delivery and makes a task of it, and writes what settles it.

For versions of aiormq that our own frames are not tested with, and for whoever asks for it: see framing.py.
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

log = logging.getLogger(__name__)


class PlainSpeech:
    def __init__(self, link: Link, channel: AbstractChannel, told: Told, *, body_limit: int) -> None:
        self._link = link
        self._channel = channel
        self._told = told
        self._settled: deque[Settled] = deque()  # at most one for each tick in which aiormq's queue is full
        self._sending: asyncio.Task[None] | None = None
        self._size = link.strain(channel.number, self, body_limit=body_limit).size

    async def consume(self, queue: str, *, exclusive: bool, tag: str) -> None:
        await self._channel.basic_consume(queue, self._received, exclusive=exclusive, consumer_tag=tag)

    def settle(self, settled: Settled) -> None:
        self._settled.append(settled)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send())

    async def flushed(self) -> None:
        if self._sending is not None:
            await asyncio.wait([self._sending])

    def forget(self) -> None:
        self._link.forget(self._channel.number, self)

    async def _received(self, message: DeliveredMessage) -> None:
        tag = message.delivery_tag or 0
        size = self._size(tag)
        properties = message.header.properties
        self._told.arrived(
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
