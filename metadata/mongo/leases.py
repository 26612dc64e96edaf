"""Leases on MongoDB: a lock is a document, its (fence, beat) the guard, and its name the unique key."""

from __future__ import annotations

from pymongo import DeleteMany, UpdateOne

from ..leases import FREE_FOR, Lock, Still
from .connection import Document, MongoConnection
from .names import FREE_LOCK, LOCK, lock_name

_NOW = {"$toLong": "$$NOW"}


class MongoLeases:
    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection

    async def take(self, name: str, holder: str, *, ttl: int, still: Still | None, now: int) -> Lock:
        free: list[Document] = [{"state": FREE_LOCK}]
        if still is not None:
            free.append({"state": LOCK, "fence": still.fence, "beat": still.beat, "holder": {"$ne": holder}})
        # Where it is held, the filter does not match, and the name refuses a second document.
        await self._connection.write(
            [
                UpdateOne(
                    {"name": lock_name(name), "$or": free},
                    [
                        {
                            "$set": {
                                "state": LOCK,
                                "holder": {"$literal": holder},
                                "fence": {"$max": [{"$add": [{"$ifNull": ["$fence", 0]}, 1]}, _NOW]},
                                "beat": 1,
                                "ttl": ttl,
                                "at": _NOW,
                            }
                        }
                    ],
                    upsert=True,
                )
            ]
        )
        found = await self._connection.find({"name": lock_name(name)}, limit=1)
        if not found:  # it was forgotten at this very moment
            return await self.take(name, holder, ttl=ttl, still=None, now=now)
        lock = found[0]
        granted = lock["state"] == LOCK and lock["holder"] == holder
        return Lock(granted, lock["fence"], lock["beat"], lock["ttl"])

    async def renew(self, name: str, holder: str, *, fence: int) -> bool:
        return await self._connection.update_one(_held(name, holder, fence), {"$inc": {"beat": 1}})

    async def release(self, name: str, holder: str, *, fence: int, now: int) -> bool:
        written = await self._connection.write(
            [UpdateOne(_held(name, holder, fence), [{"$set": {"state": FREE_LOCK, "holder": None, "at": _NOW}}])]
        )
        if written.count:
            await self._connection.write(
                [DeleteMany({"queue": None, "state": FREE_LOCK, "at": {"$lt": now - FREE_FOR}})]
            )
        return bool(written.count)


def _held(name: str, holder: str, fence: int) -> Document:
    return {"name": lock_name(name), "state": LOCK, "holder": holder, "fence": fence}
