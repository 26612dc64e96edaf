"""Leases on Redis: one hash for all locks of the namespace, and an index of those that are free."""

from __future__ import annotations

from ..leases import FREE_FOR, Lock, Still
from .connection import RedisConnection

PLACE = "\x00locks"  # in place of a queue's name: no queue is called so


class RedisLeases:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def take(self, name: str, holder: str, *, ttl: int, still: Still | None, now: int) -> Lock:
        seen = (None, None) if still is None else (still.fence, still.beat)
        granted, *values = await self._connection.run("take_lock", PLACE, (name, holder, ttl, *seen))
        return Lock(bool(granted), *values)

    async def renew(self, name: str, holder: str, *, fence: int) -> bool:
        return bool(await self._connection.run("renew_lock", PLACE, (name, holder, fence)))

    async def release(self, name: str, holder: str, *, fence: int, now: int) -> bool:
        return bool(await self._connection.run("release_lock", PLACE, (name, holder, fence, FREE_FOR)))
