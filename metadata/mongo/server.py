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
    """`features`: its featureCompatibilityVersion, as which version it works. This, `status` and `replication` are None
    where the server does not let us read them (they need the role clusterMonitor).
    """

    hello: Mapping[str, Any]
    version: str
    features: str | None
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
    """Writes nothing."""
    build = await connection.command("buildInfo")
    # The first versions that are too old do not know it.
    hello = {} if _numbers(str(build["version"])) < OLDEST else await connection.command("hello")
    features = await _if_allowed(connection, "getParameter", featureCompatibilityVersion=1)
    status = await _if_allowed(connection, "serverStatus")
    replication = await _if_allowed(connection, "replSetGetConfig") if "setName" in hello else None
    return ServerFacts(
        hello=hello,
        version=str(build["version"]),
        features=None if features is None else str(features["featureCompatibilityVersion"]["version"]),
        status=status,
        replication=None if replication is None else replication.get("config"),
        indexes=await connection.index_information(),
    )


async def _if_allowed(connection: MongoConnection, command: str, **arguments: Any) -> Mapping[str, Any] | None:
    try:
        return await connection.command(command, database="admin", **arguments)
    except StoreError:  # managed services and plain users are not let
        return None


def findings(facts: ServerFacts) -> Sequence[Check]:
    return [*server_findings(facts), *index_findings(facts.indexes)]


def server_findings(facts: ServerFacts) -> Sequence[Check]:
    if _numbers(facts.version) < OLDEST:
        return [Check("mongodb-version", f"MongoDB {facts.version} is too old: use 5.0 or later", refuse=True)]
    return [*_identity(facts), *_durability(facts)]


def index_findings(indexes: Mapping[str, Any]) -> Sequence[Check]:
    return [
        Check("mongodb-index", f"the index {index.name!r} {fault}", refuse=index.unique)
        for index, fault in faults(indexes)
    ]


def _identity(facts: ServerFacts) -> Iterator[Check]:
    if facts.features is not None and _numbers(facts.features) < OLDEST:
        yield Check(
            "mongodb-features",
            f"its featureCompatibilityVersion is {facts.features}, so MongoDB {facts.version} works as one that is too"
            ' old: once every member runs 5.0 or later, db.adminCommand({setFeatureCompatibilityVersion: "5.0"})',
            refuse=True,
        )
    elif facts.features is None and _numbers(facts.version) == OLDEST:
        # Only this version can be set to one that is too old; the later ones do not start with its data then.
        yield Check(
            "mongodb-features",
            "its featureCompatibilityVersion may not be read without the role clusterMonitor: make sure that it is 5.0",
        )
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


def _numbers(version: str) -> tuple[int, ...]:
    """Major and minor."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


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
