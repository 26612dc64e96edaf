"""Jobs and Delays on Redis: arguments to script calls, answers to the contract's values."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from ..contract import (
    Admission,
    Cancel,
    Cancelled,
    Claimed,
    Delay,
    Due,
    Enqueued,
    Finish,
    Finished,
    Outcome,
    Ready,
    Removal,
    Sent,
    Ticket,
    Verdict,
)
from ..job import Keep, NewJob, State
from .connection import RedisConnection
from .rows import STATES, job_row, keep_row, read_ready, text

_ADMISSIONS = {admission.value.encode(): admission for admission in Admission}
_VERDICTS = {verdict.value.encode(): verdict for verdict in Verdict}
_FINISHES = {finish.value.encode(): finish for finish in Finish}
_CANCELS = {cancel.value.encode(): cancel for cancel in Cancel}
_REMOVALS = {removal.value.encode(): removal for removal in Removal}


class RedisJobs:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def enqueue(self, jobs: Sequence[NewJob], *, now: int, grace: int) -> Sequence[Enqueued]:
        places: dict[str, list[int]] = {}
        for place, job in enumerate(jobs):
            places.setdefault(job.queue, []).append(place)
        answers = await self._connection.run_each(
            "enqueue",
            [(queue, (now, grace, [job_row(jobs[place]) for place in ours])) for queue, ours in places.items()],
        )
        enqueued: dict[int, Enqueued] = {}
        for ours, rows in zip(places.values(), answers, strict=True):
            for place, at in zip(ours, range(0, len(rows), 5), strict=True):
                admission, id, state, dispatch, replaced = rows[at : at + 5]
                enqueued[place] = Enqueued(
                    id.decode(), _ADMISSIONS[admission], STATES[state], dispatch, replaced.decode() or None
                )
        return [enqueued[place] for place in range(len(jobs))]

    async def published(self, sent: Sequence[Sent], *, now: int) -> None:
        tickets: dict[str, list[tuple[str, int]]] = {}
        for ticket in sent:
            tickets.setdefault(ticket.queue, []).append((ticket.id, ticket.dispatch))
        await self._connection.run_each("published", [(queue, (now, ours)) for queue, ours in tickets.items()])

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
        if not tickets:
            return []
        entries = [
            (ticket.id, ticket.dispatch, ticket.created_at, None if ticket.adopt is None else job_row(ticket.adopt))
            for ticket in tickets
        ]
        rows = await self._connection.run("claim", queue, (now, owner, keep_row(keep_expired), entries, alone_from))
        if rows == b"dead":
            return [Claimed(ticket.id, Verdict.DEAD) for ticket in tickets]
        claimed = []
        for ticket, at in zip(tickets, range(0, len(rows), 6), strict=True):
            verdict, fence, attempt, failures, stalled, parked_at = rows[at : at + 6]
            since = None if parked_at == b"" else parked_at
            claimed.append(Claimed(ticket.id, _VERDICTS[verdict], fence, attempt, failures, stalled, since))
        return claimed

    async def finish(self, queue: str, outcomes: Sequence[Outcome], *, now: int, grace: int) -> Sequence[Finished]:
        if not outcomes:
            return []
        entries = [
            (
                outcome.id,
                outcome.dispatch,
                outcome.owner,
                outcome.ending,
                text(outcome.result),
                text(outcome.error),
                text(outcome.history),
                outcome.run_at,
                keep_row(outcome.keep),
            )
            for outcome in outcomes
        ]
        rows = await self._connection.run("finish", queue, (now, grace, entries))
        return [
            Finished(
                outcome.id,
                _FINISHES[rows[at]],
                STATES.get(rows[at + 1]),
                rows[at + 2],
                rows[at + 3].decode() if rows[at + 3] else None,
            )
            for outcome, at in zip(outcomes, range(0, len(rows), 4), strict=True)
        ]

    async def progress(self, queue: str, id: str, *, dispatch: int, owner: str, value: bytes) -> bool:
        return bool(await self._connection.run("progress", queue, (id, dispatch, owner, text(value))))

    async def cancel(self, queue: str, ids: Sequence[str], *, now: int, keep: Keep) -> Sequence[Cancelled]:
        if not ids:
            return []
        rows = await self._connection.run("cancel", queue, (now, keep_row(keep), [(id,) for id in ids]))
        return [
            Cancelled(id, _CANCELS[rows[at]], STATES.get(rows[at + 1]), rows[at + 2].decode() or None)
            for id, at in zip(ids, range(0, len(rows), 3), strict=True)
        ]

    async def retry(self, queue: str, ids: Sequence[str], *, now: int, grace: int) -> Sequence[Ready | State | None]:
        if not ids:
            return []
        words, rows = await self._connection.run("retry", queue, (now, grace, [(id,) for id in ids]))
        again = iter(read_ready(queue, rows))
        return [next(again) if word == b"ready" else STATES.get(word) for word in words]

    async def remove(self, queue: str, ids: Sequence[str], *, now: int) -> Sequence[Removal]:
        if not ids:
            return []
        return [_REMOVALS[word] for word in await self._connection.run("remove", queue, (now, [(id,) for id in ids]))]

    async def take_unpublished(self, queues: Sequence[str], *, now: int, grace: int, limit: int) -> Sequence[Ready]:
        answers = await self._connection.run_each(
            "take_unpublished", [(queue, (now, grace, limit)) for queue in queues]
        )
        return [ready for queue, rows in zip(queues, answers, strict=True) for ready in read_ready(queue, rows)]

    async def take_overtaken(
        self, queues: Sequence[str], *, now: int, grace: int, lag: int, sent_before: int | None, limit: int
    ) -> Sequence[Ready]:
        answers = await self._connection.run_each(
            "take_overtaken", [(queue, (now, grace, lag, sent_before, limit)) for queue in queues]
        )
        return [ready for queue, rows in zip(queues, answers, strict=True) for ready in read_ready(queue, rows)]


class RedisDelays:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def take_due(self, queues: Sequence[str], *, now: int, grace: int, limit: int, ahead: int = 0) -> Due:
        answers = await self._connection.run_each("take_due", [(queue, (now, grace, limit, ahead)) for queue in queues])
        ready = [
            row if moment == 0 else structs.replace(row, not_before=moment)
            for queue, (_, rows, moments) in zip(queues, answers, strict=True)
            for row, moment in zip(read_ready(queue, rows), moments, strict=True)
        ]
        left = [int(float(first)) for (first, _), _, _ in answers if first != b""]
        gap = answers[-1][0][1] - now if answers else 0
        return Due(ready, min(left, default=None), gap)

    async def reschedule(
        self, queue: str, delays: Sequence[Delay], *, now: int, grace: int
    ) -> Sequence[Ready | State | None]:
        if not delays:
            return []
        entries = [(delay.id, delay.run_at) for delay in delays]
        words, rows = await self._connection.run("reschedule", queue, (now, grace, entries))
        again = iter(read_ready(queue, rows))
        return [next(again) if word == b"ready" else STATES.get(word) for word in words]

    async def remove(self, queue: str, ids: Sequence[str], *, now: int) -> Sequence[bool]:
        if not ids:
            return []
        return [
            bool(gone) for gone in await self._connection.run("remove_delayed", queue, (now, [(id,) for id in ids]))
        ]
