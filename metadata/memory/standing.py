"""Standing claims in memory: who hears is called in the step that records the job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import copy_context

from ..contract import Enqueued
from ..job import State
from ..standing import Handed, Hearing
from .queue import QueueData
from .state import Queues

Told = Callable[[Handed], object]


class MemoryStandingClaims:
    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    async def hear(
        self, owner: str, queues: Sequence[str], *, told: Callable[[Handed], None], deaf: Callable[[], None]
    ) -> Hearing:
        """`deaf` is never called: there is no way that could be lost."""
        # With the next tick, in the caller's context: whoever enqueues is not to run in what the worker starts.
        loop, context = asyncio.get_running_loop(), copy_context()

        def soon(handed: Handed) -> None:
            loop.call_soon(told, handed, context=context)

        return MemoryHearing(self.listen(owner, queues, soon))

    def listen(self, owner: str, queues: Sequence[str], told: Told) -> Callable[[], None]:
        """Be called in the very step that hands a job over; the way to end that."""
        hearers = self._queues.hearers
        mine = [(queue, owner) for queue in queues]
        hearers.update(dict.fromkeys(mine, told))

        def stop() -> None:
            for one in mine:
                if hearers.get(one) is told:
                    del hearers[one]

        return stop

    async def stand(self, queue: str, owner: str, *, jobs: int) -> bool:
        data = self._queues[queue]
        lives = data.alive(owner)
        if jobs > 0 and lives:
            data.standing[owner] = jobs
        else:
            data.standing.pop(owner, None)
        return lives


class MemoryHearing:
    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop

    async def sync(self) -> None:
        await asyncio.sleep(0)  # behind what was told before

    async def close(self) -> None:
        self._stop()


def hand_over(queues: Queues, data: QueueData, answer: Enqueued, now: int) -> Enqueued:
    """The answer for a job that was just recorded as waiting, alone in its call: active, if a standing claim got it."""
    record = data.records[answer.id]
    if data.paused or len(data.states[State.WAITING]) > 1 or (record.expires_at or now + 1) <= now:
        return answer
    while data.standing:
        owner = max(data.standing, key=lambda boot: data.standing[boot])
        told = queues.hearers.get((data.name, owner))
        if told is None or not data.alive(owner):
            del data.standing[owner]
            continue
        data.standing[owner] -= 1
        if data.standing[owner] == 0:
            del data.standing[owner]
        data.start(record, owner=owner, dispatch=record.dispatch, now=now)
        told(Handed(data.name, record.id, record.fence, record.payload))
        return Enqueued(record.id, answer.admission, record.state, record.dispatch, answer.replaced)
    return answer
