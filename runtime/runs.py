"""The runs of one worker: which there are, how they are interrupted, and the table of dispatches it has started.

The table answers a claim's `mine`: a ticket may come again after its claim, and its job must not be started twice. What
has ended is forgotten only before a new claim is sent, since an answer under way may still speak of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .actor import Stage
from .finisher import Finisher, Spawn
from .run import Interruption, Run
from .runner import Runner

DEFIANCE_SECONDS = 0.5  # what an interrupted async handler may take to end before its outcome is recorded without it


class Runs:
    """`spawn` runs what must not fail in silence; `released` is called for each slot that becomes free, `changed` for
    each run whose outcome was recorded."""

    def __init__(
        self,
        stage: Stage,
        *,
        spawn: Spawn,
        lease_is_certain: Callable[[], bool],
        released: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self.started = 0
        self._closed = False
        self.idle = asyncio.Event()
        self.idle.set()
        self._spawn = spawn
        self._changed = changed
        self._runner = Runner(stage, lease_is_certain=lease_is_certain, released=released)
        self._finisher = Finisher(stage, ended=self._ended, spawn=spawn)
        self._runs: dict[tuple[str, str], Run] = {}
        self._dispatches: dict[tuple[str, str, int], None] = {}
        self._forgettable: list[tuple[str, str, int]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def late_finishes(self) -> int:
        """Ends of runs that were refused, since their lease had been lost."""
        return self._finisher.late_finishes

    @property
    def has_room(self) -> bool:
        return self._finisher.has_room

    def before_claim(self) -> None:
        """No claim is unanswered now."""
        for key in self._forgettable:
            self._dispatches.pop(key, None)
        self._forgettable.clear()

    def is_new(self, queue: str, job_id: str, dispatch: int) -> bool:
        """Whether this boot has not yet started that dispatch; from now on it has."""
        key = (queue, job_id, dispatch)
        if key in self._dispatches:
            return False
        self._dispatches[key] = None
        return True

    def start(self, run: Run) -> None:
        self._runs[run.key] = run
        self.started += 1
        self.idle.clear()
        # A task of nobody's group: a handler that defies its interruption holds up nothing but its slot.
        task = asyncio.get_running_loop().create_task(self._perform(run))
        self._tasks.add(task)
        task.add_done_callback(self._performed)

    def cancel(self, key: tuple[str, str]) -> None:
        """Somebody asked for it; unknown jobs have ended."""
        run = self._runs.get(key)
        if run is not None:
            self._interrupt(run, Interruption.CANCELLED)

    def interrupt(self, reason: Interruption, *, boot: str | None = None) -> int:
        """All runs, or those of one boot id; how many."""
        runs = [run for run in self._runs.values() if boot is None or run.boot == boot]
        for run in runs:
            self._interrupt(run, reason)
        return len(runs)

    async def close(self) -> None:
        """What still runs is interrupted and not waited for: it has been handed back, or its lease will run out."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await self._runner.close()

    def _interrupt(self, run: Run, reason: Interruption) -> None:
        run.stop(reason)
        asyncio.get_running_loop().call_later(DEFIANCE_SECONDS, self._abandon, run, reason)

    def _abandon(self, run: Run, reason: Interruption) -> None:
        if run.outcome is None and run.abandonable and not self._closed:
            self._finisher.finish(run, self._runner.interrupted(run, reason))

    async def _perform(self, run: Run) -> None:
        outcome = await self._runner.run(run)
        if run.outcome is None and not self._closed:
            self._finisher.finish(run, outcome)

    def _performed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._closed and not task.cancelled() and (error := task.exception()) is not None:
            self._spawn(_raise(error))

    def _ended(self, run: Run) -> None:
        self._forgettable.append((run.queue, run.ticket.id, run.ticket.dispatch))
        if self._runs.get(run.key) is run:
            del self._runs[run.key]
        if not self._runs:
            self.idle.set()
        self._changed()


async def _raise(error: BaseException) -> None:
    raise error
