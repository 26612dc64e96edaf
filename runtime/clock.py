"""Time, passed in. Nothing else in Callboard reads a clock, so that tests can hold it still or make it jump."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> int:
        """Wall clock, ms since the Unix epoch. May jump."""
        ...

    def elapsed(self) -> float:
        """Seconds that never jump and do not stand still while the machine is suspended."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def elapsed(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
