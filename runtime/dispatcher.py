"""Sends tickets: jobs that are ready become bundles on `callboard.jobs`, and `published` once the broker confirmed.

Order: record and outbox first or at the same time (whoever calls sees to that), confirm second, `published` last. A
crash between any two of them leaves the outbox entry, and a relay sends a copy, which the fence makes harmless. What is
returned, refused or not confirmed in time simply stays in the outbox.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence

from ..brokers.contract import Broker
from ..brokers.errors import BrokerError, BrokerUnavailable
from ..brokers.message import Message, Receipt
from ..brokers.topology import Names
from ..metadata.contract import MAX_BATCH, Jobs, Ready, Sent, Store
from ..metadata.errors import MetadataError, StoreUnavailable
from .batcher import Batcher
from .clock import Clock
from .futures import looked_at
from .wakes import Wakes
from .wire import Command, Event, encode_bundle, encode_command, encode_events, split_bundles

PUBLISHED_DELAY_SECONDS = 0.1  # most jobs are claimed by then, which clears their outbox entry without our help
EPOCH_AGAIN_SECONDS = 60.0  # a store that lost its data has another one; far more than from a record to its ticket
MAX_BACKGROUND = 10_000  # sends under way that nobody waits for; beyond it the relay takes over

log = logging.getLogger("callboard.dispatcher")


class Dispatcher:
    def __init__(self, *, broker: Broker, store: Store, names: Names, clock: Clock, confirm_timeout: float) -> None:
        self._broker = broker
        self._store = store
        self._jobs = store.get(Jobs)
        self._names = names
        self._clock = clock
        self._epoch_read_at = clock.elapsed()
        self._confirm_timeout = confirm_timeout
        self._batcher = Batcher(self._publish, limit=4 * MAX_BATCH, window=4)
        self._wakes = Wakes(self.command_soon, clock)
        self._declared: set[str] = set()
        self._declaring: dict[str, asyncio.Lock] = {}
        self._refused: dict[str, str] = {}  # queues that cannot be declared, and why
        self._published: list[Sent] = []
        self._unrecorded: set[tuple[str, str]] = set()
        self._events: dict[str, list[Event]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._events_scheduled = False
        self._background: set[asyncio.Task[None]] = set()
        self._spares: set[asyncio.Task[bool]] = set()

    async def send(self, ready: Sequence[Ready]) -> list[Receipt]:
        """Publish; what became of each. UNKNOWN after the confirm timeout or without a connection, never raised."""
        return await self._batcher.submit(ready)

    def start(self, ready: Sequence[Ready]) -> tuple[asyncio.Future[list[Receipt]], Callable[[], None]]:
        """`send`, begun while the jobs are being recorded; at least one job. They are `published` only once the second
        that is answered here was called, when they are there: the mark would pass by a record that is not."""
        jobs = {(job.queue, job.id) for job in ready}
        self._unrecorded |= jobs
        sending = self._batcher.put(ready)
        sending.add_done_callback(looked_at)
        return sending, lambda: self._unrecorded.difference_update(jobs)

    def send_soon(self, ready: Sequence[Ready]) -> None:
        """Publish without waiting. Beyond MAX_BACKGROUND sends nothing is done: the relay will do it."""
        if ready and len(self._background) < MAX_BACKGROUND:
            self._in_background(self._send(ready))

    def send_spare(self, ready: Ready) -> asyncio.Task[bool]:
        """Publish, at once, the ticket of a job that most likely needs none: kept in the broker's memory, so that it
        confirms as soon as it has it. Whether it has."""
        task = asyncio.get_running_loop().create_task(self._send_spare(ready))
        self._spares.add(task)
        task.add_done_callback(looked_at)
        task.add_done_callback(self._spares.discard)
        return task

    async def _send_spare(self, ready: Ready) -> bool:
        self._read_epoch_now_and_then()
        if ready.queue not in self._declared:
            await self._declare_or_tell(ready.queue)
        message = self._message(ready.queue, ready.priority, [ready], spare=True)
        (receipt,) = await self._broker.publish([message], timeout=self._confirm_timeout)
        return receipt is Receipt.CONFIRMED

    async def send_single(self, ready: Ready, *, at: int | None = None, epoch: str | None = None) -> bool:
        """Publish a job in a message of its own, so that any worker may take it; whether the broker has it. `at`,
        `epoch`: of the ticket whose place it takes, and by which is decided whether an unknown job is adopted."""
        message = self._message(ready.queue, ready.priority, [ready], at=at, epoch=epoch)
        (receipt,) = await self._broker.publish([message], timeout=self._confirm_timeout)
        return receipt is Receipt.CONFIRMED

    def send_copy_soon(self, ready: Ready, *, sent_at: int) -> None:
        """Publish, without waiting, a copy of the ticket that was sent then, no younger than that one: whoever asks by
        its age whether to adopt it finds the tombstone of a job that has ended since. At most once."""
        if len(self._background) < MAX_BACKGROUND:
            self._in_background(self._send_copy(ready, sent_at))

    async def _send(self, ready: Sequence[Ready]) -> None:
        await self.send(ready)

    async def _send_copy(self, ready: Ready, sent_at: int) -> None:
        await self.send_single(ready, at=sent_at)

    def emit(self, event: Event) -> None:
        """Tell whoever listens. At most once: state is in the store, events are for waking and watching."""
        self._events.setdefault(f"{event.queue}.{event.event}", []).append(event)
        if not self._events_scheduled:
            self._events_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush_events)

    async def command(self, routing_key: str, command: Command) -> None:
        """A message to actors' mailboxes. It may get lost: nothing may depend on it but speed."""
        message = Message(
            exchange=self._names.control,
            routing_key=routing_key,
            body=encode_command(command),
            persistent=False,
            mandatory=False,
        )
        await self._broker.publish([message], timeout=self._confirm_timeout)

    def command_soon(self, routing_key: str, command: Command) -> None:
        if len(self._background) < MAX_BACKGROUND:
            self._in_background(self.command(routing_key, command))

    def delayed_soon(self, queue: str, run_at: int) -> None:
        """Tell the delayed scanners that a job which was recorded is due at `run_at`, if they need to be told."""
        self._wakes.delayed(queue, run_at)

    async def flush(self) -> None:
        """Wait for everything under way, `published` included."""
        self._wakes.flush()
        while self._background or self._spares or not self._batcher.idle:
            await asyncio.gather(*self._background, *self._spares, return_exceptions=True)
            await self._batcher.drain()
        self._flush_events()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._note_published()

    def _in_background(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a send in the background failed; the relay repeats it", exc_info=error)

    async def _publish(self, ready: Sequence[Ready]) -> Sequence[Receipt]:
        self._read_epoch_now_and_then()
        groups: dict[tuple[str, int], list[int]] = {}
        for index, job in enumerate(ready):
            groups.setdefault((job.queue, job.priority), []).append(index)
        messages: list[Message] = []
        members: list[list[int]] = []
        for (queue, priority), indexes in groups.items():
            if queue not in self._declared:
                await self._declare_or_tell(queue)
            start = 0
            for bundle in split_bundles([ready[index] for index in indexes]):
                messages.append(self._message(queue, priority, bundle))
                members.append(indexes[start : start + len(bundle)])
                start += len(bundle)
        receipts = list(await self._broker.publish(messages, timeout=self._confirm_timeout))
        returned = [number for number, receipt in enumerate(receipts) if receipt is Receipt.RETURNED]
        if returned:  # somebody deleted the queue
            await self._publish_again(messages, receipts, returned)
        answers = [Receipt.UNKNOWN] * len(ready)
        for receipt, indexes in zip(receipts, members, strict=True):
            for index in indexes:
                answers[index] = receipt
            if receipt is Receipt.CONFIRMED:
                self._published += [Sent(ready[i].queue, ready[i].id, ready[i].dispatch) for i in indexes]
        self._note_published_later()
        return answers

    def _read_epoch_now_and_then(self) -> None:
        """Tickets of an epoch that is over are adopted however old they are: late copies of jobs that were forgotten
        in order would run again."""
        if self._clock.elapsed() - self._epoch_read_at >= EPOCH_AGAIN_SECONDS:
            self._epoch_read_at = self._clock.elapsed()
            self._in_background(self._read_epoch())

    async def _read_epoch(self) -> None:
        try:
            await self._store.read_epoch()
        except MetadataError as error:
            log.warning("%s; whether the store has lost its data since is asked again later", error)

    async def _publish_again(self, messages: list[Message], receipts: list[Receipt], returned: list[int]) -> None:
        queues = {messages[number].routing_key for number in returned}
        declared = {queue for queue in queues if await self._declare_or_tell(queue, again=True)}
        returned = [number for number in returned if messages[number].routing_key in declared]
        if not returned:
            return
        again = await self._broker.publish([messages[number] for number in returned], timeout=self._confirm_timeout)
        for number, receipt in zip(returned, again, strict=True):
            receipts[number] = receipt

    async def declare(self, queue: str) -> None:
        """See to it that the job queue exists. BrokerUnavailable: it will, once there is a connection."""
        # Who comes meanwhile waits: what is sent before the queue is there comes back, and later than what is behind.
        async with self._declaring.setdefault(queue, asyncio.Lock()):
            if queue in self._declared:
                return
            try:
                await self._broker.declare(self._names.jobs_topology(queue))
            except BrokerUnavailable:
                self._declared.add(queue)
                raise
            self._declared.add(queue)

    async def _declare_or_tell(self, queue: str, *, again: bool = False) -> bool:
        """One queue that cannot be declared is no reason to keep back the others' jobs; its own come back, as returned
        or unconfirmed, and stay in the outbox."""
        try:
            if again:
                await self._broker.redeclare(self._names.jobs_topology(queue))
            else:
                await self.declare(queue)
        except BrokerUnavailable:
            return False
        except BrokerError as error:
            self._declared.discard(queue)
            if self._refused.get(queue) != str(error):  # said once, and when the reason is another
                self._refused[queue] = str(error)
                log.error("queue %s cannot be declared, its jobs wait in the outbox: %s", queue, error)
            return False
        self._refused.pop(queue, None)
        return True

    def _message(
        self,
        queue: str,
        priority: int,
        bundle: Sequence[Ready],
        *,
        at: int | None = None,
        epoch: str | None = None,
        spare: bool = False,
    ) -> Message:
        at = self._clock.now() if at is None else at
        return Message(
            exchange=self._names.jobs,
            routing_key=queue,
            body=encode_bundle(bundle, epoch=self._store.epoch if epoch is None else epoch, at=at, spare=spare),
            priority=10 - priority,  # 1 (first) .. 10 (last) -> AMQP's 9 .. 0
            persistent=not spare,
        )

    def _note_published_later(self) -> None:
        if self._published and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PUBLISHED_DELAY_SECONDS, self._published_due)

    def _published_due(self) -> None:
        self._timer = None
        self._in_background(self._note_published())

    async def _note_published(self) -> None:
        sent, self._published = self._published, []
        if self._unrecorded:
            self._published = [one for one in sent if (one.queue, one.id) in self._unrecorded]
            sent = [one for one in sent if (one.queue, one.id) not in self._unrecorded]
            self._note_published_later()
        try:
            for start in range(0, len(sent), MAX_BATCH):
                await self._jobs.published(sent[start : start + MAX_BATCH], now=self._clock.now())
        except StoreUnavailable:
            log.info("%d jobs stay in the outbox though they were sent; copies will follow, harmlessly", len(sent))

    def _flush_events(self) -> None:
        self._events_scheduled = False
        events, self._events = self._events, {}
        messages = [
            Message(
                exchange=self._names.events,
                routing_key=key,
                body=encode_events(batch),
                persistent=False,
                mandatory=False,
            )
            for key, batch in events.items()
        ]
        if messages:
            self._in_background(self._publish_events(messages))

    async def _publish_events(self, messages: list[Message]) -> None:
        await self._broker.publish(messages, timeout=self._confirm_timeout)
