"""StalledRecovery: gives back what dead workers held, sends what was not sent, and notices tickets that got lost.

    every half second     worker rows -> whose counter stood still for the lease -> declare_dead (compare-and-set on the
                          counter) -> take_stalled until none is left -> publish
                          outbox entries past their grace -> publish again, same dispatch
    now and then          jobs overtaken by others that were sent well after them, or whose broker queue is empty
                          -> publish again, same dispatch, until none is left

The dead are recovered beside the watching, several at a time: on some stores a declaration takes a second, and a look
that comes late does not count.

Any number of replicas. A crash at any step leaves the next pass of any of them to go on: the dead mark is kept until
the last job of the dead worker has been taken, and the worker's row goes last.

What is sent again is sent now, and a look for lost tickets ends before that can be long ago: nothing is found twice in
it. Of a queue that is not empty, more than a batch is sent again only while the broker holds less than MOST_READY
messages of it: a ticket that was overtaken need not be lost.

A batch of which the broker has taken nothing ends the sending: an outbox that is large is not to be written anew every
few seconds while RabbitMQ is away. Then a single entry of each queue is tried, after pauses that grow up to five
seconds, until one arrives or the connection is back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import msgspec

from ..brokers.errors import BrokerUnavailable
from ..brokers.message import Receipt
from ..metadata.contract import MAX_BATCH, Jobs, QueueControl, Ready, WorkerRow, Workers
from ..runtime.actor import Consumes, Stage
from ..runtime.futures import looked_at
from ..runtime.job_view import Attempt
from ..runtime.observations import Observations
from ..runtime.results import ErrorInfo, encode_error
from ..runtime.rounds import RoundsActor
from ..runtime.wire import Event, decode_body
from ..runtime.worker_info import decode_info

ROUND_SECONDS = 0.5
EMPTY_FOR_SECONDS = 5.0  # how long RabbitMQ has to report a queue empty before its sent jobs count as lost
KEEP_UP_SECONDS = 30.0  # then the queues are looked at anew
AT_ONCE = 16  # rows of dead workers, one for each queue of each, that are recovered at a time
MOST_READY = 1000  # messages in a queue, before which what seems overtaken is sent again one batch at a time


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """Where to look for lost tickets: in queues that were `empty` at the broker, all that were `sent_before`, ms since
    the Unix epoch; in others those that were `overtaken`."""

    empty: Sequence[str]
    sent_before: int
    overtaken: Sequence[str]


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
        self._recoveries: dict[tuple[str, str], asyncio.Task[None]] = {}  # under way, by queue and boot
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._held: set[str] = set()  # queues of which some worker holds tickets it has no slot for
        self._empty_since: dict[str, float] = {}
        self._audited = stage.clock.elapsed()
        self._unheard = 0  # batches in a row of which nothing arrived
        self._quiet_until = 0.0
        self._interval = min(ROUND_SECONDS, stage.settings.lease_seconds / 8)
        self._upkeep: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._upkeep.set_result(None)

    async def run(self) -> None:
        try:
            await super().run()
            if self._recoveries:
                await self.stage.within_grace(asyncio.wait(self._recoveries.values()))
        finally:
            self._upkeep.cancel()
            for recovery in self._recoveries.values():
                recovery.cancel()

    def missed(self) -> None:
        self._observations.forget()

    def hears_again(self) -> None:
        super().hears_again()
        self._unheard, self._quiet_until = 0, 0.0

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
        """Send what is due and what is lost, in turns, so that neither waits for the other's end."""
        clock, settings = self.stage.clock, self.stage.settings
        if self._quiet:
            return
        began = relayed = clock.elapsed()
        unsent, found = await self._relay(queues), 0
        lost = None if self._quiet else await self._look_for_lost(queues)
        until = began + min(KEEP_UP_SECONDS, settings.overtaken_seconds / 2)
        try:
            while (unsent or lost) and not self._quiet and clock.elapsed() < until:
                if clock.elapsed() - relayed >= self._interval:
                    relayed, unsent = clock.elapsed(), queues  # others are due by now
                if unsent:
                    unsent = await self._relay(unsent)
                if lost and not self._quiet:
                    lost, sent = await self._send_lost(lost)
                    found += sent
        finally:
            if found:
                self.stage.log.warning("%d tickets seem to be lost by the broker; sent again", found)

    # --- dead workers ---

    async def _recover(self, queues: Sequence[str]) -> None:
        self._raise_what_failed()
        asked = self.stage.clock.elapsed()
        rows = await self._workers.workers(queues)
        self._held = {row.queue for row in rows if _holds(row)}
        for row in self._observations.read(rows, asked=asked, answered=self.stage.clock.elapsed()):
            if (key := (row.queue, row.boot)) not in self._recoveries:
                beside = sum(one.active for one in rows if one.boot == row.boot) - 1
                recovery = self._recoveries[key] = asyncio.create_task(self._bury(row, beside=beside))
                recovery.add_done_callback(looked_at)

    def _raise_what_failed(self) -> None:
        """Forget the recoveries that have ended; one failure is raised for all."""
        ended = [key for key, recovery in self._recoveries.items() if recovery.done()]
        failures = [error for key in ended if (error := self._recoveries.pop(key).exception()) is not None]
        if failures:
            raise failures[0]

    async def _bury(self, row: WorkerRow, *, beside: int) -> None:
        async with self._turns:
            if await self._workers.declare_dead(row.queue, row.boot, beat=row.beat, now=self.stage.clock.now()):
                await self._take_back(row, beside=beside)

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

    async def _relay(self, queues: Sequence[str]) -> Sequence[str]:
        """A batch of each queue; the queues of which there may be more."""
        limit = self._limit
        ready = await self._jobs.take_unpublished(
            queues, now=self.stage.clock.now(), grace=self._resend_grace, limit=limit
        )
        return _more(ready, await self._resend(ready, why="unsent"), limit)

    async def _look_for_lost(self, queues: Sequence[str]) -> Lost | None:
        """None: it is not yet time, or RabbitMQ cannot be asked."""
        elapsed = self.stage.clock.elapsed()
        if elapsed - self._audited < self._audit_interval:
            return None
        self._audited = elapsed
        try:
            empty = await self._empty_queues(queues)
        except BrokerUnavailable:
            self._empty_since.clear()
            return None
        return Lost(
            empty=empty,
            sent_before=self.stage.clock.now() - round(self.stage.settings.reconcile_grace_seconds * 1000),
            overtaken=[queue for queue in queues if queue not in empty],
        )

    async def _send_lost(self, lost: Lost) -> tuple[Lost | None, int]:
        """A batch of each queue; what there may be more of, and how many it were."""
        limit = self._limit
        ready: list[Ready] = []
        for queues, sent_before in ((lost.overtaken, None), (lost.empty, lost.sent_before)):
            if queues:
                ready += await self._jobs.take_overtaken(
                    queues,
                    now=self.stage.clock.now(),
                    grace=self._resend_grace,
                    lag=round(self.stage.settings.overtaken_seconds * 1000),
                    sent_before=sent_before,
                    limit=limit,
                )
        arrived = await self._resend(ready, why="lost")
        more = _more(ready, arrived, limit)
        left = Lost(
            empty=[queue for queue in lost.empty if queue in more],
            sent_before=lost.sent_before,
            overtaken=[queue for queue in lost.overtaken if queue in more and await self._is_short(queue)],
        )
        return left if left.empty or left.overtaken else None, arrived.total()

    async def _is_short(self, queue: str) -> bool:
        """Tickets that are sent now would soon be taken, and a false alarm leaves no heap of copies."""
        try:
            depth = await self.stage.broker.depth(self.stage.names.job_queue(queue))
        except BrokerUnavailable:
            return False
        return depth is None or depth.ready < MOST_READY

    async def _empty_queues(self, queues: Sequence[str]) -> list[str]:
        """Queues that RabbitMQ has reported empty for a while, and of which no worker says that it holds tickets. What
        is on the way just then makes a false alarm; the copies that follow are harmless. BrokerUnavailable."""
        elapsed = self.stage.clock.elapsed()
        empty: list[str] = []
        for queue in queues:
            depth = await self.stage.broker.depth(self.stage.names.job_queue(queue))
            if (depth is not None and depth.ready > 0) or queue in self._held:
                self._empty_since.pop(queue, None)
            elif elapsed - self._empty_since.setdefault(queue, elapsed) >= self._empty_seconds:
                empty.append(queue)
        return empty

    async def _resend(self, ready: Sequence[Ready], *, why: str) -> Counter[str]:
        """How many the broker has now, by queue. The others wait in the outbox."""
        if not ready:
            return Counter()
        receipts = await self.stage.dispatcher.send(ready)
        arrived = Counter(
            job.queue for job, receipt in zip(ready, receipts, strict=True) if receipt is Receipt.CONFIRMED
        )
        if arrived:
            self._unheard = 0
        else:
            self._unheard += 1
            self._quiet_until = self.stage.clock.elapsed() + self.stage.backoff(self._unheard)
            self._empty_since.clear()
        if self.stage.metrics is not None:
            self.stage.metrics.resent(arrived.total(), why=why)
        return arrived

    async def _send(self, ready: Sequence[Ready], *, event: str) -> None:
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
        if ready:
            await self.stage.dispatcher.send(ready)

    @property
    def _quiet(self) -> bool:
        """The broker has taken nothing just now, and is given time."""
        return self.stage.clock.elapsed() < self._quiet_until

    @property
    def _limit(self) -> int:
        """Of each queue."""
        return 1 if self._unheard else MAX_BATCH

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


def _more(ready: Sequence[Ready], arrived: Counter[str], limit: int) -> list[str]:
    """The queues of which there may be more, and the broker takes it."""
    return [queue for queue, count in Counter(job.queue for job in ready).items() if count >= limit and arrived[queue]]


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
    """`beside`: how many other jobs were the worker's, whatever their queue: they ran, were about to, or had ended
    without that being recorded."""
    try:
        info = decode_info(row.info)
    except msgspec.MsgspecError:  # a worker of another version
        info = None
    where = "" if info is None else f" (process {info.pid} on {info.host})"
    company = "nothing else ran there" if beside == 0 else f"{beside} more were claimed there"
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
