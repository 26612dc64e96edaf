"""What a worker holds beyond what it can start soon, handed on to others that have nothing to do."""

from __future__ import annotations

import asyncio

from ..brokers.errors import BrokerUnavailable
from ..metadata.contract import Ready
from .actor import Stage
from .backlog import Backlog, Pending
from .wire import body_of, encode_body

HAND_ON_SECONDS = 0.2  # what a bundle's jobs may wait for a slot here before others get them


class Spare:
    def __init__(self, stage: Stage, backlog: Backlog) -> None:
        self._stage = stage
        self._backlog = backlog

    async def hand_on(self, queue: str, *, room: int) -> None:
        """Publish singly, then settle: a crash between the two leaves copies, which the fence makes harmless. Only
        where others have nothing to do: while the broker holds jobs, they take those."""
        if self._backlog.waiting(queue) <= room:
            return
        stage = self._stage
        try:
            depth = await stage.broker.depth(stage.names.job_queue(queue))
        except BrokerUnavailable:
            return
        if depth is None or depth.ready > 0 or depth.consumers < 2:
            return
        limit = stage.clock.elapsed() - HAND_ON_SECONDS
        excess = self._backlog.excess(queue, room=room, arrived_before=limit)
        await asyncio.gather(*(self._hand_on_one(queue, pending) for pending in excess))

    async def _hand_on_one(self, queue: str, pending: Pending) -> None:
        ticket = pending.ticket
        ready = Ready(queue, ticket.id, ticket.dispatch, ticket.priority, encode_body(body_of(ticket)))
        if await self._stage.dispatcher.send_single(ready, at=pending.parcel.at, epoch=pending.parcel.epoch):
            pending.parcel.settle()
        else:
            self._backlog.add(queue, pending.parcel, [ticket])
