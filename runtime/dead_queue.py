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
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from msgspec import Struct

from ..brokers.contract import BODY_KEPT, BODY_LIMIT, Broker, Consumer
from ..brokers.errors import BrokerError, BrokerUnavailable
from ..brokers.message import Delivery, Message, Receipt
from ..brokers.topology import Names
from .clock import Clock
from .dead_letter import DeadLetter, Filter, object_of, read_letter, text_of
from .dead_letters import (
    DETAIL,
    EXCHANGE,
    LETTER,
    MAX_DETAIL,
    MAX_NAME,
    MAX_PROPERTIES,
    PATH,
    PROPERTIES,
    PUT_BACK_SINCE,
    REASON,
    ROUTING_KEY,
    SIZE,
    TIME,
    as_unicode,
)
from .json_value import shown
from .submission import MESSAGE_ID_HEADER
from .wire import Ticket, encode

MOST = 50_000  # letters that one look passes through; AMQP allows 65,535 unsettled ones
IDLE_SECONDS = 1.0  # without a further letter: somebody else holds the rest
WORN = 10  # times a letter went back, after which it is published anew
WORN_AT_ONCE = 1000
PASS_LETTERS, PASS_BYTES = 1000, 64 * 1024 * 1024  # held at a time while they are requeued
PASS_SECONDS = 60.0  # and for how long; RabbitMQ ends a consumer that keeps a delivery for half an hour
TRIES, TRY_AGAIN_SECONDS = 10, 0.3  # while the retention actor has the queue for itself
BACK_TRIES, BACK_SECONDS = 100, 0.02  # until what was only looked at is back
CONFIRM_SECONDS = 10.0
SHORT_BYTES = 255  # of a routing key and of most properties
INTEGERS = range(-(2**63), 2**63)  # that a header holds

_ticket = msgspec.json.Decoder(Ticket)


class Requeued(Struct, frozen=True):
    """`refused`: letters that cannot go back, and why."""

    sent: int
    refused: Sequence[tuple[str, str]]


class CannotRequeue(Exception):
    pass


Visit = Callable[[DeadLetter, Delivery], bool]  # False: enough has been seen
_Visit = Callable[["_Look", DeadLetter, Delivery], bool]


class _Look:
    """`total`: letters that nobody held when it began. `held`: how many came and were not taken away. `worn`: those of
    them that have come back so often that they need to be published anew."""

    def __init__(self, visit: _Visit, names: Names, *, total: int, count: int) -> None:
        self.total = total
        self.count = count
        self.held = 0
        self.over = asyncio.Event()
        self.worn: dict[Delivery, DeadLetter] = {}
        self.failure: Exception | None = None  # of the visitor; a letter it came with would be delivered for ever
        self._visit = visit
        self._names = names
        self._seen = 0

    def receive(self, delivery: Delivery) -> None:
        self.held += 1
        if self.over.is_set():
            return  # it goes back when the consumer ends
        self._seen += 1
        letter = read_letter(delivery, self._names)
        if letter.looks >= WORN and len(self.worn) < WORN_AT_ONCE and delivery.size == len(delivery.body):
            self.worn[delivery] = letter
        try:
            more = self._visit(self, letter, delivery)
        except Exception as error:  # raised again by `wait`, to whoever looks: here it would only be logged
            self.failure, more = error, False
        if not more or self._seen >= self.count:
            self.over.set()

    def take(self, delivery: Delivery) -> None:
        delivery.ack()
        self.worn.pop(delivery, None)
        self.held -= 1

    async def wait(self) -> None:
        """Until everything has come, or nothing more does. Raises what the visitor raised."""
        seen = -1
        while seen != self._seen and not self.over.is_set():
            seen = self._seen
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    await self.over.wait()
            except TimeoutError:
                continue
        if self.failure is not None:
            raise self.failure


class _Pace:
    """So many letters a second, over all passes; after a halt up to a second's worth is made up for."""

    def __init__(self, clock: Clock, rate: float) -> None:
        self.rate = rate
        self._clock = clock
        self._next_at = clock.elapsed()

    async def wait(self) -> None:
        await self._clock.sleep(max(0.0, self._next_at - self._clock.elapsed()))

    def spend(self) -> None:
        self._next_at = max(self._next_at, self._clock.elapsed() - 1.0) + 1.0 / self.rate


