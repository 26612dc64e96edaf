"""Workers on Redis: a row for each boot in each queue, beside the jobs: `claim` sees a dead boot in its own step."""

from __future__ import annotations

from collections.abc import Sequence

from ..contract import Heartbeat, Stalled, WorkerRow
from ..job import Keep
from .connection import RedisConnection
from .rows import keep_row, read_ready, text


class RedisWorkers:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def heartbeat(self, boot: str, queues: Sequence[str], *, info: bytes, now: int) -> Heartbeat:
        answers = await self._connection.run_each("heartbeat", [(queue, (boot, text(info))) for queue in queues])
        beats = list(zip(queues, answers, strict=True))
        return Heartbeat(
            alive=all(alive for _, (alive, _, _) in beats),
            cancels=[(queue, id.decode()) for queue, (_, _, ids) in beats for id in ids],
            paused=[queue for queue, (_, paused, _) in beats if paused],
        )

    async def leave(self, boot: str, queues: Sequence[str]) -> None:
        await self._connection.run_each("leave", [(queue, (boot,)) for queue in queues])

    async def workers(self, queues: Sequence[str]) -> Sequence[WorkerRow]:
        answers = await self._connection.run_each("workers", [(queue, ()) for queue in queues])
        return [
            WorkerRow(queue, rows[at].decode(), rows[at + 1], rows[at + 2], rows[at + 3])
            for queue, rows in zip(queues, answers, strict=True)
            for at in range(0, len(rows), 4)
        ]

    async def declare_dead(self, queue: str, boot: str, *, beat: int, now: int) -> bool:
        return bool(await self._connection.run("declare_dead", queue, (boot, beat)))

    async def take_stalled(
        self, queue: str, boot: str, *, now: int, grace: int, max_stalled: int, error: bytes, history: bytes,
        keep: Keep, limit: int,
    ) -> Stalled:  # fmt: skip
        more, failed, rows = await self._connection.run(
            "take_stalled", queue, (boot, now, grace, max_stalled, text(error), text(history), keep_row(keep), limit)
        )
        return Stalled(read_ready(queue, rows), [id.decode() for id in failed], bool(more))
