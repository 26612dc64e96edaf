"""Redis Cluster: which node serves which of the 16,384 slots, and a pool of connections to each.

Every call has one key, and all keys of a job queue are in one slot (keys.py), so no call crosses slots. Calls on
several queues go to each node that serves some of them, at the same time.

    MOVED                       the slot is served by another node now: its map is read, the call sent there
    no connection, no answer,   the map is read from whoever answers first; where it has changed (a replica has taken
    READONLY, CLUSTERDOWN, a    over) the call is sent again, else the store is unavailable
    slot that the map lacks
    ASK                         the slot is being moved: unavailable, until all of it is there

ASK is not followed. It sends a call to the new node as long as the key that it names is not there any more, while a
script touches a dozen keys of its queue: part of them would be on the one node, part on the other, and a queue would be
torn in two. The key that our calls name is a prefix, which never exists, so a node that is handing a slot over answers
all scripts on it with ASK, from the first moment to the last. That is why this is not the driver's RedisCluster, which
cannot be told not to follow; nor does it wait for a free connection, it refuses the call.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct
from redis.crc import key_slot
from redis.exceptions import AskError, AuthenticationError, ClusterDownError, MovedError, ReadOnlyError, RedisError
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import TimeoutError as NoAnswer

from ..errors import MetadataError, StoreRefused, StoreUnavailable
from .address import Address
from .failures import is_closed_transport, translated
from .node import Node, node_at

Place = tuple[str, int]  # host, port

_CHANGES = (MovedError, ReadOnlyError, ClusterDownError, ConnectionLost, NoAnswer, OSError)


class Slots(Struct, frozen=True):
    """`ranges`: first and last slot, and who serves them; `replicas`: of any of them."""

    ranges: tuple[tuple[int, int, Place], ...] = ()
    replicas: frozenset[Place] = frozenset()

    @property
    def masters(self) -> frozenset[Place]:
        return frozenset(place for _, _, place in self.ranges)


class ClusterRoute:
    def __init__(self, address: Address) -> None:
        self.version = 0
        self._address = address
        self._nodes: dict[Place, Node] = {}
        self._slots = Slots()
        self._firsts: list[int] = []  # of the ranges, which do not overlap
        self._servers: list[tuple[int, Node]] = []  # for each range its last slot, and who serves it
        self._reading: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self) -> None:
        await self._read_slots(self._address.hosts)

    async def close(self) -> None:
        self._closed = True
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        nodes, self._nodes, self._firsts, self._servers, self._slots = self._nodes, {}, [], [], Slots()
        for node in nodes.values():
            await node.close()

    def node_of(self, key: str) -> Node:
        slot = key_slot(key.encode())
        place = bisect_right(self._firsts, slot) - 1
        if place >= 0:
            last, node = self._servers[place]
            if slot <= last:
                return node
        raise ClusterDownError(f"no node of the cluster serves slot {slot}")

    @property
    def masters(self) -> Sequence[Node]:
        return [self._nodes[place] for place in sorted(self._slots.masters)]

    async def mended(self, error: Exception, version: int) -> bool:
        if self.version != version:
            return True
        if self._closed:  # nobody would close what is opened now
            return False
        asked = isinstance(error, AskError) and not isinstance(error, MovedError)
        if asked or isinstance(error, AuthenticationError) or not isinstance(error, _CHANGES):
            return False
        if self._reading is None:
            # The node that a MOVED names knows best.
            moved = [(error.host, error.port)] if isinstance(error, MovedError) and error.host else ()
            self._reading = asyncio.create_task(self._read_again(moved))
            self._reading.add_done_callback(self._forget_reading)
        # One for all calls that failed; it goes on for the others where one of them is cancelled. That `close` cancels
        # it is no cancellation of who waits here.
        reading = self._reading
        await asyncio.wait([reading])
        if not reading.cancelled():
            reading.result()
        return self.version != version

    def _forget_reading(self, reading: asyncio.Task[None]) -> None:
        self._reading = None
        if not reading.cancelled():
            reading.exception()  # told to those who waited for it

    async def _read_again(self, first: Sequence[Place]) -> None:
        known = [*self._slots.masters, *self._slots.replicas, *self._address.hosts]
        # Where it cannot be read, the error of the call that failed says enough.
        with suppress(MetadataError):
            await self._read_slots(first or known)

    # -- the map ------------------------------------------------------------------------------------------------------

    async def _read_slots(self, places: Sequence[Place]) -> None:
        """From the node that answers first. StoreUnavailable: none did, or the cluster is down for all of them."""
        asking = {asyncio.create_task(self._ask(place)) for place in dict.fromkeys(places)}
        reasons = []
        refused: BaseException | None = None
        found: Slots | None = None
        try:
            async with asyncio.timeout(self._address.timeout):
                while asking and found is None:
                    done, asking = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
                    for one in done:
                        error = one.exception()
                        if error is None:
                            found = one.result()
                        elif isinstance(error, StoreUnavailable):
                            reasons.append(error.reason)
                        else:
                            refused = error
        except TimeoutError:
            reasons.append(f"no answer within {self._address.timeout:g} s")
        finally:
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        if found is not None:
            await self._use(found)
        elif refused is not None:
            raise refused
        else:
            raise StoreUnavailable(self._address.name, "; ".join(dict.fromkeys(reasons)))

    async def _ask(self, place: Place) -> Slots:
        node, store = self._node(place), self._address.name
        try:
            info = await _execute(node, "CLUSTER", "INFO")
            rows = await _execute(node, "CLUSTER", "SLOTS")
        except (RedisError, OSError) as error:
            if "cluster support disabled" in str(error):
                raise StoreRefused(
                    f"{node.name} is not a node of a cluster (cluster-enabled no): use redis:// for a single server"
                ) from error
            raise translated(error, store) from error
        except RuntimeError as error:
            if not is_closed_transport(error):
                raise
            raise StoreUnavailable(store, f"{node.name}: the connection was lost") from error
        if b"cluster_state:ok" not in info:
            # A node that was cut off would describe the cluster as it was.
            raise StoreUnavailable(store, f"{node.name} says that the cluster is down (cluster_state:fail)")
        return _slots(rows, place)

    async def _use(self, slots: Slots) -> None:
        if slots.ranges != self._slots.ranges:
            self._firsts = [first for first, _, _ in slots.ranges]
            self._servers = [(last, self._node(place)) for _, last, place in slots.ranges]
            self.version += 1
        self._slots = slots
        for place in self._nodes.keys() - (slots.masters | slots.replicas | set(self._address.hosts)):
            node = self._nodes.pop(place)
            with suppress(RedisError, OSError):  # it is gone, and its connections with it
                await node.close()

    def _node(self, place: Place) -> Node:
        if place not in self._nodes:
            self._nodes[place] = node_at(self._address, *place)
        return self._nodes[place]


def _slots(rows: Sequence[Any], asked: Place) -> Slots:
    """`rows`: first slot, last slot, master, replicas; each of these host, port, and what we do not need."""
    ranges = []
    replicas: set[Place] = set()
    for first, last, master, *others in rows:
        ranges.append((int(first), int(last), _place(master, asked)))
        replicas.update(_place(other, asked) for other in others)
    return Slots(tuple(sorted(ranges)), frozenset(replicas))


def _place(row: Sequence[Any], asked: Place) -> Place:
    host = (row[0] or b"").decode()
    return (asked[0] if host in ("", "?") else host), int(row[1])


async def _execute(node: Node, *parts: str) -> Any:
    return await node.client.execute_command(*parts)  # type: ignore[no-untyped-call]  # the driver's own omission
