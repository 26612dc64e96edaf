"""A dead letter as it is read: what was put aside, why, when, and where it came from."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from ..brokers.message import Delivery
from ..brokers.topology import Names
from .dead_letters import (
    DETAIL,
    EXCHANGE,
    LETTER,
    PATH,
    PROPERTIES,
    REASON,
    ROUTING_KEY,
    SIZE,
    TIME,
    encode_properties,
)
from .submission import message_id

LAST_MOMENT = 253_402_300_800_000  # the year 10,000, in ms


class DeadLetter(Struct, frozen=True, kw_only=True):
    """`at`: ms since the Unix epoch. `body` is what was kept of `size` bytes. `properties`: those it was published
    with, its headers among them. All of it may be hostile text, but for an `exchange` that is one of ours. `named`: its
    id was given to it; else it is made of what the letter holds, and an equal letter has the same one."""

    id: str
    reason: str
    detail: str
    path: str
    at: int | None
    exchange: str
    routing_key: str
    size: int
    body: bytes
    properties: dict[str, Any]
    looks: int = 0
    named: bool = True

    @property
    def complete(self) -> bool:
        return len(self.body) == self.size


class Filter(Struct, frozen=True, kw_only=True):
    """All that is given must hold. `older_than`, `newer_than`: ms since the Unix epoch; a letter of an unknown time is
    neither. `ids` may be the beginnings of ids; `whole` are ids, where there are none it means no letter."""

    ids: tuple[str, ...] = ()
    whole: tuple[str, ...] | None = None
    reasons: tuple[str, ...] = ()
    routing_key: str | None = None
    exchange: str | None = None
    older_than: int | None = None
    newer_than: int | None = None
    containing: str | None = None

    def fits(self, letter: DeadLetter) -> bool:
        return (
            (not self.ids or letter.id.startswith(self.ids))
            and (self.whole is None or letter.id in self.whole)
            and (not self.reasons or letter.reason in self.reasons)
            and (self.routing_key is None or letter.routing_key == self.routing_key)
            and (self.exchange is None or letter.exchange == self.exchange)
            and (self.older_than is None or (letter.at is not None and letter.at < self.older_than))
            and (self.newer_than is None or (letter.at is not None and letter.at > self.newer_than))
            and (self.containing is None or self.containing.encode(errors="replace") in letter.body)
        )

    @property
    def everything(self) -> bool:
        return self == Filter()


def read_letter(delivery: Delivery, names: Names) -> DeadLetter:
    """From our own headers; or, where RabbitMQ dead-lettered by itself, from what it added: such a message has the
    headers that a stranger gave it, among which may be forged ones of ours."""
    headers = delivery.headers
    reason = text_of(headers.get(REASON))
    body = delivery.body
    death = _latest_death(headers)
    if reason and not death:
        encoded = text_of(headers.get(PROPERTIES))
        exchange, routing_key = text_of(headers.get(EXCHANGE)), text_of(headers.get(ROUTING_KEY))
        at, size = number_of(headers.get(TIME)), number_of(headers.get(SIZE))
        try:
            properties = object_of(msgspec.json.decode(encoded)) if encoded else {}
        except (msgspec.DecodeError, UnicodeError):
            properties = {}
    else:
        reason = text_of(death.get("reason")) or "unknown"
        exchange = text_of(death.get("exchange"))
        if exchange and death.get("queue") == names.intake:
            exchange = names.submit  # the queue is RabbitMQ's word; version 3 leaves an exchange that a stranger forged
        routing_key, size = delivery.routing_key, delivery.size
        time = death.get("time")
        at = round(time.timestamp() * 1000) if isinstance(time, datetime) else None
        kept = {name: value for name, value in headers.items() if not name.startswith("x-")}
        encoded = encode_properties(delivery, message_id(delivery), kept)
        properties = object_of(msgspec.json.decode(encoded))
    name = (not death and text_of(headers.get(LETTER))) or text_of(properties.get("message_id")) or delivery.message_id
    return DeadLetter(
        id=name or _made_of(delivery),
        named=bool(name),
        reason=reason,
        detail=text_of(headers.get(DETAIL)),
        path=text_of(headers.get(PATH)),
        at=at if at is not None and 0 <= at < LAST_MOMENT else None,
        exchange=exchange,
        routing_key=routing_key,
        size=delivery.size if size is None else size,
        body=body,
        properties=properties,
        looks=number_of(headers.get("x-delivery-count")) or 0,
    )


def _made_of(delivery: Delivery) -> str:
    """The same at each look: the body, and what RabbitMQ wrote on it."""
    death = repr(sorted(_latest_death(delivery.headers).items(), key=str))
    said = f"{delivery.routing_key} {death} ".encode(errors="replace")
    return hashlib.sha256(said + delivery.body).hexdigest()[:16]


def _latest_death(headers: dict[str, Any]) -> dict[str, Any]:
    """RabbitMQ puts its own in front of those that the message came with."""
    deaths = headers.get("x-death")
    return object_of(deaths[0]) if isinstance(deaths, list) and deaths else {}


def text_of(value: object) -> str:
    return value if isinstance(value, str) else ""


def number_of(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def object_of(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
