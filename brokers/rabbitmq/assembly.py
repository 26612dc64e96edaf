"""The frames of one channel that carry the load, put together: method, header and body become one call of a listener.

    deliver + header + body  -> Listener.delivered      ack, nack -> Listener.confirmed
    return  + header + body  -> Listener.returned       close, cancel by the server -> Listener.ended, and aiormq's too

What came whole in one read, as most messages do, is taken without a step between (`whole`); the rest frame by frame.
"""

from __future__ import annotations

from struct import Struct
from typing import Protocol

from ..contract import BODY_KEPT
from . import codec
from .delivery import Address

ADDRESSES = 1024  # remembered; a consumer of a job queue meets one

_DELIVER = codec.BASIC_DELIVER.to_bytes(4, "big")
_HEAD = Struct(">BHI").unpack_from
_CONTENT_HEAD = Struct(">BHIHHQ").unpack_from
_TAG_AND_BITS = Struct(">QB").unpack_from
_SMALLEST = 30  # bytes before the end of which the heads of a method frame and of a header frame cannot both be whole


class Ending(Protocol):
    def ended(self, code: int, reason: str) -> None:
        """By the server: the channel (`code` is AMQP's), its consumer (0) or the connection (0). Called once."""
        ...


class Listener(Ending, Protocol):
    """What happens on one channel, said from within the reading of the socket: it must not raise and not block."""

    def delivered(self, tag: int, redelivered: bool, address: Address, header: bytes, body: bytes) -> None:
        """`body` is cut to BODY_KEPT bytes where it was longer than the limit; the header says how long it was."""
        ...

    def returned(self, header: bytes) -> None: ...

    def confirmed(self, tag: int, multiple: bool, taken: bool) -> None: ...


class Assembly:
    def __init__(self, channel: int, listener: Listener, body_limit: int) -> None:
        self.listener = listener
        self._channel = channel
        self._body_limit = body_limit
        self._addresses: dict[bytes, Address] = {}
        self._method = 0  # whose content is still coming
        self._arguments = b""
        self._header = b""
        self._parts: list[bytes] = []
        self._missing = 0
        self._room = 0  # bytes of this body that may still be kept

    def whole(self, data: bytes, position: int) -> int:
        """Take the deliveries that begin at `position`, one behind the other, each with its body in one frame; say
        where they end."""
        channel, limit, addresses = self._channel, self._body_limit, self._addresses
        delivered = self.listener.delivered
        end = len(data)
        while end - position > _SMALLEST and data.startswith(_DELIVER, position + 7):
            kind, number, size = _HEAD(data, position)
            header = position + size + 8
            if kind != codec.METHOD or number != channel or header + 22 > end:
                break
            kind, number, size, _, _, missing = _CONTENT_HEAD(data, header)
            body = header + size + 8
            if kind != codec.HEADER or number != channel or missing > limit or body + 8 > end:
                break
            kind, number, size = _HEAD(data, body)
            after = body + size + 8
            if kind != codec.BODY or number != channel or size != missing or after > end:
                break
            if not data[header - 1] == data[body - 1] == data[after - 1] == codec.FRAME_END:
                break
            at = position + 12 + data[position + 11]  # behind the consumer's tag
            tag, redelivered = _TAG_AND_BITS(data, at)
            named = data[at + 9 : header - 1]
            delivered(
                tag,
                bool(redelivered),
                addresses.get(named) or self._address(named),
                data[header + 7 : body - 1],
                data[body + 7 : after - 1],
            )
            position = after
        return position

    def take(self, kind: int, payload: bytes) -> bytes | None:
        """What of a frame is for aiormq; None: nothing."""
        if kind == codec.METHOD:
            return self._take_method(int.from_bytes(payload[:4], "big"), payload)
        if not self._method:
            return payload
        if kind == codec.HEADER:
            self._header = payload
            self._missing = int.from_bytes(payload[4:12], "big")
            self._room = self._missing if self._missing <= self._body_limit else BODY_KEPT
        else:
            self._missing -= len(payload)
            if self._room > 0:
                self._parts.append(payload[: self._room])
                self._room -= len(payload)
        if self._missing <= 0:
            self._complete()
        return None

    def _take_method(self, method: int, payload: bytes) -> bytes | None:
        arguments = payload[4:]
        if method in (codec.BASIC_DELIVER, codec.BASIC_RETURN):
            self._method, self._arguments = method, arguments
            return None
        if method in (codec.BASIC_ACK, codec.BASIC_NACK):
            tag, multiple = codec.read_confirm(arguments)
            self.listener.confirmed(tag, multiple, method == codec.BASIC_ACK)
            return None
        tell_of_end(self.listener, method, arguments)
        return payload

    def _complete(self) -> None:
        method, arguments, header, body = self._method, self._arguments, self._header, b"".join(self._parts)
        self._method, self._arguments, self._header, self._parts = 0, b"", b"", []
        if method == codec.BASIC_RETURN:
            self.listener.returned(header)
            return
        at = 1 + arguments[0]
        tag, redelivered = _TAG_AND_BITS(arguments, at)
        self.listener.delivered(tag, bool(redelivered), self._address(arguments[at + 9 :]), header, body)

    def _address(self, named: bytes) -> Address:
        address = self._addresses.get(named)
        if address is None:
            if len(self._addresses) >= ADDRESSES:
                self._addresses.clear()
            address = self._addresses[named] = Address(*codec.read_address(named))
        return address


def tell_of_end(listener: Ending, method: int, arguments: bytes) -> None:
    """Where a method says that its channel or its consumer has ended."""
    if method == codec.CHANNEL_CLOSE:
        listener.ended(*codec.read_close(arguments))
    elif method == codec.BASIC_CANCEL:
        listener.ended(0, "the server cancelled the consumer")
