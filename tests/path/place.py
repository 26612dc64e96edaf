"""Where a test happens: a broker, a store, a namespace of its own on both, and a clean floor afterwards."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import aiormq

from callboard import Callboard
from callboard.brokers.topology import Names
from callboard.metadata.contract import Inspection, QueueControl
from callboard.metadata.mongo import MongoStore
from mongo_space import MongoSpace
from redis_space import RedisSpace

CLAIM_WINDOW = 250  # ms
MOTOR = "&driver=motor"  # at the end of a store's URL


class Place:
    """`shared`: several apps may meet here. `errors`: what our loggers, or asyncio's, called an error."""

    def __init__(self, *, broker: str, store: str) -> None:
        self.broker = broker
        self.store = store
        self.shared = not store.startswith("memory")
        self._space = _space_on(store) if self.shared else None
        self.namespace = self._space.namespace if self._space else f"test-{uuid4().hex}"
        self.errors: list[str] = []
        self._queues: set[str] = set()

    def app(self, **settings: Any) -> Callboard:
        """A closed app."""
        return Callboard(broker=self.broker, store=self.store, namespace=self.namespace, **settings)

    @asynccontextmanager
    async def open(self, **settings: Any) -> AsyncIterator[Callboard]:
        """An open app, whose queues are audited in the end."""
        async with self.app(**settings) as app:
            yield app
            await self.audit(app)

    async def prepare(self) -> None:
        """A MongoDB namespace keeps the claim window it was made with: a shorter one than is shipped, so that pauses
        cost less, and long enough for a crowded machine to claim in."""
        if isinstance(self._space, MongoSpace):
            store = MongoStore.from_url(self.store, namespace=self.namespace, claim_window=CLAIM_WINDOW)
            await store.open()
            await store.close()

    async def audit(self, app: Callboard) -> None:
        await app.connections.dispatcher.flush()  # what is still being noted would look like a fault
        store = app.connections.store
        queues = await store.get(QueueControl).queues()
        self._queues.update(queues)
        for queue in queues:
            faults = await store.get(Inspection).audit(queue)
            assert not faults, faults

    async def clean(self) -> None:
        if self._space is None:
            return
        names = Names(self.namespace)
        connection = await aiormq.connect(self.broker)
        channel = await connection.channel()
        for queue in [names.dead, names.intake, *map(names.job_queue, self._queues)]:
            await channel.queue_delete(queue)
        for exchange in names.exchanges().exchanges:
            await channel.exchange_delete(exchange.name)
        await connection.close()
        await self._space.delete()


def _space_on(store: str) -> MongoSpace | RedisSpace:
    if store.startswith("mongodb"):
        return MongoSpace(store.removesuffix(MOTOR), again=True)  # what it looks at, it looks at past the store
    return RedisSpace(store)


class Errors(logging.Handler):
    """Keeps what is logged as an error: an actor that failed and was started again would otherwise go unnoticed."""

    def __init__(self, place: Place) -> None:
        super().__init__(logging.ERROR)
        self._place = place

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f" ({record.exc_info[1]!r})"
        self._place.errors.append(f"{record.name}: {text}")
