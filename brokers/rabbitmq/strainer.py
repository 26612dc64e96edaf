"""On the plain path aiormq reads every frame; what would break it, or its memory, is taken out before.

- A content header that the installed pamqp cannot decode is replaced by an empty one that says why: see tolerant.py.
- A routing key that is not UTF-8, which pamqp cannot decode either, gets replacement characters.
- A body over a consumer's limit is cut to BODY_KEPT bytes; `size` tells how long it was.
- What ends a channel is told to its listener at once, as on the fast path, and passed on.
"""

from __future__ import annotations

import struct

from pamqp import encode
from pamqp import frame as pamqp_frame

from ..contract import BODY_KEPT
from . import codec, tolerant
from .assembly import Ending, tell_of_end

_HEADERS = 1 << 13
_FLAGS_AT = 12
# Nested tables are decoded by recursion. aiormq decodes with some twenty calls more on the stack than this module has.
MARGIN_CALLS = 60


class Strainer:
    def __init__(self, listener: Ending, body_limit: int) -> None:
        self.listener = listener
        self._body_limit = body_limit
        self._tag = 0  # of the delivery whose content is coming; 0: a returned message, or none
        self._room: int | None = None  # bytes of the body that may still pass; None: all
        self._sizes: dict[int, int] = {}
        self._missing = 0  # bytes of the body that are still to pass
        self.passed = 0  # deliveries that aiormq has been given whole

    def size(self, tag: int) -> int | None:
        """How long the body of a delivery was that has been cut; None: it is whole. Asked once."""
        return self._sizes.pop(tag, None)

    def whole(self, data: bytes, position: int) -> int:
        """Nothing is taken in one step here."""
        return position

    def take(self, kind: int, payload: bytes) -> bytes | None:
        """What of a frame is for aiormq; None: nothing."""
        if kind == codec.METHOD:
            method = int.from_bytes(payload[:4], "big")
            if method == codec.BASIC_DELIVER:
                at = 5 + payload[4]  # behind the consumer's tag
                self._tag = int.from_bytes(payload[at : at + 8], "big")
                if not payload.isascii():
                    return payload[: at + 9] + b"".join(map(_replaced, codec.read_address(payload[at + 9 :])))
            elif method == codec.BASIC_RETURN:
                self._tag = 0
            else:
                tell_of_end(self.listener, method, payload[4:])
            return payload
        if kind == codec.HEADER:
            return self._header(payload)
        if self._room is not None:
            payload = payload[: self._room]
            self._room -= len(payload)
        self._pass(len(payload))
        return payload or None

    def _header(self, payload: bytes) -> bytes:
        self._room = None
        size = tolerant.body_size(payload)
        if self._tag and size > self._body_limit:
            self._sizes[self._tag] = size
            self._room = min(size, BODY_KEPT)
            payload = payload[:4] + self._room.to_bytes(8, "big") + payload[12:]
        self._missing = size if self._room is None else self._room
        self._pass(0)
        reason = undecodable(payload)
        if reason is None:
            return payload
        table = encode.field_table({tolerant.UNDECODABLE: reason})
        return payload[:12].ljust(12, b"\0") + struct.pack(">H", _HEADERS) + table

    def _pass(self, size: int) -> None:
        self._missing -= size
        if not self._missing and self._tag:
            self.passed += 1
            self._tag = 0


def _replaced(name: str) -> bytes:
    encoded = name.encode()
    if len(encoded) > 255:
        encoded = encoded[:255].decode(errors="ignore").encode()
    return bytes((len(encoded),)) + encoded


def undecodable(header: bytes) -> str | None:
    """Why the installed pamqp, or our own decoder, cannot decode a content header; None: both can."""
    try:
        tolerant.decoded(header)
        if header[_FLAGS_AT] & (_HEADERS >> 8):
            _deeper(MARGIN_CALLS, header)
    except tolerant.Undecodable as reason:
        return str(reason)
    except Exception as error:  # as in tolerant.py
        return f"{type(error).__name__}: {error}"[: tolerant.REASON_CHARACTERS]
    return None


def _deeper(calls: int, header: bytes) -> None:
    if calls:
        _deeper(calls - 1, header)
    else:
        pamqp_frame.unmarshal(codec.frame(codec.HEADER, 0, header))
