"""The store itself: opened, asked for capabilities, closed."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self, TypeVar, cast
from urllib.parse import quote

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
from ..leases import Leases
from ..schedules import Schedules
from .address import DATABASE, Address, parse
from .connection import MongoConnection
from .control import MongoDeduplicating, MongoQueueControl, MongoRetention
from .delays import MongoDelays
from .indexes import FORMER, INDEXES
from .inspection import MongoInspection
from .jobs import MongoJobs
from .leases import MongoLeases
from .schedules import MongoSchedules
from .server import findings, index_findings, read_facts, server_findings
from .standing import Standings
from .window import CLAIM_WINDOW
from .workers import MongoWorkers

C = TypeVar("C")


class MongoStore:
    """Jobs in the collection `<namespace>.jobs` of a MongoDB 5.0 or later, a standalone server or a replica set.

    `client`: PyMongo's AsyncMongoClient or Motor's AsyncIOMotorClient, used but neither opened nor closed; how it
    acknowledges writes and where it reads is of no account, its time limits hold. `from_url` makes a client of its own.
    Belongs to the event loop that opened it; another thread uses a store of its own.

    `claim_window`: ms that a claim may take between looking and writing, and half of what `pause` and `declare_dead`
    wait; used where the namespace is new, which remembers it. See `window.py`. Comes back by itself after an outage.
    """

    scheme: ClassVar[str] = "mongodb"
    shared: ClassVar[bool] = True
    server_time: ClassVar[bool] = True

    def __init__(
        self, client: Any, *, database: str = DATABASE, namespace: str = "callboard", claim_window: int = CLAIM_WINDOW
    ) -> None:
        self._make(Address(url="", name=f"mongodb://(given client)/{database}", database=database), namespace, client,
                   claim_window)  # fmt: skip

    @classmethod
    def from_url(cls, url: str, *, namespace: str, claim_window: int = CLAIM_WINDOW) -> Self:
        """StoreRefused if the URL cannot be used; the message never holds what it held. Options: `address.parse`."""
        store = cls.__new__(cls)
        store._make(parse(url), namespace, None, claim_window)
        return store

    def _make(self, address: Address, namespace: str, client: Any, claim_window: int) -> None:
        self._address = address
        self._open = False
        self._durable = False
        self._version = ""
        connection = self._connection = MongoConnection(
            address,
            # $ has a meaning in a collection's name, and "system." at its beginning.
            collection=f"{quote(namespace, safe=':')}.jobs",
            claim_window=claim_window,
            client=client,
        )
        standings = Standings(connection)
        self._offers: dict[type, object] = {
            Jobs: MongoJobs(connection, standings),
            Delays: MongoDelays(connection),
            Workers: MongoWorkers(connection, standings),
            Deduplicating: MongoDeduplicating(connection),
            QueueControl: MongoQueueControl(connection),
            Inspection: MongoInspection(connection),
            Retention: MongoRetention(connection),
            Schedules: MongoSchedules(connection),
            Leases: MongoLeases(connection),
        }

    @property
    def durable(self) -> bool:
        self._require_open()
        return self._durable

    @property
    def epoch(self) -> str:
        self._require_open()
        return self._connection.epoch

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
            facts = await read_facts(self._connection)
            self._refuse(server_findings(facts))  # before anything is written
            known = facts.indexes
            former = sorted(FORMER & known.keys())
            # One that is still being built is known, too; to make it again is to wait for it.
            wanted = [
                index for index in INDEXES if index.name not in known or (former and index.is_like(known[index.name]))
            ]
            await self._connection.create_indexes([index.model() for index in wanted])
            await self._connection.drop_indexes(former)
            self._refuse(index_findings(await self._connection.index_information()))
            await self._connection.read_identity(secrets.token_hex(16))
            self._durable = facts.persistent
            self._version = facts.version
        except BaseException:
            await self._connection.close()
            raise
        self._open = True

    async def read_epoch(self) -> str:
        self._require_open()
        await self._connection.read_identity(secrets.token_hex(16))
        return self._connection.epoch

    async def close(self) -> None:
        self._open = False
        await self._connection.close()

    async def ping(self) -> None:
        await self._connection.command("ping")

    async def check(self) -> Sequence[Check]:
        return findings(await read_facts(self._connection))

    def _refuse(self, checks: Iterable[Check]) -> None:
        if refusals := [check.message for check in checks if check.refuse]:
            raise StoreRefused(f"{self._address.name} must not be used as it is: {'; '.join(refusals)}")

    def _require_open(self) -> None:
        if not self._open:
            raise StoreUnavailable(self._address.name, "it is not open")
