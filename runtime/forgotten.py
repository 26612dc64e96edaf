"""Gives back what a worker does not run any more though its store says so: the store has forgotten the end of the run.

A store that is not durable may lose the last second of what it has answered, in a power cut or a failover. A claim that
it forgot is no harm: the job waits, and is sent again. An end that it forgot leaves the job active, under a worker that
lives, so no lease brings it back. Therefore a worker of such a store looks once a lease:

    more active under its boot id than it runs -> which? -> those not in its table of runs, twice in a row
        -> finish(release), fenced: another dispatch, for anybody; the job runs again

A claim that was sent before the first of the two looks may still be unanswered, and its job not be in the table for
that reason: then the second look does not count. Were a job released all the same that runs here, its end would be
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import msgspec

from ..metadata.contract import Ending, Finish, Inspection, Jobs, Outcome, Ready, Workers
from ..metadata.errors import StoreUnavailable
from ..metadata.job import Job, State
from .actor import Stage
from .job_view import Attempt
from .runs import Runs

PAGE = 100
MOST = 1000  # active jobs of a queue that are looked at: the oldest
REASON = "its store has forgotten how this run ended"

Seen = dict[tuple[str, str, int], Job]  # by queue, id and fence


class Forgotten:
    """`boot`: under which the worker claims now."""

    def __init__(self, stage: Stage, *, queues: Sequence[str], boot: Callable[[], str], runs: Runs) -> None:
        self._stage = stage
        self._queues = tuple(queues)
        self._boot = boot
        self._runs = runs
        self._seen: Seen = {}
        self._before = runs.next_claim  # the first claim that was sent after the look before
        self._jobs = stage.capability(Jobs)
        self._workers = stage.capability(Workers)
        self._inspection = stage.capability(Inspection)

    async def give_back(self) -> None:
        """Look, once a lease. A store that is durable forgets nothing, one of this process nothing alone."""
        store = self._stage.connections.store
        while store.shared and not store.durable:
            await self._stage.clock.sleep(self._stage.settings.lease_seconds)
            with suppress(StoreUnavailable):
                await self.look()

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
        boot = self._boot()
        rows = await self._workers.workers(self._queues)
        queues = [row.queue for row in rows if row.boot == boot and row.active > self._runs.of(row.queue)]
        active = [job for queue in queues for job in await self._active(queue) if job.owner == boot]
        return {(job.queue, job.id, job.fence): job for job in active if not self._runs.has((job.queue, job.id))}

    async def _active(self, queue: str) -> Sequence[Job]:
        found: list[Job] = []
        while len(found) < MOST:
            page = await self._inspection.page(queue, State.ACTIVE, offset=len(found), limit=PAGE, newest_first=False)
            found += page
            if len(page) < PAGE:
                break
        return found

    async def _release(self, jobs: Iterable[Job]) -> None:
        clock, grace = self._stage.clock, self._stage.settings.grace
        for job in jobs:  # few, and seldom
            now = clock.now()
            (answer,) = await self._jobs.finish(job.queue, [_released(job, now)], now=now, grace=grace)
            if answer.finish is not Finish.DONE:
                continue
            self._stage.log.warning("job %s runs again: %s (dispatch %d)", job.id, REASON, job.dispatch)
            if answer.state is State.WAITING:
                ready = Ready(job.queue, job.id, answer.dispatch, job.priority, job.payload)
                self._stage.dispatcher.send_soon([ready])


def _released(job: Job, now: int) -> Outcome:
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
    )
