"""Where the bytes of a connection come in: the frames that carry the load are taken out here, the rest is aio-pika's.

    socket -> Tap.data_received ─┬─ deliver, return, ack, nack and their content -> the Listener of that channel
                                 └─ everything else -> aio-pika's StreamReader (handshake, replies, heartbeats, closes)

It is put in by aiormq's own `transport_factory`, so no other user of aio-pika in the process is affected. A message
costs one call of its listener instead of a task, and what its properties hold cannot close the connection.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from struct import Struct
from typing import Any, Protocol, cast

from aiormq import AMQPConnectionError, TransportFactory
from yarl import URL

from ..contract import BODY_KEPT, BODY_LIMIT
from . import codec

# Far above what RabbitMQ negotiates (128 KiB): a greater length is not AMQP, and nothing of that size is buffered.
FRAME_BYTES = 16 * 1024 * 1024
# aiormq gives a connection up after 48 s without a frame; it does not see those that are taken out here.
SIGN_OF_LIFE_SECONDS = 1.0
UNACKNOWLEDGED_BYTES_MILLISECONDS = 20_000  # TCP gives a silent peer up after this, not after its default of 15 minutes

_HEAD = Struct(">BHI")


class Listener(Protocol):
    """What happens on one channel, said from within the reading of the socket: it must not raise and not block."""

    def content(self, method: int, arguments: bytes, header: bytes, body: bytes) -> None:
        """`body` is cut to BODY_KEPT bytes where it was longer than the limit; the header says how long it was."""
        ...

    def confirm(self, method: int, arguments: bytes) -> None: ...

    def ended(self, code: int, reason: str) -> None:
        """By the server: the channel (`code` is AMQP's), its consumer (0) or the connection (0). Called once."""
        ...


class _Channel:
    """Puts a method, its header and its body together."""

    __slots__ = ("arguments", "body_limit", "header", "listener", "method", "missing", "parts", "room")

    def __init__(self, listener: Listener, body_limit: int) -> None:
        self.listener = listener
        self.body_limit = body_limit
        self.room = 0  # bytes of this body that may still be kept
        self.method = 0
        self.arguments = b""
        self.header = b""
        self.parts: list[bytes] = []
        self.missing = 0

    def take(self, kind: int, payload: bytes) -> bool:
        """False: it is not for the listener alone."""
        if kind == codec.METHOD:
            return self.take_method(int.from_bytes(payload[:4], "big"), payload[4:])
        if not self.method:
            return False
        if kind == codec.HEADER:
            self.header = payload
            self.missing = int.from_bytes(payload[4:12], "big")
            self.room = self.missing if self.missing <= self.body_limit else BODY_KEPT
        else:
            self.missing -= len(payload)
            if self.room > 0:
                self.parts.append(payload[: self.room])
                self.room -= len(payload)
        if self.missing <= 0:
            method, arguments, header, body = self.method, self.arguments, self.header, b"".join(self.parts)
            self.method, self.arguments, self.header, self.parts = 0, b"", b"", []
            self.listener.content(method, arguments, header, body)
        return True

    def take_method(self, method: int, arguments: bytes) -> bool:
        if method in (codec.BASIC_DELIVER, codec.BASIC_RETURN):
            self.method, self.arguments = method, arguments
            return True
        if method in (codec.BASIC_ACK, codec.BASIC_NACK):
            self.listener.confirm(method, arguments)
            return True
        if method == codec.CHANNEL_CLOSE:
            self.listener.ended(*codec.read_close(arguments))
        elif method == codec.BASIC_CANCEL:
            self.listener.ended(0, "the server cancelled the consumer")
        return False


class Tap(asyncio.StreamReaderProtocol):
    """`lost()` and `blocked(is_blocked)` are called at once, as the socket tells it."""

    def __init__(self, *, lost: Callable[[], None], blocked: Callable[[bool], None]) -> None:
        loop = asyncio.get_running_loop()
        self.reader = asyncio.StreamReader(loop=loop)
        super().__init__(self.reader, loop=loop)
        self.closed = False
        self.writable = True
        self.resumed: Callable[[], None] | None = None
        self._loop_time = loop.time
        self._lost = lost
        self._blocked = blocked
        self._channels: dict[int, _Channel] = {}
        self._rest = b""
        self._amqp = False
        self._passed_at = 0.0
        self._transport_in_use: asyncio.WriteTransport | None = None

    def listen(self, channel: int, listener: Listener, *, body_limit: int = BODY_LIMIT) -> None:
        self._channels[channel] = _Channel(listener, body_limit)

    def forget(self, channel: int, listener: Listener) -> None:
        """Unless the number is another's by now: the server gives it again as soon as a channel is closed."""
        heard = self._channels.get(channel)
        if heard is not None and heard.listener is listener:
            del self._channels[channel]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._transport_in_use = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.closed = True
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.listener.ended(0, "the connection was lost")
        self._lost()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.writable = False

    def resume_writing(self) -> None:
        super().resume_writing()
        self.writable = True
        if self.resumed is not None:
            self.resumed()

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        if not self._amqp:
            if data.startswith(b"AMQP"):  # a server of another version answers with its protocol header
                super().data_received(data)
                return
            self._amqp = True
        position, end = 0, len(data)
        passed: list[bytes] = []
        while end - position > 7:
            kind, channel, size = _HEAD.unpack_from(data, position)
            after = position + size + codec.FRAME_OVERHEAD
            if size > FRAME_BYTES:
                self._give_up()
                return
            if after > end:
                break
            heard = self._channels.get(channel) if kind != codec.HEARTBEAT else None
            if channel == 0 and kind == codec.METHOD:
                self._watch_alarms(data[position + 7 : position + 11])
            if heard is None or not heard.take(kind, data[position + 7 : after - 1]):
                passed.append(data[position:after])
            position = after
        self._rest = data[position:]
        self._pass_on(passed)

    def _pass_on(self, frames: list[bytes]) -> None:
        now = self._loop_time()
        if not frames:
            if now - self._passed_at < SIGN_OF_LIFE_SECONDS:
                return
            frames = [codec.HEARTBEAT_FRAME]
        self._passed_at = now
        super().data_received(b"".join(frames))

    def _watch_alarms(self, method: bytes) -> None:
        index = int.from_bytes(method, "big")
        if index == codec.CONNECTION_BLOCKED:
            self._blocked(True)
        elif index == codec.CONNECTION_UNBLOCKED:
            self._blocked(False)

    def _give_up(self) -> None:
        self._rest = b""
        if self._transport_in_use is not None:
            self._transport_in_use.abort()


class TapFactory(TransportFactory):
    """Connects with the given Tap; for one connection."""

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        self.transport: asyncio.Transport | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        certificates = kwargs.pop("ssl_context_provider")
        loop = asyncio.get_running_loop()
        try:
            self.transport, _ = await loop.create_connection(
                lambda: self._tap,
                host=str(url.host),
                port=int(url.port or 0),  # aiormq has put in the scheme's default
                ssl=await certificates.get_context() if url.scheme == "amqps" else None,
            )
        except OSError as error:
            raise AMQPConnectionError(str(error)) from error
        keep_alive(self.transport.get_extra_info("socket"))
        return self._tap.reader, asyncio.StreamWriter(self.transport, self._tap, self._tap.reader, loop)


def keep_alive(connection: socket.socket) -> None:
    """Notice a peer that vanished, in 20 s, whether there is something to send or not."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 10),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_BYTES_MILLISECONDS),
    ):
        if hasattr(socket, option):  # absent outside Linux
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
