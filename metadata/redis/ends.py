"""Ends of jobs on Redis: each script that ends some publishes them on their queue's channel, if anybody hears."""

from __future__ import annotations

from collections.abc import Callable

from ..ends import EndsHearing
from .connection import RedisConnection
from .ear import Ear

Told = Callable[[str, str, bytes | None], None]


class RedisEnds:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def hear(self, *, told: Told, deaf: Callable[[], None]) -> EndsHearing:
        return _Hearing(self._connection, told, deaf)


class _Hearing:
    def __init__(self, connection: RedisConnection, told: Told, deaf: Callable[[], None]) -> None:
        self._connection = connection
        self._told = told
        self._deaf = deaf
        self._queues: dict[bytes, str] = {}  # by channel
        self._ear: Ear | None = None

    async def add(self, queue: str) -> None:
        channel = f"{self._connection.keys.of_queue(queue)}ended".encode()
        self._queues[channel] = queue
        self._ear = await self._connection.hear((channel,), heard=self._heard, deaf=self._deaf, ear=self._ear)

    async def sync(self) -> None:
        if self._ear is not None:
            await self._ear.sync()

    async def close(self) -> None:
        if self._ear is not None:
            await self._ear.close()

    def _heard(self, channel: bytes, message: bytes) -> None:
        """Sizes of id and result, id, result, and so on, as head.lua writes them."""
        queue = self._queues[channel]
        at = 0
        while at < len(message):
            first = message.index(b":", at)
            second = message.index(b":", first + 1)
            size, told = int(message[at:first]), message[first + 1 : second]
            start = second + 1 + size
            at = start + int(told or 0)
            self._told(queue, message[second + 1 : start].decode(), message[start:at] if told else None)
