"""One server: pipes for script calls, the driver's client for everything else.

A server works off what it has read of one connection before it turns to the next, and answers in order. So small calls
have a connection of their own, where they do not wait behind several large ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as NoAnswer

from .address import Address, host_name
from .ear import Ear
from .pipe import Pipe
from .pool import pool

SMALL_BYTES = 1024  # the commands of a call: a dozen claims, or a job with its arguments
LARGE_AT_ONCE = 2  # calls: one that the server works on, and the next one, so that it need not wait for us


class Node:
    """`where`: asked for host and port before each connection of a pipe."""

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
        self._large = Pipe(address, where=where)
        self._small = Pipe(address, where=where, yields=True)
        self._turns = asyncio.Semaphore(LARGE_AT_ONCE)
        self._timeout = address.timeout
        self._address = address
        self._where = where

    async def ask(self, commands: Sequence[bytes]) -> list[Any]:
        """See `Pipe.ask`. A large call first waits until one of those before it is answered, no longer than for an
        answer."""
        if sum(map(len, commands)) <= SMALL_BYTES:
            return await self._small.ask(commands)
        if self._turns.locked():
            await self._turn()
        else:
            await self._turns.acquire()
        try:
            return await self._large.ask(commands)
        finally:
            self._turns.release()

    def ear(self, heard: Callable[[bytes, bytes], None], deaf: Callable[[], None]) -> Ear:
        """Not connected yet; whoever has it closes it."""
        return Ear(self._address, where=self._where, heard=heard, deaf=deaf)

    def drop(self) -> None:
        """Give the pipes' connections up; what waits on them is Lost, the next calls make others."""
        self._large.drop()
        self._small.drop()

    async def _turn(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._turns.acquire()
        except TimeoutError:
            raise NoAnswer(f"no answer to the calls before it within {self._timeout:g} s") from None

    async def close(self) -> None:
        await self._large.close()
        await self._small.close()
        await close_client(self.client)


async def close_client(client: Redis) -> None:
    """The driver gives up waiting for the end of a connection after a while: it is closed all the same."""
    with suppress(RedisError, OSError):
        await client.aclose(close_connection_pool=True)


def node_at(address: Address, host: str, port: int) -> Node:
    """One that stays where it is."""

    async def here() -> tuple[str, int]:
        return host, port

    return Node(address, name=host_name(host, port), connections=pool(address, host, port), where=here)
