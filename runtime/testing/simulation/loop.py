"""An event loop without a selector, whose time stands still while anybody can go on, and many processes in it.

Each callback belongs to the process in whose context it was scheduled. A process runs its own callbacks in the order in
which they were scheduled, as every event loop does; which process goes on next is for the seeded Random to say. When
none can, time jumps to the next timer. So a run is a function of its seed, whatever the machine does meanwhile.

A process that has crashed runs nothing more: its callbacks are dropped, its coroutines stay where they were, and no
`finally` of theirs runs, until `bury` closes them when all is over.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from heapq import heappop, heappush
from random import Random
from types import CoroutineType, GeneratorType
from typing import Any, TypeVar, TypeVarTuple, Unpack

TURN_SECONDS = 0.00001  # what a turn of a process's loop takes
MOST_CLOSES = 200  # of a coroutine and those that it awaits

T = TypeVar("T")
Given = TypeVarTuple("Given")

log = logging.getLogger("callboard.simulation")


class Overrun(Exception):
    """More steps were made than a run may take: something goes round without time going by."""


class Process:
    """Callbacks that live and die together. `fuse`: steps until it crashes; below 0: it does not."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.fuse = -1
        self.crashed: Callable[[], None] | None = None  # called once, when the fuse has burnt down
        self.ready: deque[_Handle] = deque()
        self.queued = False  # among those that can go on
        self.tasks: list[_Task[Any]] = []
        self.context = contextvars.copy_context()
        self.context.run(_process.set, self)

    def drop_ready(self) -> None:
        for handle in self.ready:
            for given in handle.given:
                if isinstance(given, CoroutineType):  # Python would tell of it as one that was forgotten
                    given.close()
        self.ready.clear()


_process: contextvars.ContextVar[Process] = contextvars.ContextVar("callboard simulation: process")
# Set where the timers are somebody's own: those of a handler or a scenario, in whose absence nothing happens.
awaited: contextvars.ContextVar[bool] = contextvars.ContextVar("callboard simulation: awaited", default=False)


def current_process() -> Process:
    """Of the callback that runs now. LookupError outside of a simulation."""
    return _process.get()


class _Handle(asyncio.TimerHandle):
    __slots__ = ("call", "given", "process", "within")

    def __init__(
        self, process: Process, when: float, call: Callable[..., object], given: tuple[Any, ...],
        within: contextvars.Context,
    ) -> None:  # fmt: skip
        self.process = process
        self._when = when
        self.call: Callable[..., object] | None = call
        self.given = given
        self.within = within

    def cancel(self) -> None:
        self.call = None
        self.given = ()

    def cancelled(self) -> bool:
        return self.call is None

    def __repr__(self) -> str:
        return f"<{self.call} at {self._when}>"


class _Task(asyncio.Task[T]):
    """Sets of tasks are gone through in an order that is that of the seed, not of addresses in memory."""

    def __init__(self, coro: Coroutine[Any, Any, T], *, number: int, **given: Any) -> None:
        self._number = number
        super().__init__(coro, **given)

    def __hash__(self) -> int:
        return self._number


