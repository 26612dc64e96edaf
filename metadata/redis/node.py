"""One server: a pipe for script calls, the driver's client for everything else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from redis.asyncio import BlockingConnectionPool, Redis

from .address import Address, host_name
from .pipe import Pipe
from .pool import pool


class Node:
    """`where`: asked for host and port before each connection of the pipe."""

    def __init__(
        self,
        address: Address,
        *,
        name: str,
        connections: BlockingConnectionPool,
        where: Callable[[], Awaitable[tuple[str, int]]],
    ) -> None:
        self.name = name
        self.client = Redis(connection_pool=connections)
        self.pipe = Pipe(address, where=where)

    async def close(self) -> None:
        await self.pipe.close()
        await self.client.aclose(close_connection_pool=True)


def node_at(address: Address, host: str, port: int) -> Node:
    """One that stays where it is."""

    async def here() -> tuple[str, int]:
        return host, port

    return Node(address, name=host_name(host, port), connections=pool(address, host, port), where=here)
