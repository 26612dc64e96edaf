"""Which server holds a key: the one of a redis:// URL, the master that sentinels name, or a node of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .address import Address, Mode
from .cluster import ClusterRoute
from .node import Node, node_at
from .sentinels import SentinelRoute


class Route(Protocol):
    """`version`: changes when a key's server does."""

    version: int

    async def open(self) -> None:
        """Driver's errors, and those of the contract, where nobody can be asked for the way."""
        ...

    async def close(self) -> None: ...

    def node_of(self, key: str) -> Node:
        """The driver's ClusterDownError: as far as is known, no server holds it."""
        ...

    @property
    def masters(self) -> Sequence[Node]:
        """Every server that holds keys."""
        ...

    async def mended(self, error: Exception, version: int) -> bool:
        """Whether the way is another one now than it was at `version`, when a call was sent that failed with `error`:
        then it may be sent again."""
        ...


def make_route(address: Address) -> Route:
    if address.mode is Mode.CLUSTER:
        return ClusterRoute(address)
    if address.mode is Mode.SENTINEL:
        return SentinelRoute(address)
    return ServerRoute(address)


class ServerRoute:
    version = 0

    def __init__(self, address: Address) -> None:
        self._node = node_at(address, address.host, address.port)

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        await self._node.close()

    def node_of(self, key: str) -> Node:
        return self._node

    @property
    def masters(self) -> Sequence[Node]:
        return (self._node,)

    async def mended(self, error: Exception, version: int) -> bool:
        return False
