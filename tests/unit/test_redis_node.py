"""Large calls of one server's node go two at a time, and small ones by a connection of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import BlockingConnectionPool
from redis.exceptions import TimeoutError as NoAnswer

from callboard.metadata.redis.address import parse
from callboard.metadata.redis.node import LARGE_AT_ONCE, SMALL_BYTES, Node, node_at
from callboard.metadata.redis.pipe import encode

SMALL = encode(b"PING")
LARGE = encode(b"ECHO", b"x" * SMALL_BYTES)


class HalfDeaf:
    """Answers each small call; a large one once it `may_answer`."""

    def __init__(self) -> None:
        self.large = 0
        self.may_answer = asyncio.Event()
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readline():
                parts = int(head[1:])
                for _ in range(2 * parts):  # each with its length before it
                    await reader.readline()
                if parts > 1:
                    self.large += 1
                    self._serving.add(asyncio.ensure_future(self._answer_later(writer)))
                else:
                    writer.write(b"+OK\r\n")
        finally:
            writer.close()

    async def _answer_later(self, writer: asyncio.StreamWriter) -> None:
        await self.may_answer.wait()
        writer.write(b"+OK\r\n")


@asynccontextmanager
async def node_of(server: HalfDeaf, *, timeout: float) -> AsyncIterator[Node]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    node = node_at(parse(f"redis://127.0.0.1:{port}/0?timeout={timeout:g}"), "127.0.0.1", port)
    try:
        yield node
    finally:
        server.may_answer.set()
        await node.close()
        listening.close()
        await listening.wait_closed()


async def test_a_small_call_does_not_wait_behind_large_ones() -> None:
    server = HalfDeaf()
    async with node_of(server, timeout=30) as node:
        large = [asyncio.ensure_future(node.ask([LARGE])) for _ in range(5)]
        assert await node.ask([SMALL]) == [b"OK"]
        while server.large < LARGE_AT_ONCE:
            await asyncio.sleep(0.01)
        assert await node.ask([SMALL]) == [b"OK"]
        assert server.large == LARGE_AT_ONCE
        assert not any(call.done() for call in large)
        server.may_answer.set()
        assert await asyncio.gather(*large) == [[b"OK"]] * 5


async def test_a_large_call_that_waits_for_others_gives_up_with_them() -> None:
    server = HalfDeaf()
    async with node_of(server, timeout=0.5) as node:
        large = [node.ask([LARGE]) for _ in range(20)]
        async with asyncio.timeout(4):  # one after the other they would take five seconds
            answers = await asyncio.gather(*large, return_exceptions=True)
        assert {type(answer) for answer in answers} == {NoAnswer}
        server.may_answer.set()
        assert await node.ask([LARGE]) == [b"OK"]


class Stubborn(BlockingConnectionPool):
    """As the driver's own, where a connection does not end in time."""

    closed = False

    async def aclose(self) -> None:
        self.closed = True
        raise NoAnswer("Timed out closing connection after 0.15")


async def test_closing_a_node_whose_connections_do_not_end_in_time_is_no_error() -> None:
    async def nowhere() -> tuple[str, int]:
        return "127.0.0.1", 1

    connections = Stubborn()
    node = Node(parse("redis://127.0.0.1:1/0"), name="slow", connections=connections, where=nowhere)
    await node.close()
    assert connections.closed
