"""Puts aside what can't be used: on `callboard.dead`, with what is known of it in its headers. Nothing is dropped.

    callboard-letter        the letter's own id
    callboard-reason        a word that can be counted; PROTOCOL.md lists them
    callboard-detail        a sentence, with the value and the limit
    callboard-path          where in the body, as a JSON pointer
    callboard-time          ms since the Unix epoch
    callboard-exchange      where it was published, and with which
    callboard-routing-key   routing key
    callboard-size          bytes of the body, of which the first 64 KiB are kept
    callboard-properties    its properties and headers, as JSON

A letter is taken away by the broker once it is older than `dead_letter_seconds`; beyond `dead_letter_count` the
retention actor takes the oldest away.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field, structs

from ..brokers.errors import BrokerUnavailable
from ..brokers.message import Delivery, Message, Receipt
from .connections import Connections
from .job_id import MAX_ID_BYTES, check_queue
from .settings import Settings

if TYPE_CHECKING:
    from .actor import Stage  # whose mailbox puts aside what is no command

PUT_BACK_SINCE = "callboard-put-back-since"  # ms since the Unix epoch; a header of what is not yet a letter

MAX_BODY = 64 * 1024  # bytes of the original that are kept
MAX_DETAIL = 1000
MAX_NAME = 500  # characters of a routing key or an exchange: a byte that is no UTF-8 has become a character of three
MAX_PROPERTIES = 8 * 1024

LETTER, REASON, DETAIL, PATH, TIME, EXCHANGE, ROUTING_KEY, SIZE, PROPERTIES = (
    f"callboard-{name}"
    for name in ("letter", "reason", "detail", "path", "time", "exchange", "routing-key", "size", "properties")
)
OURS = frozenset({LETTER, REASON, TIME, SIZE})

log = logging.getLogger(__name__)


class Letter(Struct, frozen=True, kw_only=True):
    """`body`: what could not be used, which may be a part of the delivery's. `message_id`: what a job made of it would
    be called, where the delivery's own does not say. A letter that is published twice has one `id`."""

    queue: str | None
    body: bytes
    size: int
    reason: str
    detail: str
    delivery: Delivery
    path: str = ""
    message_id: str | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(8))


class DeadLetters:
    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def keep(self, letters: Sequence[Letter]) -> list[Letter]:
        """Those that the broker has not confirmed; the call may be repeated with them."""
        if not letters:
            return []
        receipts = await self._publish(letters)
        return [one for one, receipt in zip(letters, receipts, strict=True) if receipt is not Receipt.CONFIRMED]

    async def insist(self, letter: Letter, stage: Stage) -> bool:
        """Try until it is kept; False where its delivery is lost or the stage stops: then it comes again."""
        failures = 0
        while not letter.delivery.lost and not stage.stopping.is_set():
            if not await self.keep([letter]):
                return True
            failures += 1
            await stage.sleep(stage.backoff(failures))
        return False

    async def _publish(self, letters: Sequence[Letter]) -> Sequence[Receipt]:
        connections = self._connections
        timeout = connections.settings.confirm_timeout
        messages = [self.message(letter) for letter in letters]
        try:
            receipts = await connections.broker.publish(messages, timeout=timeout)
        except ValueError as error:  # a fault of ours, which must not hold up what came with it
            log.error("%d letters are put aside without what is known of them: %s", len(letters), error)
            messages = [_bare(message) for message in messages]
            receipts = await connections.broker.publish(messages, timeout=timeout)
        if Receipt.RETURNED in receipts:  # somebody deleted the queue
            try:
                await connections.broker.redeclare(connections.names.exchanges())
            except BrokerUnavailable:
                return receipts
            receipts = await connections.broker.publish(messages, timeout=timeout)
        return receipts

    def message(self, letter: Letter) -> Message:
        delivery = letter.delivery
        headers: dict[str, Any] = {
            LETTER: letter.id,
            REASON: letter.reason,
            DETAIL: as_unicode(letter.detail, MAX_DETAIL),
            TIME: self._connections.clock.now(),
            EXCHANGE: as_unicode(delivery.exchange, MAX_NAME),
            ROUTING_KEY: as_unicode(delivery.routing_key, MAX_NAME),
            SIZE: letter.size,
            PROPERTIES: encode_properties(delivery, letter.message_id),
        }
        if letter.path:
            headers[PATH] = as_unicode(letter.path, MAX_DETAIL)
        return Message(
            exchange=self._connections.names.dead,
            routing_key=letter.queue or letter.reason,
            body=letter.body[:MAX_BODY],
            headers=headers,
            expiration=lifetime(self._connections.settings),
        )


def _bare(message: Message) -> Message:
    """With nothing in its headers that a stranger wrote."""
    headers = {name: value for name, value in (message.headers or {}).items() if name in OURS}
    return structs.replace(message, headers=headers)


def lifetime(settings: Settings) -> int | None:
    """For how many ms the broker keeps a letter; None: for ever."""
    seconds = settings.dead_letter_seconds
    return None if seconds is None else round(seconds * 1000)


def queue_of(delivery: Delivery) -> str | None:
    """The job queue that a routing key names, if it can be one."""
    try:
        return check_queue(delivery.routing_key)
    except ValueError:
        return None


def encode_properties(
    delivery: Delivery, message_id: str | None = None, headers: Mapping[str, Any] | None = None
) -> str:
    """JSON that fits into a header, whatever a stranger put there; without the headers where they are too much.
    `headers` None: the delivery's."""
    known = {
        "message_id": message_id if message_id and _is_short(message_id) else delivery.message_id,
        "correlation_id": delivery.correlation_id,
        "reply_to": delivery.reply_to,
        "content_type": delivery.content_type,
        "content_encoding": delivery.content_encoding,
    }
    given: dict[str, Any] = {name: value for name, value in known.items() if value is not None and _is_short(value)}
    try:
        kept = delivery.headers if headers is None else headers
        encoded = msgspec.json.encode({**given, "headers": kept}, enc_hook=repr)
    except (ValueError, TypeError, RecursionError) as error:
        encoded = msgspec.json.encode({**given, "headers_left_out": f"{type(error).__name__}"})
    if len(encoded) > MAX_PROPERTIES:
        encoded = msgspec.json.encode({**given, "headers_left_out": f"{len(encoded)} bytes"})
    return encoded.decode()


def _is_short(text: str) -> bool:
    """It is Unicode, and of the length that AMQP allows for a property, or we for an id."""
    try:
        return len(text.encode()) <= MAX_ID_BYTES
    except UnicodeEncodeError:
        return False


def as_unicode(text: str, limit: int) -> str:
    """Text that AMQP can carry: a lone surrogate is written as an escape."""
    return text[:limit].encode(errors="backslashreplace").decode()
