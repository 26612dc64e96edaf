"""Consuming: one channel a consumer, deliveries straight from the socket, acknowledgements together.

    Tap -> Subscription.content -> receive(delivery)         in the reading of the socket, no task between
    delivery.ack() -> settled -> (end of this tick) -> one ack for everything up to there, single ones for the rest

A Subscription lives as long as its channel. When that ends, for whatever reason, its deliveries are lost: the server
gives them to somebody again, and settling them does nothing. The Consumer outlives it and gets the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from aiormq.abc import AbstractChannel, DeliveredMessage

from ..contract import BODY_LIMIT, Receive
from ..errors import BrokerError, BrokerUnavailable
from . import codec, tolerant
from .keeper import STEADY_SECONDS, Backoff
from .link import ANSWER_SECONDS, Link, close_channel, translated

log = logging.getLogger(__name__)


class RabbitMQDelivery:
    __slots__ = (
        "_subscription",
        "_tag",
        "body",
        "content_encoding",
        "content_type",
        "correlation_id",
        "exchange",
        "headers",
        "message_id",
        "redelivered",
        "reply_to",
        "routing_key",
        "size",
    )

    def __init__(self, delivered: codec.Delivered, header: bytes, body: bytes, subscription: Subscription) -> None:
        properties = tolerant.properties(header)
        self._tag = delivered.tag
        self._subscription = subscription
        self.body = body
        self.size = tolerant.body_size(header)
        self.exchange = delivered.exchange
        self.routing_key = delivered.routing_key
        self.redelivered = delivered.redelivered
        self.message_id = properties.message_id
        self.correlation_id = properties.correlation_id
        self.reply_to = properties.reply_to
        self.content_type = properties.content_type
        self.content_encoding = properties.content_encoding
        self.headers: dict[str, Any] = properties.headers or {}

    @property
    def lost(self) -> bool:
        return self._subscription.over

    def ack(self) -> None:
        self._subscription.ack(self._tag)

    def requeue(self) -> None:
        self._subscription.give_back(self._tag, requeue=True)

    def reject(self) -> None:
        self._subscription.give_back(self._tag, requeue=False)


class Subscription:
    """A consumer on one channel of one connection. `ended` is told once, when it ends by itself."""

    def __init__(self, link: Link, *, queue: str, receive: Receive, ended: Callable[[str], None]) -> None:
        self.over = False
        self._link = link
        self._queue = queue
        self._receive = receive
        self._ended = ended
        self._channel: AbstractChannel | None = None
        self._number = 0
        self._started = False
        self._draining = False  # a basic.cancel is on its way: what still comes is given back
        self._silent = False  # it was answered, or will not be: nothing more comes that we could wait for
        self._tag = ""
        self._order: deque[int] = deque()  # delivered tags, back to the first one that is unsettled
        self._unsettled: set[int] = set()
        self._acked: list[int] = []  # in this tick
        self._given_back: list[tuple[int, bool]] = []  # in this tick
        self._loop = asyncio.get_running_loop()
        self._flushing = False
        self._closing: asyncio.Task[None] | None = None

    async def start(self, *, prefetch: int, exclusive: bool, tag: str, body_limit: int = BODY_LIMIT) -> None:
        self._channel = channel = await self._link.channel()
        self._number = channel.number
        self._tag = tag
        self._link.listen(self._number, self, body_limit=body_limit)
        try:
            with translated(self._link.broker):
                async with asyncio.timeout(ANSWER_SECONDS):
                    await channel.basic_qos(prefetch_count=prefetch, global_=False)
                    await channel.basic_consume(self._queue, _never_called, exclusive=exclusive, consumer_tag=tag)
        except BaseException:
            self.over = True
            self._link.forget(self._number, self)
            self._close_soon()
            raise
        if self.over:
            raise BrokerUnavailable(self._link.broker, f"the consumer of queue {self._queue!r} ended as it began")
        self._started = True

    def content(self, method: int, arguments: bytes, header: bytes, body: bytes) -> None:
        delivered = codec.read_deliver(arguments)
        if self.over:
            return
        self._order.append(delivered.tag)
        self._unsettled.add(delivered.tag)
        if self._draining:
            self.give_back(delivered.tag, requeue=True)
            return
        delivery = RabbitMQDelivery(delivered, header, body, self)
        try:
            self._receive(delivery)
        except Exception:  # the contract's: whatever a receiver raises stops nothing
            log.exception("The receiver of queue %s raised; the message is requeued", self._queue)
            delivery.requeue()

    def confirm(self, method: int, arguments: bytes) -> None:
        """Nothing is published here."""

    def ended(self, code: int, reason: str) -> None:
        if self.over:
            return
        if not code:
            # After a basic.cancel the channel is open, and what is unsettled on it comes back when it is closed.
            self._flush()
            self._close_soon()
        self.over = True
        self._link.forget(self._number, self)
        if self._started:
            self._ended(f"{code} {reason}" if code else reason)

    def ack(self, tag: int) -> None:
        if tag in self._unsettled:
            self._unsettled.remove(tag)
            self._acked.append(tag)
            self._flush_soon()

    def give_back(self, tag: int, *, requeue: bool) -> None:
        if tag in self._unsettled:
            self._unsettled.remove(tag)
            self._given_back.append((tag, requeue))
            self._flush_soon()

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
        """Deliveries are heard, and dropped, until the channel is closed: aiormq must not meet them."""
        try:
            if self._channel is not None and self._link.up:
                await close_channel(self._channel, self._link.broker)
        finally:
            self._link.forget(self._number, self)

    def _flush_soon(self) -> None:
        if not self._flushing and not self.over:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self.over:
            return
        frames = [codec.nack_frame(channel=self._number, tag=tag, requeue=requeue) for tag, requeue in self._given_back]
        self._given_back.clear()
        if self._acked:
            frames += self._ack_frames()
        if frames:
            # Never more than `prefetch` of them: the server delivers nothing new before it has read these.
            self._link.write(b"".join(frames))
        if self._silent and not self._unsettled:
            self.over = True
            self._closing = self._loop.create_task(self._close())

    def _ack_frames(self) -> list[bytes]:
        """One ack up to the first tag that is still unsettled (`multiple` passes over what was settled before), and
        one for each beyond it."""
        unsettled = self._unsettled
        order = self._order
        while order and order[0] not in unsettled:
            order.popleft()
        within = [tag for tag in self._acked if not order or tag < order[0]]
        beyond = [tag for tag in self._acked if order and tag > order[0]]
        self._acked = []
        frames = []
        if within:
            frames.append(codec.ack_frame(channel=self._number, tag=max(within), multiple=len(within) > 1))
        frames += [codec.ack_frame(channel=self._number, tag=tag, multiple=False) for tag in beyond]
        return frames

    def _close_soon(self) -> None:
        if self._channel is not None and self._link.up:
            self._closing = self._loop.create_task(close_channel(self._channel, self._link.broker))


class RabbitMQConsumer:
    """What `consume` returned: it gets a new subscription from the broker whenever one ended."""

    def __init__(
        self,
        queue: str,
        receive: Receive,
        *,
        prefetch: int,
        exclusive: bool,
        body_limit: int,
        tag: str,
        backoff: Backoff,
        ended: Callable[[RabbitMQConsumer, Link, str], None],
        cancelled: Callable[[RabbitMQConsumer], None],
    ) -> None:
        self.queue = queue
        self.over = False
        self.backoff = backoff
        self._receive = receive
        self._prefetch = prefetch
        self._exclusive = exclusive
        self._body_limit = body_limit
        self._tag = tag
        self._ended = ended
        self._cancelled = cancelled
        self._subscription: Subscription | None = None
        self._started = 0

    @property
    def active(self) -> bool:
        return self._subscription is not None and not self._subscription.over and not self.over

    async def start(self, link: Link) -> None:
        """BrokerError where there is no such queue, or somebody consumes it exclusively."""
        self._started += 1
        began = asyncio.get_running_loop().time()
        subscription = Subscription(
            link, queue=self.queue, receive=self._receive, ended=partial(self._on_end, link, began)
        )
        await subscription.start(
            prefetch=self._prefetch,
            exclusive=self._exclusive,
            tag=f"{self._tag}.{self._started}",
            body_limit=self._body_limit,
        )
        self._subscription = subscription
        if self.over:  # cancelled meanwhile
            await subscription.stop(requeue=True)

    async def cancel(self, *, requeue: bool = True) -> None:
        if not self.over:
            self.over = True
            self._cancelled(self)
        if self._subscription is not None:
            await self._subscription.stop(requeue=requeue)

    def _on_end(self, link: Link, began: float, reason: str) -> None:
        if asyncio.get_running_loop().time() - began >= STEADY_SECONDS:
            self.backoff.succeeded()
        if not self.over:
            self._ended(self, link, reason)


async def _never_called(message: DeliveredMessage) -> None:
    """aiormq wants a callback; the Tap takes every delivery before it."""
    raise AssertionError(f"a delivery of {message.exchange!r} passed the tap")
