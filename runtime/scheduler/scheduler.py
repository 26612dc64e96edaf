"""The scheduler of Asyncz and APScheduler, as a face on Callboard's own actors and store.

    scheduler = Scheduler()                                   # in memory; or stores={"default": "redis://..."}

    @scheduler.add_task("interval", minutes=10)
    def check_status() -> None: ...

    with scheduler: ...                                       # or async with; or scheduler.asgi(app)

    add_task ──> ScheduledTask ──(start)──> House ──> app.task, schedules in the store, actors
    pause_task, get_task_infos, ... ──> TaskDesk ──> Queue

Started where an event loop runs, its actors run in that loop; elsewhere in a thread with a loop of its own. Its methods
are ordinary functions all the same, for any thread: in the loop's own thread they ask the store in memory at once, and
a shared store through a second connection in another thread, so that they block for as long as a store takes to answer.
An async program that minds uses `Queue`, whose methods are the same and are awaited.
"""

from __future__ import annotations

from typing import Self

from .tasks import BaseScheduler


class Scheduler(BaseScheduler):
    """`start` and `shutdown` are functions, which may be called where a loop runs and elsewhere: see the module."""

    def start(self, paused: bool = False) -> bool:
        """Start, or count one more user of what is started; whether this call started it. `paused`: fire nothing until
        `resume`. Raises what connecting and `add_task` raise."""
        return self._enter(paused=paused)

    def shutdown(self, wait: bool = True) -> bool:
        """Undo one `start`; the last one stops: whether this call did. `wait`: tasks that run end first, within
        `grace_seconds`; else they are handed back, and run again where the store outlives this process. In the thread
        of the loop it returns before the end: use `async with` where that matters."""
        engine = self._leave()
        if engine is None:
            return False
        engine.stop(wait=wait)
        self._told_of_shutdown()
        return True

    stop = shutdown

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.shutdown()


class AsyncScheduler(BaseScheduler):
    """`start` and `shutdown` are awaited, and return when all is connected, or over."""

    async def start(self, paused: bool = False) -> bool:
        return await self.enter(paused=paused)

    async def shutdown(self, wait: bool = True) -> bool:
        return await self.leave(wait=wait)

    stop = shutdown
