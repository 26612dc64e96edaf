"""Reads recorded frames with pamqp, which is not what the broker reads them with, into the events of one channel."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import Any

from pamqp import commands, exceptions
from pamqp import frame as pamqp_frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

Event = list[Any]  # its name, then its values


def frames_in(data: bytes) -> Iterator[bytes]:
    """Whole frames; a part of one at the end is left out."""
    while len(data) > 7:
        size = struct.unpack_from(">I", data, 3)[0] + 8
        if len(data) < size:
            return
        yield data[:size]
        data = data[size:]


def digest(body: bytes) -> str:
    """The body, or where it is long its length and its hash."""
    return body.hex() if len(body) <= 32 else f"{len(body)} bytes, sha256 {hashlib.sha256(body).hexdigest()[:16]}"


def expected_of(said: bytes, channel: int) -> list[Event]:
    """What a server's frames mean to whoever listens to one channel, and names of the frames that nobody here takes."""
    events: list[Event] = []
    method: Any = None
    properties: Any = None
    missing, body = 0, b""
    for raw in frames_in(said):
        number = struct.unpack_from(">H", raw, 1)[0]
        decoded = _decoded(raw)
        if number == 0:
            match decoded:
                case commands.Connection.Blocked():
                    events.append(["blocked", True])
                case commands.Connection.Unblocked():
                    events.append(["blocked", False])
            events.append(["passed", type(decoded).__name__])
            continue
        if number != channel:
            events.append(["passed", type(decoded).__name__])
            continue
        match decoded:
            case commands.Basic.Deliver() | commands.Basic.Return():
                method, properties = decoded, None
                continue
            case ContentHeader():
                found = decoded.properties
                properties = {name: getattr(found, name) for name in KEPT} | {"headers": repr(found.headers or {})}
                missing, body = decoded.body_size or 0, b""
            case str():  # nobody can decode this header
                properties = {"undecodable": True}
                missing, body = struct.unpack_from(">Q", raw, 11)[0], b""
            case ContentBody():
                body += decoded.value or b""
                missing -= len(decoded.value or b"")
            case commands.Basic.Ack() | commands.Basic.Nack():
                taken = isinstance(decoded, commands.Basic.Ack)
                events.append(["confirmed", decoded.delivery_tag, bool(decoded.multiple), taken])
                continue
            case commands.Channel.Close():
                events += [["ended", decoded.reply_code, decoded.reply_text], ["passed", "Close"]]
                continue
            case commands.Basic.Cancel():
                events += [["ended", 0, "the server cancelled the consumer"], ["passed", "Cancel"]]
                continue
            case _:
                events.append(["passed", type(decoded).__name__])
                continue
        if missing == 0:
            if isinstance(method, commands.Basic.Return):
                events.append(["returned", properties["message_id"]])
            else:
                where = [method.delivery_tag, method.redelivered, method.exchange, method.routing_key]
                events.append(["delivered", *where, properties, digest(body)])
            method = None
    return events


KEPT = ("content_type", "content_encoding", "correlation_id", "reply_to", "message_id")


def _decoded(raw: bytes) -> Any:
    """pamqp's frame; a text for a header that it cannot read; replacements in names that are not UTF-8."""
    try:
        return pamqp_frame.unmarshal(raw)[2]
    except (exceptions.PAMQPException, RecursionError, OverflowError):
        if raw[0] == 2:
            return "undecodable"
        if raw[7:11] != struct.pack(">HH", 60, 60):
            raise
    at = 12 + raw[11]
    tag, redelivered = struct.unpack_from(">QB", raw, at)
    exchange_end = at + 10 + raw[at + 9]
    return commands.Basic.Deliver(
        consumer_tag=raw[12:at].decode(),
        delivery_tag=tag,
        redelivered=bool(redelivered),
        exchange=raw[at + 10 : exchange_end].decode(errors="replace"),
        routing_key=raw[exchange_end + 1 : -1].decode(errors="replace"),
    )
