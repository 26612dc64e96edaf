"""Wakes those who wait for a job's end: one exclusive queue per process, bound to the final events of the job queues
that somebody here waits for. Events may get lost, so a waiter also looks into the store now and then."""

from __future__ import annotations

import asyncio

from ..brokers.contract import Broker, Consumer
from ..brokers.message import Delivery
from ..brokers.topology import Binding, Names, Queue, Topology
from .wire import Event, decode_events

FINAL_EVENTS = ("completed", "failed", "cancelled", "expired")
PREFETCH = 256


class Listener:
    def __init__(self, *, broker: Broker, names: Names, boot: str) -> None:
        self._broker = broker
        self._names = names
        self._queue = names.listener(boot)
        self._consumer: Consumer | None = None
        self._bound: set[str] = set()
        self._binding = asyncio.Lock()
        self._waiters: dict[tuple[str, str], set[asyncio.Future[Event]]] = {}

    async def watch(self, queue: str, job_id: str) -> asyncio.Future[Event]:
        """The event of the job's end, when it comes; events of before the call are not seen. `unwatch` it after.

        BrokerUnavailable: there is no connection now; look into the store instead."""
        ended: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault((queue, job_id), set()).add(ended)
        try:
            await self._bind(queue)
        except BaseException:
            self.unwatch(queue, job_id, ended)
            raise
        return ended

    def unwatch(self, queue: str, job_id: str, ended: asyncio.Future[Event]) -> None:
        waiting = self._waiters.get((queue, job_id))
        if waiting is not None:
            waiting.discard(ended)
            if not waiting:
                del self._waiters[queue, job_id]

    async def close(self) -> None:
        if self._consumer is not None:
            await self._consumer.cancel()

    async def _bind(self, queue: str) -> None:
        if queue in self._bound and self._consumer is not None:
            return
        async with self._binding:
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
            for ended in self._waiters.get((event.queue, event.job), ()):
                if not ended.done():
                    ended.set_result(event)
        delivery.ack()
