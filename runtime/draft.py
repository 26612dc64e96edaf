"""A message that nobody has sent, as a reader of deliveries sees one: for what is checked before it is published."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Draft(Struct, kw_only=True, eq=False):
    """A Delivery (brokers/message.py) that there is nothing to settle of."""

    body: bytes
    exchange: str
    routing_key: str
    content_type: str | None = None
    message_id: str | None = None
    content_encoding: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    headers: dict[str, Any] = {}
    redelivered: bool = False
    lost: bool = False
    size: int = 0

    def __post_init__(self) -> None:
        self.size = len(self.body)

    def ack(self) -> None: ...

    def requeue(self) -> None: ...

    def reject(self) -> None: ...
