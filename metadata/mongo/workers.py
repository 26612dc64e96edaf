"""Workers on MongoDB: leases by observation, as everywhere; a row is a document, its counter the guard."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pymongo import DeleteMany, UpdateMany, UpdateOne

from ..contract import Heartbeat, Ready, Stalled, WorkerRow
from ..job import Keep, State
from .connection import Document, MongoConnection, Statement
from .names import DEAD_WORKER, WORKER, row_name
from .record import ALL, projection
from .standing import Standings
from .taking import read_paused
from .window import lapsed, outlast
from .work import ROUNDS, Work, pause

_NOW = {"$toLong": "$$NOW"}


def _held_by(boot: str) -> Document:
    return {"state": State.ACTIVE.value, "owner": boot}


class MongoWorkers:
    def __init__(self, connection: MongoConnection, standings: Standings) -> None:
        self._connection = connection
        self._standings = standings

    async def heartbeat(self, boot: str, queues: Sequence[str], *, info: bytes, now: int) -> Heartbeat:
        if not queues:
            return Heartbeat(True)
        names = {row_name(queue, boot): queue for queue in queues}
        missed = set(names)
        for _ in range(ROUNDS):
            # A declared death keeps the filter from matching, and the name then refuses a second document.
            await self._connection.write(
                [
                    UpdateOne(
                        {"name": name, "dead": {"$exists": False}},
                        {
                            "$inc": {"beat": 1},
                            "$set": {"info": info},
                            "$setOnInsert": {"queue": names[name], "state": WORKER, "boot": boot},
                        },
                        upsert=True,
                    )
                    for name in sorted(missed)
                ]
            )
            rows, asked, paused = await asyncio.gather(
                self._connection.find({"name": {"$in": list(names)}}, {"_id": 0, "name": 1, "dead": 1}),
                self._connection.find(
                    {"queue": {"$in": list(queues)}, "owner": boot, "cancel": True}, {"_id": 0, "queue": 1, "id": 1}
                ),
                read_paused(self._connection, queues),
            )
            dead = {names[row["name"]] for row in rows if "dead" in row}
            missed = set(names) - {row["name"] for row in rows}
            if not missed:  # else a row was dropped at this very moment
                break
        cancels = [(one["queue"], one["id"]) for one in asked if one["queue"] not in dead]
        return Heartbeat(not dead, cancels, paused)

    async def leave(self, boot: str, queues: Sequence[str]) -> None:
        if not queues:
            return
        busy = await self._connection.distinct("queue", {"queue": {"$in": list(queues)}, **_held_by(boot)})
        names = [row_name(queue, boot) for queue in queues if queue not in busy]
        statements: list[Statement] = [
            UpdateMany({"name": {"$in": names}, "dead": {"$ne": None}}, {"$set": {"state": DEAD_WORKER}}),
            DeleteMany({"name": {"$in": names}, "dead": None}),
        ]
        if names:
            await self._connection.write(statements)
        for queue in queues:
            self._standings.forget(queue)

    async def workers(self, queues: Sequence[str]) -> Sequence[WorkerRow]:
        if not queues:
            return []
        some = {"$in": list(queues)}
        rows, holding = await asyncio.gather(
            self._connection.find({"queue": some, "state": WORKER}),
            self._connection.aggregate(
                [
                    {"$match": {"queue": some, "state": State.ACTIVE.value}},
                    {"$group": {"_id": {"queue": "$queue", "owner": "$owner"}, "active": {"$sum": 1}}},
                ]
            ),
        )
        active = {(one["_id"]["queue"], one["_id"]["owner"]): one["active"] for one in holding}
        return [
            WorkerRow(row["queue"], row["boot"], row["beat"], row["info"], active.get((row["queue"], row["boot"]), 0))
            for row in rows
        ]

    async def declare_dead(self, queue: str, boot: str, *, beat: int, now: int) -> bool:
        name = row_name(queue, boot)
        # The one pipeline that writes: the mark is a moment of the server's clock.
        await self._connection.write(
            [UpdateOne({"name": name, "state": WORKER, "dead": None, "beat": beat}, [{"$set": {"dead": _NOW}}])]
        )
        marked_at = await self._death(name)
        if marked_at is None:
            return False
        await outlast(self._connection, marked_at)
        await self._connection.write(
            [
                UpdateMany(
                    {"queue": queue, **_held_by(boot), "lost": None},
                    {"$set": {"lost": True, "revision": self._connection.revision()}},
                )
            ]
        )
        return True

    async def _death(self, name: str) -> int | None:
        found = await self._connection.find({"name": name}, {"_id": 0, "dead": 1}, limit=1)
        return found[0].get("dead") if found else None

    async def take_stalled(
        self,
        queue: str,
        boot: str,
        *,
        now: int,
        grace: int,
        max_stalled: int,
        error: bytes,
        history: bytes,
        keep: Keep,
        limit: int,
    ) -> Stalled:
        ready: list[Ready] = []
        failed: list[str] = []
        name = row_name(queue, boot)
        left = limit
        for turn in range(ROUNDS):
            rows, found = await asyncio.gather(
                self._connection.find({"name": name}, {"_id": 0, "dead": 1, "clock": _NOW}, limit=1),
                self._connection.find({"queue": queue, **_held_by(boot)}, projection(ALL), limit=left + 1),
            )
            if not rows or "dead" not in rows[0]:
                return Stalled([], [], False)
            if not found:
                # Not before its last claim has landed or lapsed: else one could come after its row is gone.
                if not lapsed(self._connection, rows[0]["dead"], rows[0]["clock"]):
                    await outlast(self._connection, rows[0]["dead"])
                    continue
                await self._connection.update_one({"name": name, "state": WORKER}, {"$set": {"state": DEAD_WORKER}})
                return Stalled(ready, failed, False)
            if left == 0:
                return Stalled(ready, failed, True)
            taken = await self._recover(
                found[:left],
                ready,
                failed,
                now=now,
                grace=grace,
                max_stalled=max_stalled,
                error=error,
                history=history,
                keep=keep,
            )
            if taken < min(left, len(found)):
                await pause(self._connection, turn)
            left -= taken
        return Stalled(ready, failed, True)

    async def _recover(
        self,
        found: Sequence[Document],
        ready: list[Ready],
        failed: list[str],
        *,
        now: int,
        grace: int,
        max_stalled: int,
        error: bytes,
        history: bytes,
        keep: Keep,
    ) -> int:
        work = Work(self._connection)
        records = work.take(found, ALL)
        for record in records:
            record.remember(history)
            if not record.cancel and record.stalled < max_stalled:
                record.stalled += 1
                record.wait(dispatch=record.dispatch + 1, due=now + grace, now=now)
                continue
            if not record.cancel:
                record.error = error
            record.end(State.CANCELLED if record.cancel else State.FAILED, now=now, keep=keep)
            work.keeps[record.queue, record.group or ""] = keep.count
        lost = await work.commit()
        taken = [record for record in records if record.name not in lost]
        ready += [record.ready() for record in taken if not record.final]
        failed += [record.id for record in taken if record.state == State.FAILED]
        return len(taken)
