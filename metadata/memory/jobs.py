"""Jobs and Delays in memory. No method awaits, so each call is one atomic step in its loop."""

from __future__ import annotations

from collections.abc import Sequence

from ..contract import (
    Admission,
    Cancel,
    Cancelled,
    Claimed,
    Delay,
    Due,
    Ending,
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
from ..job import FINAL, Keep, NewJob, Outbox, State
from .queue import QueueData, Window
from .record import Fence, Record
from .standing import hand_over
from .state import Queues

ENDED = {
    Ending.COMPLETED: State.COMPLETED,
    Ending.FAILED: State.FAILED,
    Ending.CANCELLED: State.CANCELLED,
}


class MemoryJobs:
    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    async def enqueue(self, jobs: Sequence[NewJob], *, now: int, grace: int) -> Sequence[Enqueued]:
        if len(jobs) != 1:
            return [enqueue_one(self._queues[job.queue], job, now, grace) for job in jobs]
        (job,) = jobs
        data = self._queues[job.queue]
        known = job.id in data.records
        answer = enqueue_one(data, job, now, grace)
        made = not known and answer.id == job.id and answer.state is State.WAITING
        return [hand_over(self._queues, data, answer, now) if made else answer]

    async def published(self, sent: Sequence[Sent], *, now: int) -> None:
        for ticket in sent:
            data = self._queues[ticket.queue]
            record = data.records.get(ticket.id)
            if record is not None and record.outbox is Outbox.DUE and record.dispatch == ticket.dispatch:
                data.sent_now(record, now)

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
        data = self._queues[queue]
        if not data.alive(owner):
            return [Claimed(ticket.id, Verdict.DEAD) for ticket in tickets]
        return [self._claim(data, owner, ticket, now, keep_expired, alone_from) for ticket in tickets]

    def _claim(
        self, data: QueueData, owner: str, ticket: Ticket, now: int, keep_expired: Keep, alone_from: int | None
    ) -> Claimed:
        record = data.records.get(ticket.id)
        if record is None:
            if ticket.id in data.tombstones:
                return Claimed(ticket.id, Verdict.GONE)
            if ticket.adopt is None:
                return Claimed(ticket.id, Verdict.UNKNOWN)
            record = _adopt(data, ticket.adopt, ticket.dispatch, now)
        elif ticket.created_at not in (None, record.created_at):
            return Claimed(ticket.id, Verdict.STALE)
        elif (verdict := _refusal(record, owner, ticket.dispatch, now)) is not None:
            return _claimed(record, verdict) if verdict is Verdict.MINE else Claimed(ticket.id, verdict)
        if record.expires_at is not None and record.expires_at <= now and record.attempts == 0:
            record.dispatch = ticket.dispatch
            data.end(record, State.EXPIRED, now=now, keep=keep_expired)
            return Claimed(ticket.id, Verdict.EXPIRED)
        if data.paused:
            data.hold(record, dispatch=ticket.dispatch + 1, now=now)
            return Claimed(ticket.id, Verdict.PAUSED)
        if alone_from is not None and record.stalled >= alone_from:
            return Claimed(ticket.id, Verdict.ALONE)
        if record.sent_at is not None and record.sent_at > data.watermarks.get(record.priority, -1):
            data.watermarks[record.priority] = record.sent_at
        data.start(record, owner=owner, dispatch=ticket.dispatch, now=now)
        return _claimed(record, Verdict.CLAIMED)

    async def finish(self, queue: str, outcomes: Sequence[Outcome], *, now: int, grace: int) -> Sequence[Finished]:
        data = self._queues[queue]
        return [self._finish(data, outcome, now, grace) for outcome in outcomes]

    def _finish(self, data: QueueData, outcome: Outcome, now: int, grace: int) -> Finished:
        record = data.records.get(outcome.id)
        fence = Fence(outcome.dispatch, outcome.owner, outcome.ending)
        if record is None:
            known = data.buried.get(outcome.id)
            return Finished(outcome.id, Finish.RECORDED if known == fence else Finish.REFUSED, None, 0)
        if not _holds(data, record, outcome.dispatch, outcome.owner):
            if record.last_fence == fence:
                return Finished(record.id, Finish.RECORDED, record.state, record.dispatch)
            return Finished(record.id, Finish.REFUSED, record.state, record.dispatch, _other(record, outcome.owner))
        ending = outcome.ending
        record.last_fence = fence
        record.remember(outcome.history)
        record.failures += ending in (Ending.RETRY, Ending.FAILED)
        if record.cancel_requested and ending not in ENDED:
            ending = Ending.CANCELLED
        if outcome.error is not None or ending in ENDED:
            record.error = outcome.error
        if ending in ENDED:
            record.result = outcome.result
            data.end(record, ENDED[ending], now=now, keep=outcome.keep)
            return Finished(record.id, Finish.DONE, record.state, record.dispatch)
        if ending is Ending.PARK and record.parked_at is None:
            record.parked_at = now
        if outcome.run_at is not None and outcome.run_at > now:
            data.delay(record, outcome.run_at)
        else:
            data.wait(record, dispatch=record.dispatch + 1, due=now + grace, now=now)
        return Finished(record.id, Finish.DONE, record.state, record.dispatch)

    async def progress(self, queue: str, id: str, *, dispatch: int, owner: str, value: bytes) -> bool:
        data = self._queues[queue]
        record = data.records.get(id)
        if record is None or not _holds(data, record, dispatch, owner):
            return False
        record.progress = value
        return True

    async def cancel(self, queue: str, ids: Sequence[str], *, now: int, keep: Keep) -> Sequence[Cancelled]:
        data = self._queues[queue]
        return [_cancel(data, id, now, keep) for id in ids]

    async def retry(self, queue: str, ids: Sequence[str], *, now: int, grace: int) -> Sequence[Ready | State | None]:
        data = self._queues[queue]
        return [_retry(data, id, now, grace) for id in ids]

    async def remove(self, queue: str, ids: Sequence[str], *, now: int) -> Sequence[Removal]:
        data = self._queues[queue]
        return [_remove(data, id, now) for id in ids]

    async def take_unpublished(self, queues: Sequence[str], *, now: int, grace: int, limit: int) -> Sequence[Ready]:
        taken: list[Ready] = []
        for name in queues:
            data = self._queues[name]
            due = data.outbox.below(now + 1, limit)
            if not data.paused and len(due) < limit:
                due.extend(data.held.slice(0, limit - len(due), descending=False))
            for id in due:
                record = data.records[id]
                data.send(record, due=now + grace)
                taken.append(record.ready())
        return taken

    async def take_overtaken(
        self, queues: Sequence[str], *, now: int, grace: int, lag: int, sent_before: int | None, limit: int
    ) -> Sequence[Ready]:
        taken: list[Ready] = []
        for name in queues:
            data = self._queues[name]
            lost: list[str] = []
            for priority, index in data.sent.items():
                bound = min(data.watermarks.get(priority, lag), now) - lag
                lost.extend(index.below(max(bound, sent_before or 0), limit - len(lost)))
            for id in lost:
                record = data.records[id]
                data.send(record, due=now + grace)
                taken.append(record.ready())
        return taken


class MemoryDelays:
    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    async def take_due(self, queues: Sequence[str], *, now: int, grace: int, limit: int, ahead: int = 0) -> Due:
        ready: list[Ready] = []
        next_due: int | None = None
        for name in queues:
            data = self._queues[name]
            delayed = data.states[State.DELAYED]
            for id in delayed.below(now + ahead + 1, limit):
                record = data.records[id]
                data.wait(record, dispatch=record.dispatch + 1, due=now + ahead + grace, now=now)
                ready.append(record.ready(now=now))
            left = delayed.lowest()
            if left is not None and (next_due is None or left < next_due):
                next_due = left
        return Due(ready, next_due)

    async def reschedule(
        self, queue: str, delays: Sequence[Delay], *, now: int, grace: int
    ) -> Sequence[Ready | State | None]:
        data = self._queues[queue]
        return [_reschedule(data, delay, now, grace) for delay in delays]

    async def remove(self, queue: str, ids: Sequence[str], *, now: int) -> Sequence[bool]:
        data = self._queues[queue]
        return [_is_delayed(data, id) and _remove(data, id, now) is Removal.REMOVED for id in ids]


def enqueue_one(data: QueueData, job: NewJob, now: int, grace: int) -> Enqueued:
    known = data.records.get(job.id)
    if known is not None:
        same = known.payload == job.payload
        return Enqueued(job.id, Admission.CREATED if same else Admission.EXISTING, known.state, known.dispatch)
    admission, replaced = Admission.CREATED, None
    wanted = job.deduplication
    if wanted is not None:
        window = data.window(wanted.id, now)
        if window is None:
            data.take(wanted, job.id, now)
        else:
            if wanted.extend and wanted.ttl is not None and window.until is not None:
                data.set_end(wanted.id, now + wanted.ttl)
            holder = data.records.get(window.job)
            if not wanted.replace or holder is None or holder.state is not State.DELAYED:
                return _refused(window, holder)
            data.erase(holder, now=now, tombstone=holder.dispatch > 0)
            admission, replaced = Admission.REPLACED, holder.id
            window.job = job.id
    if job.run_at is not None and job.run_at > now:
        record = data.add(job, state=State.DELAYED, dispatch=0)
        data.delay(record, job.run_at)
    else:
        record = data.add(job, state=State.WAITING, dispatch=0)
        data.wait(record, dispatch=1, due=now + grace, now=now)
    return Enqueued(record.id, admission, record.state, record.dispatch, replaced)


def _refused(window: Window, holder: Record | None) -> Enqueued:
    if holder is None:  # its window outlived its record
        return Enqueued(window.job, Admission.DEDUPLICATED, State.COMPLETED, 0)
    return Enqueued(holder.id, Admission.DEDUPLICATED, holder.state, holder.dispatch)


def _adopt(data: QueueData, job: NewJob, dispatch: int, now: int) -> Record:
    """Record a job that the store never heard of, as it must have been when its ticket was sent."""
    record = data.add(job, state=State.WAITING, dispatch=dispatch)
    data.wait(record, dispatch=dispatch, due=now, now=now)
    if job.deduplication is not None and data.window(job.deduplication.id, now) is None:
        data.take(job.deduplication, job.id, now)
    return record


def _refusal(record: Record, owner: str, dispatch: int, now: int) -> Verdict | None:
    """Why a ticket does not get the job, in the order of `Jobs.claim`; None: nothing in the record keeps it from it."""
    state = record.state
    if state in FINAL:
        return Verdict.AHEAD if dispatch > record.dispatch else Verdict.FINAL
    if state is State.ACTIVE:
        if record.dispatch == dispatch and record.owner == owner:
            return Verdict.MINE
        return Verdict.TAKEN if record.dispatch >= dispatch else None
    if record.dispatch > dispatch:
        return Verdict.STALE
    if state is State.DELAYED and (record.dispatch == dispatch or (record.run_at or 0) > now):
        return Verdict.NOT_DUE
    return None


def _claimed(record: Record, verdict: Verdict) -> Claimed:
    return Claimed(record.id, verdict, record.fence, record.attempts, record.failures, record.stalled, record.parked_at)


def _holds(data: QueueData, record: Record, dispatch: int, owner: str) -> bool:
    return (
        record.state is State.ACTIVE
        and record.dispatch == dispatch
        and record.owner == owner
        and owner not in data.dead
    )


def _other(record: Record, owner: str) -> str | None:
    """Who runs the job now, or has ended it, if that is not `owner`."""
    other = record.owner
    if record.state in FINAL and record.last_fence is not None:
        other = record.last_fence.owner
    return None if other == owner else other


def _cancel(data: QueueData, id: str, now: int, keep: Keep) -> Cancelled:
    record = data.records.get(id)
    if record is None:
        return Cancelled(id, Cancel.UNKNOWN, None)
    if record.state is State.ACTIVE:
        data.ask(record)
        return Cancelled(id, Cancel.REQUESTED, record.state, record.owner)
    if record.state not in FINAL:
        data.end(record, State.CANCELLED, now=now, keep=keep)
    answer = Cancel.CANCELLED if record.state is State.CANCELLED else Cancel.FINAL
    return Cancelled(id, answer, record.state)


def _retry(data: QueueData, id: str, now: int, grace: int) -> Ready | State | None:
    record = data.records.get(id)
    if record is None:
        return None
    if record.state not in FINAL:
        return record.state
    record.failures = record.stalled = 0
    record.error = record.result = record.progress = record.finished_at = record.parked_at = None
    record.expires_at = None
    record.run_at = None if record.run_at is None else min(record.run_at, now)
    record.cancel_requested = False
    data.wait(record, dispatch=record.dispatch + 1, due=now + grace, now=now)
    return record.ready()


def _remove(data: QueueData, id: str, now: int) -> Removal:
    record = data.records.get(id)
    if record is None:
        return Removal.REMOVED if id in data.tombstones else Removal.UNKNOWN
    if record.state is State.ACTIVE:
        return Removal.ACTIVE
    data.free(record, whatever_ttl=True)
    data.erase(record, now=now, tombstone=True)
    return Removal.REMOVED


def _is_delayed(data: QueueData, id: str) -> bool:
    record = data.records.get(id)
    return record is not None and record.state is State.DELAYED


def _reschedule(data: QueueData, delay: Delay, now: int, grace: int) -> Ready | State | None:
    record = data.records.get(delay.id)
    if record is None or record.state is not State.DELAYED:
        return None if record is None else record.state
    if delay.run_at is not None and delay.run_at > now:
        data.delay(record, delay.run_at)
        return State.DELAYED
    record.run_at = now if delay.run_at is None else delay.run_at
    data.wait(record, dispatch=record.dispatch + 1, due=now + grace, now=now)
    return record.ready()