class _Future(asyncio.Future[Any]):
    def __init__(self, *, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self._number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.AbstractEventLoop):
    """`outside`: the process of whoever is no process: the servers, the network, the one who plays the faults.

    `failed` is called with what a task or a callback raised that nobody saw."""

    def __init__(self, random: Random, *, most_steps: int, failed: Callable[[Process, BaseException | str], None]):
        self._processes: list[Process] = []
        self.outside = self.process("outside")
        self.steps = 0
        self._most_steps = most_steps
        self._random = random
        self._failed = failed
        self._time = 0.0
        self._timers: list[tuple[float, int, _Handle]] = []
        self._awaited: list[tuple[float, int, _Handle]] = []
        self._numbers = 0
        self._can_go_on: list[Process] = []
        self._running = False
        self._over = False
        self._corpses: list[tuple[Process, _Task[Any]]] = []

    # --- running ---

    def run_until(self, done: Callable[[], bool]) -> None:
        """Until `done()`, which is asked whenever time is about to go on. Raises Overrun."""
        before = asyncio.events._get_running_loop()
        asyncio.events._set_running_loop(self)
        self._running = True
        try:
            while True:
                self._run_ready()
                if done() or not self._timers:
                    return
                self._advance()
        finally:
            self._running = False
            asyncio.events._set_running_loop(before)

    def _run_ready(self) -> None:
        can_go_on, timers, random = self._can_go_on, self._timers, self._random.random
        while can_go_on:
            at = int(random() * len(can_go_on)) if len(can_go_on) > 1 else 0
            process = can_go_on[at]
            can_go_on[at] = can_go_on[-1]
            can_go_on.pop()
            process.queued = False
            self._run(process)
            # Work takes time: who spins for a fraction of a millisecond would go on for ever, else.
            self._time += TURN_SECONDS
            while timers and timers[0][0] <= self._time:
                self._make_ready(heappop(timers)[2])
            if self.steps > self._most_steps:
                raise Overrun(f"after {self._most_steps} steps it is {self._time:.3f} s")

    def _run(self, process: Process) -> None:
        """What it has to do now, as one turn of its loop."""
        ready = process.ready
        for _ in range(len(ready)):
            if not ready or process.paused:
                break
            if process.fuse >= 0:
                if process.fuse == 0:
                    self.crash(process)
                    break
                process.fuse -= 1
            handle = ready.popleft()
            call = handle.call
            if call is None:
                continue
            self.steps += 1
            try:
                handle.within.run(call, *handle.given)
            except Exception as error:
                self._failed(process, error)
        if ready and not process.paused:
            self._wake(process)

    def _wake(self, process: Process) -> None:
        if not process.queued:
            process.queued = True
            self._can_go_on.append(process)

    def _advance(self) -> None:
        timers = self._timers
        when, _, handle = heappop(timers)
        if when > self._time:
            self._time = when
        self._make_ready(handle)
        while timers and timers[0][0] <= self._time:
            self._make_ready(heappop(timers)[2])

    def _make_ready(self, handle: _Handle) -> None:
        process = handle.process
        if process.alive and handle.call is not None:
            process.ready.append(handle)
            if not process.paused and not process.queued:
                process.queued = True
                self._can_go_on.append(process)

    def next_awaited(self) -> float | None:
        """When the next timer of a handler or of the scenario is due."""
        timers = self._awaited
        while timers and (timers[0][2].cancelled() or not timers[0][2].process.alive or timers[0][0] < self._time):
            heappop(timers)
        return timers[0][0] if timers else None

    def leap(self, until: float) -> None:
        """As if all machines had been suspended until then: timers that were due meanwhile come late."""
        self._time = max(self._time, until)

    # --- processes ---

    def process(self, name: str) -> Process:
        made = Process(name)
        self._processes.append(made)
        return made

    def crash(self, process: Process) -> None:
        """It stops where it is, for ever."""
        if process.alive:
            process.alive = False
            process.drop_ready()
            self._corpses += [(process, task) for task in process.tasks if not task.done()]
            process.tasks.clear()
            if process.crashed is not None:
                self.call_soon(process.crashed, context=self.outside.context)

    def pause(self, process: Process) -> None:
        process.paused = True

    def go_on(self, process: Process) -> None:
        process.paused = False
        if process.alive and process.ready:
            self._wake(process)

    def bury(self) -> None:
        """The end: nothing runs any more, and what was interrupted is closed."""
        self._over = True
        for process in self._processes:
            self._corpses += [(process, task) for task in process.tasks if not task.done()]
            process.tasks.clear()
            process.drop_ready()
        before = asyncio.events._get_running_loop()
        asyncio.events._set_running_loop(self)
        try:
            for process, task in self._corpses:
                process.context.copy().run(_close, task.get_coro())
        finally:
            asyncio.events._set_running_loop(before)
        self._corpses.clear()
        self._timers.clear()
        self._awaited.clear()
        self._can_go_on.clear()

    # --- what asyncio asks of a loop ---

    def time(self) -> float:
        return self._time

    def call_soon(
        self,
        callback: Callable[[Unpack[Given]], object],
        *args: *Given,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        if context is None:
            context = contextvars.copy_context()
        process = context.get(_process, self.outside)
        handle = _Handle(process, self._time, callback, args, context)
        if process.alive and not self._over:
            process.ready.append(handle)
            if not process.queued and not process.paused:
                process.queued = True
                self._can_go_on.append(process)
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Given]], object],
        *args: *Given,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """There are no threads."""
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Given]], object],
        *args: *Given,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        if context is None:
            context = contextvars.copy_context()
        handle = _Handle(context.get(_process, self.outside), when, callback, args, context)
        if not self._over:
            self._numbers += 1
            entry = (when, self._numbers, handle)
            heappush(self._timers, entry)
            if context.get(awaited):
                heappush(self._awaited, entry)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Given]], object],
        *args: *Given,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._time + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        self._numbers += 1
        return _Future(number=self._numbers, loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: contextvars.Context | None = None
    ) -> asyncio.Task[Any]:
        process = (context or contextvars.copy_context()).get(_process, self.outside)
        self._numbers += 1
        task: _Task[Any] = _Task(coro, number=self._numbers, loop=self, name=name or "", context=context)
        if self._over or not process.alive:
            self._corpses.append((process, task))
            return task
        tasks = process.tasks
        tasks.append(task)
        if len(tasks) > 256:
            tasks[:] = [task for task in tasks if not task.done()]
            if len(tasks) > 250:
                raise Overrun(f"{process.name} has {len(tasks)} tasks")
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._over:
            self._failed(_process.get(self.outside), context.get("exception") or str(context.get("message")))

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._over


def _close(coroutine: Any) -> None:
    """From the inside out, so that one that awaits something on its way out, which it never gets, is closed again."""
    for _ in range(MOST_CLOSES):
        innermost: Any = None
        inner = coroutine
        while inner is not None:
            if isinstance(inner, CoroutineType):
                innermost, inner = (inner, inner.cr_await) if inner.cr_frame is not None else (innermost, None)
            elif isinstance(inner, GeneratorType):
                innermost, inner = (inner, inner.gi_yieldfrom) if inner.gi_frame is not None else (innermost, None)
            else:
                inner = None
        if innermost is None:
            return
        try:
            innermost.close()
        except Exception:  # whatever it makes of its end: it is over
            continue


async def die() -> None:
    """As `os._exit` in a handler: the process of whoever awaits this is gone."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.crash(current_process())
    await loop.create_future()
