"""A TCP proxy that can be cut: between a client under test and a server that nobody may stop."""

from __future__ import annotations

import asyncio
from typing import Self

from yarl import URL


class CuttingProxy:
    """`cut` closes every connection, at once, and refuses new ones until `mend`. `freeze` carries nothing more but
    keeps the connections, `mute` carries no more answers, until `thaw`."""

    def __init__(self, url: str) -> None:
        self._target = URL(url)
        self._writers: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._answering = asyncio.Event()
        self._answering.set()
        self._open = True
        self.accepted = 0
        self.carried = 0  # bytes from clients

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self.thaw()
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        port = self._server.sockets[0].getsockname()[1]
        return str(self._target.with_host("127.0.0.1").with_port(port))

    def cut(self) -> None:
        self._open = False
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self._open = True

    def inject(self, data: bytes) -> None:
        """Send to every client as if it came from the server; the server must be saying nothing meanwhile."""
        for client in self._clients:
            client.write(data)

    def freeze(self) -> None:
        self._flowing.clear()

    def mute(self) -> None:
        self._answering.clear()

    def thaw(self) -> None:
        self._flowing.set()
        self._answering.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        self.accepted += 1
        onward_reader, onward_writer = await asyncio.open_connection(self._target.host, self._target.port)
        both = {writer, onward_writer}
        self._writers |= both
        self._clients.add(writer)
        if not self._open:
            self.cut()
        await asyncio.gather(self._carry(reader, onward_writer), self._carry(onward_reader, writer))
        self._writers -= both
        self._clients.discard(writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                await self._flowing.wait()
                if writer in self._clients:
                    await self._answering.wait()
                else:
                    self.carried += len(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()
