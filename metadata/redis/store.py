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
from ..errors import CapabilityMissing, StoreRefused, StoreUnavailable
from ..schedules import Schedules
from .address import Address, parse
from .connection import RedisConnection
from .control import RedisDeduplicating, RedisQueueControl, RedisRetention
from .inspection import RedisInspection
from .jobs import RedisDelays, RedisJobs
from .keys import Keys
from .schedules import RedisSchedules
from .server import findings, read_facts
from .workers import RedisWorkers

C = TypeVar("C")


class RedisStore:
    """Jobs in Redis 6.2 or later. Belongs to the event loop that opened it; another thread uses a store of its own.

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
        self._offers: dict[type, object] = {
            Jobs: RedisJobs(self._connection),
            Delays: RedisDelays(self._connection),
            Workers: RedisWorkers(self._connection),
            Deduplicating: RedisDeduplicating(self._connection),
            QueueControl: RedisQueueControl(self._connection),
            Inspection: RedisInspection(self._connection),
            Retention: RedisRetention(self._connection),
            Schedules: RedisSchedules(self._connection),
        }

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
            facts = await read_facts(self._connection)
            refusals = [
                check.message for check in findings(facts, allow_eviction=self._address.allow_eviction) if check.refuse
            ]
            if refusals:
                raise StoreRefused(f"{self._address.name} must not be used as it is: {'; '.join(refusals)}")
            await self._connection.load_scripts()
            self._epoch = await self._read_epoch()
            self._durable = facts.durable
        except BaseException:
            await self._connection.close()
            raise

    async def close(self) -> None:
        await self._connection.close()

    async def ping(self) -> None:
        await self._connection.command("PING")

    async def check(self) -> Sequence[Check]:
        facts = await read_facts(self._connection)
        return findings(facts, allow_eviction=self._address.allow_eviction)

    async def _read_epoch(self) -> str:
        # Read first: a server that is full refuses the SET, and still lets running jobs end.
        key = self._keys.epoch
        epoch = await self._connection.command("GET", key)
        if epoch is None:
            await self._connection.command("SET", key, secrets.token_hex(16), "NX")
            epoch = await self._connection.command("GET", key)
        return str(epoch.decode())
