"""One channel with one consumer, and what became of its deliveries.

    Speech.delivered -> arrived -> receive(delivery)         in the reading of the socket, or in a task of aiormq's
    delivery.ack() -> Settling -> (end of this tick) -> one ack for everything up to there, single ones for the rest

A Subscription lives as long as its channel. When that ends, for whatever reason, its deliveries are lost: the server
gives them to somebody again, and settling them does nothing. The consumer outlives it and gets the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from aiormq.abc import AbstractChannel

from ..contract import BODY_LIMIT, Receive
from ..errors import BrokerError, BrokerUnavailable
from .delivery import RabbitMQDelivery
from .fast import FastSpeech
from .framing import Frames
from .link import ANSWER_SECONDS, Link, close_channel, translated
from .plain import PlainSpeech
from .settling import Settling
from .speech import Speech

log = logging.getLogger(__name__)

_SPEECHES: dict[Frames, type[FastSpeech] | type[PlainSpeech]] = {Frames.FAST: FastSpeech, Frames.PLAIN: PlainSpeech}


class Subscription:
    """A consumer on one channel of one connection. `ended` is told once, when it ends by itself."""

    def __init__(self, link: Link, *, queue: str, receive: Receive, ended: Callable[[str], None]) -> None:
        self.over = False
        self._link = link
        self._queue = queue
        self._receive = receive
        self._ended = ended
        self._channel: AbstractChannel | None = None
        self._speech: Speech | None = None
        self._started = False
        self._draining = False  # a basic.cancel is on its way: what still comes is given back
        self._silent = False  # it was answered, or will not be: nothing more comes that we could wait for
        self._tag = ""
        self._settling = Settling(self._flush_soon)
        self._loop = asyncio.get_running_loop()
        self._flushing = False
        self._closing: asyncio.Task[None] | None = None
        self.ack = self._settling.ack
        self.give_back = self._settling.give_back

    async def start(self, *, prefetch: int, exclusive: bool, tag: str, body_limit: int = BODY_LIMIT) -> None:
        self._channel = channel = await self._link.channel()
        self._tag = tag
        self._speech = speech = _SPEECHES[self._link.frames](self._link, channel, self, body_limit=body_limit)
        try:
            with translated(self._link.broker):
                async with asyncio.timeout(ANSWER_SECONDS):
                    await channel.basic_qos(prefetch_count=prefetch, global_=False)
                    await speech.consume(self._queue, exclusive=exclusive, tag=tag)
        except BaseException:
            self.over = True
            speech.forget()
            self._close_soon()
            raise
        if self.over:
            raise BrokerUnavailable(self._link.broker, f"the consumer of queue {self._queue!r} ended as it began")
        self._started = True

    def arrived(self, delivery: RabbitMQDelivery) -> None:
        if self.over:
            return
        self._settling.delivered(delivery.tag)
        if self._draining:
            delivery.requeue()
            return
        try:
            self._receive(delivery)
        except Exception:  # the contract's: whatever a receiver raises stops nothing
            log.exception("The receiver of queue %s raised; the message is requeued", self._queue)
            delivery.requeue()

    def ended(self, code: int, reason: str) -> None:
        if self.over:
            return
        if not code:
            # After a basic.cancel the channel is open, and what is unsettled on it comes back when it is closed.
            self._flush()
            self._close_soon()
        self.over = True
        self._forget()
        if self._started:
            self._ended(f"{code} {reason}" if code else reason)

    async def stop(self, *, requeue: bool) -> None:
        """Without `requeue` the channel stays until the last delivery is settled."""
        if self.over or self._channel is None:
            return
        self._flush()
        if requeue:
            self.over = True
            await self._close()
            return
        self._draining = True
        # Without an answer the channel ends, and its deliveries are lost as with the connection.
        with suppress(BrokerError), translated(self._link.broker):
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._channel.basic_cancel(self._tag)
        self._silent = True
        self._flush_soon()

    async def _close(self) -> None:
        """Deliveries are heard, and dropped, until the channel is closed: aiormq must not meet the fast path's."""
        try:
            if self._channel is not None and self._link.up:
                if self._speech is not None:
                    await self._speech.flushed()
                await close_channel(self._channel, self._link.broker)
        finally:
            self._forget()

    def _forget(self) -> None:
        if self._speech is not None:
            self._speech.forget()

    def _flush_soon(self) -> None:
        if not self._flushing and not self.over:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self.over or self._speech is None:
            return
        settled = self._settling.take()
        if settled is not None:
            self._speech.settle(settled)
        if self._silent and self._settling.done:
            self.over = True
            self._closing = self._loop.create_task(self._close())

    def _close_soon(self) -> None:
        if self._channel is not None and self._link.up:
            self._closing = self._loop.create_task(self._close())
