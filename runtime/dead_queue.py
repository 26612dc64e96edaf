"""The queue `callboard.dead`, read without taking anything away, and what an operator may do with its letters.

    look        every letter is delivered, shown to a visitor, and goes back when the consumer ends
    requeue     published where it came from, confirmed, then taken away: a crash between the two leaves it in both
                places, under one id
    delete      taken away

RabbitMQ counts each time a letter goes back, and from version 4 on drops it after 20 times. One that has been looked at
often is therefore published anew before it comes to that.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from ..brokers.contract import BODY_KEPT, BODY_LIMIT, Broker
from ..brokers.errors import BrokerError, BrokerUnavailable
from ..brokers.message import Delivery, Message, Receipt
from ..brokers.topology import Names
from .clock import Clock
from .dead_letters import DETAIL, EXCHANGE, LETTER, PATH, PROPERTIES, REASON, ROUTING_KEY, SIZE, TIME
from .submission import MESSAGE_ID_HEADER
from .wire import Ticket, encode

MOST = 50_000  # letters that one look passes through; AMQP allows 65,535 unsettled ones
IDLE_SECONDS = 1.0  # without a further letter: somebody else holds the rest
WORN = 10  # times a letter went back, after which it is published anew
WORN_AT_ONCE = 1000
PASS_LETTERS, PASS_BYTES = 1000, 64 * 1024 * 1024  # held at a time while they are requeued
TRIES, TRY_AGAIN_SECONDS = 10, 0.3  # while the retention actor has the queue for itself
CONFIRM_SECONDS = 10.0
LAST_MOMENT = 253_402_300_800_000  # the year 10,000, in ms

_ticket = msgspec.json.Decoder(Ticket)


class DeadLetter(Struct, frozen=True, kw_only=True):
    """`at`: ms since the Unix epoch. `body` is what was kept of `size` bytes. `properties`: those it was published
    with, its headers among them. All of it may be hostile text."""

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

    @property
    def complete(self) -> bool:
        return len(self.body) == self.size


class Filter(Struct, frozen=True, kw_only=True):
    """All that is given must hold. `older_than`, `newer_than`: ms since the Unix epoch; a letter of an unknown time is
    neither. `ids` may be the beginnings of ids."""

    ids: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    routing_key: str | None = None
    exchange: str | None = None
    older_than: int | None = None
    newer_than: int | None = None
    containing: str | None = None

    def fits(self, letter: DeadLetter) -> bool:
        return (
            (not self.ids or letter.id.startswith(self.ids))
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


class Requeued(Struct, frozen=True):
    """`refused`: letters that cannot go back, and why."""

    sent: int
    refused: Sequence[tuple[str, str]]


class CannotRequeue(Exception):
    pass


Visit = Callable[[DeadLetter, Delivery], bool]  # False: enough has been seen


class _Look:
    def __init__(self, visit: Callable[[Delivery], bool], count: int) -> None:
        self.seen = 0
        self.over = asyncio.Event()
        self._visit = visit
        self._count = count

    def receive(self, delivery: Delivery) -> None:
        if self.over.is_set():
            return  # it goes back when the consumer ends
        self.seen += 1
        if not self._visit(delivery) or self.seen >= self._count:
            self.over.set()

    async def wait(self) -> None:
        """Until everything has come, or nothing more does."""
        seen = -1
        while seen != self.seen and not self.over.is_set():
            seen = self.seen
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    await self.over.wait()
            except TimeoutError:
                continue


class DeadQueue:
    def __init__(self, broker: Broker, names: Names, clock: Clock, *, lifetime: int | None) -> None:
        """`lifetime`: for how many ms the broker keeps a letter."""
        self._broker = broker
        self._names = names
        self._clock = clock
        self._lifetime = lifetime

    async def look(self, visit: Visit, *, body_limit: int = BODY_KEPT) -> int:
        """Show the letters to the visitor, oldest first, at most 50,000; how many there are. BrokerUnavailable."""
        worn: list[tuple[DeadLetter, Delivery]] = []

        def see(delivery: Delivery) -> bool:
            letter = read_letter(delivery)
            if letter.looks >= WORN and len(worn) < WORN_AT_ONCE and delivery.size == len(delivery.body):
                worn.append((letter, delivery))
            return visit(letter, delivery)

        async with self._letters(see, body_limit=body_limit) as total:
            for letter, delivery in worn:
                if await self._publish(self._anew(letter)):
                    delivery.ack()
        return total

    async def delete(self, wanted: Filter, *, limit: int) -> int:
        """Take away up to `limit` letters; how many."""
        deleted = 0

        def see(letter: DeadLetter, delivery: Delivery) -> bool:
            nonlocal deleted
            if wanted.fits(letter):
                delivery.ack()
                deleted += 1
            return deleted < limit

        await self.look(see)
        return deleted

    async def requeue(self, wanted: Filter, *, limit: int, rate: float) -> Requeued:
        """Publish up to `limit` letters where they came from, at most `rate` a second."""
        sent, refused = 0, dict[str, str]()
        while sent < limit:
            found, due = await self._requeue_pass(wanted, limit - sent, rate, refused)
            sent += due
            if not found:
                break
        return Requeued(sent, list(refused.items()))

    async def _requeue_pass(self, wanted: Filter, limit: int, rate: float, refused: dict[str, str]) -> tuple[bool, int]:
        """(whether there may be more, how many were sent)."""
        held: list[tuple[DeadLetter, Delivery]] = []
        room = PASS_BYTES

        def see(delivery: Delivery) -> bool:
            nonlocal room
            letter = read_letter(delivery)
            if letter.id not in refused and wanted.fits(letter):
                held.append((letter, delivery))
                room -= len(delivery.body)
            return len(held) < min(limit, PASS_LETTERS) and room > 0

        sent = 0
        async with self._letters(see, body_limit=BODY_LIMIT):
            next_at = self._clock.elapsed()
            for letter, delivery in held:
                try:
                    message = self._back(letter)
                except CannotRequeue as error:
                    refused[letter.id] = str(error)
                    continue
                await self._clock.sleep(max(0.0, next_at - self._clock.elapsed()))
                next_at = max(next_at, self._clock.elapsed() - 1.0) + 1.0 / rate
                if not await self._publish(message):
                    raise BrokerUnavailable("the broker", f"it did not confirm letter {letter.id}; {sent} were sent")
                delivery.ack()
                sent += 1
        return bool(held), sent

    @asynccontextmanager
    async def _letters(self, visit: Callable[[Delivery], bool], *, body_limit: int) -> AsyncIterator[int]:
        """Within the block, all have been seen and those that are not acked are held; then they go back."""
        depth = await self._broker.depth(self._names.dead)
        total = 0 if depth is None else depth.ready
        if not total:
            yield 0
            return
        look = _Look(visit, min(total, MOST))
        for attempt in range(TRIES):
            try:
                consumer = await self._broker.consume(
                    self._names.dead, look.receive, prefetch=min(total, MOST), body_limit=body_limit
                )
                break
            except BrokerUnavailable:
                raise
            except BrokerError:
                if attempt == TRIES - 1:
                    raise
                await self._clock.sleep(TRY_AGAIN_SECONDS)
        try:
            await look.wait()
            yield total
        finally:
            await consumer.cancel()

    async def _publish(self, message: Message) -> bool:
        (receipt,) = await self._broker.publish([message], timeout=CONFIRM_SECONDS)
        return receipt is Receipt.CONFIRMED

    def _anew(self, letter: DeadLetter) -> Message:
        left = None
        if self._lifetime is not None:
            left = max(1, (letter.at or self._clock.now()) + self._lifetime - self._clock.now())
        return Message(
            exchange=self._names.dead,
            routing_key=letter.routing_key.encode()[:255].decode(errors="ignore") or letter.reason,
            body=letter.body,
            headers={
                LETTER: letter.id,
                REASON: letter.reason,
                DETAIL: letter.detail,
                PATH: letter.path,
                TIME: letter.at or self._clock.now(),
                EXCHANGE: letter.exchange,
                ROUTING_KEY: letter.routing_key,
                SIZE: letter.size,
                PROPERTIES: encode(letter.properties).decode(),
            },
            expiration=left,
        )

    def _back(self, letter: DeadLetter) -> Message:
        """What a letter becomes when it is requeued. A ticket that was put aside becomes a submission."""
        if not letter.complete:
            raise CannotRequeue(f"only the first {len(letter.body)} of its {letter.size} bytes were kept")
        exchange, body = letter.exchange, letter.body
        if exchange == self._names.jobs:
            with suppress(msgspec.DecodeError, UnicodeDecodeError):  # else it is requeued as it is
                exchange, body = self._names.submit, _as_submission(_ticket.decode(body))
        if exchange == "" and letter.routing_key != self._names.intake:
            raise CannotRequeue(f"it was sent to the queue {letter.routing_key!r}, which takes no submissions")
        if exchange not in ("", self._names.submit, self._names.jobs):
            raise CannotRequeue(f"it came from the exchange {exchange!r}, which is none of ours")
        given = letter.properties
        headers = {
            name: value
            for name, value in _object(given.get("headers")).items()
            if isinstance(value, str | int) and not name.startswith("x-") and len(name.encode()) < 128
        }
        headers[MESSAGE_ID_HEADER] = _text(given.get("message_id")) or letter.id
        return Message(
            exchange=exchange,
            routing_key=letter.routing_key,
            body=body,
            headers=headers,
            content_type=_text(given.get("content_type")) or "application/json",
            correlation_id=_text(given.get("correlation_id")) or None,
        )


def read_letter(delivery: Delivery) -> DeadLetter:
    """From our own headers, else from those that RabbitMQ adds where it dead-letters by itself."""
    headers = delivery.headers
    reason = _text(headers.get(REASON))
    body = delivery.body
    if reason:
        encoded = _text(headers.get(PROPERTIES))
        exchange, routing_key = _text(headers.get(EXCHANGE)), _text(headers.get(ROUTING_KEY))
        at, size = _number(headers.get(TIME)), _number(headers.get(SIZE))
        try:
            properties = _object(msgspec.json.decode(encoded)) if encoded else {}
        except msgspec.DecodeError:
            properties = {}
    else:
        death = _first_death(headers)
        reason = _text(headers.get("x-first-death-reason")) or _text(death.get("reason")) or "unknown"
        exchange = _text(death.get("exchange"))
        routing_key, size = delivery.routing_key, delivery.size
        time = death.get("time")
        at = round(time.timestamp() * 1000) if isinstance(time, datetime) else None
        kept = {name: value for name, value in headers.items() if not name.startswith("x-")}
        properties = {"message_id": delivery.message_id, "content_type": delivery.content_type, "headers": kept}
    return DeadLetter(
        id=_text(headers.get(LETTER)) or delivery.message_id or hashlib.sha256(body).hexdigest()[:16],
        reason=reason,
        detail=_text(headers.get(DETAIL)),
        path=_text(headers.get(PATH)),
        at=at if at is not None and 0 <= at < LAST_MOMENT else None,
        exchange=exchange,
        routing_key=routing_key,
        size=delivery.size if size is None else size,
        body=body,
        properties=properties,
        looks=_number(headers.get("x-delivery-count")) or 0,
    )


def _first_death(headers: dict[str, Any]) -> dict[str, Any]:
    deaths = headers.get("x-death")
    return _object(deaths[-1]) if isinstance(deaths, list) and deaths else {}


def _as_submission(ticket: Ticket) -> bytes:
    """A ticket in the words of PROTOCOL.md."""
    members: dict[str, Any] = {"id": ticket.id, "queue": ticket.queue, "task": ticket.task, "args": ticket.args}
    members |= {"kwargs": ticket.kwargs, "priority": ticket.priority}
    optional = {"retries": ticket.retries, "backoff": ticket.backoff or None, "meta": ticket.meta or None}
    members |= {name: value for name, value in optional.items() if value is not None}
    if ticket.timeout is not None:
        members["timeout"] = ticket.timeout / 1000
    return encode(members)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
