"""A namespace of a test's own on a MongoDB, and a look at its documents with the driver, past the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, MongoClient
from pymongo.collection import Collection

from callboard.metadata.mongo import MongoStore

CLAIM_WINDOW = 50  # ms: shorter than what is shipped, since every pause and every declared death takes twice as long
DRIVERS: dict[str, Callable[..., Any]] = {"pymongo": AsyncMongoClient, "motor": AsyncIOMotorClient}


_free: dict[str, list[str]] = {}  # namespaces that are empty and may be used again, by URL
_lookers: dict[str, MongoClient[dict[str, Any]]] = {}  # of the servers of such namespaces, until `drop_free`


class MongoSpace:
    """`driver`: pymongo, by URL; or motor, by a client that is passed in.

    `again`: take a namespace that a test before has emptied, and leave it empty to the next. To make a collection with
    its indexes costs the server more than most tests. For tests that leave the indexes alone.
    """

    def __init__(
        self, url: str, driver: str = "pymongo", *, again: bool = False, claim_window: int = CLAIM_WINDOW
    ) -> None:
        self.url = url
        self._claim_window = claim_window
        self.driver = driver
        self.database = urlsplit(url).path.strip("/") or "callboard"
        self._again = again
        free = _free.setdefault(url, [])
        self.namespace = free.pop() if again and free else f"test-{uuid4().hex}"
        self._clients: list[Any] = []

    def store(self) -> MongoStore:
        """A closed store on this namespace."""
        if self.driver == "pymongo":
            return MongoStore.from_url(self.url, namespace=self.namespace, claim_window=self._claim_window)
        return self.store_on(DRIVERS[self.driver](self.url))

    def store_on(self, client: Any) -> MongoStore:
        """A closed store on a client, which is closed by `delete`."""
        self._clients.append(client)
        return self.store_with(client)

    def store_with(self, client: Any) -> MongoStore:
        """A closed store on a client that somebody else closes."""
        return MongoStore(client, database=self.database, namespace=self.namespace, claim_window=self._claim_window)

    def documents(self, **where: Any) -> list[dict[str, Any]]:
        with self._jobs() as jobs:
            return list(jobs.find(where, {"_id": 0}))

    def change(self, where: dict[str, Any], update: dict[str, Any]) -> None:
        with self._jobs() as jobs:
            jobs.update_many(where, update)

    def remove(self, where: dict[str, Any]) -> None:
        with self._jobs() as jobs:
            jobs.delete_many(where)

    async def delete(self) -> None:
        for client in self._clients:
            await close_client(client)
        self._clients.clear()
        with self._jobs() as jobs:
            if self._again:
                jobs.delete_many({})
                _free[self.url].append(self.namespace)
            else:
                jobs.drop()

    @contextmanager
    def _jobs(self) -> Iterator[Collection[dict[str, Any]]]:
        """By a client that stays, where others will look at this server: making one costs more than most looks."""
        if self._again:
            if self.url not in _lookers:
                _lookers[self.url] = MongoClient(self.url)
            yield _lookers[self.url][self.database][f"{self.namespace}.jobs"]
        else:
            with MongoClient[dict[str, Any]](self.url) as client:
                yield client[self.database][f"{self.namespace}.jobs"]


async def close_client(client: Any) -> None:
    """Of either driver: Motor's closes at once."""
    closing = client.close()
    if closing is not None:
        await closing


def drop_free(url: str) -> None:
    """Leave nothing behind on a server that goes on."""
    with _lookers.pop(url, None) or MongoClient[dict[str, Any]](url) as client:
        database = client[urlsplit(url).path.strip("/") or "callboard"]
        for namespace in _free.pop(url, ()):
            database[f"{namespace}.jobs"].drop()
