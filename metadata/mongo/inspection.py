"""Inspection on MongoDB.

Jobs that are not final are counted by index, so that a count of none is none. Final ones have a counter for each state
and group, since their number must not decide what it costs to tell it; few of them are counted by index all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from ..contract import Counts
from ..job import Job, State
from .audit import audit
from .connection import MongoConnection
from .names import DUE, FINAL_STATES, GROUP, HELD, QUEUE, SENT, UNFINISHED, job_name, states_of
from .record import ALL, projection, read

EXACT = 2_000  # final jobs of a state up to which they are counted one by one
MOST = 100_000  # of them, should their counter be wrong


class MongoInspection:
    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection

    async def get(self, queue: str, ids: Sequence[str]) -> Sequence[Job | None]:
        if not ids:
            return []
        names = [job_name(queue, id) for id in ids]
        found = await self._connection.find({"name": {"$in": names}}, projection(ALL))
        records = {record.name: record for record in (read(document, ALL) for document in found)}
        return [record.job() if (record := records.get(name)) is not None and record.exists else None for name in names]

    async def counts(self, queues: Sequence[str]) -> Mapping[str, Counts]:
        if not queues:
            return {}
        some = {"$in": list(queues)}
        unfinished, counters = await asyncio.gather(
            self._count({"queue": some, "state": {"$in": list(UNFINISHED)}}),
            self._connection.find({"queue": some, "state": {"$in": [GROUP, QUEUE]}}),
        )
        finals: dict[tuple[str, str], int] = {}
        for counter in counters:
            if counter["state"] == GROUP:
                place = (counter["queue"], counter["of"].partition(":")[0])
                finals[place] = finals.get(place, 0) + counter["count"]
        few = [
            {"queue": queue, "state": state}
            for queue in queues
            for state in FINAL_STATES
            if finals.get((queue, state), 0) < EXACT
        ]
        counted = finals | dict.fromkeys(((one["queue"], one["state"]) for one in few), 0)
        if few:
            counted |= await self._count({"$or": few}, most=MOST)
        paused = {one["queue"] for one in counters if "paused" in one}
        return {queue: _counts(queue, unfinished | counted, queue in paused) for queue in queues}

    async def _count(self, where: Mapping[str, object], *, most: int | None = None) -> dict[tuple[str, str], int]:
        found = await self._connection.aggregate(
            [
                {"$match": where},
                *([] if most is None else [{"$limit": most}]),
                {"$group": {"_id": {"queue": "$queue", "state": "$state"}, "count": {"$sum": 1}}},
            ]
        )
        return {(one["_id"]["queue"], one["_id"]["state"]): one["count"] for one in found}

    async def page(self, queue: str, state: State, *, offset: int, limit: int, newest_first: bool) -> Sequence[Job]:
        if limit <= 0:
            return []
        states = states_of(state)
        found = await self._connection.find(
            {"queue": queue, "state": states[0] if len(states) == 1 else {"$in": list(states)}},
            projection(ALL),
            sort=[("at", -1 if newest_first else 1)],
            skip=offset,
            limit=limit,
        )
        return [read(document, ALL).job() for document in found]

    async def progress(self, queue: str, id: str) -> bytes | None:
        found = await self._connection.find({"name": job_name(queue, id)}, {"_id": 0, "progress": 1}, limit=1)
        return found[0].get("progress") if found else None

    async def audit(self, queue: str) -> Sequence[str]:
        return await audit(self._connection, queue)


def _counts(queue: str, counted: Mapping[tuple[str, str], int], paused: bool) -> Counts:
    def of(state: str) -> int:
        return counted.get((queue, state), 0)

    return Counts(
        waiting=of(DUE) + of(SENT) + of(HELD),
        delayed=of(State.DELAYED),
        waiting_children=of(State.WAITING_CHILDREN),
        active=of(State.ACTIVE),
        completed=of(State.COMPLETED),
        failed=of(State.FAILED),
        cancelled=of(State.CANCELLED),
        expired=of(State.EXPIRED),
        unpublished=of(DUE) + of(HELD),
        held=of(HELD),
        paused=paused,
    )
