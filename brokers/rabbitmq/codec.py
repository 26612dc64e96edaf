"""The five methods of AMQP 0-9-1 that carry the load, to and from bytes: publish, ack, nack; deliver, return.

Everything else (handshake, channels, declarations, heartbeats) is aio-pika's.
"""

from __future__ import annotations

import struct
from math import isfinite

from msgspec import Struct
from pamqp import encode

from ..message import Message

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8  # kinds of frames
FRAME_OVERHEAD = 8
HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"

BASIC_CANCEL = 60 << 16 | 30
BASIC_RETURN = 60 << 16 | 50
BASIC_DELIVER = 60 << 16 | 60
BASIC_ACK = 60 << 16 | 80
BASIC_NACK = 60 << 16 | 120
CHANNEL_CLOSE = 20 << 16 | 40
CONNECTION_BLOCKED = 10 << 16 | 60
CONNECTION_UNBLOCKED = 10 << 16 | 61

_FRAME = struct.Struct(">BHI")
_PUBLISH = struct.pack(">HHH", 60, 40, 0)
_CONTENT = struct.Struct(">HHQH")
_TAG_AND_BITS = struct.Struct(">QB")
_SETTLE = struct.Struct(">BHIIQBB")
_NACK_BITS_REQUEUE = 2


class Delivered(Struct):
    """The arguments of basic.deliver. Names may be any bytes on the wire; what is not UTF-8 is replaced."""

    tag: int
    redelivered: bool
    exchange: str
    routing_key: str


def _short(text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > 255:
        raise ValueError(f"AMQP allows 255 bytes here, not {len(encoded)}: {text[:40]!r}...")
    return bytes((len(encoded),)) + encoded


def _read_short(arguments: bytes, position: int) -> tuple[str, int]:
    end = position + 1 + arguments[position]
    return arguments[position + 1 : end].decode(errors="replace"), end


def publish_payloads(message: Message, message_id: str) -> tuple[bytes, bytes]:
    """The payloads of the method frame and of the content header. ValueError: AMQP cannot carry a value."""
    method = (
        _PUBLISH + _short(message.exchange) + _short(message.routing_key) + (b"\x01" if message.mandatory else b"\x00")
    )
    flags = 1 << 15 | 1 << 12 | 1 << 7
    parts = [_short(message.content_type)]
    if message.headers:
        if not all(isfinite(value) for value in message.headers.values() if isinstance(value, float)):
            raise ValueError("a header is not a finite number: RabbitMQ would close the connection")
        flags |= 1 << 13
        parts.append(encode.field_table(message.headers))
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
    parts.append(_short(message_id))
    return method, _CONTENT.pack(60, 0, len(message.body), flags) + b"".join(parts)


def content_frames(*, channel: int, method: bytes, header: bytes, body: bytes, frame_max: int) -> bytes:
    """A method with its content, ready to be written at once."""
    frames = [
        _FRAME.pack(METHOD, channel, len(method)),
        method,
        b"\xce",
        _FRAME.pack(HEADER, channel, len(header)),
        header,
        b"\xce",
    ]
    room = frame_max - FRAME_OVERHEAD
    for start in range(0, len(body), room):
        part = body[start : start + room]
        frames += (_FRAME.pack(BODY, channel, len(part)), part, b"\xce")
    return b"".join(frames)


def ack_frame(*, channel: int, tag: int, multiple: bool) -> bytes:
    return _SETTLE.pack(METHOD, channel, 13, BASIC_ACK, tag, multiple, 0xCE)


def nack_frame(*, channel: int, tag: int, requeue: bool) -> bytes:
    return _SETTLE.pack(METHOD, channel, 13, BASIC_NACK, tag, _NACK_BITS_REQUEUE if requeue else 0, 0xCE)


def read_confirm(arguments: bytes) -> tuple[int, bool]:
    """(delivery tag, multiple) of basic.ack or basic.nack."""
    tag, bits = _TAG_AND_BITS.unpack_from(arguments)
    return tag, bool(bits & 1)


def read_deliver(arguments: bytes) -> Delivered:
    position = 1 + arguments[0]  # behind the consumer's tag
    tag, redelivered = _TAG_AND_BITS.unpack_from(arguments, position)
    exchange, position = _read_short(arguments, position + 9)
    return Delivered(tag, bool(redelivered), exchange, _read_short(arguments, position)[0])


def read_close(arguments: bytes) -> tuple[int, str]:
    """(reply code, reply text) of channel.close."""
    return int.from_bytes(arguments[:2], "big"), _read_short(arguments, 2)[0]
