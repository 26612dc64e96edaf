"""RabbitMQ as a Broker.

    RabbitMQBroker ─┬─ Keeper ─ Link (publishing)  ─ Publisher: one channel with confirms
                    └─ Keeper ─ Link (consuming)   ─┬─ Declarer: topology and questions
                                                    └─ Subscription: one channel for each consumer

Two connections, since an alarm blocks the one that publishes and the acknowledgements must go on. Nothing is repaired
in place: what ends is replaced, and what belonged to it is UNKNOWN (publishes) or lost (deliveries).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from importlib.metadata import version
from itertools import count
from random import Random
from typing import ClassVar, Self

from ..contract import BODY_LIMIT, Consumer, Depth, Receive
from ..errors import BrokerError, BrokerUnavailable
from ..message import Message, Receipt
from ..topology import Topology
from .consumer import RabbitMQConsumer
from .declarer import Declarer
from .framing import Frames, frames_for
from .keeper import Backoff, Keeper, report
from .link import Link, NotThere, masked, parse_url
from .news import News
from .plain_publisher import PlainPublisher
from .publisher import Publisher

CONFIRMS_AT_CLOSE_SECONDS = 5.0

log = logging.getLogger(__name__)


class RabbitMQBroker:
    """`url`: amqp://user:password@host:port/vhost, or amqps:// with aiormq's query (cafile, certfile, keyfile ...);
    `?frames=` as framing.py says. `installed` tells a package's version."""

    scheme: ClassVar[str] = "amqp"
    shared: ClassVar[bool] = True

    def __init__(
        self, url: str, *, name: str, random: Random | None = None, installed: Callable[[str], str] = version
    ) -> None:
        self._url, self.frames = frames_for(parse_url(url), installed=installed)
        self._masked = masked(self._url)
        self._random = random or Random()
        self._boot = secrets.token_hex(8)
        self._prefix = self._boot.encode()
        self._ids = count(1)
        self._version = ""
        self._connected = False
        self._watchers: list[Callable[[bool], None]] = []
        self._topologies: dict[Topology, None] = {}
        self._refusals = News()  # of those
        self._consumers: dict[RabbitMQConsumer, None] = {}
        self._publisher: Publisher | PlainPublisher | None = None
        self._declarer: Declarer | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._publishing = self._keeper(f"{name} (publishing)", self._set_up_publishing)
        self._consuming = self._keeper(f"{name} (consuming)", self._set_up_consuming)

    def __repr__(self) -> str:
        return f"RabbitMQBroker({self._masked!r})"

    @classmethod
    def from_url(cls, url: str, *, name: str) -> Self:
        return cls(url, name=name)

    @property
    def version(self) -> str:
        return self._version

    @property
    def connected(self) -> bool:
        publishing = self._publishing.link
        return self._consuming.ready and self._publishing.ready and publishing is not None and not publishing.blocked

    def watch(self, changed: Callable[[bool], None]) -> None:
        self._watchers.append(changed)

    async def open(self) -> None:
        await self._consuming.open()
        try:
            await self._publishing.open()
        except BaseException:
            await self._consuming.close()
            raise

    async def close(self) -> None:
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*(consumer.cancel() for consumer in list(self._consumers)))
        if self._publisher is not None:
            await self._publisher.idle(timeout=CONFIRMS_AT_CLOSE_SECONDS)
            self._publisher.close()
        await self._publishing.close()
        await self._consuming.close()
        self._publisher = self._declarer = None
        self._tell()

    async def declare(self, topology: Topology) -> None:
        await self._declare(topology, again=False)

    async def redeclare(self, topology: Topology) -> None:
        await self._declare(topology, again=True)

    async def publish(self, messages: Sequence[Message], *, timeout: float) -> Sequence[Receipt]:
        if self._publisher is None:
            return [Receipt.UNKNOWN] * len(messages)
        return await self._publisher.publish(messages, timeout=timeout)

    async def consume(
        self, queue: str, receive: Receive, *, prefetch: int, exclusive: bool = False, body_limit: int = BODY_LIMIT
    ) -> Consumer:
        if not 1 <= prefetch <= 65_535:
            raise ValueError(f"prefetch is {prefetch}: it must be 1 to 65535")
        consumer = RabbitMQConsumer(
            queue,
            receive,
            prefetch=prefetch,
            exclusive=exclusive,
            body_limit=body_limit,
            tag=f"callboard.{self._boot}.{next(self._ids)}",
            backoff=Backoff(self._random),
            ended=self._on_consumer_end,
            cancelled=self._forget_consumer,
        )
        link = self._consuming_link()
        try:
            await consumer.start(link)
        except NotThere:  # somebody deleted it; where it was never declared, the second attempt says so
            await self._declare_remembered(self._present_declarer())
            await consumer.start(link)
        self._consumers[consumer] = None
        return consumer

    async def depth(self, queue: str) -> Depth | None:
        return await self._present_declarer().depth(queue)

    async def purge(self, queue: str) -> None:
        await self._present_declarer().purge(queue)

    async def delete(self, queue: str) -> None:
        await self._present_declarer().delete(queue)

    def _keeper(self, name: str, set_up: Callable[[Link], Awaitable[None]]) -> Keeper:
        return Keeper(
            connect=lambda: Link(self._url, frames=self.frames, name=name, changed=self._tell),
            set_up=set_up,
            changed=self._tell,
            random=self._random,
        )

    def _tell(self) -> None:
        connected = self.connected
        if connected != self._connected:
            self._connected = connected
            for changed in self._watchers:
                changed(connected)

    def _consuming_link(self) -> Link:
        link = self._consuming.link
        if link is None or not link.up:
            raise BrokerUnavailable(self._masked, "not connected")
        return link

    def _present_declarer(self) -> Declarer:
        if self._declarer is None or not self._declarer.up:
            raise BrokerUnavailable(self._masked, "not connected")
        return self._declarer

    async def _declare(self, topology: Topology, *, again: bool) -> None:
        known = topology in self._topologies
        self._topologies[topology] = None
        try:
            await self._present_declarer().declare(topology, again=again)
        except BrokerUnavailable:
            raise
        except BrokerError:
            if not known:
                self._topologies.pop(topology, None)
            raise

    async def _set_up_publishing(self, link: Link) -> None:
        made = Publisher if link.frames is Frames.FAST else PlainPublisher
        publisher = made(link, new_id=self._new_message_id, missing=self._declare_missing)
        await publisher.open()
        self._publisher = publisher

    def _new_message_id(self) -> bytes:
        return b"%s-%d" % (self._prefix, next(self._ids))

    async def _set_up_consuming(self, link: Link) -> None:
        self._version = link.server_version
        # From here on `declare` uses it: whatever was asked for before is among those remembered.
        self._declarer = Declarer(link)
        await self._declare_remembered(self._declarer)
        for consumer in list(self._consumers):
            try:
                await consumer.start(link)
            except BrokerUnavailable:
                raise
            except BrokerError as error:
                self._tell_of_refusal(consumer, error)
                self._in_background(self._restart(consumer, link))
            else:
                self._tell_of_success(consumer)

    async def _declare_remembered(self, declarer: Declarer) -> None:
        """One that is refused does not stop the others."""
        refused = False
        for topology in list(self._topologies):
            try:
                await declarer.declare(topology, again=True)
            except BrokerUnavailable:
                raise
            except BrokerError as error:
                refused = True
                if self._refusals.is_new(str(error), asyncio.get_running_loop().time()):
                    log.error("A remembered topology cannot be declared: %s", error)
        if not refused and self._refusals.over():
            log.info("Every remembered topology is declared again")

    def _declare_missing(self) -> None:
        """A publish met an exchange that is not there."""
        if self._declarer is not None:
            self._in_background(self._declare_quietly(self._declarer))

    async def _declare_quietly(self, declarer: Declarer) -> None:
        try:
            await self._declare_remembered(declarer)
        except BrokerUnavailable as error:
            log.warning("Declaring again failed, and is repeated with the next connection: %s", error)

    def _forget_consumer(self, consumer: RabbitMQConsumer) -> None:
        self._consumers.pop(consumer, None)

    def _on_consumer_end(self, consumer: RabbitMQConsumer, link: Link, reason: str) -> None:
        if not link.up:
            return  # the next connection starts it
        log.warning("The consumer of queue %s ended and is started again: %s", consumer.queue, reason)
        self._in_background(self._restart(consumer, link))

    async def _restart(self, consumer: RabbitMQConsumer, link: Link) -> None:
        """Until it runs, or is cancelled, or the connection is lost: then the next one starts it."""
        while not consumer.over and link.up:
            await asyncio.sleep(consumer.backoff.next_delay())
            if consumer.over or not link.up or self._declarer is None:
                return
            try:
                await self._declare_remembered(self._declarer)
                await consumer.start(link)
            except BrokerError as error:
                self._tell_of_refusal(consumer, error)
            else:
                self._tell_of_success(consumer)
                return

    def _tell_of_refusal(self, consumer: RabbitMQConsumer, error: BrokerError) -> None:
        if consumer.news.is_new(str(error), asyncio.get_running_loop().time()):
            log.warning("Queue %s cannot be consumed, which is tried until it can: %s", consumer.queue, error)

    def _tell_of_success(self, consumer: RabbitMQConsumer) -> None:
        if consumer.news.over():
            log.info("Queue %s is consumed again", consumer.queue)

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        task.add_done_callback(report)
