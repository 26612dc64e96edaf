"""The methods of AMQP 0-9-1 that carry the load, to and from bytes: publish, ack, nack; deliver, return, the confirms.

Everything else (handshake, channels, declarations, heartbeats) is aiormq's.
"""

from __future__ import annotations

import struct
from math import isfinite

from msgspec import Struct
from pamqp import encode

from ..message import Message

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8  # kinds of frames
FRAME_OVERHEAD = 8
FRAME_END = 0xCE
FRAME_MAX = 131_072  # bytes; what RabbitMQ proposes
BESIDES_HEADERS = 2048  # bytes of a header frame: at most 6 short texts of 256, and numbers
HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"

BASIC_CANCEL = 60 << 16 | 30
BASIC_RETURN = 60 << 16 | 50
BASIC_DELIVER = 60 << 16 | 60
BASIC_ACK = 60 << 16 | 80
BASIC_NACK = 60 << 16 | 120
CHANNEL_CLOSE = 20 << 16 | 40
CONNECTION_CLOSE = 10 << 16 | 50
CONNECTION_BLOCKED = 10 << 16 | 60
CONNECTION_UNBLOCKED = 10 << 16 | 61

_END = b"\xce"
_FRAME = struct.Struct(">BHI")
_PUBLISH = struct.pack(">HHH", 60, 40, 0)
_CONTENT_FRAME = struct.Struct(">BHIHHQH")
_TAG_AND_BITS = struct.Struct(">QB")
_SETTLE = struct.Struct(">BHIIQBB")
_NACK_BITS_REQUEUE = 2
_MESSAGE_ID = 1 << 7
_NOTHING = (None, None, None)


class Shape(Struct, frozen=True):
    """All of a message to publish but its id and its body: the payload of the method frame, and the flags and bytes of
    the properties before the id, which is the last one that is sent."""

    method: bytes
    flags: int
    properties: bytes


def _short(text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > 255:
        raise ValueError(f"AMQP allows 255 bytes here, not {len(encoded)}: {text[:40]!r}...")
    return bytes((len(encoded),)) + encoded


def _read_short(arguments: bytes, position: int) -> tuple[str, int]:
    end = position + 1 + arguments[position]
    return arguments[position + 1 : end].decode(errors="replace"), end


def _is_finite(value: object) -> bool:
    """Whether no number in it is endless or none, however deep."""
    if isinstance(value, float):
        return isfinite(value)
    return all(map(_is_finite, value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()))


def shape(message: Message, *, frame_max: int = FRAME_MAX) -> Shape:
    """ValueError: AMQP cannot carry a value, or not in a frame of `frame_max` bytes: RabbitMQ would hang up."""
    method = (
        _PUBLISH + _short(message.exchange) + _short(message.routing_key) + (b"\x01" if message.mandatory else b"\x00")
    )
    flags = 1 << 15 | 1 << 12 | _MESSAGE_ID
    parts = [_short(message.content_type)]
    if message.headers:
        if not _is_finite(message.headers):
            raise ValueError("a header is not a finite number: RabbitMQ would close the connection")
        flags |= 1 << 13
        try:
            table = encode.field_table(message.headers)
        except (TypeError, AttributeError) as error:  # a value, or a name, of a type that AMQP does not have
            raise ValueError(f"AMQP cannot carry these headers: {error}") from error
        if len(table) > frame_max - BESIDES_HEADERS:
            raise ValueError(f"{len(table)} bytes of headers; with the other properties, a frame takes {frame_max}")
        parts.append(table)
    parts.append(b"\x02" if message.persistent else b"\x01")
    if message.priority is not None:
        flags |= 1 << 11
        parts.append(bytes((message.priority,)))
    if message.correlation_id is not None:
        flags |= 1 << 10
        parts.append(_short(message.correlation_id))
    if message.reply_to is not None:
        flags |= 1 << 9
        parts.append(_short(message.reply_to))
    if message.expiration is not None:
        flags |= 1 << 8
        parts.append(_short(str(message.expiration)))
    return Shape(method, flags, b"".join(parts))


class Shapes:
    """Remembers the shapes of messages that differ in their bodies only: most do."""

    REMEMBERED = 256

    def __init__(self) -> None:
        self._shapes: dict[tuple[object, ...], Shape] = {}
        self.frame_max = FRAME_MAX

    def __len__(self) -> int:
        return len(self._shapes)

    def of(self, message: Message) -> Shape:
        if message.headers or (message.correlation_id, message.reply_to, message.expiration) != _NOTHING:
            return shape(message, frame_max=self.frame_max)
        key = (
            message.exchange,
            message.routing_key,
            message.priority,
            message.persistent,
            message.mandatory,
            message.content_type,
        )
        known = self._shapes.get(key)
        if known is None:
            if len(self._shapes) >= self.REMEMBERED:
                self._shapes.clear()
            known = self._shapes[key] = shape(message)
        return known


def publish_frames(*, channel: int, shape: Shape, message_id: bytes, body: bytes, frame_max: int) -> bytes:
    """A message, ready to be written at once. `message_id`: up to 255 bytes."""
    method, properties = shape.method, shape.properties
    size = len(body)
    parts = [
        _FRAME.pack(METHOD, channel, len(method)),
        method,
        _END,
        _CONTENT_FRAME.pack(HEADER, channel, 15 + len(properties) + len(message_id), 60, 0, size, shape.flags),
        properties,
        bytes((len(message_id),)),
        message_id,
        _END,
    ]
    room = frame_max - FRAME_OVERHEAD
    if 0 < size <= room:
        parts += (_FRAME.pack(BODY, channel, size), body, _END)
    else:
        for start in range(0, size, room):
            part = body[start : start + room]
            parts += (_FRAME.pack(BODY, channel, len(part)), part, _END)
    return b"".join(parts)


def ack_frame(*, channel: int, tag: int, multiple: bool) -> bytes:
    return _SETTLE.pack(METHOD, channel, 13, BASIC_ACK, tag, multiple, FRAME_END)


def nack_frame(*, channel: int, tag: int, requeue: bool) -> bytes:
    return _SETTLE.pack(METHOD, channel, 13, BASIC_NACK, tag, _NACK_BITS_REQUEUE if requeue else 0, FRAME_END)


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return _FRAME.pack(kind, channel, len(payload)) + payload + _END


def read_confirm(arguments: bytes) -> tuple[int, bool]:
    """(delivery tag, multiple) of basic.ack or basic.nack."""
    tag, bits = _TAG_AND_BITS.unpack_from(arguments)
    return tag, bool(bits & 1)


def read_address(names: bytes) -> tuple[str, str]:
    """Exchange and routing key, the last arguments of basic.deliver. Names may be any bytes on the wire; what is not
    UTF-8 is replaced."""
    exchange, position = _read_short(names, 0)
    return exchange, _read_short(names, position)[0]


def read_close(arguments: bytes) -> tuple[int, str]:
    """(reply code, reply text) of channel.close or connection.close."""
    return int.from_bytes(arguments[:2], "big"), _read_short(arguments, 2)[0]
