"""Standing claims on Redis: what the script `enqueue` hands over is published on a channel of that boot and queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ..standing import Handed, Hearing
from .connection import RedisConnection


class RedisStandingClaims:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def hear(
        self, owner: str, queues: Sequence[str], *, told: Callable[[Handed], None], deaf: Callable[[], None]
    ) -> Hearing:
        of_queue = self._connection.keys.of_queue
        channels = {f"{of_queue(queue)}handed:{owner}".encode(): queue for queue in queues}
        return await self._connection.hear(tuple(channels), heard=partial(_tell, told, channels), deaf=deaf)

    async def stand(self, queue: str, owner: str, *, jobs: int) -> bool:
        return bool(await self._connection.run("stand", queue, (owner, jobs)))


def _tell(told: Callable[[Handed], None], queues: Mapping[bytes, str], channel: bytes, message: bytes) -> None:
    """`message`: fence, size of the id, id and payload, as quick_enqueue.lua writes them."""
    fence, size, rest = message.split(b":", 2)
    end = int(size)
    told(Handed(queues[channel], rest[:end].decode(), int(fence), rest[end:]))
