"""Where a scheduler's houses live while it runs: the event loop of whoever starts it, or one in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from ..app import Callboard
from .bridge import LoopThread, at_once, running_loop
from .errors import SchedulerForked, SchedulerNotRunning
from .events import EventCode
from .house import House
from .loggers import Loggers
from .task import ScheduledTask

T = TypeVar("T")

Tasks = Callable[[str], Sequence[ScheduledTask]]

START_SECONDS = 60.0  # for which other threads wait until a start is over


class Engine:
    """From `start` or `start_async` to `stop` or `stop_async`, once. `tasks`: those to be submitted, by store;
    `last_tasks`: those to be run at the end. What is asked of it in other threads while it starts waits for that."""

    def __init__(
        self,
        houses: Mapping[str, House],
        tasks: Tasks,
        *,
        last_tasks: Tasks,
        paused: bool,
        loggers: Loggers,
        name: str,
    ) -> None:
        self.houses = houses
        self._tasks = tasks
        self._last_tasks = last_tasks
        self._paused = paused
        self._logger = loggers[name]
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: LoopThread | None = None
        self._process = os.getpid()
        self._begun = threading.Event()  # or failed to
        self._background: set[asyncio.Task[None]] = set()

    # --- life ---

    def start(self, *, isolated: bool) -> None:
        """What is in the stores is there when it returns. Where a loop runs, the actors of a shared store connect
        after that: a function that is not async can't wait for them there."""
        try:
            self._start(isolated=isolated)
        finally:
            if not self._background:
                self._begun.set()

    def _start(self, *, isolated: bool) -> None:
        loop = None if isolated else running_loop()
        if loop is None:
            self._thread = LoopThread(self._name)
            self._loop = self._thread.loop
            try:
                self._thread.call(self._begin())
            except BaseException:
                self._thread.stop()
                raise
            return
        self._loop = loop
        try:
            for house in self.houses.values():
                if not house.shared:
                    at_once(self._begin_house(house, submit=True))
                    continue
                side, twin = house.side()
                side.call(house.submit(twin, self._tasks(house.alias)))
                self._in_background(self._begin_house(house, submit=False), loop)
        except BaseException:
            self._in_background(self._give_up(list(self._background)), loop)
            raise

    async def start_async(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            await self._begin()
        finally:
            self._begun.set()

    def stop(self, *, wait: bool) -> None:
        """In the loop's own thread it returns before the end, which the loop has to reach."""
        loop = self._reached()
        if running_loop() is loop:
            self._in_background(self._end_and_leave(wait=wait), loop)
            return
        try:
            asyncio.run_coroutine_threadsafe(self._end(wait=wait), loop).result()
        finally:
            if self._thread is not None:
                self._thread.stop()

    async def stop_async(self, *, wait: bool) -> None:
        """Also from another loop than that of the start."""
        if asyncio.get_running_loop() is self._loop:
            await self._end(wait=wait)
        else:
            await asyncio.to_thread(self.stop, wait=wait)

    async def _begin(self) -> None:
        begun: list[House] = []
        try:
            for house in self.houses.values():
                await self._begin_house(house, submit=True)
                begun.append(house)
        except BaseException:
            for house in begun:
                await house.close(wait=False)
            raise
        for house in begun:
            await house.started()

    async def _give_up(self, starting: Sequence[asyncio.Task[None]]) -> None:
        """Close what a start that failed has begun."""
        await asyncio.gather(*starting, return_exceptions=True)
        for house in self.houses.values():
            try:
                await house.close(wait=False)
            finally:
                house.close_side()

    async def _begin_house(self, house: House, *, submit: bool) -> None:
        try:
            await house.open()
            if submit:
                await house.submit(house.app, self._tasks(house.alias))
            house.start(paused=self._paused)
        except BaseException:
            await house.close(wait=False)
            raise

    async def _end(self, *, wait: bool) -> None:
        starting = [task for task in self._background if task is not asyncio.current_task()]
        await asyncio.gather(*starting, return_exceptions=True)
        last = (house.run_last(self._last_tasks(house.alias)) for house in self.houses.values())
        ends = await asyncio.gather(*last, return_exceptions=True)
        failures = [end for end in ends if isinstance(end, Exception)]
        for house in self.houses.values():
            try:
                await house.close(wait=wait)
            except Exception as error:  # each is closed; the first failure is told
                failures.append(error)
            finally:
                house.close_side()
        if failures:
            raise failures[0]

    async def _end_and_leave(self, *, wait: bool) -> None:
        try:
            await self._end(wait=wait)
        finally:
            if self._thread is not None:
                self._thread.stop()

    def _in_background(self, work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not self._background:
            self._begun.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._logger.error("the scheduler could not be started or stopped", exc_info=error)

    # --- what is asked of it ---

    def listen(self, codes: EventCode) -> None:
        """In the thread of a loop that reaches a server it begins soon after."""
        loop = self._reached()
        for house in self.houses.values():
            if running_loop() is not loop:
                asyncio.run_coroutine_threadsafe(house.listen(codes), loop).result()
            elif house.shared:
                self._in_background(house.listen(codes), loop)
            else:
                at_once(house.listen(codes))

    def pause(self) -> None:
        self._paused = True
        for house in self.houses.values():
            self.in_loop(house.pause)

    def resume(self) -> None:
        self._paused = False
        for house in self.houses.values():
            self.in_loop(house.resume)

    def ask(self, house: House, work: Callable[[Callboard], Coroutine[Any, Any, T]]) -> T:
        """What `work` answers with an app that is open, from any thread. Where it went by a second connection, the
        actors here are told that something may have changed."""
        loop = self._reached()
        if running_loop() is not loop:
            return asyncio.run_coroutine_threadsafe(work(house.app), loop).result()
        if not house.shared:
            return at_once(work(house.app))
        side, twin = house.side()
        try:
            return side.call(work(twin))
        finally:
            house.wake()

    def in_loop(self, work: Callable[[], None]) -> None:
        """Call it in the loop's thread, and wait until that was done."""
        loop = self._reached()
        if running_loop() is loop:
            work()
            return

        async def call() -> None:
            work()

        asyncio.run_coroutine_threadsafe(call(), loop).result()

    def require_own_process(self) -> None:
        """Raises SchedulerForked."""
        if os.getpid() != self._process:
            raise SchedulerForked(self._process)

    def _reached(self) -> asyncio.AbstractEventLoop:
        """Its loop, once it has begun. Raises SchedulerForked, SchedulerNotRunning."""
        self.require_own_process()
        loop = self._loop
        if loop is None or running_loop() is not loop:
            if not self._begun.wait(START_SECONDS):
                raise SchedulerNotRunning(f"its start takes longer than {START_SECONDS:g} s")
            loop = self._loop
        if loop is None or loop.is_closed():
            raise SchedulerNotRunning("its start failed, or its loop is over")
        return loop
