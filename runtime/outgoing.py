"""Sends under way, so many at a time: an actor goes on to what is due next while the broker confirms what was before.

    outgoing = Outgoing(stage)
    await outgoing.send(ready)      returns at once while fewer than MAX_SENDS are under way
    await outgoing.end()            at the end of the actor: waits for them within the grace

A broker that takes long to confirm delays nothing but itself, and a backlog goes out as fast as it is taken, while only
that many batches of it are held here. What is not sent in the end stays in the outbox, for a relay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..metadata.contract import Ready
from .actor import Stage

MAX_SENDS = 8


class Outgoing:
    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._sends: set[asyncio.Task[object]] = set()

    async def send(self, ready: Sequence[Ready]) -> None:
        """Raises what an earlier send raised: the dispatcher's faults, never a lost connection."""
        while len(self._sends) >= MAX_SENDS:
            done, self._sends = await asyncio.wait(self._sends, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        if ready:
            self._sends.add(asyncio.create_task(self._stage.dispatcher.send(ready)))

    async def end(self) -> None:
        sends, self._sends = self._sends, set()
        if sends:
            await self._stage.within_grace(asyncio.wait(sends))
        for task in sends:
            task.cancel()
