"""What becomes due: outbox entries, tickets that were overtaken; for delayed jobs see `delays.py`.

Each is found by an index, and taken by a write that holds only for the document that was read: any number of takers
share the work, and none gets what another got. Who loses some looks again, until it has its limit or nothing is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from ..contract import Ready
from ..errors import StoreUnavailable
from .connection import Document, MongoConnection
from .names import DUE, HELD, QUEUE, SCHEDULES, queue_name
from .record import TICKETS, Record, projection
from .schedules import record_pending
from .work import ROUNDS, Work, pause

Find = Callable[[int], Awaitable[list[Document]]]
FIELDS = projection(TICKETS)


async def take_unpublished(
    connection: MongoConnection, queues: Sequence[str], *, now: int, grace: int, limit: int
) -> list[Ready]:
    if not queues:
        return []

    def again(record: Record) -> None:
        record.send_again(due=now + grace)

    async def due(names: Sequence[str], most: int, states: Sequence[str] = (DUE,)) -> list[Document]:
        # What a scanner has taken a little before its time waits for that, however far ahead the caller's clock is.
        ripe = {"$lte": ["$run_at", {"$toLong": "$$NOW"}]}  # also where there is no run_at
        where = {"queue": one_of(names), "state": one_of(states), "due": {"$lte": now}, "$expr": ripe}
        return await connection.find(where, FIELDS, sort=[("due", 1)], limit=most)

    async def held(names: Sequence[str], most: int) -> list[Document]:
        where = {"queue": one_of(names), "state": HELD}
        return await connection.find(where, FIELDS, sort=[("at", 1)], limit=most)

    first, parked = await asyncio.gather(due(queues, limit + 1, (DUE, *SCHEDULES)), held(queues, 1))
    if unfinished := [one["name"] for one in first if one["state"] in SCHEDULES]:
        rows = await connection.find({"name": {"$in": unfinished}, "pending": {"$exists": True}})
        await record_pending(connection, rows, now=now)
        first = await due(queues, limit + 1)
    resumable: list[str] = []
    if parked:
        paused = set(await read_paused(connection, queues))
        resumable = [queue for queue in queues if queue not in paused]
    if len(first) <= limit and not resumable:
        return await _take(connection, _first(first, lambda most: due(queues, most)), again, limit)
    taken: list[Ready] = []
    for queue in queues:
        some = await _take(connection, lambda most: due([queue], most), again, limit)  # noqa: B023  awaited here
        if queue in resumable and len(some) < limit:
            some += await _take(connection, lambda most: held([queue], most), again, limit - len(some))  # noqa: B023
        taken += some
    return taken


async def take_overtaken(
    connection: MongoConnection,
    queues: Sequence[str],
    *,
    now: int,
    grace: int,
    lag: int,
    sent_before: int | None,
    limit: int,
) -> list[Ready]:
    if not queues:
        return []

    def again(record: Record) -> None:
        record.send_again(due=now + grace)

    abouts, priorities = await asyncio.gather(
        connection.find({"name": {"$in": [queue_name(queue) for queue in queues]}}),
        connection.distinct("priority", {"queue": one_of(queues), "sent_at": {"$exists": True}}),
    )
    marks = {about["queue"]: about.get("marks", {}) for about in abouts}
    taken: list[Ready] = []
    for queue in queues if priorities else ():
        where = [
            {"queue": queue, "priority": priority, "sent_at": {"$lt": bound}}
            for priority in priorities
            if (bound := max(min(marks.get(queue, {}).get(str(priority), 0), now) - lag, sent_before or 0)) > 0
        ]

        async def lost(most: int, where: list[Document] = where) -> list[Document]:
            return await connection.find({"$or": where}, FIELDS, limit=most)

        if where:
            taken += await _take(connection, lost, again, limit)
    return taken


async def read_paused(connection: MongoConnection, queues: Sequence[str]) -> list[str]:
    found = await connection.find(
        {"name": {"$in": [queue_name(queue) for queue in queues]}, "state": QUEUE, "paused": {"$ne": None}},
        {"_id": 0, "queue": 1},
    )
    paused = {one["queue"] for one in found}
    return [queue for queue in queues if queue in paused]


def one_of(names: Sequence[str]) -> object:
    return names[0] if len(names) == 1 else {"$in": list(names)}


def _first(found: list[Document], find: Find) -> Find:
    """What was found already, the first time."""
    known = [found]

    async def once_known(most: int) -> list[Document]:
        return known.pop() if known else await find(most)

    return once_known


async def _take(connection: MongoConnection, find: Find, change: Callable[[Record], None], limit: int) -> list[Ready]:
    return [record.ready() for record in await take(connection, find, change, limit, TICKETS)]


async def take(
    connection: MongoConnection, find: Find, change: Callable[[Record], None], limit: int, without: frozenset[str]
) -> list[Record]:
    """Up to `limit` of the records that `find` finds, each as `change` has changed it."""
    taken: list[Record] = []
    for turn in range(ROUNDS):
        found = (await find(limit - len(taken)))[: limit - len(taken)]
        if not found:
            return taken
        work = Work(connection)
        records = work.take(found, without)
        for record in records:
            change(record)
        lost = await work.commit()
        taken += [record for record in records if record.name not in lost]
        if not lost or len(taken) == limit:
            return taken
        await pause(connection, turn)
    if taken:
        return taken
    raise StoreUnavailable(connection.name, "others took every job that was due")
