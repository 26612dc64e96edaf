"""Wakes those who wait for a job's end: by the store, where it tells of ends, and by one exclusive queue per process,
bound to the final events of the job queues that somebody here waits for; whichever is first. Both may get lost, so a
waiter also looks into the store now and then.

An id that was chosen may be another job's once the first is removed. The store tells of both in their order; events are
behind it, and the first one's might pass for the second one's. So of such ids only the store's word is taken where it
tells of ends, and ends that nobody waited for are remembered of ids alone that were made here."""

from __future__ import annotations

import asyncio
import logging

from msgspec import Raw

from ..brokers.contract import Broker, Consumer
from ..brokers.errors import BrokerError
from ..brokers.message import Delivery
from ..brokers.topology import Binding, Names, Queue, Topology
from ..metadata.contract import Store
from ..metadata.ends import Ends, EndsHearing
from ..metadata.errors import StoreError, StoreUnavailable
from .futures import looked_at
from .wire import decode_events

FINAL_EVENTS = ("completed", "failed", "cancelled", "expired")
PREFETCH = 256
REMEMBERED = 256  # ends that nobody waited for

log = logging.getLogger("callboard.listener")


class Listener:
    def __init__(self, *, broker: Broker, store: Store, names: Names, boot: str) -> None:
        self._broker = broker
        self._store = store
        self._names = names
        self._queue = names.listener(boot)
        self._consumer: Consumer | None = None
        self._bound: set[str] = set()
        self._binding = asyncio.Lock()
        self._hearing: EndsHearing | None = None
        self._heard: set[str] = set()
        self._refused = False
        self._asking: asyncio.Task[None] | None = None
        self._lately: dict[tuple[str, str], bytes | None] = {}  # ends that were told, and their results
        self._waiters: dict[tuple[str, str], dict[asyncio.Future[bytes | None], bool]] = {}  # and whether it is fresh

    def hears(self, queue: str) -> bool:
        """Whether ends of its jobs are told here already."""
        return queue in self._heard or (queue in self._bound and self._consumer is not None)

    async def watch(self, queue: str, job_id: str, *, fresh: bool = False) -> asyncio.Future[bytes | None]:
        """The job's end, when it comes, with its result where that is told. `fresh`: no other job ever had this id;
        then also if it came before the call. `unwatch` it after.

        BrokerUnavailable: nobody can tell now; look into the store instead."""
        ended: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        if fresh and (queue, job_id) in self._lately:
            ended.set_result(self._lately.pop((queue, job_id)))
            return ended
        self._waiters.setdefault((queue, job_id), {})[ended] = fresh
        try:
            if queue not in self._heard or queue not in self._bound or self._consumer is None:
                await self._listen(queue)
        except BaseException:
            self.unwatch(queue, job_id, ended)
            raise
        return ended

    def unwatch(self, queue: str, job_id: str, ended: asyncio.Future[bytes | None]) -> None:
        waiting = self._waiters.get((queue, job_id))
        if waiting is not None:
            waiting.pop(ended, None)
            if not waiting:
                del self._waiters[queue, job_id]

    def doubt(self) -> None:
        """Nothing was told for a while: ask whether the store's way here is still there. What is told by it alone would
        be waited for in vain."""
        if self._hearing is not None and (self._asking is None or self._asking.done()):
            self._asking = asyncio.get_running_loop().create_task(self._hearing.sync())
            self._asking.add_done_callback(looked_at)

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
        hearing, self._hearing = self._hearing, None
        if hearing is not None:
            await hearing.close()
        if self._consumer is not None:
            await self._consumer.cancel()

    async def _listen(self, queue: str) -> None:
        async with self._binding:
            await self._hear(queue)
            try:
                await self._bind(queue)
            except BrokerError:
                if queue not in self._heard:
                    raise

    async def _hear(self, queue: str) -> None:
        if queue in self._heard or self._refused or Ends not in self._store.capabilities:
            return
        try:
            if self._hearing is None:
                self._hearing = await self._store.get(Ends).hear(told=self._tell, deaf=self._deaf)
            hearing = self._hearing
            await hearing.add(queue)
            if self._hearing is hearing:  # else it was lost behind that answer
                self._heard.add(queue)
        except StoreUnavailable:
            pass
        except StoreError as error:
            self._refused = True
            log.info("ends of jobs are told by the broker alone: %s", error)
        finally:
            if queue not in self._heard:  # also where who waited gave up: nothing more is told of the others either
                self._deaf()

    def _deaf(self) -> None:
        """The next who waits listens anew."""
        self._hearing = None
        self._heard.clear()

    async def _bind(self, queue: str) -> None:
        if queue not in self._bound:
            await self._broker.declare(
                Topology(
                    queues=(Queue(self._queue, exclusive=True),),
                    bindings=tuple(
                        Binding(self._queue, self._names.events, f"{queue}.{event}") for event in FINAL_EVENTS
                    ),
                )
            )
            self._bound.add(queue)
        if self._consumer is None:
            self._consumer = await self._broker.consume(self._queue, self._receive, prefetch=PREFETCH)

    def _receive(self, delivery: Delivery) -> None:
        for event in decode_events(delivery.body):
            result = bytes(event.result) if isinstance(event.result, Raw) else None
            self._tell(event.queue, event.job, result, again=event.queue in self._heard)
        delivery.ack()

    def _tell(self, queue: str, job_id: str, result: bytes | None, *, again: bool = False) -> None:
        """`again`: the store has told it, or tells it now."""
        waiting = self._waiters.get((queue, job_id))
        if waiting is None:  # who enqueued it may be about to ask
            if again:
                return
            if len(self._lately) == REMEMBERED:
                del self._lately[next(iter(self._lately))]
            self._lately[queue, job_id] = result
            return
        for ended, fresh in waiting.items():
            if not ended.done() and (fresh or not again):
                ended.set_result(result)
