"""Jobs on MongoDB."""

from __future__ import annotations

from collections.abc import Sequence

from pymongo import UpdateMany

from ..contract import (
    Cancel,
    Cancelled,
    Claimed,
    Enqueued,
    Finished,
    Outcome,
    Ready,
    Removal,
    Sent,
    Ticket,
)
from ..job import Keep, NewJob, State
from .claiming import claim
from .connection import MongoConnection, Statement
from .enqueuing import enqueue
from .finishing import finish
from .names import DUE, SENT, TOMBSTONE, job_name
from .record import ALL, LEAN
from .standing import Standings
from .taking import take_overtaken, take_unpublished
from .work import Work, settle


class MongoJobs:
    def __init__(self, connection: MongoConnection, standings: Standings) -> None:
        self._connection = connection
        self._standings = standings

    async def enqueue(self, jobs: Sequence[NewJob], *, now: int, grace: int) -> Sequence[Enqueued]:
        return await enqueue(self._connection, jobs, now=now, grace=grace)

    async def published(self, sent: Sequence[Sent], *, now: int) -> None:
        dispatches: dict[int, list[str]] = {}
        for ticket in sent:
            dispatches.setdefault(ticket.dispatch, []).append(job_name(ticket.queue, ticket.id))
        update = {
            "$set": {"state": SENT, "sent_at": now, "revision": self._connection.revision()}, "$unset": {"due": ""},
        }  # fmt: skip
        statements: list[Statement] = [
            UpdateMany({"name": {"$in": names}, "state": DUE, "dispatch": dispatch}, update)
            for dispatch, names in dispatches.items()
        ]
        await self._connection.write(statements)

    async def claim(
        self,
        queue: str,
        owner: str,
        tickets: Sequence[Ticket],
        *,
        now: int,
        keep_expired: Keep,
        alone_from: int | None = None,
    ) -> Sequence[Claimed]:
        return await claim(
            self._connection,
            self._standings,
            queue,
            owner,
            tickets,
            now=now,
            keep_expired=keep_expired,
            alone_from=alone_from,
        )

    async def finish(self, queue: str, outcomes: Sequence[Outcome], *, now: int, grace: int) -> Sequence[Finished]:
        return await finish(self._connection, queue, outcomes, now=now, grace=grace)

    async def progress(self, queue: str, id: str, *, dispatch: int, owner: str, value: bytes) -> bool:
        fence = {"state": State.ACTIVE.value, "dispatch": dispatch, "owner": owner, "lost": None}
        return await self._connection.update_one({"name": job_name(queue, id), **fence}, {"$set": {"progress": value}})

    async def cancel(self, queue: str, ids: Sequence[str], *, now: int, keep: Keep) -> Sequence[Cancelled]:
        def decide(work: Work, id: str) -> Cancelled:
            record = work.find_job(job_name(queue, id))
            if record is None:
                return Cancelled(id, Cancel.UNKNOWN, None)
            if record.state == State.ACTIVE:
                record.cancel = True
                return Cancelled(id, Cancel.REQUESTED, State.ACTIVE, record.owner)
            if not record.final:
                record.end(State.CANCELLED, now=now, keep=keep)
                work.keeps[queue, record.group or ""] = keep.count
            answer = Cancel.CANCELLED if record.state == State.CANCELLED else Cancel.FINAL
            return Cancelled(id, answer, record.job_state)

        return await settle(self._connection, ids, self._loader(queue, LEAN), decide) if ids else []

    async def retry(self, queue: str, ids: Sequence[str], *, now: int, grace: int) -> Sequence[Ready | State | None]:
        def decide(work: Work, id: str) -> Ready | State | None:
            record = work.find_job(job_name(queue, id))
            if record is None:
                return None
            if not record.final:
                return record.job_state
            record.failures = record.stalled = 0
            record.error = record.result = record.progress = record.finished_at = record.parked_at = None
            record.expires_at = None
            record.run_at = None if record.run_at is None else min(record.run_at, now)
            record.cancel = False
            record.wait(dispatch=record.dispatch + 1, due=now + grace, now=now)
            return record.ready()

        return await settle(self._connection, ids, self._loader(queue, ALL), decide) if ids else []

    async def remove(self, queue: str, ids: Sequence[str], *, now: int) -> Sequence[Removal]:
        def decide(work: Work, id: str) -> Removal:
            record = work.find(job_name(queue, id))
            if record is None or not record.exists:
                return Removal.REMOVED if record is not None and record.state == TOMBSTONE else Removal.UNKNOWN
            if record.state == State.ACTIVE:
                return Removal.ACTIVE
            record.bury(now, whatever_ttl=True)
            return Removal.REMOVED

        return await settle(self._connection, ids, self._loader(queue, LEAN), decide) if ids else []

    async def take_unpublished(self, queues: Sequence[str], *, now: int, grace: int, limit: int) -> Sequence[Ready]:
        return await take_unpublished(self._connection, queues, now=now, grace=grace, limit=limit)

    async def take_overtaken(
        self, queues: Sequence[str], *, now: int, grace: int, lag: int, sent_before: int | None, limit: int
    ) -> Sequence[Ready]:
        return await take_overtaken(
            self._connection, queues, now=now, grace=grace, lag=lag, sent_before=sent_before, limit=limit
        )

    def _loader(self, queue: str, without: frozenset[str]):  # type: ignore[no-untyped-def]
        async def load(work: Work, ids: Sequence[str]) -> None:
            await work.load((job_name(queue, id) for id in ids), without=without)

        return load
