"""Puts aside what can't be used: on `callboard.dead` with the reason in its headers. Nothing is dropped in silence."""

from __future__ import annotations

import asyncio
import logging

from ..brokers.message import Delivery, Message, Receipt
from .connections import Connections

MAX_BODY = 64 * 1024  # bytes of the original that are kept
MAX_DETAIL = 1000

log = logging.getLogger("callboard.dead")


class DeadLetters:
    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._background: set[asyncio.Task[None]] = set()

    def put(self, routing_key: str, body: bytes, *, reason: str, detail: str, delivery: Delivery) -> None:
        """Publish in the background. `reason` is a word that can be counted, `detail` a sentence."""
        headers = {
            "callboard-reason": reason,
            "callboard-detail": detail[:MAX_DETAIL],
            "callboard-time": self._connections.clock.now(),
            "callboard-exchange": delivery.exchange,
            "callboard-routing-key": delivery.routing_key,
            "callboard-size": len(body),
        }
        message = Message(
            exchange=self._connections.names.dead, routing_key=routing_key, body=body[:MAX_BODY], headers=headers
        )
        task = asyncio.get_running_loop().create_task(self._publish(message, reason, detail))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _publish(self, message: Message, reason: str, detail: str) -> None:
        timeout = self._connections.settings.confirm_timeout
        (receipt,) = await self._connections.broker.publish([message], timeout=timeout)
        if receipt is not Receipt.CONFIRMED:
            log.error("a dead letter could not be kept (%s): %s: %s", receipt, reason, detail[:200])
