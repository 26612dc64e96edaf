"""Members of a replica set that can be cut off from each other while clients still reach every one of them.

Members and clients know each member by the port of a gate of its own. The gate looks in /proc who it is that connects:
a client is let through; what a member sends to another one goes through a proxy of these two.

    replicas = ReplicaSet(folder)
    async with Partition(replicas) as partition:
        await asyncio.to_thread(replicas.start)
        partition.cut_off(replicas.members[0])
        partition.heal()
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import permutations
from pathlib import Path
from typing import Self

from faults.proxy import Conditions, Proxy
from replica_set import ReplicaSet
from servers import LOOPBACK, MongoServer

_ESTABLISHED = "01"


class Gate(Proxy):
    """`ways`: the one to this member from each other one."""

    def __init__(self, member: MongoServer, ways: Mapping[MongoServer, Proxy]) -> None:
        super().__init__(LOOPBACK, member.port)
        self._ways = ways

    def target_of(self, client: asyncio.StreamWriter) -> tuple[str, int]:
        source = self._member_at(client.get_extra_info("peername")[1])
        return super().target_of(client) if source is None else (LOOPBACK, self._ways[source].port)

    def _member_at(self, port: int) -> MongoServer | None:
        inode = socket_inode(port, self.port)
        return next((member for member in self._ways if member.running and inode in sockets(member.pid)), None)


class Partition:
    """The gates of a replica set that has not been started yet; started later, it is known by them."""

    def __init__(self, replicas: ReplicaSet) -> None:
        self._replicas = replicas
        self._links = {
            (source, target): Proxy(LOOPBACK, target.port) for source, target in permutations(replicas.members, 2)
        }
        self._stack = AsyncExitStack()

    def cut_off(self, member: MongoServer) -> None:
        """What it sends to the others, and they to it, no longer arrives."""
        for ends, link in self._links.items():
            if member in ends:
                link.both_ways(Conditions(blackhole=True))

    def heal(self) -> None:
        """What was held back arrives."""
        for link in self._links.values():
            link.heal()

    @property
    def connections(self) -> int:
        """Between members, at present."""
        return sum(link.connections for link in self._links.values())

    async def __aenter__(self) -> Self:
        for link in self._links.values():
            await self._stack.enter_async_context(link)
        gates: Sequence[Gate] = [
            await self._stack.enter_async_context(Gate(member, self._links_to(member)))
            for member in self._replicas.members
        ]
        self._replicas.known_as = [gate.port for gate in gates]
        return self

    def _links_to(self, member: MongoServer) -> Mapping[MongoServer, Proxy]:
        return {source: link for (source, target), link in self._links.items() if target is member}

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


def socket_inode(port: int, remote: int) -> str | None:
    """Of the established TCP connection from that loopback port to `remote`."""
    wanted = (f"0100007F:{port:04X}", f"0100007F:{remote:04X}", _ESTABLISHED)
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return next((row[9] for row in rows if (row[1], row[2], row[3]) == wanted), None)


def sockets(process: int) -> frozenset[str]:
    """The inodes of the sockets that it has open."""
    found = set()
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:  # closed since
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return frozenset(found)
