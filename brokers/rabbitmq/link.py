"""One connection to RabbitMQ, from the handshake until it is lost. It is never repaired: a new one takes its place.

It is made with aiormq, aio-pika's engine: an aio_pika.Channel leaves an observer of its connection behind even when it
was closed, and channels come and go here (a passive declaration of a missing queue costs one).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib.metadata import version

from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from aiormq import (
    AMQPChannelError,
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    Connection,
    ProbableAuthenticationError,
)
from aiormq.abc import AbstractChannel
from yarl import URL

from ..contract import BODY_LIMIT
from ..errors import BrokerError, BrokerRefused, BrokerUnavailable, TopologyMismatch
from .assembly import Assembly, Ending, Listener
from .framing import Frames
from .quiet import quiet
from .strainer import Strainer
from .tap import Tap, TapFactory

HEARTBEAT_SECONDS = 15
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 10.0
DEFAULT_FRAME_BYTES = 131_072  # where the server sets no limit
CLOSE_SECONDS = 3.0
NO_PERMISSION = "refused for user"  # in the server's words


class NotThere(BrokerError):
    """RabbitMQ's 404: there is no such exchange or queue."""


def parse_url(url: str) -> URL:
    """The URL with our heartbeat where it names none. BrokerError, without the URL, which may hold a password."""
    try:
        parsed = URL(url)
        if parsed.scheme not in ("amqp", "amqps") or not parsed.host:
            raise BrokerError("a broker's URL is amqp://user:password@host:port/vhost, or amqps://")
        parsed = parsed.with_port(parsed.explicit_port)  # read here: yarl would complain of it only where it is used
        return parsed if "heartbeat" in parsed.query else parsed.update_query(heartbeat=HEARTBEAT_SECONDS)
    except ValueError as error:
        raise BrokerError("the broker's URL cannot be read; is a character in its password not quoted?") from error


def masked(url: URL) -> str:
    """For messages and logs: no password, no query."""
    shown = url.with_query(None)
    return str(shown if shown.password is None else shown.with_password("***"))


@contextmanager
def translated(broker: str) -> Iterator[None]:
    """Nothing of aio-pika's leaves this block."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # aiormq cancels what waits on a connection that is lost; nobody has cancelled this task.
        raise BrokerUnavailable(broker, "the connection was lost") from error
    except ChannelPreconditionFailed as error:
        raise TopologyMismatch(str(error)) from error
    except ChannelNotFoundEntity as error:
        raise NotThere(str(error)) from error
    except ChannelAccessRefused as error:
        if NO_PERMISSION not in str(error):  # else a queue that somebody consumes exclusively
            raise BrokerError(str(error)) from error
        raise BrokerRefused(
            f"{error}; rabbitmqctl set_permissions gives it, and PROTOCOL.md names what is needed"
        ) from error
    except AMQPChannelError as error:
        raise BrokerError(str(error)) from error
    except ProbableAuthenticationError as error:
        raise BrokerUnavailable(broker, f"it refuses the credentials: {error}") from error
    except TimeoutError as error:
        raise BrokerUnavailable(broker, "no answer in time") from error
    except CONNECTION_EXCEPTIONS as error:
        raise BrokerUnavailable(broker, str(error) or type(error).__name__) from error


class Link:
    """`lost` is done as soon as the socket is; `changed` is called when an alarm blocks or unblocks the connection."""

    def __init__(self, url: URL, *, frames: Frames, name: str, changed: Callable[[], None]) -> None:
        self.broker = masked(url)
        self.frames = frames
        self.blocked = False
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.name = name
        self._changed = changed
        self._error = ""
        self._tap = Tap(lost=self._on_lost, blocked=self._on_blocked)
        self._factory = TapFactory(self._tap)
        self._connection = Connection(
            url,
            transport_factory=self._factory,
            client_properties={"connection_name": name, "product": "callboard", "version": version("callboard")},
        )

    async def open(self) -> None:
        try:
            with translated(self.broker), quiet(self._on_error):
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._connection.connect()
        except BrokerUnavailable as error:
            self.abort()
            if self._tap.reason and not isinstance(error.__cause__, ProbableAuthenticationError):
                # Closed by the server, whose reason aiormq does not tell: it expected another frame.
                raise BrokerUnavailable(self.broker, self._tap.reason) from error
            raise
        except BaseException:
            self.abort()
            raise

    @property
    def up(self) -> bool:
        return not self._tap.closed and not self.lost.done()

    @property
    def reason(self) -> str:
        """Why it was lost: what the server or the network said, else aiormq's error."""
        return self._tap.reason or self._error or "it ended without a word"

    @property
    def writable(self) -> bool:
        """False while the socket's buffer is full; `when_writable` is called afterwards."""
        return self._tap.writable and self.up

    def when_writable(self, resumed: Callable[[], None]) -> None:
        self._tap.resumed = resumed

    @property
    def server_version(self) -> str:
        return str(self._connection.server_properties.get("version", "unknown"))

    @property
    def frame_max(self) -> int:
        return self._connection.connection_tune.frame_max or DEFAULT_FRAME_BYTES

    async def channel(self, *, confirms: bool = False) -> AbstractChannel:
        with translated(self.broker), quiet(self._on_error) if confirms else nullcontext():
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._connection.channel(publisher_confirms=confirms)

    def assemble(self, channel: int, listener: Listener, *, body_limit: int = BODY_LIMIT) -> None:
        """The frames that carry the load are put together for the listener; aiormq sees none of them."""
        self._tap.listen(channel, Assembly(channel, listener, body_limit))

    def strain(self, channel: int, listener: Ending, *, body_limit: int = BODY_LIMIT) -> Strainer:
        """The frames of this channel go to aiormq, but for what would break it; the listener is told of the end."""
        strainer = Strainer(listener, body_limit)
        self._tap.listen(channel, strainer)
        return strainer

    def forget(self, channel: int, listener: Ending) -> None:
        self._tap.forget(channel, listener)

    def write(self, frames: bytes) -> None:
        """At once, without waiting; nothing where the connection is lost."""
        transport = self._factory.transport
        if transport is not None and not transport.is_closing():
            transport.write(frames)

    async def close(self) -> None:
        """In order where the server reads what we send: during an alarm it does not read a goodbye either."""
        if self.up and not self.blocked:
            with suppress(BrokerError), translated(self.broker):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._connection.close()
        self.abort()

    def abort(self) -> None:
        if self._factory.transport is not None:
            self._factory.transport.abort()
        elif not self.lost.done():
            self.lost.set_result(None)

    def _on_error(self, error: str) -> None:
        self._error = error

    def _on_lost(self) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        self._changed()

    def _on_blocked(self, blocked: bool) -> None:
        self.blocked = blocked
        self._changed()


async def close_channel(channel: AbstractChannel, broker: str) -> None:
    """Close it, whatever state it is in."""
    if channel.is_closed:
        return
    with suppress(BrokerError), translated(broker):
        async with asyncio.timeout(ANSWER_SECONDS):
            await channel.close()
