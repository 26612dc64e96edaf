"""Records jobs and sends them: the one way into the store for producers, intake and scheduler alike.

    enqueue ─┬─> store: waiting + outbox ─────┬─> yes
             └─> broker: ticket ──> confirm ──┘

`enqueue` says yes when the job is on stable storage: after the store alone where the store is durable, else after the
store and the broker's confirm. `confirm=True` always waits for both.

A job is sent once it is recorded; a lone one whose id was made for it at the same time, its ticket a little sooner,
since that has the longer way: it spares its worker the store's round trip. Its ticket may then be there before its
record. Where the store hands its queue's lone jobs over to standing claims, it is recorded first: then it needs no
ticket, or, with a store that is not durable and may forget it before its worker was told, a spare one. Crash cases:

    ticket sent .. record written, we are dead     the worker adopts the job (nobody had a yes)
    ticket claimed before the record is written    the worker adopts it, and keeps its record long enough for the write
                                                   that comes late to find it
    handed over .. told, the store forgets it      a worker adopts the job by its spare ticket
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
        self._handed: set[str] = set()  # queues of which the last lone job was a standing claim's
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
            if not (fresh and self._may_send_at_once(jobs)):
                answers = await self._batcher.submit(jobs)
            elif len(jobs) == 1 and jobs[0].queue in self._handed:
                answers, is_safe = await self._record_to_be_handed(jobs[0])
                if is_safe:
                    return answers
            else:
                answers, sending = await self._record_and_send(jobs)
        except StoreUnavailable as error:
            raise EnqueueUncertain(tuple(job.id for job in jobs), str(error)) from error
        if fresh and len(jobs) == 1:
            self._note(jobs[0].queue, answers[0])
        if sending is not None:
            if confirm or not self._durable:
                _check_sent([job.id for job in jobs], await sending)
            return answers
        ready = [
            Ready(job.queue, answer.id, answer.dispatch, job.priority, job.payload)
            for job, answer in zip(jobs, answers, strict=True)
            if answer.admission in _NEW and self._needs_ticket(answer.state) and self._is_due(job.run_at)
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

    async def _record_and_send(self, jobs: Sequence[NewJob]) -> tuple[list[Enqueued], asyncio.Future[list[Receipt]]]:
        """At the same time; the ticket's bytes leave first, since it has the longer way."""
        sending, recorded = self._dispatcher.start([_first_ticket(job) for job in jobs])
        recording = self._batcher.put(jobs)
        recording.add_done_callback(lambda _: recorded())
        return [_ours(answer) for answer in await recording], sending

    async def _record_to_be_handed(self, job: NewJob) -> tuple[list[Enqueued], bool]:
        """Of a queue whose last job was a standing claim's, as this one will be, too, most likely; whether all is done.
        A store that is not durable may forget it before it was told, and it has a spare ticket meanwhile."""
        recording = self._batcher.put([job])  # its bytes leave first, then
        spare = None if self._durable else self._dispatcher.send_spare(_first_ticket(job))
        answer = _ours((await recording)[0])
        if answer.state is State.WAITING:
            return [answer], False
        return [answer], spare is None or await spare

    def _note(self, queue: str, answer: Enqueued) -> None:
        if answer.state is State.ACTIVE:
            self._handed.add(queue)
        else:
            self._handed.discard(queue)

    def _needs_ticket(self, state: State) -> bool:
        """Of a new job. What was handed over is safe with a store that is durable."""
        return state is State.WAITING or (state is State.ACTIVE and not self._durable)

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


def _first_ticket(job: NewJob) -> Ready:
    return Ready(job.queue, job.id, 1, job.priority, job.payload)


def _check_sent(ids: Sequence[str], receipts: Sequence[Receipt]) -> None:
    unsent = tuple(id for id, receipt in zip(ids, receipts, strict=True) if receipt is not Receipt.CONFIRMED)
    if unsent:
        raise EnqueueUncertain(unsent, "recorded, but the store is not durable and the broker has not taken it")
