"""Schedules on MongoDB: one document each, and the jobs of a firing in it until they are recorded.

    fire    1. the schedule moves, and takes the firing's jobs into its own document: one guarded write decides who does
            2. the jobs are recorded, as by `Jobs.enqueue`
            3. the document lets go of them

Who dies after the first step leaves a document that is due like an outbox entry: `take_unpublished` finds it by the
same index and does the rest (`record_pending`), as does whoever comes to fire the schedule next. Recording a job twice
is harmless: its id is taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from pymongo import DeleteOne, InsertOne, ReplaceOne, UpdateOne

from ..contract import MAX_BATCH, Enqueued
from ..errors import StoreUnavailable
from ..job import Deduplication, NewJob
from ..schedule import Firing, NewSchedule, Resumption, Schedule
from ..schedules import DueSchedules, Fire, Fired, Resume, Upsert, Upserted
from .connection import Document, MongoConnection, Statement
from .enqueuing import enqueue
from .names import IDLE, SCHEDULE, SCHEDULES, schedule_name
from .work import ROUNDS, pause

E = TypeVar("E")
A = TypeVar("A")
Rows = dict[str, Document | None]


class MongoSchedules:
    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection

    async def upsert(self, schedules: Sequence[NewSchedule], *, now: int) -> Sequence[Upserted]:
        return await _settle(
            self._connection,
            schedules,
            lambda new: schedule_name(new.queue, new.id),
            lambda rows, name, new: _upsert(rows, name, new, now),
        )

    async def get(self, queue: str, ids: Sequence[str]) -> Sequence[Schedule | None]:
        if not ids:
            return []
        names = [schedule_name(queue, id) for id in ids]
        found = await self._connection.find({"name": {"$in": names}})
        rows = {row["name"]: _schedule(row) for row in found}
        return [rows.get(name) for name in names]

    async def page(self, queue: str, *, offset: int, limit: int) -> Sequence[Schedule]:
        if limit <= 0:
            return []
        first = schedule_name(queue, "")
        last = first[:-1] + chr(ord(first[-1]) + 1)
        rows = await self._connection.find(
            {"name": {"$gte": first, "$lt": last}}, sort=[("name", 1)], skip=offset, limit=limit
        )
        return [_schedule(row) for row in rows]

    async def count(self, queues: Sequence[str]) -> Mapping[str, int]:
        counted = await self._connection.aggregate(
            [
                {"$match": {"queue": {"$in": list(queues)}, "state": {"$in": list(SCHEDULES)}}},
                {"$group": {"_id": "$queue", "count": {"$sum": 1}}},
            ]
        )
        found = {one["_id"]: one["count"] for one in counted}
        return {queue: found.get(queue, 0) for queue in queues}

    async def due(self, queues: Sequence[str], *, now: int, limit: int) -> DueSchedules:
        if not queues:
            return DueSchedules([], None)
        earliest, clock = await asyncio.gather(
            self._earliest({"$in": list(queues)}, limit + 1), self._connection.clock()
        )
        due_by = min(now, clock)
        if len(earliest) > limit and earliest[limit]["at"] <= due_by:  # some queue may have more than its share
            parts = await asyncio.gather(*(self._earliest(queue, limit + 1) for queue in queues))
        else:
            parts = [earliest]
        due: list[Document] = []
        left: list[int] = []
        for part in parts:
            ours = [row for row in part if row["at"] <= due_by][:limit]
            due += ours
            left += [row["at"] for row in part[len(ours) :][:1]]
        return DueSchedules([_schedule(row) for row in due], min(left, default=None), clock - now)

    async def _earliest(self, queue: Any, most: int) -> list[Document]:
        return await self._connection.find({"queue": queue, "state": SCHEDULE}, sort=[("at", 1)], limit=most)

    async def fire(self, queue: str, firings: Sequence[Firing], *, now: int, grace: int) -> Sequence[Fired]:
        fires = await _settle(
            self._connection,
            firings,
            lambda firing: schedule_name(queue, firing.id),
            lambda rows, name, firing: _fire(rows, name, firing, now + grace),
            now=now,
        )
        fired = [firing for firing, answer in zip(firings, fires, strict=True) if answer is Fire.FIRED]
        jobs = [job for firing in fired for job in firing.jobs]
        enqueued = iter(await _enqueue(self._connection, jobs, now=now, grace=grace))
        await _let_go(self._connection, {schedule_name(queue, firing.id): _fence(firing) for firing in fired})
        return [
            Fired(firing.id, answer, tuple(next(enqueued) for _ in firing.jobs) if answer is Fire.FIRED else ())
            for firing, answer in zip(firings, fires, strict=True)
        ]

    async def pause(self, queue: str, ids: Sequence[str], *, now: int) -> Sequence[bool]:
        def decide(rows: Rows, name: str, id: str) -> bool:
            row = rows[name]
            if row is not None and not row["paused"]:
                rows[name] = _placed(row, paused=True, version=row["version"] + 1, updated_at=now)
            return row is not None

        return await _settle(self._connection, ids, lambda id: schedule_name(queue, id), decide)

    async def resume(self, queue: str, resumptions: Sequence[Resumption], *, now: int) -> Sequence[Resume]:
        return await _settle(
            self._connection,
            resumptions,
            lambda resumption: schedule_name(queue, resumption.id),
            lambda rows, name, resumption: _resume(rows, name, resumption, now),
        )

    async def remove(self, queue: str, ids: Sequence[str]) -> Sequence[bool]:
        def decide(rows: Rows, name: str, id: str) -> bool:
            known, rows[name] = rows[name], None
            return known is not None

        # What it has fired is recorded first.
        now = await self._connection.clock()
        return await _settle(self._connection, ids, lambda id: schedule_name(queue, id), decide, now=now)


# -- decisions --------------------------------------------------------------------------------------------------------


def _upsert(rows: Rows, name: str, new: NewSchedule, now: int) -> Upserted:
    known = rows[name]
    if known is None:
        if new.revision is not None:
            return Upserted(new.id, Upsert.GONE, None, 0)
        made = {
            "name": name,
            "queue": new.queue,
            "schedule_id": new.id,
            "trigger": new.trigger,
            "definition": new.definition,
            "kept": new.state,
            "next_run": new.next_run,
            "paused": False,
            "version": 1,
            "created_at": now,
            "updated_at": now,
        }
        rows[name] = _placed(made)
        return Upserted(new.id, Upsert.CREATED, new.next_run, 1)
    version = known["version"]
    if known["trigger"] == new.trigger and known["definition"] == new.definition:
        return Upserted(new.id, Upsert.UNCHANGED, known["next_run"], version)
    if new.revision is not None and new.revision != version:
        return Upserted(new.id, Upsert.CONFLICT, known["next_run"], version)
    same = known["trigger"] == new.trigger
    next_run, kept = (known["next_run"], known["kept"]) if same else (new.next_run, new.state)
    rows[name] = _placed(
        known,
        trigger=new.trigger,
        definition=new.definition,
        next_run=next_run,
        kept=kept,
        version=version + 1,
        updated_at=now,
    )
    return Upserted(new.id, Upsert.UPDATED, next_run, version + 1)


def _fire(rows: Rows, name: str, firing: Firing, due: int) -> Fire:
    row = rows[name]
    if row is None:
        return Fire.GONE
    fence = _fence(firing)
    if row["version"] == firing.revision and row.get("fired") == fence:
        return Fire.FIRED
    if row["paused"]:
        return Fire.PAUSED
    if (row["next_run"], row["version"]) != (firing.due, firing.revision):
        return Fire.MOVED
    pending = [*row.get("pending", ()), *map(_packed, firing.jobs)]
    rows[name] = _placed(row, next_run=firing.next_run, kept=firing.state, fired=fence)
    if pending:
        rows[name] = {**rows[name], "pending": pending, "due": due}  # type: ignore[dict-item]
    return Fire.FIRED


def _fence(firing: Firing) -> Document:
    return {"due": firing.due, "version": firing.revision, "by": firing.by}


def _resume(rows: Rows, name: str, resumption: Resumption, now: int) -> Resume:
    row = rows[name]
    if row is None:
        return Resume.GONE
    if not row["paused"]:
        return Resume.RUNNING
    if row["version"] != resumption.revision:
        return Resume.MOVED
    rows[name] = _placed(
        row,
        paused=False,
        next_run=resumption.next_run,
        kept=resumption.state,
        version=row["version"] + 1,
        updated_at=now,
    )
    return Resume.RESUMED


def _placed(row: Document, **changes: Any) -> Document:
    """Changed, and in its place in the index by which what is due is found."""
    changed = {**row, **changes}
    runs = not changed["paused"] and changed["next_run"] is not None
    return {**changed, "state": SCHEDULE if runs else IDLE, "at": changed["next_run"] if runs else 0}


def _schedule(row: Document) -> Schedule:
    return Schedule(
        id=row["schedule_id"],
        queue=row["queue"],
        trigger=row["trigger"],
        definition=row["definition"],
        state=row["kept"],
        next_run=row["next_run"],
        paused=row["paused"],
        revision=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


# -- reading and writing ----------------------------------------------------------------------------------------------


async def _settle(
    connection: MongoConnection,
    entries: Sequence[E],
    name_of: Callable[[E], str],
    decide: Callable[[Rows, str, E], A],
    *,
    now: int | None = None,
) -> list[A]:
    """As `work.settle`, for schedules. `now`: jobs that a schedule has fired are recorded before it is looked at."""
    answers: dict[int, A] = {}
    pending = list(range(len(entries)))
    for turn in range(ROUNDS):
        if not pending:
            return [answers[place] for place in range(len(entries))]
        names = [name_of(entries[place]) for place in pending]
        found = await connection.find({"name": {"$in": names}})
        if now is not None and any("pending" in row for row in found):
            await record_pending(connection, [row for row in found if "pending" in row], now=now)
            continue
        before: Rows = dict.fromkeys(names) | {row["name"]: row for row in found}
        rows = dict(before)
        for place in pending:
            answers[place] = decide(rows, name_of(entries[place]), entries[place])
        lost = await _write(connection, before, rows)
        pending = [place for place in pending if name_of(entries[place]) in lost]
        if pending:
            await pause(connection, turn)
    raise StoreUnavailable(connection.name, f"{len(pending)} schedules changed too quickly to be written")


async def _write(connection: MongoConnection, before: Rows, after: Rows) -> set[str]:
    """The names of those that somebody else changed."""
    revision = connection.revision()
    statements: list[Statement] = []
    changed = [name for name in after if after[name] is not before[name]]
    for name in changed:
        old, new = before[name], after[name]
        if old is None and new is not None:
            statements.append(InsertOne({**new, "revision": revision}))
        elif old is not None and new is None:
            statements.append(DeleteOne({"name": name, "revision": old["revision"]}))
        elif old is not None and new is not None:
            statements.append(ReplaceOne({"name": name, "revision": old["revision"]}, {**new, "revision": revision}))
    if (await connection.write(statements)).count == len(statements):
        return set()
    found = await connection.find({"name": {"$in": changed}}, {"_id": 0, "name": 1, "revision": 1})
    revisions = {row["name"]: row["revision"] for row in found}
    # What is not there any more, and was to be removed, is: by us, or by who removed it at this very moment.
    return {name for name in changed if revisions.get(name) != (None if after[name] is None else revision)}


# -- what was fired ---------------------------------------------------------------------------------------------------


async def record_pending(connection: MongoConnection, rows: Sequence[Document], *, now: int) -> None:
    """Do what a scheduler left undone: `rows` are schedules that hold jobs."""
    for row in rows:
        jobs = [_unpacked(row["queue"], packed) for packed in row["pending"]]
        await _enqueue(connection, jobs, now=now, grace=0)
        await connection.write([_letting_go(connection, {"name": row["name"], "revision": row["revision"]})])


async def _let_go(connection: MongoConnection, fired: Mapping[str, Document]) -> None:
    """Only where they are still those of our own firing."""
    await connection.write(
        [
            _letting_go(connection, {"name": name, "fired": fence, "pending": {"$exists": True}})
            for name, fence in fired.items()
        ]
    )


def _letting_go(connection: MongoConnection, where: Document) -> UpdateOne:
    return UpdateOne(where, {"$unset": {"pending": "", "due": ""}, "$set": {"revision": connection.revision()}})


async def _enqueue(connection: MongoConnection, jobs: Sequence[NewJob], *, now: int, grace: int) -> list[Enqueued]:
    """Not anew: once the schedule has moved, somebody else may record its jobs, and have them run and forgotten."""
    return [
        answer
        for start in range(0, len(jobs), MAX_BATCH)
        for answer in await enqueue(connection, jobs[start : start + MAX_BATCH], now=now, grace=grace, anew=False)
    ]


def _packed(job: NewJob) -> Document:
    return {**msgspec.structs.asdict(job), "deduplication": None if job.deduplication is None else
            msgspec.structs.asdict(job.deduplication)}  # fmt: skip


def _unpacked(queue: str, packed: Document) -> NewJob:
    mode = packed["deduplication"]
    return NewJob(**{**packed, "queue": queue, "deduplication": None if mode is None else Deduplication(**mode)})
