"""Keeps `callboard.dead` from growing without end: beyond a number of letters the oldest go.

Their age is the broker's to watch, since each letter is published with its lifetime. Several keepers do no harm: one at
a time has the queue for itself, and counts after it has got it.
"""

from __future__ import annotations

import asyncio

from ..brokers.contract import BODY_KEPT
from ..brokers.errors import BrokerError
from ..brokers.message import Delivery
from .actor import Stage

AT_ONCE = 1000
PATIENCE_SECONDS = 2.0


class DeadLetterKeeper:
    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._queue = stage.names.dead

    async def trim(self) -> bool:
        """Take up to 1,000 of the oldest away; whether there are more beyond the number. Does nothing while the broker
        is away or somebody reads the queue."""
        keep = self._stage.settings.dead_letter_count
        broker = self._stage.broker
        try:
            depth = await broker.depth(self._queue)
            if keep is None or depth is None or depth.ready <= keep or depth.consumers:
                return False
            held: list[Delivery] = []
            wanted = min(depth.ready - keep, AT_ONCE)
            complete = asyncio.Event()

            def receive(delivery: Delivery) -> None:
                held.append(delivery)
                if len(held) >= wanted:
                    complete.set()

            consumer = await broker.consume(self._queue, receive, prefetch=wanted, exclusive=True, body_limit=BODY_KEPT)
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await complete.wait()
                depth = await broker.depth(self._queue)
                excess = 0 if depth is None else depth.ready + len(held) - keep
                for delivery in held[: max(0, excess)]:
                    delivery.ack()
                removed = min(len(held), max(0, excess))
                if removed:
                    self._stage.log.warning("removed %d dead letters, the oldest beyond %d", removed, keep)
                return excess > removed
            finally:
                await consumer.cancel()
        except (BrokerError, TimeoutError) as error:
            self._stage.log.info("dead letters are not counted now: %s", error)
            return False
