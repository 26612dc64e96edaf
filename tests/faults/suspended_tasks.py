"""The app whose handler notes, over and over, whether it believes its worker's lease, and a lock of its own, to hold.

The file that SUSPENDED_NOTES names gets a line for the last look before a sleep of the machine, and for each one after
it. With SUSPENDED_CLOCK=monotonic the app goes by the clock that stands still meanwhile, as it must not.
"""

from __future__ import annotations

import asyncio
import os
import time

import msgspec
from msgspec import Struct

from callboard import Callboard, Context
from callboard.runtime.clock import SystemClock
from faults.fleet import LEASE_SECONDS

APP = "faults.suspended_tasks:app"
QUEUE = "suspended"
NOTES = "SUSPENDED_NOTES"
CLOCK = "SUSPENDED_CLOCK"
LOOK_SECONDS = 0.005
AWAKE_SECONDS = 1.0


class Look(Struct, frozen=True):
    """`leased`, `locked`: what the run believes."""

    job: str
    boottime: float
    monotonic: float
    leased: bool
    locked: bool


class StandingClock(SystemClock):
    def elapsed(self) -> float:
        return time.monotonic()


app = Callboard(clock=StandingClock() if os.environ.get(CLOCK) == "monotonic" else SystemClock())


@app.task(name="look", queue=QUEUE)
async def look(ctx: Context) -> None:
    """In its first run, until a while after the machine slept."""
    async with app.lock(f"of-{ctx.job_id}", ttl=LEASE_SECONDS) as lock:
        before, slept_at = None, float("inf")
        while ctx.attempt == 1 and time.clock_gettime(time.CLOCK_BOOTTIME) < slept_at + AWAKE_SECONDS:
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            seen = Look(ctx.job_id, now, time.monotonic(), not ctx.lease_uncertain, not lock.lost)
            if before is not None and now - before.boottime > LEASE_SECONDS and slept_at > now:
                slept_at = now
                note(before)
            if now >= slept_at:
                note(seen)
            before = seen
            await asyncio.sleep(LOOK_SECONDS)


def note(seen: Look) -> None:
    file = os.open(os.environ[NOTES], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, msgspec.json.encode(seen) + b"\n")
    os.close(file)
