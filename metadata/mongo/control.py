"""Deduplicating, QueueControl and Retention on MongoDB."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from pymongo import DeleteMany, UpdateOne

from ..contract import Pruned
from ..job import State
from .connection import Document, MongoConnection
from .counting import EXACT, audit_groups, correct, count_by_index
from .enqueuing import let_go, window_of
from .names import (
    DEAD_WORKER,
    GROUP,
    JOBS,
    QUEUE,
    SCHEDULES,
    SHADOW,
    TOMBSTONE,
    WORKER,
    queue_name,
    states_of,
    window_key,
)
from .record import LEAN, Record, Window, projection
from .taking import read_paused, take
from .window import outlast
from .work import Work, settle

DEAD_FOR = 2 * 24 * 3600 * 1000  # ms for which a declared death is remembered

_FIELDS = projection(LEAN)


class MongoDeduplicating:
    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection

    async def holder(self, queue: str, deduplication_id: str, *, now: int) -> str | None:
        key = window_key(queue, deduplication_id)
        found = await self._connection.find({"windows.key": key}, {"_id": 0, "windows": 1}, limit=1)
        windows = (Window(**window) for one in found for window in one["windows"])
        return next((window.holder for window in windows if window.key == key and window.open(now)), None)

    async def release(self, queue: str, deduplication_id: str) -> bool:
        async def load(work: Work, keys: Sequence[str]) -> None:
            await work.load((), keys=keys, without=LEAN)

        def decide(work: Work, key: str) -> bool:
            place, _ = window_of(work, key)
            if place is not None:
                let_go(work, place, key)
            return place is not None

        (released,) = await settle(self._connection, [window_key(queue, deduplication_id)], load, decide)
        return released


class MongoQueueControl:
    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection

    async def register(self, queues: Sequence[str]) -> None:
        await self._connection.write(
            [
                UpdateOne(
                    {"name": queue_name(queue)},
                    {"$set": {"queue": queue, "state": QUEUE, "registered": True}},
                    upsert=True,
                )
                for queue in dict.fromkeys(queues)
            ]
        )

    async def queues(self) -> Sequence[str]:
        found = await self._connection.find(
            {"name": {"$gte": "q", "$lt": "r"}, "registered": True}, {"_id": 0, "queue": 1}
        )
        return sorted(one["queue"] for one in found)

    async def pause(self, queue: str) -> None:
        name = queue_name(queue)
        await self._connection.update_one(
            {"name": name}, {"$setOnInsert": {"queue": queue, "state": QUEUE}}, upsert=True
        )
        await self._connection.update_one({"name": name, "paused": None}, [{"$set": {"paused": {"$toLong": "$$NOW"}}}])
        # A worker whose row comes after this look finds the pause when it claims.
        workers = {"queue": queue, "state": WORKER, "dead": None}
        found, claimers = await asyncio.gather(
            self._connection.find({"name": name}, {"_id": 0, "paused": 1}, limit=1),
            self._connection.find(workers, {"_id": 0, "name": 1}, limit=1),
        )
        if found and "paused" in found[0] and claimers:
            await outlast(self._connection, found[0]["paused"])

    async def resume(self, queue: str) -> None:
        await self._connection.update_one({"name": queue_name(queue)}, {"$unset": {"paused": ""}})

    async def paused(self, queues: Sequence[str]) -> Sequence[str]:
        return await read_paused(self._connection, queues) if queues else []

    async def clear(self, queue: str, state: State, *, before: int, limit: int, now: int) -> Sequence[str]:
        if state is State.ACTIVE:
            raise ValueError("running jobs cannot be cleared: cancel them first")
        where = {"queue": queue, "state": {"$in": list(states_of(state))}, "at": {"$lt": before}}
        cleared = await bury(self._connection, where, "at", now=now, limit=limit, whatever_ttl=True)
        return [record.id for record in cleared]

    async def forget(self, queue: str) -> bool:
        if await self._connection.find(
            {"queue": queue, "state": {"$in": [*JOBS, WORKER, *SCHEDULES]}}, {"_id": 0, "name": 1}, limit=1
        ):
            return False
        rest = [TOMBSTONE, SHADOW, DEAD_WORKER, GROUP, QUEUE]
        await self._connection.write([DeleteMany({"queue": queue, "state": {"$in": rest}})])
        return True


class MongoRetention:
    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection

    async def prune(self, queues: Sequence[str], *, now: int, adoption_window: int, limit: int) -> Pruned:
        if not queues:
            return Pruned(0, False)
        some = {"$in": list(queues)}
        to_tombstones = partial(bury, self._connection, now=now, whatever_ttl=False)
        aged = await to_tombstones({"queue": some, "forget_at": {"$lt": now}}, "forget_at", limit=limit)
        removed, more = len(aged), len(aged) == limit
        groups = await self._connection.find({"queue": some, "state": GROUP})
        await audit_groups(self._connection, groups, now=now)
        for group in groups:
            surplus = await self._surplus(group, limit)
            if surplus > 0:
                where = {"queue": group["queue"], "group": group["of"]}
                trimmed = await to_tombstones(where, "at", limit=min(surplus, limit))
                removed += len(trimmed)
                more = more or surplus > len(trimmed)
        dropped = await self._drop_tombstones({"queue": some, "at": {"$lt": now - adoption_window}}, limit)
        closed = await self._close_windows({"queue": some, "closes_at": {"$lte": now}}, now, limit)
        await self._forget_deaths({"queue": some})
        return Pruned(removed, more or limit in (dropped, closed))

    async def _surplus(self, group: Document, limit: int) -> int:
        """How many a group has too many: by its index where it is small, by its counter where it is large."""
        keep, count = group.get("keep"), group["count"]
        if keep is None or count <= keep:
            return 0
        if keep > EXACT:
            return int(count) - int(keep)
        actual = await count_by_index(self._connection, group["queue"], group["of"], most=keep + limit + 1)
        if actual <= keep:
            await correct(self._connection, group["queue"], group["of"], noted=count, actual=actual)
        return actual - int(keep)

    async def _drop_tombstones(self, where: Document, limit: int) -> int:
        """Those that still hold a deduplication window become its shadow, which no claim and no count sees."""
        old = await self._connection.find(
            {**where, "state": TOMBSTONE}, {"_id": 0, "name": 1, "windows": 1}, sort=[("at", 1)], limit=limit
        )
        bare = [one["name"] for one in old if "windows" not in one]
        if bare:
            await self._connection.write(
                [DeleteMany({"name": {"$in": bare}, **where, "state": TOMBSTONE, "windows": None})]
            )
        if len(bare) < len(old):
            names = [one["name"] for one in old if "windows" in one]

            def shade(record: Record) -> None:
                if record.state == TOMBSTONE:
                    record.state, record.last_finish = SHADOW, None

            await take(
                self._connection,
                lambda most: self._connection.find({"name": {"$in": names}, "state": TOMBSTONE}, _FIELDS, limit=most),
                shade,
                len(names),
                LEAN,
            )
        return len(old)

    async def _close_windows(self, where: Document, now: int, limit: int) -> int:
        def close(record: Record) -> None:
            record.set_windows(window for window in record.windows if window.open(now))

        closed = await take(
            self._connection,
            lambda most: self._connection.find(where, _FIELDS, sort=[("closes_at", 1)], limit=most),
            close,
            limit,
            LEAN,
        )
        if over := [record.name for record in closed if record.state == SHADOW and not record.windows]:
            await self._connection.write([DeleteMany({"name": {"$in": over}, "state": SHADOW, "windows": None})])
        return len(closed)

    async def _forget_deaths(self, where: Document) -> None:
        # `state` and `queue` find them; there are few.
        clock = await self._connection.clock()
        statement = DeleteMany({**where, "state": DEAD_WORKER, "dead": {"$lt": clock - DEAD_FOR}})
        if await self._connection.find({**where, "state": DEAD_WORKER}, {"_id": 0, "name": 1}, limit=1):
            await self._connection.write([statement])


async def bury(
    connection: MongoConnection, where: Document, by: str, *, now: int, limit: int, whatever_ttl: bool
) -> list[Record]:
    """Up to `limit` jobs become tombstones, the smallest `by` first."""
    return await take(
        connection,
        lambda most: connection.find(where, _FIELDS, sort=[(by, 1)], limit=most),
        lambda record: record.bury(now, whatever_ttl=whatever_ttl),
        limit,
        LEAN,
    )
