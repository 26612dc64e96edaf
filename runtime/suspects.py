"""Jobs that a worker lost so often that one more loss ends them: each runs with nothing else in its process.

What kills a process takes all that runs there with it, and nobody can tell afterwards which of them it was. So a loss
counts against every job that ran there, but the last one that `max_stalled` allows is taken alone: then whoever is lost
has done it. What merely ran beside it completes, and what was only waiting here was never claimed, so nothing was lost.

    claim ──`alone`──> Suspects ──(nothing runs here any more)──> claim without the rule ──(ends)──> go on as before

Its ticket stays unsettled meanwhile. A worker that dies while a suspect waits costs the suspect nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from .actor import Stage
from .backlog import Pending

ClaimAlone = Callable[[str, Pending], Awaitable[None]]


class Suspects:
    """`busy`: something runs here, or nothing may be started; `changed` is set whenever that may have changed. `claim`
    starts what it claims."""

    def __init__(self, stage: Stage, *, busy: Callable[[], bool], changed: asyncio.Event, claim: ClaimAlone) -> None:
        self._stage = stage
        self._busy = busy
        self._changed = changed
        self._claim = claim
        self._waiting: deque[tuple[str, Pending]] = deque()
        self._alone = False

    def __bool__(self) -> bool:
        """Whether nothing else may start: one waits, or runs."""
        return self._alone or bool(self._waiting)

    @property
    def alone_from(self) -> int | None:
        """For a claim: so often lost is too often for company. With `max_stalled` 0 the first loss ends a job, and what
        ran beside it is not told apart."""
        return max(1, self._stage.settings.max_stalled)

    def add(self, queue: str, pending: Pending) -> None:
        self._stage.log.warning(
            "job %s of queue %s was lost by %d workers: it runs alone, when what runs here has ended",
            pending.ticket.id,
            queue,
            self.alone_from,
        )
        self._waiting.append((queue, pending))
        self._changed.set()

    async def run_each(self) -> None:
        """Until none is left, or the stage is stopping: what still waits then goes back to the broker unsettled."""
        self._alone = bool(self._waiting)
        try:
            while self._waiting and await self._idle():
                queue, pending = self._waiting.popleft()
                if pending.parcel.delivery.lost:  # on its way to somebody again
                    continue
                await self._claim(queue, pending)
                await self._idle()
        finally:
            self._alone = False

    async def _idle(self) -> bool:
        """Wait until nothing runs here; False: the stage is stopping."""
        while self._busy() and not self._stage.stopping.is_set():
            self._changed.clear()
            await self._changed.wait()
        self._changed.set()
        return not self._stage.stopping.is_set()
