"""The conformance suite on MongoDB: a standalone server and a replica set, by PyMongo and by Motor."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from callboard.metadata.contract import Store
from callboard.metadata.mongo import MongoStore
from callboard.runtime.testing.stores import StoreConformance
from mongo_space import MongoSpace


class MongoConformance(StoreConformance):
    driver = "pymongo"
    _url: str

    @pytest.fixture(autouse=True)
    def _spaces_of_the_test(self) -> None:
        self._spaces: dict[Store, MongoSpace] = {}

    async def make_store(self) -> MongoStore:
        space = MongoSpace(self._url, self.driver)
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
