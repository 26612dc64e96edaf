"""The way to the master that sentinels name, where one of them hangs."""

from __future__ import annotations

import asyncio
import socket

from callboard.metadata.redis.address import parse
from callboard.metadata.redis.pipe import encode
from callboard.metadata.redis.sentinels import SentinelRoute


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A sentinel whose master is itself, which answers everything else with OK."""
    port = b"%d" % writer.get_extra_info("sockname")[1]
    row = encode(b"flags", b"master", b"ip", b"127.0.0.1", b"port", port)
    try:
        while head := await reader.readline():
            parts = [(await reader.readline(), await reader.readline())[1].strip() for _ in range(int(head[1:]))]
            writer.write(row if parts[0] == b"SENTINEL" else b"+OK\r\n")
    finally:
        writer.close()


async def test_a_sentinel_that_takes_all_the_time_of_a_connection_is_not_asked_first_again() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = silent.getsockname()[1], server.sockets[0].getsockname()[1]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        route = SentinelRoute(parse(f"redis+sentinel://{hosts}/service?timeout=1"))
        answers = []
        for _ in range(3):
            try:
                answers.append(await route.node_of("key").ask([encode(b"PING")]))
            except TimeoutError:
                answers.append([])
        assert answers[-1] == [b"OK"]
        await route.close()
    server.close()
    await server.wait_closed()
