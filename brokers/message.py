"""Messages as the broker's contract sees them: bytes with AMQP's properties."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Protocol

from msgspec import Struct


class Message(Struct, frozen=True, kw_only=True):
    """A message to publish. `priority` is AMQP's (0..9, higher first). `expiration` in ms.

    `mandatory`: without a queue to go to, it comes back as Receipt.RETURNED instead of vanishing.
    The AMQP `message_id` is made anew for each publish.
    """

    exchange: str
    routing_key: str
    body: bytes
    priority: int | None = None
    headers: dict[str, Any] | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: int | None = None
    persistent: bool = True
    mandatory: bool = True
    content_type: str = "application/json"


class Receipt(StrEnum):
    """What became of a published message. Only CONFIRMED means that the broker has it."""

    CONFIRMED = "confirmed"
    RETURNED = "returned"  # no queue is bound for it
    REFUSED = "refused"  # the broker said nack
    UNKNOWN = "unknown"  # no answer in time, or the connection went away: it may have arrived


class Delivery(Protocol):
    """A received message, to be settled once. Settling returns at once and is sent with the others of the same tick of
    the loop; after the connection that brought it is gone it does nothing, since the broker delivers it again.

    `size`: bytes of the body as it was sent. It is more than `body` holds where it is over the consumer's limit: then
    `body` is its beginning."""

    body: bytes
    size: int
    redelivered: bool

    @property
    def exchange(self) -> str: ...

    @property
    def routing_key(self) -> str: ...

    @property
    def message_id(self) -> str | None: ...

    @property
    def correlation_id(self) -> str | None: ...

    @property
    def reply_to(self) -> str | None: ...

    @property
    def content_type(self) -> str | None: ...

    @property
    def content_encoding(self) -> str | None: ...

    @property
    def headers(self) -> dict[str, Any]: ...

    @property
    def lost(self) -> bool:
        """Its connection or consumer is gone; it is on its way to somebody again."""
        ...

    def ack(self) -> None: ...

    def requeue(self) -> None: ...

    def reject(self) -> None: ...