class DeadQueue:
    def __init__(self, broker: Broker, names: Names, clock: Clock, *, lifetime: int | None) -> None:
        """`lifetime`: for how many ms the broker keeps a letter."""
        self._broker = broker
        self._names = names
        self._clock = clock
        self._lifetime = lifetime

    async def look(self, visit: Visit, *, body_limit: int = BODY_KEPT) -> int:
        """Show the letters to the visitor, oldest first, at most 50,000; how many there are. When it returns they are
        back. What the visitor raises ends it. BrokerUnavailable."""
        async with self._letters(lambda _, letter, delivery: visit(letter, delivery), body_limit=body_limit) as look:
            return look.total

    async def delete(self, wanted: Filter, *, limit: int) -> int:
        """Take away up to `limit` letters; how many."""
        deleted = 0

        def see(look: _Look, letter: DeadLetter, delivery: Delivery) -> bool:
            nonlocal deleted
            if wanted.fits(letter):
                look.take(delivery)
                deleted += 1
            return deleted < limit

        async with self._letters(see, body_limit=BODY_KEPT):
            return deleted

    async def requeue(self, wanted: Filter, *, limit: int, rate: float) -> Requeued:
        """Publish up to `limit` letters where they came from, at most `rate` a second. Only those that are there now:
        what is refused once more comes as a new letter, behind them, and would otherwise go round for ever."""
        sent, refused = 0, dict[str, str]()
        there = await self._ready()
        pace = _Pace(self._clock, rate)
        while sent < min(limit, there):
            await pace.wait()  # before any letter is held
            found, due = await self._requeue_pass(
                wanted, limit=limit - sent, among=there - sent, pace=pace, refused=refused
            )
            sent += due
            if not found:
                break
        return Requeued(sent, list(refused.items()))

    async def _requeue_pass(
        self, wanted: Filter, *, limit: int, among: int, pace: _Pace, refused: dict[str, str]
    ) -> tuple[bool, int]:
        """(whether there may be more, how many were sent)."""
        held: list[tuple[DeadLetter, Delivery]] = []
        room = PASS_BYTES
        most = min(limit, PASS_LETTERS, max(1, round(pace.rate * PASS_SECONDS)))

        def see(_: _Look, letter: DeadLetter, delivery: Delivery) -> bool:
            nonlocal room
            if letter.id not in refused and wanted.fits(letter):
                held.append((letter, delivery))
                room -= len(delivery.body)
            return len(held) < most and room > 0

        sent = 0
        async with self._letters(see, body_limit=BODY_LIMIT, among=among) as look:
            for letter, delivery in held:
                try:
                    message = self._back(letter)
                except CannotRequeue as error:
                    refused[letter.id] = str(error)
                    continue
                await pace.wait()
                pace.spend()
                if delivery.lost:
                    raise BrokerUnavailable("the broker", f"the connection was lost; {sent} were sent")
                try:
                    confirmed = await self._publish(message)
                except ValueError as error:
                    refused[letter.id] = f"AMQP cannot carry it: {error}"
                    continue
                if not confirmed:
                    raise BrokerUnavailable("the broker", f"it did not confirm letter {letter.id}; {sent} were sent")
                look.take(delivery)
                sent += 1
        return bool(held), sent

    async def _ready(self) -> int:
        depth = await self._broker.depth(self._names.dead)
        return 0 if depth is None else depth.ready

    @asynccontextmanager
    async def _letters(self, visit: _Visit, *, body_limit: int, among: int = MOST) -> AsyncIterator[_Look]:
        """Within the block, the first `among` have been seen and those that are not taken are held; afterwards they are
        back in the queue."""
        total = await self._ready()
        look = _Look(visit, self._names, total=total, count=min(total, MOST, among))
        if not look.count:
            yield look
            return
        consumer = await self._consume(look, body_limit)
        try:
            await look.wait()
            yield look
            for delivery, letter in list(look.worn.items()):
                if await self._publish(self._anew(letter)):
                    look.take(delivery)
        finally:
            await consumer.cancel()
            with suppress(BrokerUnavailable):
                await self._until_back(look.held)

    async def _consume(self, look: _Look, body_limit: int) -> Consumer:
        for attempt in range(TRIES):
            try:
                return await self._broker.consume(
                    self._names.dead, look.receive, prefetch=look.count, body_limit=body_limit
                )
            except BrokerUnavailable:
                raise
            except BrokerError:
                if attempt == TRIES - 1:
                    raise
                await self._clock.sleep(TRY_AGAIN_SECONDS)
        raise AssertionError("the last attempt returned or raised")

    async def _until_back(self, count: int) -> None:
        """A quorum queue counts what comes back some moments after the consumer's end. Whoever looks again at once
        would miss it. No longer than 2 s: somebody else may have it by then."""
        for _ in range(BACK_TRIES):
            if await self._ready() >= count:
                return
            await self._clock.sleep(BACK_SECONDS)

    async def _publish(self, message: Message) -> bool:
        (receipt,) = await self._broker.publish([message], timeout=CONFIRM_SECONDS)
        return receipt is Receipt.CONFIRMED

    def _anew(self, letter: DeadLetter) -> Message:
        left = None
        if self._lifetime is not None:
            left = max(1, (letter.at or self._clock.now()) + self._lifetime - self._clock.now())
        properties = encode(letter.properties)
        if len(properties) > MAX_PROPERTIES:  # a forged one: of ours and RabbitMQ's they are within it
            properties = encode({"headers_left_out": f"{len(properties)} bytes"})
        return Message(
            exchange=self._names.dead,
            routing_key=(letter.routing_key or letter.reason).encode()[:SHORT_BYTES].decode(errors="ignore"),
            body=letter.body,
            headers={
                LETTER: letter.id if letter.named else secrets.token_hex(8),
                REASON: as_unicode(letter.reason, MAX_NAME),
                DETAIL: as_unicode(letter.detail, MAX_DETAIL),
                PATH: as_unicode(letter.path, MAX_DETAIL),
                TIME: letter.at or self._clock.now(),
                EXCHANGE: as_unicode(letter.exchange, MAX_NAME),
                ROUTING_KEY: as_unicode(letter.routing_key, MAX_NAME),
                SIZE: letter.size,
                PROPERTIES: properties.decode(),
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
                ticket = _ticket.decode(body)
                if not ticket.later:
                    exchange, body = self._names.submit, _as_submission(ticket)
        if exchange == "" and letter.routing_key != self._names.intake:
            raise CannotRequeue(f"it was sent to the queue {letter.routing_key!r}, which takes no submissions")
        if exchange not in ("", self._names.submit, self._names.jobs):
            raise CannotRequeue(f"it came from the exchange {exchange!r}, which is none of ours")
        given = letter.properties
        headers = {
            name: value
            for name, value in object_of(given.get("headers")).items()
            if isinstance(value, str | int) and not name.startswith("x-") and len(name.encode()) < 128
            if isinstance(value, str) or value in INTEGERS
        }
        headers.pop(PUT_BACK_SINCE, None)
        if name := text_of(given.get("message_id")) or (letter.id if letter.named else ""):
            headers[MESSAGE_ID_HEADER] = name
        content_type, correlation_id = text_of(given.get("content_type")), text_of(given.get("correlation_id"))
        for value in (letter.routing_key, content_type, correlation_id):
            if len(value.encode(errors="replace")) > SHORT_BYTES:
                raise CannotRequeue(f"AMQP allows {SHORT_BYTES} bytes, and not {shown(value)}")
        if "\ufffd" in letter.routing_key:
            raise CannotRequeue(
                f"its routing key was not UTF-8, and is not known any more: {shown(letter.routing_key)}"
            )
        return Message(
            exchange=exchange,
            routing_key=letter.routing_key,
            body=body,
            headers=headers,
            content_type=content_type or "application/json",
            correlation_id=correlation_id or None,
        )


def _as_submission(ticket: Ticket) -> bytes:
    """A ticket in the words of PROTOCOL.md."""
    members: dict[str, Any] = {"id": ticket.id, "queue": ticket.queue, "task": ticket.task, "args": ticket.args}
    members |= {"kwargs": ticket.kwargs, "priority": ticket.priority}
    optional = {"retries": ticket.retries, "backoff": ticket.backoff or None, "meta": ticket.meta or None}
    members |= {name: value for name, value in optional.items() if value is not None}
    if ticket.timeout is not None:
        members["timeout"] = ticket.timeout / 1000
    return encode(members)
