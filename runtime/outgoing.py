"""Sends under way, so many at a time: an actor goes on to what is due next while the broker confirms what was before.

    outgoing = Outgoing(stage)
    await outgoing.send(ready)                  returns at once while fewer than MAX_SENDS are under way
    await outgoing.hold(ready, at, latest)      the same for what is not due yet: it is sent at that moment
    await outgoing.end()                        at the end of the actor: waits for them within the grace

A broker that takes long to confirm delays nothing but itself, and a backlog goes out as fast as it is taken, while only
that many batches of it are held here. What is not sent in the end stays in the outbox, for a relay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..metadata.contract import Ready
from .actor import Stage

MAX_SENDS = 8
MAX_HELD = 64
CLOCK_SECONDS = 0.001  # clocks count whole milliseconds
TIMER_SECONDS = 0.0007  # and timers wait for up to one more than they were told


class Outgoing:
    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._sends: set[asyncio.Task[None]] = set()
        self._held: set[asyncio.Task[None]] = set()

    async def send(self, ready: Sequence[Ready]) -> None:
        """Raises what an earlier send raised: the dispatcher's faults, never a lost connection."""
        self._sends = await _with_room(self._sends, MAX_SENDS)
        if ready:
            self._sends.add(asyncio.create_task(self._send(ready)))

    async def hold(self, ready: Sequence[Ready], *, at: int, latest: float) -> None:
        """`at`: ms of our clock; `latest`: the same moment by `elapsed`, from both clocks as they were before the store
        was asked what is due: what jumps from then on moves nothing. Raises as `send` does."""
        self._held = await _with_room(self._held, MAX_HELD)
        self._held.add(asyncio.create_task(self._send_at(ready, at, latest)))

    async def end(self) -> None:
        sends, self._sends, self._held = self._sends | self._held, set(), set()
        if sends:
            await self._stage.within_grace(asyncio.wait(sends))
        for task in sends:
            task.cancel()

    async def _send(self, ready: Sequence[Ready]) -> None:
        await self._stage.dispatcher.send(ready)

    async def _send_at(self, ready: Sequence[Ready], at: int, latest: float) -> None:
        """The wall clock tells the moment to the millisecond, and may jump meanwhile: what it says is believed within
        that millisecond."""
        clock = self._stage.clock
        while (left := latest - clock.elapsed()) > CLOCK_SECONDS or (left > 0 and clock.now() < at):
            await clock.sleep(max(0.0, left - TIMER_SECONDS))
        await self._send(ready)


async def _with_room(tasks: set[asyncio.Task[None]], most: int) -> set[asyncio.Task[None]]:
    while len(tasks) >= most:
        done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    return tasks
