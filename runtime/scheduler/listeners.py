"""Who is told what by a scheduler, and how it hears what actors elsewhere did."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable

from ...brokers.contract import Consumer
from ...brokers.message import Delivery
from ...brokers.topology import Binding, Queue, Topology
from ..connections import Connections
from ..wire import decode_events
from .events import ALL_EVENTS, HEARD, EventCode, SchedulerEvent, TaskEvent, told_of

Callback = Callable[[SchedulerEvent], object]

PREFETCH = 256


class Listeners:
    """`tell` may be called in any thread, and calls there. A listener that fails is logged, and stops nothing."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._lock = threading.Lock()
        self._listeners: tuple[tuple[Callback, EventCode], ...] = ()

    def add(self, callback: Callback, mask: int = ALL_EVENTS) -> None:
        with self._lock:
            self._listeners = (*self._listeners, (callback, EventCode(mask)))

    def remove(self, callback: Callback) -> None:
        with self._lock:
            self._listeners = tuple(one for one in self._listeners if one[0] != callback)

    @property
    def wanted(self) -> EventCode:
        wanted = EventCode(0)
        for _, mask in self._listeners:
            wanted |= mask
        return wanted

    def tell(self, event: SchedulerEvent) -> None:
        for callback, mask in self._listeners:
            if event.code & mask:
                try:
                    callback(event)
                except Exception:  # a stranger's fault, which must not become the scheduler's
                    self._logger.exception("a listener failed at %s", event.code.name)


class Hearing:
    """Hears of all schedules' jobs in one store's namespace, by a queue of its own on `callboard.events`."""

    def __init__(self, connections: Connections, *, store: str, tell: Callable[[TaskEvent], None]) -> None:
        self._connections = connections
        self._store = store
        self._tell = tell
        self._queue = connections.names.listener(secrets.token_hex(16))
        self._consumer: Consumer | None = None

    async def listen(self, codes: EventCode) -> None:
        """To these from now on, and to what was asked for before. Raises BrokerUnavailable, and listens once there is a
        connection."""
        wanted = [event for event, code in HEARD.items() if code & codes]
        if not wanted:
            return
        await self._connections.broker.declare(
            Topology(
                queues=(Queue(self._queue, exclusive=True),),
                bindings=tuple(Binding(self._queue, self._connections.names.events, f"#.{event}") for event in wanted),
            )
        )
        if self._consumer is None:
            self._consumer = await self._connections.broker.consume(self._queue, self._receive, prefetch=PREFETCH)

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.cancel()

    def _receive(self, delivery: Delivery) -> None:
        for event in decode_events(delivery.body):
            told = told_of(event, store=self._store)
            if told is not None:
                self._tell(told)
        delivery.ack()
