"""Redis Sentinel: whoever is the master now is asked for before each new connection.

When the master dies, its connections break; new ones are made to whom the sentinels then name. Until they have agreed
(down-after-milliseconds, then a vote) the store is unavailable. A replica is promoted with what had reached it: what
the old master answered in its last moments may be lost, see DESIGN.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import ReadOnlyError, RedisError

from .address import Address, host_name
from .node import Node, close_client
from .pool import blocking_pool, connection_options

SENTINEL_SECONDS = 1.0  # for the answer of one sentinel: another one may know
_AWAY = {"s_down", "o_down", "disconnected"}


class SentinelRoute:
    version = 0

    def __init__(self, address: Address) -> None:
        self._masters = Masters(address)
        self._connections = blocking_pool(
            address,
            connection_class=SentinelManagedSSLConnection if address.tls else SentinelManagedConnection,
            connection_pool=self._masters,
            **connection_options(address),
        )
        self._masters.connections = self._connections
        self._node = Node(
            address,
            name=address.name,
            connections=self._connections,
            where=self._masters.get_master_address,
        )

    async def open(self) -> None:
        # Here, where a fault in the URL can be told by its own name: within a connection it would be one that failed.
        await self._masters.get_master_address()

    async def close(self) -> None:
        await self._node.close()
        await self._masters.close()

    def node_of(self, key: str) -> Node:
        return self._node

    @property
    def masters(self) -> Sequence[Node]:
        return (self._node,)

    async def mended(self, error: Exception, version: int) -> bool:
        """Connections that broke are made anew, to whoever is the master then. One that did not break and leads to a
        server that was made a replica is given up here."""
        if not isinstance(error, ReadOnlyError):
            return False
        self._node.drop()
        await self._connections.disconnect(inuse_connections=False)
        return True


class Masters:
    """What the driver's connections ask of their pool: see SentinelManagedConnection."""

    is_master = True
    check_connection = False

    def __init__(self, address: Address) -> None:
        self.connections: BlockingConnectionPool | None = None
        self._service = address.service
        self._current: tuple[str, int] | None = None
        options = connection_options(address) | {
            "socket_timeout": min(address.timeout, SENTINEL_SECONDS),
            "socket_connect_timeout": min(address.timeout, SENTINEL_SECONDS),
            "username": address.sentinel_username,
            "password": address.sentinel_password,
            "retry": Retry(NoBackoff(), 1, supported_errors=(ConnectionLost,)),
            "ssl": address.tls,
        }
        self._sentinels = [
            (host_name(host, port), Redis(host=host, port=port, **options)) for host, port in address.hosts
        ]

    async def close(self) -> None:
        for _, client in self._sentinels:
            await close_client(client)

    async def get_master_address(self) -> tuple[str, int]:
        """The first answer of a sentinel that sees the master; the driver's ConnectionError: there is none."""
        reasons = []
        for entry in tuple(self._sentinels):
            name, sentinel = entry
            try:
                row = await _execute(sentinel, "SENTINEL", "MASTER", self._service)
            except BaseException as error:
                # The last one the next time, also where we were cancelled: one that hangs may take all the time that a
                # connection has.
                self._move(entry, len(self._sentinels))
                if not isinstance(error, RedisError | OSError):
                    raise
                reasons.append(f"sentinel {name}: {error}")
                continue
            found = _address(dict(zip(row[::2], row[1::2], strict=True)))
            if found is not None:
                self._move(entry, 0)  # the first one the next time
                await self._change_to(found)
                return found
            reasons.append(f"sentinel {name} sees it down")
        raise ConnectionLost(f"no sentinel names a master called {self._service!r}: {'; '.join(reasons)}")

    def _move(self, entry: tuple[str, Redis], place: int) -> None:
        self._sentinels.remove(entry)
        self._sentinels.insert(place, entry)

    async def _change_to(self, found: tuple[str, int]) -> None:
        before, self._current = self._current, found
        if before not in (None, found) and self.connections is not None:
            # Idle connections lead to the old master, which may be frozen or cut off rather than dead.
            await self.connections.disconnect(inuse_connections=False)


def _address(row: Mapping[bytes, bytes]) -> tuple[str, int] | None:
    """None: that master is down."""
    flags = set(row[b"flags"].decode().split(","))
    if "master" not in flags or flags & _AWAY:
        return None
    return row[b"ip"].decode(), int(row[b"port"])


async def _execute(client: Redis, *parts: str) -> Any:
    return await client.execute_command(*parts)  # type: ignore[no-untyped-call]  # the driver's own omission
