"""Leases in memory."""

from __future__ import annotations

from msgspec import Struct

from ..leases import FREE_FOR, Lock, Still

FORGOTTEN = 8  # free locks dropped with each release


class Held(Struct):
    """`holder` None: it is free, since `freed_at`."""

    holder: str | None
    fence: int
    beat: int
    ttl: int
    freed_at: int = 0


class MemoryLeases:
    def __init__(self) -> None:
        self._locks: dict[str, Held] = {}
        self._free: dict[str, None] = {}  # in the order in which they became free

    async def take(self, name: str, holder: str, *, ttl: int, still: Still | None, now: int) -> Lock:
        held = self._locks.get(name)
        if held is None or held.holder is None or still == Still(held.fence, held.beat):
            held = Held(holder, max(held.fence + 1 if held else 0, now), 1, ttl)
            self._locks[name] = held
            self._free.pop(name, None)
        return Lock(held.holder == holder, held.fence, held.beat, held.ttl)

    async def renew(self, name: str, holder: str, *, fence: int) -> bool:
        held = self._locks.get(name)
        if held is None or (held.holder, held.fence) != (holder, fence):
            return False
        held.beat += 1
        return True

    async def release(self, name: str, holder: str, *, fence: int, now: int) -> bool:
        held = self._locks.get(name)
        if held is None or (held.holder, held.fence) != (holder, fence):
            return False
        held.holder, held.freed_at = None, now
        self._free[name] = None
        for old in list(self._free)[:FORGOTTEN]:
            if self._locks[old].freed_at < now - FREE_FOR:
                del self._locks[old], self._free[old]
        return True
