"""What is found out about a MongoDB server when it is opened, and what an operator should know about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..contract import Check
from ..errors import StoreError
from .connection import MongoConnection
from .indexes import faults

OLDEST = (5, 0)


class ServerFacts(Struct, frozen=True):
    """`status`, `settings` None: the server does not let us read them (they need the role clusterMonitor)."""

    hello: Mapping[str, Any]
    version: str
    status: Mapping[str, Any] | None
    replication: Mapping[str, Any] | None
    indexes: Mapping[str, Any]

    @property
    def replica_set(self) -> str | None:
        name: str | None = self.hello.get("setName")
        return name

    @property
    def persistent(self) -> bool:
        """Data and journal are on a disk. Taken for granted where unknown: a write that cannot be journaled fails."""
        return self.status is None or bool(self.status.get("storageEngine", {}).get("persistent", True))


async def read_facts(connection: MongoConnection) -> ServerFacts:
    hello = await connection.command("hello")
    build = await connection.command("buildInfo")
    status = await _if_allowed(connection, "serverStatus")
    replication = await _if_allowed(connection, "replSetGetConfig") if "setName" in hello else None
    return ServerFacts(
        hello=hello,
        version=str(build["version"]),
        status=status,
        replication=None if replication is None else replication.get("config"),
        indexes=await connection.index_information(),
    )


async def _if_allowed(connection: MongoConnection, command: str) -> Mapping[str, Any] | None:
    try:
        return await connection.command(command, database="admin")
    except StoreError:  # managed services and plain users are not let
        return None


def findings(facts: ServerFacts) -> Sequence[Check]:
    return [*_identity(facts), *_durability(facts), *_indexes(facts)]


def _identity(facts: ServerFacts) -> Iterator[Check]:
    if tuple(int(part) for part in facts.version.split(".")[:2] if part.isdecimal()) < OLDEST:
        yield Check("mongodb-version", f"MongoDB {facts.version} is too old: use 5.0 or later", refuse=True)
    if facts.hello.get("msg") == "isdbgrid":
        yield Check(
            "mongodb-sharded",
            "this is a router of a sharded cluster, on which a unique index does not hold for the whole collection:"
            " connect to a replica set",
            refuse=True,
        )
    elif not facts.hello.get("isWritablePrimary"):
        yield Check(
            "mongodb-primary",
            "this server is not the primary of its replica set: name the replica set in the URL (replicaSet=<name>)"
            " and leave out directConnection",
            refuse=True,
        )


def _durability(facts: ServerFacts) -> Iterator[Check]:
    if not facts.persistent:
        yield Check("mongodb-durability", "its storage engine keeps data in memory: jobs are lost when it ends")
    if facts.replica_set is None:
        yield Check(
            "mongodb-standalone",
            "this is a standalone server: writes are journaled and survive a power cut, but nothing takes over when"
            " it fails, and the driver cannot repeat a lost write by itself; a replica set gives both",
        )
    if facts.replication is not None and facts.replication.get("writeConcernMajorityJournalDefault") is False:
        yield Check(
            "mongodb-journal",
            "writeConcernMajorityJournalDefault is false: secondaries acknowledge writes that are in their memory"
            " only, and a power cut of a majority can lose answered writes",
        )
    members = () if facts.replication is None else facts.replication.get("members", ())
    if len(members) == 2 or any(member.get("arbiterOnly") for member in members):
        yield Check(
            "mongodb-majority",
            f"the replica set has {len(members)} members, arbiters included: while one that holds data is away,"
            " no write is acknowledged by a majority, and jobs cannot be enqueued, started or ended",
        )


def _indexes(facts: ServerFacts) -> Iterator[Check]:
    for index, fault in faults(facts.indexes):
        yield Check("mongodb-index", f"the index {index.name!r} {fault}", refuse=index.unique)
