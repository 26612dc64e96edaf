"""Gives back what a worker does not run though its store says so. The job is active, under a worker that lives, so no
lease brings it back. That comes of

    an end that is forgotten        a store that is not durable may lose the last second of what it has answered, in a
                                    power cut or a failover (a claim that it forgot is no harm: the job waits)
    a claim that comes too late     it hung on its way while its repeat was answered `unknown`, the record being under
                                    way too; by then its ticket was lost with a connection, and who has it is answered
                                    `taken`

Therefore a worker looks, about once a lease:

    more active under its boot id than it runs, at two looks -> which? those not in its table of runs, at two looks
        -> finish(release), fenced: another dispatch, for anybody; the job runs again

Only what has been active since the look before counts, so where jobs are short one page says that there is none.

A claim that was sent before the first of the two looks may still be unanswered, and its job not be in the table for
that reason: then the second look does not count. Were a job released all the same that runs here, its end would be
refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import msgspec

from ..metadata.contract import Ending, Finish, Inspection, Jobs, Outcome, Ready, Workers
from ..metadata.errors import StoreError, StoreUnavailable
from ..metadata.job import Job, Keep, State
from .actor import Stage
from .job_view import Attempt
from .runs import Runs
from .wire import Event

PAGE = 50
MOST = 10_000  # active jobs of a queue, whoever runs them, that are looked at: the oldest
LOOKS, SOON_SECONDS = 4, 1.0  # that show what there is, and the time between them
MANY_WORKERS = 50  # each look reads a row of every worker: beyond so many, looks are rarer by as much
REASON = "its worker does not run it: its store has forgotten the end, or the claim came too late"

Seen = dict[tuple[str, str, int], Job]  # by queue, id and fence


class Forgotten:
    """`boot`: under which the worker claims now."""

    def __init__(self, stage: Stage, *, queues: Sequence[str], boot: Callable[[], str], runs: Runs) -> None:
        self._stage = stage
        self._queues = tuple(queues)
        self._boot = boot
        self._runs = runs
        self._seen: Seen = {}
        self._excess: set[str] = set()  # queues of which more was active than ran, at the look before
        self._looked_at = 0  # ms since the epoch
        self._crowd = 0  # workers of these queues
        self._before = runs.next_claim  # the first claim that was sent after the look before
        self._hint = asyncio.Event()
        self._jobs = stage.capability(Jobs)
        self._workers = stage.capability(Workers)
        self._inspection = stage.capability(Inspection)

    def look_soon(self) -> None:
        """There may be one, and what was to come of it can come no more."""
        self._hint.set()

    async def give_back(self) -> None:
        """Look, once a lease; when asked to, at once, and as often as it takes to be sure, SOON_SECONDS apart."""
        lease = self._stage.settings.lease_seconds
        fault, soon = "", 0
        while True:
            rest = lease * self._stage.random.uniform(1, 2) * max(1.0, self._crowd / MANY_WORKERS)
            await self._stage.sleep(min(rest, SOON_SECONDS) if soon > 0 else rest, self._hint)
            if self._hint.is_set():
                self._hint.clear()
                soon = LOOKS
            try:
                await self.look()
            except StoreUnavailable:  # whoever works with it tells that
                continue
            except StoreError as error:  # runs that go on must not end for it
                if str(error) != fault:
                    self._stage.log.error("cannot look for jobs that are said to run here and do not: %s", error)
                fault = str(error)
            else:
                fault = ""
            soon -= 1

    async def look(self) -> None:
        """Give back what the look before this one has found too."""
        seen, self._seen = self._seen, {}
        now = await self._look()
        again = {key: job for key, job in now.items() if key in seen}
        if self._runs.answered(self._before):
            self._seen, self._before = now, self._runs.next_claim
            await self._release(again.values())
        else:
            self._seen = again

    async def _look(self) -> Seen:
        boot, before, self._looked_at = self._boot(), self._looked_at, self._stage.clock.now()
        rows = await self._workers.workers(self._queues)
        self._crowd = len({row.boot for row in rows})
        excess = {row.queue for row in rows if row.boot == boot and row.active > self._runs.of(row.queue, boot)}
        queues, self._excess = excess & self._excess, excess
        active = [job for queue in queues for job in await self._active(queue, boot, before)]
        return {(job.queue, job.id, job.fence): job for job in active if not self._runs.has((job.queue, job.id))}

    async def _active(self, queue: str, boot: str, before: int) -> Sequence[Job]:
        """Of those claimed under `boot` until `before`, or, by the clock of whoever it was that handed them over, later
        than now."""
        found: list[Job] = []
        for offset in range(0, MOST, PAGE):
            page = await self._inspection.page(queue, State.ACTIVE, offset=offset, limit=PAGE, newest_first=False)
            found += [
                job for job in page if job.owner == boot and not before < (job.claimed_at or 0) <= self._looked_at
            ]
            if len(page) < PAGE or (page[-1].claimed_at or 0) > before:
                break
        return found

    async def _release(self, jobs: Iterable[Job]) -> None:
        stage = self._stage
        faults: list[tuple[Job, StoreError]] = []
        for job in jobs:  # few, and seldom
            now = stage.clock.now()
            outcome = _released(job, now, stage.app.retention(job.queue)[1].keep())
            try:
                (answer,) = await self._jobs.finish(job.queue, [outcome], now=now, grace=stage.settings.grace)
            except StoreError as error:  # of this record, perhaps: the others must not suffer
                faults.append((job, error))
                continue
            if answer.finish is not Finish.DONE:
                continue
            stage.log.warning("job %s, dispatch %d: %s; it now is %s", job.id, job.dispatch, REASON, answer.state)
            if answer.state is State.WAITING:
                stage.dispatcher.send_soon([Ready(job.queue, job.id, answer.dispatch, job.priority, job.payload)])
            elif answer.state is State.CANCELLED:
                stage.dispatcher.emit(
                    Event(event="cancelled", job=job.id, queue=job.queue, task=job.task, at=now, dispatch=job.dispatch)
                )
        if faults:
            job, fault = faults[0]
            stage.log.error(
                "%d jobs that do not run here any more cannot be given back, such as job %s of queue %s: %s; "
                "trying again at the next look",
                len(faults),
                job.id,
                job.queue,
                fault,
            )


def _released(job: Job, now: int, keep: Keep) -> Outcome:
    """`keep`: where somebody has cancelled the job, which then ends."""
    owner = job.owner or ""
    entry = Attempt(
        attempt=job.attempts,
        dispatch=job.dispatch,
        worker=owner,
        outcome="released",
        started_at=job.claimed_at,
        ended_at=now,
        reason=REASON,
    )
    return Outcome(
        id=job.id,
        dispatch=job.dispatch,
        owner=owner,
        ending=Ending.RELEASE,
        history=msgspec.json.encode(entry),
        keep=keep,
    )
