"""An AMQP publisher that sends a content header of any bytes, which no client library does."""

from __future__ import annotations

import asyncio
import struct
from typing import Self

from pamqp import commands, frame, header
from yarl import URL

END = b"\xce"


def text(value: bytes) -> bytes:
    return bytes([len(value)]) + value


def table(fields: bytes) -> bytes:
    return struct.pack(">I", len(fields)) + fields


def nested_tables(levels: int) -> bytes:
    inner = table(b"")
    for _ in range(levels):
        inner = table(text(b"t") + b"F" + inner)
    return inner


def nested_arrays(levels: int) -> bytes:
    inner = b"A" + table(b"")
    for _ in range(levels):
        inner = b"A" + table(inner)
    return table(text(b"a") + inner)


CONTENT_TYPE, HEADERS, PRIORITY, MESSAGE_ID, TIMESTAMP = (1 << bit for bit in (15, 13, 11, 7, 6))

# (property flags, their bytes): each of these closes the connection of a plain aio-pika consumer.
KILLERS: dict[str, tuple[int, bytes]] = {
    "timestamp of 2^62": (TIMESTAMP, struct.pack(">Q", 2**62)),
    "header of type T of 2^62": (HEADERS, table(text(b"t") + b"T" + struct.pack(">Q", 2**62))),
    "message_id that is not UTF-8": (MESSAGE_ID, text(b"\xff\xfe")),
    "content_type that is not UTF-8": (CONTENT_TYPE, text(b"\xc3\x28")),
    "name of a header that is not UTF-8": (HEADERS, table(text(b"\xff") + b"I" + struct.pack(">I", 1))),
    "500 nested tables": (HEADERS, nested_tables(500)),
    "5000 nested tables": (HEADERS, nested_tables(5000)),
    "5000 nested arrays": (HEADERS, nested_arrays(5000)),
}
# Odd, but everybody delivers these.
ODD: dict[str, tuple[int, bytes]] = {
    "header value that is not UTF-8": (HEADERS, table(text(b"s") + b"S" + table(b"\xff\xfe"))),
    "decimal with scale 255": (HEADERS, table(text(b"d") + b"D" + b"\xff" + struct.pack(">I", 1))),
    "timestamp of 2^40": (TIMESTAMP, struct.pack(">Q", 2**40)),
    "priority of 255": (PRIORITY, b"\xff"),
}


class RawPublisher:
    def __init__(self, url: str) -> None:
        self._url = URL(url)

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._url.host, self._url.port)
        self._writer.write(header.ProtocolHeader().marshal())
        await self._answer()
        user, password = self._url.user or "guest", self._url.password or "guest"
        self._send(0, commands.Connection.StartOk({}, "PLAIN", f"\0{user}\0{password}", "en_US"))
        await self._answer()
        self._send(0, commands.Connection.TuneOk(8, 131_072, 0))
        self._send(0, commands.Connection.Open(self._url.path.removeprefix("/") or "/"))
        await self._answer()
        self._send(1, commands.Channel.Open())
        await self._answer()
        self._send(1, commands.Confirm.Select())
        await self._answer()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def publish(self, queue: str, body: bytes, *, flags: int, properties: bytes, exchange: str = "") -> None:
        """To a queue through the default exchange, else with that routing key; returns once it is confirmed."""
        method = commands.Basic.Publish(exchange=exchange, routing_key=queue)
        content = struct.pack(">HHQH", 60, 0, len(body), flags) + properties
        self._send(1, method)
        for kind, payload in ((2, content), (3, body)):
            self._writer.write(struct.pack(">BHI", kind, 1, len(payload)) + payload + END)
        confirm = await self._answer()
        assert isinstance(confirm, commands.Basic.Ack), confirm

    async def publish_named(self, exchange: str, routing_key: bytes, body: bytes) -> None:
        """With a routing key of any bytes and no properties; returns once it is confirmed."""
        method = struct.pack(">HHH", 60, 40, 0) + text(exchange.encode()) + text(routing_key) + b"\0"
        for kind, payload in ((1, method), (2, struct.pack(">HHQH", 60, 0, len(body), 0)), (3, body)):
            self._writer.write(struct.pack(">BHI", kind, 1, len(payload)) + payload + END)
        confirm = await self._answer()
        assert isinstance(confirm, commands.Basic.Ack), confirm

    def _send(self, channel: int, method: frame.base.Frame) -> None:
        self._writer.write(frame.marshal(method, channel))

    async def _answer(self) -> object:
        head = await self._reader.readexactly(7)
        rest = await self._reader.readexactly(struct.unpack(">BHI", head)[2] + 1)
        return frame.unmarshal(head + rest)[2]
