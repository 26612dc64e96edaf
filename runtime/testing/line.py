"""A TCP line between a client under test and its server, which can be cut, or lose a request or a reply.

async with Line("127.0.0.1", 6379) as line:
    ... a store that connects to 127.0.0.1:line.port, with a short timeout ...
    line.lose(2, Side.REPLY)    # the second request from now on is served, and its reply does not come back
    ... a call: StoreUnavailable ...
    await line.settled()        # the server has done what it was asked
    line.mend()
    ... the same call again ...

Silence, not an end of the connection: the client has only its time limit to go by, and cannot know which side was lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Self

CHUNK_BYTES = 65_536


class Side(Enum):
    """What gets lost of an exchange. REQUEST: the server never hears of it; REPLY: it does the work."""

    REQUEST = "request"
    REPLY = "reply"


class Line:
    """`counts` tells the requests that count from the client's other talk (of a driver that watches its server, say):
    it is given what was read at once from the client, which holds one request as long as those are small. `tells`
    changes what was read at once from a server: the addresses of others, of which it tells clients (see `lead_to`)."""

    def __init__(
        self,
        host: str,
        server_port: int,
        *,
        counts: Callable[[bytes], bool] = lambda data: True,
        tells: Callable[[bytes], bytes] = lambda data: data,
    ) -> None:
        self._server = (host, server_port)
        self._counts = counts
        self._tells = tells
        self._to_come = 0  # requests until the one that is hit; 0: none is to be hit
        self._side = Side.REQUEST
        self._silent = False
        self._refusing = False
        self._settled = asyncio.Event()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[asyncio.Server] = []
        self.port = 0

    @property
    def struck(self) -> bool:
        """Whether something was lost since `lose`."""
        return self._silent

    def lose(self, number: int, side: Side) -> None:
        """Lose one side of the exchange that begins with the `number`th request from now on (1: the next). From then on
        no request of any connection gets through, until `mend`."""
        self._to_come, self._side, self._silent = number, side, False
        self._settled.clear()

    async def settled(self) -> None:
        """Wait until the server has answered what still reached it. At once where the request was lost, or nothing."""
        if self._silent:
            await self._settled.wait()

    def cut(self) -> None:
        """End every connection, and refuse new ones, until `mend`."""
        self._refusing = True
        for link in self._links:
            link.end()

    def mend(self) -> None:
        """Connections that were hit end; everything gets through again."""
        self._to_come, self._silent, self._refusing = 0, False, False
        for link in self._links:
            if link.hit:
                link.end()

    async def __aenter__(self) -> Self:
        self.port = await self.lead_to(*self._server)
        return self

    async def lead_to(self, host: str, server_port: int) -> int:
        """The port of a way to another server of the same store; what is lost and cut is so on all of them."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._accept(reader, writer, (host, server_port))

        listener = await asyncio.start_server(accept, "127.0.0.1", 0)
        self._listeners.append(listener)
        port: int = listener.sockets[0].getsockname()[1]
        return port

    async def __aexit__(self, *_: object) -> None:
        for listener in self._listeners:
            listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: tuple[str, int]
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            onward_reader, onward_writer = await asyncio.open_connection(*server)
        except OSError:
            writer.transport.abort()
            self._tasks.discard(task)
            return
        link = _Link(writer, onward_writer)
        self._links.add(link)
        try:
            if self._refusing:
                return
            await asyncio.gather(self._requests(link, reader), self._replies(link, onward_reader))
        except OSError:
            pass  # one end was reset: so is the other
        except asyncio.CancelledError:
            pass  # only `__aexit__` cancels, and nothing is left to do
        finally:
            link.end()
            self._links.discard(link)
            self._tasks.discard(task)

    async def _requests(self, link: _Link, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self._passes(link, data):
                link.server.write(data)
                await link.server.drain()
        link.end()

    def _passes(self, link: _Link, data: bytes) -> bool:
        if link.hit or not self._counts(data):
            return not link.hit
        if self._silent:
            link.hit = True
            return False
        if not self._to_come:
            return True
        self._to_come -= 1
        if self._to_come:
            return True
        self._silent = link.hit = True
        if self._side is Side.REQUEST:
            self._settled.set()
        return self._side is Side.REPLY

    async def _replies(self, link: _Link, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if link.hit:
                self._settled.set()
            else:
                link.client.write(self._tells(data))
                await link.client.drain()
        if link.hit:
            self._settled.set()
        link.end()


class _Link:
    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.hit = False

    def end(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()
