"""A lock whose store answers with faults while it is held."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from callboard import LockLost
from callboard.metadata.errors import StoreError
from callboard.metadata.leases import Lock as Row
from callboard.runtime.clock import SystemClock
from callboard.runtime.locks import SHORTEST_TTL, Lock


class App:
    """What a lock uses of an app: its clock, and a store that renews nothing while `faulty`."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.connections = self.store = self
        self.faulty = False
        self.refused = 0
        self.renewed = 0
        self.released = 0

    def get(self, _: type) -> App:
        return self

    async def take(self, *_: object, **given: Any) -> Row:
        return Row(granted=True, fence=7, ttl=given["ttl"], beat=0)

    async def renew(self, *_: object, **given: Any) -> bool:
        if self.faulty:
            self.refused += 1
            raise StoreError("OOM command not allowed")
        self.renewed += 1
        return True

    async def release(self, *_: object, **given: Any) -> bool:
        self.released += 1
        return True


def lock_of(app: Any, *, ttl: float) -> Lock:
    return Lock(app, "report", ttl=ttl, timeout=None)


async def test_a_fault_of_the_store_neither_hides_what_the_block_raises_nor_keeps_the_lock() -> None:
    app = App()
    app.faulty = True

    async def fail() -> None:
        async with asyncio.timeout(60), lock_of(app, ttl=SHORTEST_TTL):
            while not app.refused:
                await asyncio.sleep(0.01)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert app.released == 1


async def test_a_lock_is_renewed_again_after_a_fault_which_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    app.faulty = True

    async def hold() -> None:
        async with asyncio.timeout(60), lock_of(app, ttl=SHORTEST_TTL) as lock:
            while app.refused < 3 or not lock.lost:
                await asyncio.sleep(0.01)
            app.faulty = False
            while not app.renewed:
                await asyncio.sleep(0.01)
            app.faulty = True
            while not lock.lost:
                await asyncio.sleep(0.01)

    with pytest.raises(LockLost):
        await hold()
    told = "lock report is not renewed: OOM command not allowed"
    assert [record.getMessage() for record in caplog.records] == [told, told]
    assert app.released == 1
