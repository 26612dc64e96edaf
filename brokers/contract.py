"""What a message broker promises. `memory` and `rabbitmq` keep it; one suite proves both.

A broker reconnects by itself: at once, then with full jitter up to 5 s. After each reconnect it declares every
topology it was given and starts every consumer that was not cancelled again. What is unacknowledged when a connection
is lost is delivered again; what is unconfirmed has Receipt.UNKNOWN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol, Self

from msgspec import Struct

from .message import Delivery, Message, Receipt
from .topology import Topology

Receive = Callable[[Delivery], None]

BODY_LIMIT = 16 * 1024 * 1024  # bytes; RabbitMQ 4's own limit. Nothing of ours is larger.
BODY_KEPT = 64 * 1024  # bytes that are kept of a body over a consumer's limit


class Depth(Struct, frozen=True):
    """`ready`: messages not delivered to anyone. Unacknowledged ones are not counted."""

    ready: int
    consumers: int


class Consumer(Protocol):
    """Lives until `cancel`, over any number of connections."""

    @property
    def active(self) -> bool:
        """The broker has confirmed this consumer on the present connection."""
        ...

    async def cancel(self, *, requeue: bool = True) -> None:
        """No delivery after this returned. Unsettled deliveries stay the receiver's to settle, unless `requeue`: then
        they go back to the queue at once and count as lost."""
        ...


class Broker(Protocol):
    """`Broker.from_url(url, name=...)` makes one, closed; `name` is shown in the broker's list of connections.

    `shared`: other processes are connected to the same broker."""

    scheme: ClassVar[str]
    shared: ClassVar[bool]

    @classmethod
    def from_url(cls, url: str, *, name: str) -> Self: ...

    @property
    def version(self) -> str:
        """The server's version; known once connected."""
        ...

    @property
    def connected(self) -> bool:
        """Both the publishing and the consuming connection are up and not blocked by an alarm."""
        ...

    def watch(self, changed: Callable[[bool], None]) -> None:
        """Call `changed(connected)` at each change."""
        ...

    async def open(self) -> None:
        """Connect; BrokerUnavailable where the first attempt fails (wrong address, refused credentials)."""
        ...

    async def close(self) -> None:
        """Cancel consumers, give back what is unacknowledged, wait for confirms in flight (5 s at most), disconnect."""
        ...

    async def declare(self, topology: Topology) -> None:
        """Declare now, and again after every reconnect. Declaring the same again makes no round trip. While there is no
        connection: BrokerUnavailable, but it is remembered and declared when there is one. TopologyMismatch: it exists
        with other arguments. BrokerRefused: this user may not; nothing is remembered."""
        ...

    async def redeclare(self, topology: Topology) -> None:
        """Declare though it was declared before: somebody may have deleted it."""
        ...

    async def publish(self, messages: Sequence[Message], *, timeout: float) -> Sequence[Receipt]:
        """Publish with confirms, pipelined; the receipts in order, within `timeout` seconds. Never raises for a lost
        connection: those messages are UNKNOWN. While there is none, all are UNKNOWN at once."""
        ...

    async def consume(
        self, queue: str, receive: Receive, *, prefetch: int, exclusive: bool = False, body_limit: int = BODY_LIMIT
    ) -> Consumer:
        """Call `receive(delivery)` in the loop for each message, at most `prefetch` of them unsettled. `receive` must
        not block and must not raise. An exception from it stops nothing: the delivery is requeued and logged.
        BrokerUnavailable, BrokerRefused: there is no consumer.

        Of a body longer than `body_limit` no more than BODY_KEPT bytes are ever held, so that unsettled messages never
        take more than `prefetch` times the limit."""
        ...

    async def depth(self, queue: str) -> Depth | None:
        """None: there is no such queue. BrokerUnavailable without a connection."""
        ...

    async def purge(self, queue: str) -> None: ...

    async def delete(self, queue: str) -> None: ...
