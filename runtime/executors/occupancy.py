"""Counts the calls that an executor still holds, and wakes who waits for the last of them."""

from __future__ import annotations

import asyncio

from .contract import Call, ExecutorClosed


class Occupancy:
    """Every `enter` is followed by one `leave`, which tells the call's owner that its slot is free. An `enter` that is
    refused tells so at once."""

    def __init__(self) -> None:
        self.busy = 0
        self.abandoned = 0
        self.closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self, call: Call) -> None:
        if self.closed:
            call.released()
            raise ExecutorClosed("the executor is closed and takes no more calls")
        self.busy += 1
        self._idle.clear()

    def leave(self, call: Call) -> None:
        self.busy -= 1
        if self.busy == 0:
            self._idle.set()
        call.released()

    async def drained(self, grace_seconds: float) -> bool:
        """Whether the last call left within the time."""
        try:
            async with asyncio.timeout(grace_seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
