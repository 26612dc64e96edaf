"""What is found out about a Redis server when it is opened, and what an operator should know about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..contract import Check
from ..errors import StoreError
from .connection import RedisConnection

OLDEST = (6, 2)


class ServerFacts(Struct, frozen=True):
    """INFO, and the settings that matter; `settings` None: the server does not let us read them."""

    info: Mapping[str, Any]
    settings: Mapping[str, str] | None

    def setting(self, name: str) -> str | None:
        return None if self.settings is None else self.settings.get(name)

    @property
    def durable(self) -> bool:
        """An answered write is on disk: the append-only file is synced before each answer, rewrites included."""
        return (
            self.setting("appendonly") == "yes"
            and self.setting("appendfsync") == "always"
            and self.setting("no-appendfsync-on-rewrite") == "no"
        )


async def read_facts(connection: RedisConnection) -> ServerFacts:
    info = await connection.command("INFO")
    try:
        settings = await connection.command("CONFIG GET", "*append*")
        settings |= await connection.command("CONFIG GET", "maxmemory-policy")
        settings |= await connection.command("CONFIG GET", "min-*-to-write")
    except StoreError:  # managed services deny CONFIG
        return ServerFacts(info, None)
    return ServerFacts(info, {_text(name): _text(value) for name, value in settings.items()} or None)


def findings(facts: ServerFacts, *, allow_eviction: bool) -> Sequence[Check]:
    return [*_identity(facts.info), *_memory(facts, allow_eviction), *_persistence(facts), *_replication(facts)]


def _identity(info: Mapping[str, Any]) -> Iterator[Check]:
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdecimal()) < OLDEST:
        yield Check("redis-version", f"Redis {version} is too old: use 6.2 or later", refuse=True)
    role = info.get("role")
    if role != "master":
        yield Check("redis-role", f"this Redis has the role {role}: connect to the master", refuse=True)
    if info.get("cluster_enabled"):
        yield Check(
            "redis-cluster",
            "this Redis is a node of a cluster (cluster-enabled yes), and a redis:// URL speaks to one server: queues"
            " in slots of other nodes cannot be reached; use a server with cluster-enabled no",
            refuse=True,
        )


def _memory(facts: ServerFacts, allow_eviction: bool) -> Iterator[Check]:
    policy = facts.setting("maxmemory-policy") or facts.info.get("maxmemory_policy")
    if policy is None:
        yield Check("redis-eviction", "maxmemory-policy cannot be read: make sure that it is noeviction")
    elif policy != "noeviction":
        yield Check(
            "redis-eviction",
            f"maxmemory-policy is {policy}, so a full Redis would silently drop jobs: set it to noeviction"
            " (or add allow_eviction=true to the store's URL to accept that)",
            refuse=not allow_eviction,
        )


def _persistence(facts: ServerFacts) -> Iterator[Check]:
    if facts.settings is None:
        yield Check("redis-durability", "CONFIG GET is denied: assuming that a power cut can lose answered writes")
    elif not facts.durable:
        names = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite")
        current = ", ".join(f"{name} {facts.setting(name)}" for name in names)
        yield Check(
            "redis-durability",
            f"a power cut can lose answered writes ({current}); durable is"
            " appendonly yes, appendfsync always, no-appendfsync-on-rewrite no",
        )
    for field in ("aof_last_write_status", "rdb_last_bgsave_status"):
        status = facts.info.get(field, "ok")
        if status != "ok":
            yield Check("redis-persistence", f"{field} is {status}: the server cannot write its data to disk")


def _replication(facts: ServerFacts) -> Iterator[Check]:
    replicas = int(facts.info.get("connected_slaves", 0))
    if replicas and facts.setting("min-replicas-to-write") in (None, "0"):
        yield Check(
            "redis-replication",
            f"{replicas} replicas are connected and min-replicas-to-write is 0: a failover loses answered writes",
        )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
