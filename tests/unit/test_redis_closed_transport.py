"""A connection to Redis that is lost just before something is written to it, as asyncio and uvloop tell it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest
import uvloop

from callboard.metadata.errors import StoreUnavailable
from callboard.metadata.redis.address import parse
from callboard.metadata.redis.connection import RedisConnection
from callboard.metadata.redis.keys import Keys


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_write_to_a_closed_transport_means_that_the_store_is_away(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(write_to_what_is_closed())


def test_another_runtime_error_is_a_fault() -> None:
    async def fail() -> None:
        raise RuntimeError("something else")

    with asyncio.Runner() as runner, pytest.raises(RuntimeError, match="something else"):
        runner.run(connection()._guarded(fail))


async def write_to_what_is_closed() -> None:
    async def leave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(leave, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        with pytest.raises(StoreUnavailable):
            await connection()._guarded(lambda: write(reader, writer))
    finally:
        server.close()
        await server.wait_closed()


async def write(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        await reader.read()
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    writer.writelines([b"PING\r\n"])
    await writer.drain()


def connection() -> RedisConnection:
    return RedisConnection(parse("redis://127.0.0.1:1/0"), Keys("test"))
