"""A namespace of a test's own on a MongoDB, and a look at its documents with the driver, past the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, MongoClient

from callboard.metadata.mongo import MongoStore

CLAIM_WINDOW = 50  # ms: shorter than what is shipped, since every pause and every declared death takes twice as long
DRIVERS: dict[str, Callable[..., Any]] = {"pymongo": AsyncMongoClient, "motor": AsyncIOMotorClient}


class MongoSpace:
    """`driver`: pymongo, by URL; or motor, by a client that is passed in."""

    def __init__(self, url: str, driver: str = "pymongo") -> None:
        self.url = url
        self.driver = driver
        self.database = urlsplit(url).path.strip("/") or "callboard"
        self.namespace = f"test-{uuid4().hex}"
        self._clients: list[Any] = []

    def store(self) -> MongoStore:
        """A closed store on this namespace."""
        if self.driver == "pymongo":
            return MongoStore.from_url(self.url, namespace=self.namespace, claim_window=CLAIM_WINDOW)
        return self.store_on(DRIVERS[self.driver](self.url))

    def store_on(self, client: Any) -> MongoStore:
        """A closed store on a client, which is closed by `delete`."""
        self._clients.append(client)
        return MongoStore(client, database=self.database, namespace=self.namespace, claim_window=CLAIM_WINDOW)

    def documents(self, **where: Any) -> list[dict[str, Any]]:
        with MongoClient[dict[str, Any]](self.url) as client:
            return list(client[self.database][f"{self.namespace}.jobs"].find(where, {"_id": 0}))

    def change(self, where: dict[str, Any], update: dict[str, Any]) -> None:
        with MongoClient[dict[str, Any]](self.url) as client:
            client[self.database][f"{self.namespace}.jobs"].update_many(where, update)

    def remove(self, where: dict[str, Any]) -> None:
        with MongoClient[dict[str, Any]](self.url) as client:
            client[self.database][f"{self.namespace}.jobs"].delete_many(where)

    async def delete(self) -> None:
        for client in self._clients:
            closing = client.close()
            if closing is not None:
                await closing
        self._clients.clear()
        with MongoClient[dict[str, Any]](self.url) as client:
            client[self.database][f"{self.namespace}.jobs"].drop()
