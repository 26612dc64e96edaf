"""The properties of a received message, whatever bytes they are made of.

A content header that cannot be decoded must not close the connection: the broker would deliver the message again, to
close the next one, for ever. It becomes an empty set of properties with one header, `x-undecodable`, that holds the
reason; the body and the delivery tag are known, so that the receiver can put the message aside.
"""

from __future__ import annotations

import struct
from typing import Any

from msgspec import Struct
from pamqp import decode

UNDECODABLE = "x-undecodable"
REASON_CHARACTERS = 200
# pamqp copies the rest of a table for each of its fields: 20,000 fields in one frame would hold the loop for a second.
TABLE_BYTES = 32 * 1024

_TEXT, _TABLE, _OCTET, _TIMESTAMP = range(4)

# In the order in which they are sent; the first has the highest bit.
_PROPERTIES: tuple[tuple[int, str, int], ...] = (
    (1 << 15, "content_type", _TEXT),
    (1 << 14, "content_encoding", _TEXT),
    (1 << 13, "headers", _TABLE),
    (1 << 12, "delivery_mode", _OCTET),
    (1 << 11, "priority", _OCTET),
    (1 << 10, "correlation_id", _TEXT),
    (1 << 9, "reply_to", _TEXT),
    (1 << 8, "expiration", _TEXT),
    (1 << 7, "message_id", _TEXT),
    (1 << 6, "timestamp", _TIMESTAMP),
    (1 << 5, "message_type", _TEXT),
    (1 << 4, "user_id", _TEXT),
    (1 << 3, "app_id", _TEXT),
    (1 << 2, "cluster_id", _TEXT),
)
_HEAD = struct.Struct(">HHQH")  # class, weight, size of the body, flags


class Properties(Struct):
    content_type: str | None = None
    content_encoding: str | None = None
    headers: dict[str, Any] | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    message_id: str | None = None


_KEPT = frozenset(Properties.__struct_fields__)


def body_size(header: bytes) -> int:
    """The number of bytes that follow a content header; 0 where it is too short to say."""
    return int.from_bytes(header[4:12], "big")


def properties(header: bytes) -> Properties:
    """Decode the payload of a content header frame; never raises."""
    try:
        return _decode(header)
    except Exception as error:  # hostile bytes raise anything: RecursionError, UnicodeDecodeError, OverflowError ...
        return Properties(headers={UNDECODABLE: f"{type(error).__name__}: {error}"[:REASON_CHARACTERS]})


def _decode(header: bytes) -> Properties:
    flags = _HEAD.unpack_from(header)[3]
    if flags & 1:
        raise ValueError("more than 15 property flags")
    found = Properties()
    position = _HEAD.size
    for flag, name, kind in _PROPERTIES:
        if not flags & flag:
            continue
        value: Any = None
        if kind == _TEXT:
            end = position + 1 + header[position]
            value = header[position + 1 : end].decode()
        elif kind == _TABLE:
            end = position + 4 + int.from_bytes(header[position : position + 4], "big")
            if end - position > TABLE_BYTES:
                raise ValueError(f"{end - position} bytes of headers, the limit is {TABLE_BYTES}")
            value = decode.field_table(header[position:end])[1]
        elif kind == _OCTET:
            end = position + 1
        else:
            end = position + 8
            decode.timestamp(header[position:end])
        if end > len(header):
            raise ValueError(f"the property {name} is cut off")
        if name in _KEPT:
            setattr(found, name, value)
        position = end
    return found
