"""Calls that wait for an answer when their store is closed."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ClusterDownError

from callboard.metadata.errors import StoreUnavailable
from callboard.metadata.redis.address import parse
from callboard.metadata.redis.cluster import ClusterRoute
from callboard.metadata.redis.connection import RedisConnection
from callboard.metadata.redis.keys import Keys


async def test_a_call_that_its_store_closes_on_makes_no_other_connection() -> None:
    asked, made = asyncio.Event(), list[int]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.append(len(made))
        try:
            while await reader.read(65536):
                asked.set()
                if len(made) > 1:
                    writer.write(b":1\r\n")
        except ConnectionResetError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = RedisConnection(parse(f"redis://127.0.0.1:{port}?timeout=30"), Keys("closing"))
    await connection.open()
    async with asyncio.timeout(60):
        call = asyncio.create_task(connection.run("release", "queue", ("id",)))
        await asked.wait()
        await connection.close()
        with pytest.raises(StoreUnavailable, match="not open"):
            await call
    assert made == [0]
    server.close()
    await server.wait_closed()


async def test_a_closed_way_to_a_cluster_is_not_looked_for_again() -> None:
    asked = list[str]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append("connection")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    route = ClusterRoute(parse(f"redis+cluster://127.0.0.1:{server.sockets[0].getsockname()[1]}?timeout=5"))
    await route.close()
    assert await route.mended(ClusterDownError("Hash slot not served"), route.version) is False
    assert asked == []
    server.close()
    await server.wait_closed()
