"""What is found out about a Redis server when it is opened, and what an operator should know about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..contract import Check
from .address import Address, Mode
from .connection import RedisConnection

OLDEST = (6, 2)
_SETTINGS = ("*append*", "maxmemory-policy", "min-*-to-write")

# What is to be done where one of these is not "ok". A write that failed is made again. After a flush that failed Redis
# makes no other before something is written, and lets nobody write: it stays so, with appendfsync everysec, for ever.
_MENDED = {
    "aof_last_write_status": "see to its disk, and where it still refuses writes then (MISCONF), restart it: after a"
    " flush that failed it refuses them until it is restarted",
    "rdb_last_bgsave_status": "see to its disk; BGSAVE tries again",
}


class ServerFacts(Struct, frozen=True):
    """INFO, and the settings that matter; `settings` None: the server does not let us read them. `default_rights`: the
    categories of commands of the default user, None likewise."""

    info: Mapping[str, Any]
    settings: Mapping[str, str] | None
    default_rights: tuple[str, ...] | None = None

    def setting(self, name: str) -> str | None:
        return None if self.settings is None else self.settings.get(name)

    @property
    def replicas(self) -> int:
        return int(self.info.get("connected_slaves", 0))

    @property
    def durable(self) -> bool:
        """An answered write is on disk: the append-only file is synced before each answer, rewrites included."""
        return (
            self.setting("appendonly") == "yes"
            and self.setting("appendfsync") == "always"
            and self.setting("no-appendfsync-on-rewrite") == "no"
        )


Servers = Mapping[str, ServerFacts]  # by name; more than one in a cluster only


async def read_facts(connection: RedisConnection) -> Servers:
    found = await connection.everywhere(
        ("INFO",), ("ACL GETUSER", "default"), *(("CONFIG GET", pattern) for pattern in _SETTINGS)
    )
    return {name: _facts(*answers) for name, answers in found.items()}


def _facts(
    info: Mapping[str, Any], user: Mapping[str, Any] | None, *settings: Mapping[str | bytes, str | bytes] | None
) -> ServerFacts:
    """Managed services, and users without that right, are denied CONFIG."""
    known = {_text(name): _text(value) for one in settings if one for name, value in one.items()}
    rights = None if user is None else tuple(_text(one) for one in user.get("categories", ()))
    return ServerFacts(info, known or None, rights)


def version(servers: Servers) -> str:
    return ", ".join(sorted({str(facts.info.get("redis_version", "unknown")) for facts in servers.values()}))


def durable(servers: Servers, mode: Mode) -> bool:
    """Where a replica may take over, no answer is: it is promoted with what had reached it."""
    fails_over = mode is not Mode.SERVER and any(facts.replicas for facts in servers.values())
    return not fails_over and all(facts.durable for facts in servers.values())


def findings(servers: Servers, address: Address) -> Sequence[Check]:
    """One for each thing that is to be known, with the servers that it is about where it is not about all."""
    about: dict[Check, list[str]] = {}
    for name, facts in servers.items():
        for check in _of_server(facts, address):
            about.setdefault(check, []).append(name)
    return [
        check
        if len(names) == len(servers)
        else Check(check.name, f"{', '.join(names)}: {check.message}", refuse=check.refuse)
        for check, names in about.items()
    ]


def _of_server(facts: ServerFacts, address: Address) -> Iterator[Check]:
    yield from _identity(facts.info, address.mode)
    yield from _memory(facts, address.allow_eviction)
    yield from _persistence(facts)
    yield from _replication(facts, address.mode)


def _identity(info: Mapping[str, Any], mode: Mode) -> Iterator[Check]:
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdecimal()) < OLDEST:
        yield Check("redis-version", f"Redis {version} is too old: use 6.2 or later", refuse=True)
    role = info.get("role")
    if role != "master":
        yield Check("redis-role", f"this Redis has the role {role}: connect to the master", refuse=True)
    if info.get("cluster_enabled") and mode is not Mode.CLUSTER:
        yield Check(
            "redis-cluster",
            "this Redis is a node of a cluster (cluster-enabled yes), and such a URL speaks to one server: begin it"
            " with redis+cluster://",
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
    if facts.default_rights is not None and "+@all" not in facts.default_rights:
        yield Check(
            "redis-default-user",
            "the default user has no rights, and Redis 7.0 reads its append-only file with them after a restart: what"
            " scripts wrote would be gone; ACL SETUSER default off ~* &* +@all keeps others out and the data in",
        )
    for field, then in _MENDED.items():
        status = facts.info.get(field, "ok")
        if status != "ok":
            yield Check("redis-persistence", f"{field} is {status}: the server cannot write its data to disk; {then}")


def _replication(facts: ServerFacts, mode: Mode) -> Iterator[Check]:
    if facts.replicas and facts.setting("min-replicas-to-write") in (None, "0"):
        yield Check(
            "redis-replication",
            f"{facts.replicas} replicas are connected and min-replicas-to-write is 0: a failover loses answered writes",
        )
    if mode is not Mode.SERVER and not facts.replicas:
        yield Check("redis-replicas", "no replica is connected: nothing takes over when this server fails")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
