"""Where the bytes of a connection come in, cut into frames. Those of a channel that somebody listens to are shown to
its Taker first; what that leaves is aiormq's.

    socket -> Tap.data_received ─┬─ deliver, return, ack, nack and their content -> Assembly -> its Listener
                                 └─ everything else -> aiormq's StreamReader (handshake, replies, heartbeats, closes)

    on the plain path: every frame -> Strainer, which mends what would close the connection -> aiormq's StreamReader

It is put in by aiormq's own `transport_factory`, so no other user of aio-pika in the process is affected.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from struct import Struct
from typing import Any, Protocol, cast

from aiormq import AMQPConnectionError, TransportFactory
from yarl import URL

from . import codec
from .assembly import Ending

# Far above what RabbitMQ negotiates (128 KiB): a greater length is not AMQP, and nothing of that size is buffered.
FRAME_BYTES = 16 * 1024 * 1024
# aiormq gives a connection up after 48 s without a frame; it does not see those that are taken out here.
SIGN_OF_LIFE_SECONDS = 1.0
UNACKNOWLEDGED_BYTES_MILLISECONDS = 20_000  # TCP gives a silent peer up after this, not after its default of 15 minutes

_HEAD = Struct(">BHI").unpack_from


class Taker(Protocol):
    """Who sees the frames of a channel before aiormq: an Assembly, or on the plain path a Strainer."""

    @property
    def listener(self) -> Ending: ...

    def whole(self, data: bytes, position: int) -> int: ...

    def take(self, kind: int, payload: bytes) -> bytes | None: ...


class Tap(asyncio.StreamReaderProtocol):
    """`lost()` and `blocked(is_blocked)` are called at once, as the socket tells it."""

    def __init__(self, *, lost: Callable[[], None], blocked: Callable[[bool], None]) -> None:
        loop = asyncio.get_running_loop()
        self.reader = asyncio.StreamReader(loop=loop)
        super().__init__(self.reader, loop=loop)
        self.closed = False
        self.writable = True
        self.reason = ""  # why the server, or the network, ended the connection, as far as it was said
        self.resumed: Callable[[], None] | None = None
        self._loop_time = loop.time
        self._lost = lost
        self._blocked = blocked
        self._channels: dict[int, Taker] = {}
        self._rest = b""
        self._amqp = False
        self._passed_at = loop.time()
        self._transport_in_use: asyncio.WriteTransport | None = None

    def listen(self, channel: int, taker: Taker) -> None:
        self._channels[channel] = taker

    def forget(self, channel: int, listener: Ending) -> None:
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
        if error is not None and not self.reason:
            self.reason = f"{type(error).__name__}: {error}"
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
            kind, channel, size = _HEAD(data, position)
            taker = self._channels.get(channel)
            if taker is not None and (reached := taker.whole(data, position)) > position:
                position = reached
                continue
            after = position + size + codec.FRAME_OVERHEAD
            if size > FRAME_BYTES:
                self._give_up(f"a frame of {size} bytes")
                return
            if after > end:
                break
            if data[after - 1] != codec.FRAME_END:
                self._give_up(f"a frame that ends with {data[after - 1]:#x}")
                return
            if channel == 0 and kind == codec.METHOD:
                self._listen_to_server(data[position + 7 : after - 1])
            if taker is None:
                passed.append(data[position:after])
            else:
                payload = data[position + 7 : after - 1]
                left = taker.take(kind, payload)
                if left is not None:
                    passed.append(data[position:after] if left is payload else codec.frame(kind, channel, left))
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

    def _listen_to_server(self, payload: bytes) -> None:
        method = int.from_bytes(payload[:4], "big")
        if method == codec.CONNECTION_BLOCKED:
            self._blocked(True)
        elif method == codec.CONNECTION_UNBLOCKED:
            self._blocked(False)
        elif method == codec.CONNECTION_CLOSE:
            code, text = codec.read_close(payload[4:])
            self.reason = f"the server closed it: {code} {text}"

    def _give_up(self, reason: str) -> None:
        self.reason = f"the server sent what is not AMQP: {reason}"
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
