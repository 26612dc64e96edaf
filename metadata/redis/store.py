"""The store itself: opened, asked for capabilities, closed."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import ClassVar, Self, TypeVar, cast

from ..contract import (
    Check,
    Deduplicating,
    Delays,
    Inspection,
    Jobs,
    QueueControl,
    Retention,
    Workers,
)
from ..ends import Ends
from ..errors import CapabilityMissing, StoreRefused, StoreUnavailable
from ..leases import Leases
from ..schedules import Schedules
from ..standing import StandingClaims
from .address import Address, Mode, parse
from .connection import RedisConnection
from .control import RedisDeduplicating, RedisQueueControl, RedisRetention
from .ends import RedisEnds
from .inspection import RedisInspection
from .jobs import RedisDelays, RedisJobs
from .keys import Keys
from .leases import RedisLeases
from .schedules import RedisSchedules
from .server import durable, findings, read_facts, version
from .standing import RedisStandingClaims
from .workers import RedisWorkers

LAYOUT = "1"  # of keys and records; a number that changes when older versions could not read them

C = TypeVar("C")


class RedisStore:
    """Jobs in Redis 6.2 or later: one server, a cluster, or a master that sentinels watch over.

    Belongs to the event loop that opened it; another thread uses a store of its own.

    Comes back by itself after an outage. Options of the URL: see `address.parse`.
    """

    scheme: ClassVar[str] = "redis"
    shared: ClassVar[bool] = True
    server_time: ClassVar[bool] = True

    def __init__(self, address: Address, *, namespace: str) -> None:
        self._address = address
        self._keys = Keys(namespace)
        self._connection = RedisConnection(address, self._keys)
        self._durable: bool | None = None
        self._epoch: str | None = None
        self._version = ""
        self._offers: dict[type, object] = {
            Jobs: RedisJobs(self._connection),
            Delays: RedisDelays(self._connection),
            Workers: RedisWorkers(self._connection),
            Deduplicating: RedisDeduplicating(self._connection),
            QueueControl: RedisQueueControl(self._connection),
            Inspection: RedisInspection(self._connection),
            Retention: RedisRetention(self._connection),
            Schedules: RedisSchedules(self._connection),
            Leases: RedisLeases(self._connection),
        }
        if address.mode is not Mode.CLUSTER:  # where a script does not know who hears what it publishes
            self._offers[StandingClaims] = RedisStandingClaims(self._connection)
            self._offers[Ends] = RedisEnds(self._connection)

    @classmethod
    def from_url(cls, url: str, *, namespace: str) -> Self:
        """StoreRefused if the URL cannot be used; the message never holds what it held."""
        return cls(parse(url), namespace=namespace)

    @property
    def durable(self) -> bool:
        if self._durable is None:
            raise StoreUnavailable(self._address.name, "it is not open")
        return self._durable

    @property
    def epoch(self) -> str:
        if self._epoch is None:
            raise StoreUnavailable(self._address.name, "it is not open")
        return self._epoch

    @property
    def version(self) -> str:
        return self._version

    @property
    def capabilities(self) -> frozenset[type]:
        return frozenset(self._offers)

    def get(self, capability: type[C]) -> C:
        try:
            return cast(C, self._offers[capability])
        except KeyError:
            raise CapabilityMissing(capability=capability.__name__, store=self.scheme) from None

    async def open(self) -> None:
        await self._connection.open()
        try:
            servers = await read_facts(self._connection)
            refusals = [check.message for check in findings(servers, self._address) if check.refuse]
            if refusals:
                raise StoreRefused(f"{self._address.name} must not be used as it is: {'; '.join(refusals)}")
            await self._connection.load_scripts()
            await self.read_epoch()
            self._durable = durable(servers, self._address.mode)
            self._version = version(servers)
        except BaseException:
            await self._connection.close()
            raise

    async def read_epoch(self) -> str:
        # Read first: a server that is full refuses the SET, and still lets running jobs end.
        key = self._keys.epoch
        stored = await self._connection.command("GET", key)
        if stored is None:
            await self._connection.command("SET", key, f"{LAYOUT}:{secrets.token_hex(16)}", "NX")
            stored = await self._connection.command("GET", key)
        layout, _, epoch = str(stored.decode()).rpartition(":")
        if layout not in ("", LAYOUT):  # the first had no number
            raise StoreRefused(
                f"the namespace {self._keys.namespace!r} on {self._address.name} is kept in layout {layout}, and this"
                f" version of Callboard knows layout {LAYOUT}: use the version that wrote it, or another namespace"
            )
        self._epoch = epoch
        return epoch

    async def close(self) -> None:
        await self._connection.close()

    async def ping(self) -> None:
        await self._connection.everywhere(("PING",))

    async def check(self) -> Sequence[Check]:
        return findings(await read_facts(self._connection), self._address)
