"""The conformance suite on MongoDB: a standalone server and a replica set, by PyMongo and by Motor."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest
from yarl import URL

from callboard.metadata.contract import Store
from callboard.metadata.mongo import MongoStore
from callboard.runtime.testing.stores import Cut, Line, StoreConformance
from mongo_space import CLAIM_WINDOW, DRIVERS, MongoSpace, close_client

# ms: the claim window of stores whose exchanges get lost. A dozen share one loop: were it short, and the loop slow, no
# claim would be written in time. Who declares a boot dead waits for it twice.
OF_CUT_STORES, OF_CUT_WORKERS = 2_000, 250


class MongoConformance(StoreConformance):
    driver = "pymongo"
    _url: str

    @pytest.fixture(autouse=True)
    def _spaces_of_the_test(self, request: pytest.FixtureRequest) -> None:
        self._spaces: dict[Store, MongoSpace] = {}
        self._claim_window = CLAIM_WINDOW
        if "cut" in request.node.name:
            self._claim_window = OF_CUT_WORKERS if "Workers" in request.node.name else OF_CUT_STORES

    async def make_store(self) -> MongoStore:
        space = MongoSpace(self._url, self.driver, again=True, claim_window=self._claim_window)
        store = space.store()
        self._spaces[store] = space
        return store

    async def make_peer(self, store: Store) -> MongoStore:
        return self._spaces[store].store()

    async def leftovers(self, store: Store) -> Sequence[str]:
        return [document["name"] for document in self._spaces[store].documents(queue={"$exists": True})]

    async def discard(self, store: Store) -> None:
        for space in self._spaces.values():
            await space.delete()

    async def make_cut(self, store: Store, stack: AsyncExitStack) -> Cut:
        at, space = URL(self._url), self._spaces[store]
        line = await stack.enter_async_context(Line(at.host or "", at.port or 0, counts=is_of_a_store))
        # The driver would repeat some calls by itself, and wait once more for each.
        client = DRIVERS[self.driver](
            str(at.with_host("127.0.0.1").with_port(line.port)),
            socketTimeoutMS=round(self.time_limit * 1000),
            retryReads=False,
            retryWrites=False,
        )
        stack.push_async_callback(close_client, client)
        return Cut(space.store_with(client), line)


def is_of_a_store(message: bytes) -> bool:
    """Not the driver's own talk. In a message of MongoDB's protocol the name of its command begins at byte 26."""
    return not message[26:].startswith((b"hello\0", b"ismaster\0", b"isMaster\0", b"endSessions\0"))


class TestMongoStandalone(MongoConformance):
    @pytest.fixture(autouse=True)
    def _server(self, mongo_url: str) -> None:
        self._url = mongo_url


class TestMongoReplicaSet(MongoConformance):
    @pytest.fixture(autouse=True)
    def _server(self, mongo_replica_url: str) -> None:
        self._url = mongo_replica_url


class TestMotorStandalone(TestMongoStandalone):
    driver = "motor"


class TestMotorReplicaSet(TestMongoReplicaSet):
    driver = "motor"
