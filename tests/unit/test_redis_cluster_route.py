"""The way to a cluster that is closed while its map is read."""

from __future__ import annotations

import asyncio
import socket

from redis.exceptions import ClusterDownError

from callboard.metadata.redis.address import parse
from callboard.metadata.redis.cluster import ClusterRoute


async def test_who_waits_for_the_map_when_the_way_is_closed_is_not_cancelled() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        route = ClusterRoute(parse(f"redis+cluster://127.0.0.1:{silent.getsockname()[1]}?timeout=60"))
        async with asyncio.timeout(60):
            waiting = asyncio.create_task(route.mended(ClusterDownError("Hash slot not served"), route.version))
            await asyncio.sleep(0.05)
            await route.close()
            assert await waiting is False
