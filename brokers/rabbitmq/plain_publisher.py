"""Publishing through aiormq's own framing: a call of its `basic_publish` for each message, WINDOW of them at a time.

aiormq matches returns and confirms. A channel that ends leaves what was under way UNKNOWN, as in publisher.py, but for
the message that it ended for; what has not begun waits for the next channel.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from aiormq import AMQPError, DeliveryError, PublishError
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from ..errors import BrokerError
from ..message import Message, Receipt
from .codec import shape
from .fate import fate
from .link import Link, close_channel
from .news import News
from .publisher import FORGOTTEN, WINDOW

log = logging.getLogger(__name__)


class _Channel:
    """One publishing channel, and how it ended."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel
        self.end: tuple[int, str] | None = None
        self.forgotten = 0  # messages whose publisher stopped waiting: aiormq keeps them until they are confirmed


class PlainPublisher:
    def __init__(self, link: Link, *, new_id: Callable[[], bytes], missing: Callable[[], None]) -> None:
        self._link = link
        self._new_id = new_id
        self._missing = missing
        self._news = News()
        self._present: _Channel | None = None
        self._opened = asyncio.Event()
        self._room = asyncio.Semaphore(WINDOW)
        self._under_way: set[asyncio.Task[None]] = set()
        self._publishing = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._reopening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        channel = await self._link.channel(confirms=True)
        self._present = _Channel(channel)
        self._link.strain(channel.number, self)
        self._opened.set()

    async def publish(self, messages: Sequence[Message], *, timeout: float) -> Sequence[Receipt]:
        for message in messages:
            shape(message, frame_max=self._link.frame_max)  # ValueError: before anything is sent
        receipts = [Receipt.UNKNOWN] * len(messages)
        if not messages or self._link.blocked or not self._link.up:
            return receipts
        tasks: set[asyncio.Task[None]] = set()
        self._publishing += 1
        self._idle.clear()
        try:
            async with asyncio.timeout(timeout):
                for index, message in enumerate(messages):
                    await self._room.acquire()
                    if not self._link.up:
                        self._room.release()
                        break
                    task = asyncio.create_task(self._publish(message, receipts, index))
                    tasks.add(task)
                    self._under_way.add(task)
                    task.add_done_callback(self._ended)
                if tasks:
                    await asyncio.wait(tasks)
        except TimeoutError:
            pass
        finally:
            self._give_up([task for task in tasks if not task.done()])
            self._publishing -= 1
            if not self._publishing:
                self._idle.set()
        for task in tasks:
            if task.done() and not task.cancelled():
                task.result()  # a fault of ours
        return receipts

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
        self._forget()
        self._lose_all()

    def ended(self, code: int, reason: str) -> None:
        present = self._present
        self._forget()
        if present is not None:
            present.end = (code, reason)
        if not self._link.up or not code:
            self._lose_all()
            return
        if self._news.is_new(f"{code} {reason}", asyncio.get_running_loop().time()):
            log.warning("RabbitMQ closed the publishing channel of %s: %s %s", self._link.broker, code, reason)
        if code == 404:
            self._missing()
        self._replace()

    async def _publish(self, message: Message, receipts: list[Receipt], index: int) -> None:
        try:
            while self._present is None:
                await self._opened.wait()
            present = self._present
            receipts[index] = await self._receipt(present, message)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # aiormq cancels what waits on a channel that has ended; nobody has cancelled this task.

    async def _receipt(self, present: _Channel, message: Message) -> Receipt:
        try:
            await present.channel.basic_publish(
                message.body,
                exchange=message.exchange,
                routing_key=message.routing_key,
                mandatory=message.mandatory,
                properties=Basic.Properties(
                    content_type=message.content_type,
                    headers=message.headers or None,
                    delivery_mode=2 if message.persistent else 1,
                    priority=message.priority,
                    correlation_id=message.correlation_id,
                    reply_to=message.reply_to,
                    expiration=None if message.expiration is None else str(message.expiration),
                    message_id=self._new_id().decode(),
                ),
            )
        except PublishError:
            return Receipt.RETURNED
        except DeliveryError:
            return Receipt.REFUSED
        except (AMQPError, *CONNECTION_EXCEPTIONS):
            return (present.end and fate(message, *present.end)) or Receipt.UNKNOWN
        return Receipt.CONFIRMED

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._room.release()

    def _forget(self) -> None:
        self._opened.clear()
        if self._present is not None:
            self._link.forget(self._present.channel.number, self)
            self._present = None

    def _give_up(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        if self._present is not None:
            self._present.forgotten += len(tasks)
            if self._present.forgotten > FORGOTTEN:
                self._replace()

    def _replace(self) -> None:
        if self._reopening is None or self._reopening.done():
            self._reopening = asyncio.get_running_loop().create_task(self._reopen())

    async def _reopen(self) -> None:
        present = self._present
        self._forget()
        try:
            if present is not None:
                await close_channel(present.channel, self._link.broker)
            await self.open()
        except BrokerError as error:
            log.warning("The publishing channel of %s cannot be opened again: %s", self._link.broker, error)
            self._lose_all()
            self._link.abort()

    def _lose_all(self) -> None:
        """What is under way is UNKNOWN, whether it waits for aiormq or for a channel."""
        for task in self._under_way:
            task.cancel()
