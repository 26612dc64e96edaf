"""StalledRecovery: gives back what dead workers held, sends what was not sent, and notices tickets that got lost.

    every half second     worker rows -> whose counter stood still for the lease -> declare_dead (compare-and-set on the
                          counter) -> take_stalled until none is left -> publish
                          outbox entries past their grace -> publish again, same dispatch
    now and then          jobs overtaken by others that were sent well after them, or whose broker queue is empty
                          -> publish again, same dispatch

Any number of replicas. A crash at any step leaves the next pass of any of them to go on: the dead mark is kept until
the last job of the dead worker has been taken, and the worker's row goes last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from ..brokers.errors import BrokerUnavailable
from ..metadata.contract import MAX_BATCH, Jobs, QueueControl, Ready, WorkerRow, Workers
from ..runtime.actor import Consumes, Stage
from ..runtime.job_view import Attempt
from ..runtime.observations import Observations
from ..runtime.results import ErrorInfo, encode_error
from ..runtime.rounds import RoundsActor
from ..runtime.wire import Event, decode_body
from ..runtime.worker_info import decode_info

ROUND_SECONDS = 0.5
EMPTY_FOR_SECONDS = 5.0  # how long RabbitMQ has to report a queue empty before its sent jobs count as lost


class StalledRecovery(RoundsActor):
    kind = "stalled-recovery"
    consumes = (Consumes("control.<instance>", "control", ("all", "<kind>", "<kind>.#")),)
    publishes = ("jobs", "events", "dead")
    requires = (Jobs, Workers, QueueControl)

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._jobs = stage.capability(Jobs)
        self._workers = stage.capability(Workers)
        self._observations = Observations(stage.settings.lease_seconds)
        self._held: set[str] = set()  # queues of which some worker holds tickets it has no slot for
        self._empty_since: dict[str, float] = {}
        self._audited = stage.clock.elapsed()
        self._interval = min(ROUND_SECONDS, stage.settings.lease_seconds / 8)
        self._upkeep: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._upkeep.set_result(None)
        self.tickets_resent = 0

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            self._upkeep.cancel()

    def missed(self) -> None:
        self._observations.forget()

    async def round(self) -> float:
        queues = await self.queues.names()
        await self._recover(queues)
        # Beside the watching of workers, not between two looks at them: a broker that blocks, or many queues to ask
        # about, would make the looks come late, and late looks do not count.
        if self._upkeep.done():
            before, self._upkeep = self._upkeep, asyncio.create_task(self._keep_up(queues))
            before.result()  # raises what it raised, once: the next one is under way
        return self._interval

    async def _keep_up(self, queues: Sequence[str]) -> None:
        while await self._relay(queues):
            pass
        if self.stage.clock.elapsed() - self._audited >= self._audit_interval:
            self._audited = self.stage.clock.elapsed()
            await self._audit(queues)

    # --- dead workers ---

    async def _recover(self, queues: Sequence[str]) -> None:
        asked = self.stage.clock.elapsed()
        rows = await self._workers.workers(queues)
        self._held = {row.queue for row in rows if _holds(row)}
        for row in self._observations.read(rows, asked=asked, answered=self.stage.clock.elapsed()):
            if await self._workers.declare_dead(row.queue, row.boot, beat=row.beat, now=self.stage.clock.now()):
                await self._take_back(row, beside=sum(one.active for one in rows if one.boot == row.boot) - 1)

    async def _take_back(self, row: WorkerRow, *, beside: int) -> None:
        log, clock, settings = self.stage.log, self.stage.clock, self.stage.settings
        recovered = failed = 0
        more = True
        while more:  # ends with the dead worker's jobs: it can claim no more
            now = clock.now()
            taken = await self._workers.take_stalled(
                row.queue,
                row.boot,
                now=now,
                grace=settings.grace,
                max_stalled=settings.max_stalled,
                error=_error(settings.max_stalled),
                history=_history(row, beside=max(0, beside), now=now),
                keep=self.stage.app.retention(row.queue)[1].keep(),
                limit=MAX_BATCH,
            )
            more = taken.more
            if self.stage.metrics is not None:
                self.stage.metrics.stalled(row.queue, again=len(taken.ready), failed=len(taken.failed))
            recovered += len(taken.ready)
            failed += len(taken.failed)
            await self._send(taken.ready, event="stalled")
            for job_id in taken.failed:
                self.stage.dispatcher.emit(
                    Event(event="failed", job=job_id, queue=row.queue, task="", at=now, worker=row.boot)
                )
        if recovered or failed:
            log.warning(
                "worker %s on %s is gone: %d of its jobs run again, %d failed for good",
                row.boot[:8],
                row.queue,
                recovered,
                failed,
            )

    # --- tickets ---

    async def _relay(self, queues: Sequence[str]) -> bool:
        ready = await self._jobs.take_unpublished(
            queues, now=self.stage.clock.now(), grace=self._resend_grace, limit=MAX_BATCH
        )
        if self.stage.metrics is not None:
            self.stage.metrics.resent(len(ready), why="unsent")
        await self._send(ready)
        return len(ready) >= MAX_BATCH

    async def _audit(self, queues: Sequence[str]) -> None:
        settings, clock = self.stage.settings, self.stage.clock
        lag = round(settings.overtaken_seconds * 1000)
        now = clock.now()
        lost = list(
            await self._jobs.take_overtaken(
                queues, now=now, grace=self._resend_grace, lag=lag, sent_before=None, limit=MAX_BATCH
            )
        )
        empty = await self._empty_queues(queues)
        if empty:
            before = now - round(settings.reconcile_grace_seconds * 1000)
            lost += await self._jobs.take_overtaken(
                empty, now=now, grace=self._resend_grace, lag=lag, sent_before=before, limit=MAX_BATCH
            )
        if lost:
            self.tickets_resent += len(lost)
            if self.stage.metrics is not None:
                self.stage.metrics.resent(len(lost), why="lost")
            self.stage.log.warning("%d tickets seem to be lost by the broker; sent again", len(lost))
            await self._send(lost)

    async def _empty_queues(self, queues: Sequence[str]) -> list[str]:
        """Queues that RabbitMQ has reported empty for a while, and of which no worker says that it holds tickets. What
        is on the way just then makes a false alarm; the copies that follow are harmless."""
        elapsed = self.stage.clock.elapsed()
        empty: list[str] = []
        for queue in queues:
            try:
                depth = await self.stage.broker.depth(self.stage.names.job_queue(queue))
            except BrokerUnavailable:
                self._empty_since.clear()
                return []
            if (depth is not None and depth.ready > 0) or queue in self._held:
                self._empty_since.pop(queue, None)
            elif elapsed - self._empty_since.setdefault(queue, elapsed) >= self._empty_seconds:
                empty.append(queue)
        return empty

    async def _send(self, ready: Sequence[Ready], *, event: str | None = None) -> None:
        if not ready:
            return
        if event is not None:
            for job in ready:
                task = decode_body(job.payload).task
                self.stage.dispatcher.emit(
                    Event(
                        event=event,
                        job=job.id,
                        queue=job.queue,
                        task=task,
                        at=self.stage.clock.now(),
                        dispatch=job.dispatch,
                    )
                )
        await self.stage.dispatcher.send(ready)

    @property
    def _resend_grace(self) -> int:
        """Jittered, so that what failed together does not come back together."""
        return round(self.stage.settings.grace * self.stage.random.uniform(2, 4))

    @property
    def _audit_interval(self) -> float:
        return min(5.0, self.stage.settings.reconcile_grace_seconds / 4)

    @property
    def _empty_seconds(self) -> float:
        return min(EMPTY_FOR_SECONDS, self.stage.settings.reconcile_grace_seconds / 2)


def _holds(row: WorkerRow) -> bool:
    try:
        return decode_info(row.info).waiting.get(row.queue, 0) > 0
    except msgspec.MsgspecError:  # a worker of another version
        return False


def _error(max_stalled: int) -> bytes:
    alone = ", the last time with nothing else running there" if max_stalled else ""
    return encode_error(
        ErrorInfo(
            type="callboard.Stalled",
            message=f"its worker died or lost its lease while running it, {max_stalled + 1} times{alone}; a handler "
            "that kills its process does this; the history says where and when",
        )
    )


def _history(row: WorkerRow, *, beside: int, now: int) -> bytes:
    """`beside`: how many other jobs the worker ran, whatever their queue."""
    try:
        info = decode_info(row.info)
    except msgspec.MsgspecError:  # a worker of another version
        info = None
    where = "" if info is None else f" (process {info.pid} on {info.host})"
    company = "nothing else ran there" if beside == 0 else f"{beside} more ran there"
    return msgspec.json.encode(
        Attempt(
            attempt=0,
            dispatch=0,
            worker=row.boot,
            outcome="stalled",
            ended_at=now,
            reason=f"its worker{where} was gone: no heartbeat for the lease; {company}",
            host=None if info is None else info.host,
            pid=None if info is None else info.pid,
            beside=beside,
        )
    )
