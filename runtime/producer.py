"""Records jobs and sends them: the one way into the store for producers, intake and scheduler alike.

    enqueue ─┬─> store: waiting + outbox ─────┬─> yes
             └─> broker: ticket ──> confirm ──┘

`enqueue` says yes when the job is on stable storage: after the store alone where the store is durable, else after the
store and the broker's confirm. `confirm=True` always waits for both.

A job is sent once it is recorded; a lone one whose id was made for it at the same time, its ticket a little sooner,
since that has the longer way: it spares its worker the store's round trip. Its ticket may then be there before its
record. Crash cases:

    ticket sent .. record written, we are dead     the worker adopts the job (nobody had a yes)
    ticket claimed before the record is written    the worker adopts it, and keeps its record long enough for the write
                                                   that comes late to find it
    the store does not answer                      EnqueueUncertain, as it was: the ticket is adopted when it is back
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import structs

from ..brokers.message import Receipt
from ..metadata.contract import Admission, Enqueued, Inspection, Jobs, QueueControl, Ready, Store
from ..metadata.errors import StoreUnavailable
from ..metadata.job import NewJob, Outbox, State
from .batcher import Batcher
from .clock import Clock
from .dispatcher import Dispatcher
from .errors import EnqueueUncertain
from .settings import Settings

REGISTER_AGAIN_SECONDS = 60.0  # a queue's name is written anew this often, in case the store lost it
AT_ONCE = 8  # jobs in a call; a larger batch takes the store longer than its bundle takes to arrive

_NEW = (Admission.CREATED, Admission.REPLACED)
_OLD = (Admission.EXISTING, Admission.DEDUPLICATED)


class Producer:
    def __init__(self, *, store: Store, dispatcher: Dispatcher, settings: Settings, clock: Clock) -> None:
        self._jobs = store.get(Jobs)
        self._queues = store.get(QueueControl)
        self._inspection = store.get(Inspection)
        self._durable = store.durable
        self._dispatcher = dispatcher
        self._settings = settings
        self._clock = clock
        self._batcher = Batcher(self._enqueue, window=2)
        self._registered: dict[str, float] = {}
        self._store_answers = True

    async def enqueue(self, jobs: Sequence[NewJob], *, confirm: bool = False, fresh: bool = False) -> list[Enqueued]:
        """What became of each job, in order. `fresh`: their ids were made for this call.

        EnqueueUncertain: the store did not answer, or the broker has not confirmed in time. Either way the same call
        with the same ids may be repeated. Works while the broker is down if the store is durable.
        """
        if not jobs:
            return []
        await self._register(jobs)
        sending: asyncio.Future[list[Receipt]] | None = None
        try:
            if fresh and self._may_send_at_once(jobs):
                # The ticket's bytes leave first: it has the longer way.
                sending, recorded = self._dispatcher.start(
                    [Ready(job.queue, job.id, 1, job.priority, job.payload) for job in jobs]
                )
                recording = self._batcher.put(jobs)
                recording.add_done_callback(lambda _: recorded())
                answers = [_ours(answer) for answer in await recording]
            else:
                answers = await self._batcher.submit(jobs)
        except StoreUnavailable as error:
            raise EnqueueUncertain(tuple(job.id for job in jobs), str(error)) from error
        if sending is not None:
            if confirm or not self._durable:
                _check_sent([job.id for job in jobs], await sending)
            return answers
        ready = [
            Ready(job.queue, answer.id, answer.dispatch, job.priority, job.payload)
            for job, answer in zip(jobs, answers, strict=True)
            if answer.admission in _NEW and answer.state is State.WAITING and self._is_due(job.run_at)
        ]
        self._wake_scanner(jobs, answers)
        if not confirm and self._durable:
            self._dispatcher.send_soon(ready)
            return answers
        try:
            ready += await self._unsent(jobs, answers)
        except StoreUnavailable as error:
            raise EnqueueUncertain(tuple(job.id for job in jobs), str(error)) from error
        _check_sent([job.id for job in ready], await self._dispatcher.send(ready))
        return answers

    async def drain(self) -> None:
        await self._batcher.drain()

    async def _unsent(self, jobs: Sequence[NewJob], answers: Sequence[Enqueued]) -> list[Ready]:
        """Jobs of an earlier call that nobody has sent yet: a yes to this one must hold for them too. What is sent is
        what was recorded, which need not be what was asked for now."""
        again = [
            (job.queue, answer.id)
            for job, answer in zip(jobs, answers, strict=True)
            if answer.admission in _OLD and answer.state is State.WAITING
        ]
        ready: list[Ready] = []
        for queue in {queue for queue, _ in again}:
            for job in await self._inspection.get(queue, [job_id for name, job_id in again if name == queue]):
                if job is not None and job.outbox is Outbox.DUE and self._is_due(job.run_at):
                    ready.append(Ready(queue, job.id, job.dispatch, job.priority, job.payload))
        return ready

    def _is_due(self, run_at: int | None) -> bool:
        """Else a scanner took it a little before its time, since an earlier call recorded it, and sends the ticket."""
        return run_at is None or run_at <= self._clock.now()

    def _may_send_at_once(self, jobs: Sequence[NewJob]) -> bool:
        """Where the store is idle, so that its write is sooner done than the ticket is delivered."""
        return (
            len(jobs) <= AT_ONCE
            and self._batcher.idle
            and self._store_answers
            and all(job.run_at is None and job.deduplication is None for job in jobs)
        )

    async def _enqueue(self, jobs: Sequence[NewJob]) -> Sequence[Enqueued]:
        try:
            answers = await self._jobs.enqueue(jobs, now=self._clock.now(), grace=self._settings.grace)
        except StoreUnavailable:
            self._store_answers = False
            raise
        self._store_answers = True
        return answers

    async def _register(self, jobs: Sequence[NewJob]) -> None:
        elapsed = self._clock.elapsed()
        unknown = [queue for queue in {job.queue for job in jobs} if elapsed > self._registered.get(queue, 0.0)]
        if unknown:
            try:
                await self._queues.register(unknown)
            except StoreUnavailable as error:
                raise EnqueueUncertain(tuple(job.id for job in jobs), str(error)) from error
            for queue in unknown:
                self._registered[queue] = elapsed + REGISTER_AGAIN_SECONDS

    def _wake_scanner(self, jobs: Sequence[NewJob], answers: Sequence[Enqueued]) -> None:
        earliest: dict[str, int] = {}
        for job, answer in zip(jobs, answers, strict=True):
            if answer.state is State.DELAYED and job.run_at is not None:
                earliest[job.queue] = min(job.run_at, earliest.get(job.queue, job.run_at))
        for queue, run_at in earliest.items():
            self._dispatcher.delayed_soon(queue, run_at)


def _ours(answer: Enqueued) -> Enqueued:
    """A fresh id that is there already is that of this very job: its worker was quicker than the store."""
    return structs.replace(answer, admission=Admission.CREATED) if answer.admission is Admission.EXISTING else answer


def _check_sent(ids: Sequence[str], receipts: Sequence[Receipt]) -> None:
    unsent = tuple(id for id, receipt in zip(ids, receipts, strict=True) if receipt is not Receipt.CONFIRMED)
    if unsent:
        raise EnqueueUncertain(unsent, "recorded, but the store is not durable and the broker has not taken it")
