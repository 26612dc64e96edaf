"""A MongoDB replica set of three private processes, each of which may be killed, told to step down, and started again.

    with ReplicaSet(folder) as replicas:
        replicas.primary().kill()
        replicas.primary()      # the next one, once it is elected

Calls block; a test that runs an event loop wraps them in `asyncio.to_thread`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, PyMongoError

from servers import LOOPBACK, REPLICA_SET, START_SECONDS, MongoServer, ServerFailed, mongo_hello

SIZE = 3
ELECTION_SECONDS = 3.0  # without a word from the primary; the server's default is 10
STEP_DOWN_SECONDS = 10  # for which who stepped down is not elected again
LOOK_SECONDS = 0.05

Client = MongoClient[dict[str, Any]]


class ReplicaSet:
    """`known_as`: the ports by which members and clients know the members, where these are not their own (proxies)."""

    def __init__(self, folder: Path) -> None:
        self.members = [
            MongoServer(folder / f"member-{number}", replSet=REPLICA_SET, wiredTigerCacheSizeGB="0.25", oplogSize="256")
            for number in range(1, SIZE + 1)
        ]
        self.known_as: Sequence[int] = [member.port for member in self.members]

    @property
    def url(self) -> str:
        hosts = ",".join(f"{LOOPBACK}:{port}" for port in self.known_as)
        return f"mongodb://{hosts}/callboard?replicaSet={REPLICA_SET}"

    def start(self) -> Self:
        """Return once one is the primary and the others follow it."""
        for member in self.members:
            member.start()
        members = [{"_id": place, "host": f"{LOOPBACK}:{port}"} for place, port in enumerate(self.known_as)]
        settings = {"electionTimeoutMillis": round(ELECTION_SECONDS * 1000), "heartbeatIntervalMillis": 500}
        with _client(self.members[0]) as client:
            client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members, "settings": settings})
        self.whole()
        return self

    def primary(self, *, but: MongoServer | None = None) -> MongoServer:
        """Wait for one, another one than `but`; where two take themselves for it, the one elected last."""
        found: list[MongoServer] = []

        def elected() -> bool:
            hellos = [(mongo_hello(LOOPBACK, m.port), m) for m in self.members if m is not but and m.running]
            at = {hello["electionId"]: m for hello, m in hellos if hello and hello["isWritablePrimary"]}
            found[:] = [at[max(at)]] if at else []
            return bool(found)

        _wait_until(elected, "the replica set has no primary")
        return found[0]

    def whole(self) -> None:
        """Wait until one is the primary and all others follow it, and have what it has written since its election."""
        _wait_until(self._is_whole, "not all members are in the set")

    def step_down(self) -> None:
        """The primary hands over to a member that has caught up with it."""
        with _client(self.primary()) as client:
            try:
                client.admin.command("replSetStepDown", STEP_DOWN_SECONDS, secondaryCatchUpPeriodSecs=5)
            except ConnectionFailure:
                return  # older ones close their connections

    def rollbacks(self, member: MongoServer) -> int:
        """A number that grows with each time when it had to undo what the others never had."""
        with _client(member) as client:
            return int(client.admin.command("replSetGetRBID")["rbid"])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        for member in self.members:
            member.kill()

    def _is_whole(self) -> bool:
        hellos = [mongo_hello(LOOPBACK, member.port) if member.running else None for member in self.members]
        for hello, member in zip(hellos, self.members, strict=True):
            if hello and hello["isWritablePrimary"]:
                try:
                    with _client(member) as client:
                        status = client.admin.command("replSetGetStatus")
                except PyMongoError:
                    return False
                at = sorted((one["stateStr"], one.get("optime", {}).get("t")) for one in status["members"])
                term = status["term"]
                return at == [("PRIMARY", term), ("SECONDARY", term), ("SECONDARY", term)]
        return False


def _client(member: MongoServer) -> Client:
    return MongoClient(LOOPBACK, member.port, directConnection=True, serverSelectionTimeoutMS=10_000)


def _wait_until(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise ServerFailed(f"{otherwise} after {START_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)
