"""Deduplicating, QueueControl and Retention on Redis."""

from __future__ import annotations

from collections.abc import Sequence

from ..contract import Pruned
from ..job import State
from .connection import RedisConnection
from .rows import INDEXES


class RedisDeduplicating:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def holder(self, queue: str, deduplication_id: str, *, now: int) -> str | None:
        answer = await self._connection.run("holder", queue, (deduplication_id, now))
        return answer.decode() or None

    async def release(self, queue: str, deduplication_id: str) -> bool:
        return bool(await self._connection.run("release", queue, (deduplication_id,)))


class RedisQueueControl:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def register(self, queues: Sequence[str]) -> None:
        if queues:
            await self._connection.command("SADD", self._connection.keys.queues, *queues)

    async def queues(self) -> Sequence[str]:
        names = await self._connection.command("SMEMBERS", self._connection.keys.queues)
        return sorted(name.decode() for name in names)

    async def pause(self, queue: str) -> None:
        await self._connection.command("SET", self._paused(queue), 1)

    async def resume(self, queue: str) -> None:
        await self._connection.command("DEL", self._paused(queue))

    async def paused(self, queues: Sequence[str]) -> Sequence[str]:
        if not queues:
            return []
        answers = await self._connection.commands([("EXISTS", self._paused(queue)) for queue in queues])
        return [queue for queue, paused in zip(queues, answers, strict=True) if paused]

    async def clear(self, queue: str, state: State, *, before: int, limit: int, now: int) -> Sequence[str]:
        if state is State.ACTIVE:
            raise ValueError("running jobs cannot be cleared: cancel them first")
        answer = await self._connection.run("clear", queue, (INDEXES[state], before, limit, now))
        return [id.decode() for id in answer]

    async def forget(self, queue: str) -> bool:
        # The name last, and in a slot of its own: a crash in between leaves an empty queue that is forgotten again.
        if not await self._connection.run("forget", queue, ()):
            return False
        await self._connection.command("SREM", self._connection.keys.queues, queue)
        return True

    def _paused(self, queue: str) -> str:
        return self._connection.keys.of_queue(queue) + "paused"


class RedisRetention:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def prune(self, queues: Sequence[str], *, now: int, adoption_window: int, limit: int) -> Pruned:
        answers = await self._connection.run_each("prune", [(queue, (now, adoption_window, limit)) for queue in queues])
        return Pruned(sum(removed for removed, _ in answers), any(more for _, more in answers))
