"""Deduplicating, QueueControl and Retention in memory."""

from __future__ import annotations

from collections.abc import Sequence

from ..contract import Pruned
from ..job import State
from .queue import QueueData
from .state import Queues


class MemoryDeduplicating:
    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    async def holder(self, queue: str, deduplication_id: str, *, now: int) -> str | None:
        window = self._queues[queue].window(deduplication_id, now)
        return None if window is None else window.job

    async def release(self, queue: str, deduplication_id: str) -> bool:
        data = self._queues[queue]
        if deduplication_id not in data.windows:
            return False
        data.drop_window(deduplication_id)
        return True


class MemoryQueueControl:
    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    async def register(self, queues: Sequence[str]) -> None:
        for name in queues:
            self._queues[name].known = True

    async def queues(self) -> Sequence[str]:
        return sorted(name for name, data in self._queues.items() if data.known)

    async def pause(self, queue: str) -> None:
        self._queues[queue].paused = True

    async def resume(self, queue: str) -> None:
        self._queues[queue].paused = False

    async def paused(self, queues: Sequence[str]) -> Sequence[str]:
        return [name for name in queues if self._queues[name].paused]

    async def clear(self, queue: str, state: State, *, before: int, limit: int, now: int) -> Sequence[str]:
        if state is State.ACTIVE:
            raise ValueError("running jobs cannot be cleared: cancel them first")
        data = self._queues[queue]
        ids = data.states[state].below(before, limit)
        for id in ids:
            record = data.records[id]
            data.free(record, whatever_ttl=True)
            data.erase(record, now=now, tombstone=True)
        return ids

    async def forget(self, queue: str) -> bool:
        data = self._queues[queue]
        if data.records or data.rows or data.schedules:
            return False
        del self._queues[queue]
        return True


class MemoryRetention:
    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    async def prune(self, queues: Sequence[str], *, now: int, adoption_window: int, limit: int) -> Pruned:
        removed, more = 0, False
        for name in queues:
            data = self._queues[name]
            pruned = _prune_records(data, now, limit)
            dropped = data.tombstones.below(now - adoption_window, limit)
            for id in dropped:
                data.drop_tombstone(id)
            closed = data.closing.below(now + 1, limit)
            for deduplication_id in closed:
                data.drop_window(deduplication_id)
            removed += pruned
            more = more or limit in (pruned, len(dropped), len(closed))
        return Pruned(removed, more)


def _prune_records(data: QueueData, now: int, limit: int) -> int:
    aged = data.aging.below(now, limit)
    for id in aged:
        data.erase(data.records[id], now=now, tombstone=True)
    pruned = len(aged)
    for key in list(data.overfull):
        if pruned == limit:
            break
        pruned += data.trim(key, limit=limit - pruned, now=now)
    return pruned
