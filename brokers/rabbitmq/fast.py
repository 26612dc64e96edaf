"""Consuming in our own frames: deliveries straight from the socket, acknowledgements straight to it."""

from __future__ import annotations

from aiormq.abc import AbstractChannel, DeliveredMessage

from . import codec, tolerant
from .delivery import Address, RabbitMQDelivery
from .link import Link
from .settling import Settled
from .speech import Told


class FastSpeech:
    def __init__(self, link: Link, channel: AbstractChannel, told: Told, *, body_limit: int) -> None:
        self._link = link
        self._channel = channel
        self._told = told
        link.assemble(channel.number, self, body_limit=body_limit)

    async def consume(self, queue: str, *, exclusive: bool, tag: str) -> None:
        await self._channel.basic_consume(queue, _never_called, exclusive=exclusive, consumer_tag=tag)

    def settle(self, settled: Settled) -> None:
        """Never more than `prefetch` of them: the server delivers nothing new before it has read these."""
        number = self._channel.number
        frames = [codec.nack_frame(channel=number, tag=tag, requeue=requeue) for tag, requeue in settled.returned]
        frames += [codec.ack_frame(channel=number, tag=tag, multiple=multiple) for tag, multiple in settled.acks]
        self._link.write(b"".join(frames))

    async def flushed(self) -> None:
        """Writing is at once."""

    def forget(self) -> None:
        self._link.forget(self._channel.number, self)

    def delivered(self, tag: int, redelivered: bool, address: Address, header: bytes, body: bytes) -> None:
        size = tolerant.body_size(header)
        self._told.arrived(RabbitMQDelivery(tag, redelivered, address, body, size, self._told, header))

    def returned(self, header: bytes) -> None:
        """Nothing is published here."""

    def confirmed(self, tag: int, multiple: bool, taken: bool) -> None:
        """Nor is anything confirmed."""

    def ended(self, code: int, reason: str) -> None:
        self._told.ended(code, reason)


async def _never_called(message: DeliveredMessage) -> None:
    """aiormq wants a callback; the Tap takes every delivery before it."""
    raise AssertionError(f"a delivery of {message.exchange!r} passed the tap")
