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
        """Only where others have nothing to do: while the broker holds jobs, they take those."""
        if self._backlog.waiting(queue) <= room:
            return
        stage = self._stage
        if not await others_are_idle(stage, queue):
            return
        limit = stage.clock.elapsed() - HAND_ON_SECONDS
        excess = self._backlog.excess(queue, room=room, arrived_before=limit)
        await asyncio.gather(*(self._hand_on_one(queue, pending) for pending in excess))

    async def _hand_on_one(self, queue: str, pending: Pending) -> None:
        if not await hand_on(self._stage, queue, pending):
            self._backlog.add(queue, pending.parcel, [pending.ticket])


async def others_are_idle(stage: Stage, queue: str) -> bool:
    """Whether somebody else consumes that queue and the broker holds nothing for them; False where it is away."""
    try:
        depth = await stage.broker.depth(stage.names.job_queue(queue))
    except BrokerUnavailable:
        return False
    return depth is not None and depth.ready == 0 and depth.consumers > 1


async def hand_on(stage: Stage, queue: str, pending: Pending) -> bool:
    """Publish a ticket singly, as old as it is, then settle it: a crash between the two leaves a copy, which the fence
    makes harmless. False: the broker has not taken it."""
    ticket, parcel = pending.ticket, pending.parcel
    ready = Ready(queue, ticket.id, ticket.dispatch, ticket.priority, encode_body(body_of(ticket)))
    sent = await stage.dispatcher.send_single(ready, at=parcel.at, epoch=parcel.epoch)
    if sent:
        parcel.settle()
    return sent
