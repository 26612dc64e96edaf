"""The properties of a received message, whatever bytes they are made of.

A content header that cannot be decoded must not close the connection: the broker would deliver the message again, to
close the next one, for ever. It becomes an empty set of properties with one header, `x-undecodable`, that holds the
reason; the body and the delivery tag are known, so that the receiver can put the message aside.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

from msgspec import Struct, field
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
_FLAGS = struct.Struct(">H")
_FLAGS_AT, _FIRST = 12, 14  # behind class, weight and the size of the body


class Properties(Struct):
    content_type: str | None = None
    content_encoding: str | None = None
    headers: dict[str, Any] = field(default_factory=dict)
    correlation_id: str | None = None
    reply_to: str | None = None
    message_id: str | None = None


_KEPT = frozenset(Properties.__struct_fields__)


class Undecodable(Exception):
    """Why a content header cannot be decoded, in REASON_CHARACTERS at most."""


def body_size(header: bytes) -> int:
    """The number of bytes that follow a content header; 0 where it is too short to say."""
    return int.from_bytes(header[4:12], "big")


def properties(header: bytes) -> Properties:
    """Decode the payload of a content header frame; never raises."""
    try:
        return decoded(header)
    except Undecodable as reason:
        return Properties(headers={UNDECODABLE: str(reason)})


def decoded(header: bytes) -> Properties:
    """The same, or Undecodable."""
    try:
        return _decode(header)
    except Exception as error:  # hostile bytes raise anything: RecursionError, UnicodeDecodeError, OverflowError ...
        raise Undecodable(f"{type(error).__name__}: {error}"[:REASON_CHARACTERS]) from error


@lru_cache(maxsize=64)
def _plan(flags: int) -> tuple[tuple[str, int, bool], ...]:
    """What follows these flags: (property, kind, whether it is kept). Few sets of flags are ever seen."""
    if flags & 1:
        raise ValueError("more than 15 property flags")
    return tuple((name, kind, name in _KEPT) for flag, name, kind in _PROPERTIES if flags & flag)


def _decode(header: bytes) -> Properties:
    found = Properties()
    position, end = _FIRST, len(header)
    for name, kind, kept in _plan(_FLAGS.unpack_from(header, _FLAGS_AT)[0]):
        start = position
        value: Any = None
        if kind == _TEXT:
            position = start + 1 + header[start]
            value = header[start + 1 : position].decode()
        elif kind == _TABLE:
            position = start + 4 + int.from_bytes(header[start : start + 4], "big")
            if position - start > TABLE_BYTES:
                raise ValueError(f"{position - start} bytes of headers, the limit is {TABLE_BYTES}")
            value = decode.field_table(header[start:position])[1]
        elif kind == _OCTET:
            position = start + 1
        else:
            position = start + 8
            decode.timestamp(header[start:position])
        if position > end:
            raise ValueError(f"the property {name} is cut off")
        if kept:
            setattr(found, name, value)
    return found
