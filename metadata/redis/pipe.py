"""One connection for all script calls of a store: written at once, answered in the order in which they were written.

    ask -> written -> waiting, in order -> the server's answer -> the caller

A call waits for no other, and neither takes a connection out of a pool nor puts one back: that is a few microseconds of
ours in place of a hundred, which is what a job that comes alone waits for. When the connection is lost, everything that
waits on it fails with Lost, and the next call makes another. An answer that does not come in time ends the connection,
since the answers after it could not be told apart.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import hiredis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as ConnectionFailed
from redis.exceptions import TimeoutError as NoAnswer

from .address import Address

_CODES: Mapping[str, Callable[[str], RedisError]] = {
    "NOSCRIPT": NoScriptError,
    "OOM": OutOfMemoryError,
    "NOAUTH": AuthenticationError,
    "WRONGPASS": AuthenticationError,
    "NOPERM": NoPermissionError,
    "READONLY": ReadOnlyError,
    "CLUSTERDOWN": ClusterDownError,
}
# Made of what follows the code: slot, host and port.
_REDIRECTIONS: Mapping[str, Callable[[str], RedisError]] = {"MOVED": MovedError, "ASK": AskError}
_INCOMPLETE = object()

Where = Callable[[], Awaitable[tuple[str, int]]]  # host and port, asked for before each connection


class Lost(ConnectionFailed):
    """The connection went away before the answer came: the call may have been run, and may be repeated."""


def encode(*parts: bytes) -> bytes:
    """A command as it is written, in RESP 2."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


PING = encode(b"PING")


class Pipe(asyncio.Protocol):
    """Belongs to the event loop of its first call. Connects with the first call, and anew after each loss.

    `yields`: whom a script that comes alone tells something hears it before its caller is answered. Redis writes first
    to whom it had something to tell last, so the caller asks for something else before; each write takes about 25 us,
    and who is told has work to do.
    """

    def __init__(self, address: Address, *, where: Where, yields: bool = False) -> None:
        self._address = address
        self._yields = yields
        self._where = where
        self._loop: asyncio.AbstractEventLoop | None = None
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[asyncio.Future[Any] | None, float]] = deque()  # None: nobody wants that answer
        self._reader = _new_reader()
        self._connecting: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._ready = False
        self._closed = asyncio.Event()

    async def ask(self, commands: Sequence[bytes]) -> list[Any]:
        """Their answers, in one round trip. Lost, NoAnswer after the address's timeout, the server's errors, OSError
        where it cannot be reached: the first of any."""
        if not self._usable:
            await self._connected()
        answers = self._send(commands)
        return [await answers[0]] if len(answers) == 1 else await asyncio.gather(*answers)

    def drop(self) -> None:
        """Give this connection up; what waits on it is Lost, the next call makes another."""
        self._fail(Lost("the connection was given up"))

    async def close(self) -> None:
        connecting, transport = self._connecting, self._transport
        if connecting is not None:
            connecting.cancel()
            await asyncio.wait([connecting])
        if transport is not None:
            transport.abort()
            await self._closed.wait()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._reader = _new_reader()
        self._closed.clear()

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not _INCOMPLETE:
                self._take(answer)
        except (hiredis.ProtocolError, IndexError):  # not Redis, or an answer that nobody waits for
            self._fail(Lost("the server sent what is no answer"))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._fail(Lost("the connection was lost" if error is None else f"the connection was lost: {error}"))
        self._closed.set()

    # --- what it does ---

    def _take(self, answer: Any) -> None:
        """The next that the server sent. IndexError: nobody waits for it."""
        future, _ = self._waiting.popleft()
        if future is None or future.done():  # its caller was cancelled
            return
        if isinstance(answer, RedisError):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    @property
    def _usable(self) -> bool:
        return self._ready and self._transport is not None and not self._transport.is_closing()

    def _send(self, commands: Sequence[bytes]) -> list[asyncio.Future[Any]]:
        """All in one write, which may end the connection: their answers are Lost then, and none is left alone."""
        loop, transport = self._loop, self._transport
        if loop is None or transport is None or transport.is_closing():
            raise Lost("the connection was lost before the call was written")
        due = loop.time() + self._address.timeout
        answers: list[asyncio.Future[Any]] = [loop.create_future() for _ in commands]
        before = b""
        if self._yields and not self._waiting:
            before = PING
            self._waiting.append((None, due))
        self._waiting.extend([(answer, due) for answer in answers])
        if self._watch is None:
            self._watch = loop.call_at(due, self._overdue)
        transport.write(before + b"".join(commands))
        return answers

    def _overdue(self) -> None:
        """The timer is that of the oldest call when it was set; most of the time that one has long been answered."""
        self._watch = None
        if self._loop is None or not self._waiting:
            return
        due = self._waiting[0][1]
        if due > self._loop.time():
            self._watch = self._loop.call_at(due, self._overdue)
        else:
            self._fail(NoAnswer(f"no answer within {self._address.timeout:g} s"))

    def _fail(self, error: RedisError) -> None:
        self._ready = False
        waiting, self._waiting = self._waiting, deque()
        for future, _ in waiting:
            if future is not None and not future.done():
                future.set_exception(error)
        if self._transport is not None:
            self._transport.abort()

    async def _connected(self) -> None:
        """One attempt for all who wait."""
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
            self._connecting.add_done_callback(self._attempted)
        attempt = self._connecting
        await asyncio.wait([attempt])  # it goes on for the others where one of them is cancelled
        if attempt.cancelled():  # by `close`, which is no cancellation of who waits here
            raise Lost("the connection was given up while it was made")
        attempt.result()

    def _attempted(self, attempt: asyncio.Task[None]) -> None:
        self._connecting = None
        if not attempt.cancelled():
            attempt.exception()  # told to those who wait for it, if anybody still does

    async def _connect(self) -> None:
        address, self._loop = self._address, asyncio.get_running_loop()
        if self._transport is not None:  # it is closing
            await self._closed.wait()
        try:
            async with asyncio.timeout(address.timeout):
                host, port = await self._where()
                tls = _context(address) if address.tls else None
                await self._loop.create_connection(lambda: self, host, port, ssl=tls)
                if address.password is not None:
                    name = () if address.username is None else (address.username.encode(),)
                    await self._send([encode(b"AUTH", *name, address.password.encode())])[0]
                if address.database:
                    await self._send([encode(b"SELECT", b"%d" % address.database)])[0]
        except BaseException:  # cancelled too: one that is half made would be waited for, as if it were closing
            self._fail(Lost("the connection could not be made"))
            raise
        self._ready = True


def _new_reader() -> hiredis.Reader:
    return hiredis.Reader(protocolError=hiredis.ProtocolError, replyError=_error, notEnoughData=_INCOMPLETE)


def _error(text: str) -> RedisError:
    code, _, rest = text.partition(" ")
    if code in _REDIRECTIONS:
        return _REDIRECTIONS[code](rest)
    return _CODES.get(code, ResponseError)(text)


def _context(address: Address) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=address.ssl_ca_certs)
    if address.ssl_certfile is not None:
        context.load_cert_chain(address.ssl_certfile, address.ssl_keyfile)
    return context
