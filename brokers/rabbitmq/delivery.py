"""A delivery of RabbitMQ's. Its properties are decoded when somebody asks for one: a worker never does."""

from __future__ import annotations

from typing import Any, Protocol

from msgspec import Struct

from . import tolerant
from .tolerant import Properties


class Address(Struct, frozen=True):
    """Where a message was published to."""

    exchange: str
    routing_key: str


class Settler(Protocol):
    """The channel that brought a delivery, for as long as it is open."""

    over: bool

    def ack(self, tag: int) -> None: ...

    def give_back(self, tag: int, *, requeue: bool) -> None: ...


class RabbitMQDelivery(Struct, eq=False):
    tag: int
    redelivered: bool
    address: Address
    body: bytes
    size: int
    settler: Settler
    header: bytes
    properties: Properties | None = None

    def __repr__(self) -> str:
        return f"RabbitMQDelivery(tag={self.tag}, routing_key={self.routing_key!r}, size={self.size})"

    @property
    def exchange(self) -> str:
        return self.address.exchange

    @property
    def routing_key(self) -> str:
        return self.address.routing_key

    @property
    def message_id(self) -> str | None:
        return self._decoded().message_id

    @property
    def correlation_id(self) -> str | None:
        return self._decoded().correlation_id

    @property
    def reply_to(self) -> str | None:
        return self._decoded().reply_to

    @property
    def content_type(self) -> str | None:
        return self._decoded().content_type

    @property
    def content_encoding(self) -> str | None:
        return self._decoded().content_encoding

    @property
    def headers(self) -> dict[str, Any]:
        return self._decoded().headers

    @property
    def lost(self) -> bool:
        return self.settler.over

    def ack(self) -> None:
        self.settler.ack(self.tag)

    def requeue(self) -> None:
        self.settler.give_back(self.tag, requeue=True)

    def reject(self) -> None:
        self.settler.give_back(self.tag, requeue=False)

    def _decoded(self) -> Properties:
        found = self.properties
        if found is None:
            found = self.properties = tolerant.properties(self.header)
        return found
