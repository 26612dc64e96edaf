"""A scheduler's life: configured, started and stopped as often as it is entered and left, paused and resumed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

from ..actor import Actor
from ..app import Callboard
from ..errors import ConfigurationError
from ..triggers.aliases import Zone
from .asgi import Asgi, AsgiApp
from .configuration import DEFAULT_ALIAS, Configuration, configure
from .engine import Engine
from .errors import SchedulerNotRunning
from .events import (
    ALL_EVENTS,
    SCHEDULER_PAUSED,
    SCHEDULER_RESUMED,
    SCHEDULER_SHUTDOWN,
    SCHEDULER_START,
    EventCode,
    SchedulerEvent,
)
from .house import ACTORS, House
from .houses import make_houses
from .listeners import Callback, Listeners
from .loggers import Loggers
from .task import ScheduledTask

GRACE_SECONDS = 3600.0  # what `shutdown(wait=True)` gives to tasks that run


class Lifetime:
    """What a scheduler is beside its tasks. The first of several nested `enter` starts it, the last `leave` ends it."""

    def __init__(
        self,
        app: Callboard | None = None,
        *,
        global_config: Mapping[str, Any] | None = None,
        stores: Mapping[str, Any] | None = None,
        executors: Mapping[str, Any] | None = None,
        task_defaults: Mapping[str, Any] | None = None,
        timezone: Zone | None = None,
        startup_delay: float | None = None,
        lock_path: str | None = None,
        broker: str | None = None,
        namespace: str | None = None,
        actors: Sequence[str | type[Actor]] = ACTORS,
        logger_name: str | None = None,
        loggers_class: Callable[[], Loggers] = Loggers,
        isolated_event_loop: bool = False,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """`app`: the app whose tasks, store and broker these are; without one the settings count (memory, unless
        CALLBOARD_* or `stores` and `broker` say otherwise). `actors`: what runs here; `()`: this scheduler manages
        schedules that others run. `lock_path` is not needed: any number of schedulers make one job of an occurrence.
        `isolated_event_loop`: a loop in a thread of its own also where one runs.
        """
        self.app = app
        self.loggers = loggers_class()
        self.logger_name = "callboard.schedulers" + (f".{logger_name}" if logger_name else "")
        self.logger = self.loggers[self.logger_name]
        self.listeners = Listeners(self.logger)
        self._settings = {"broker": broker, "namespace": namespace}
        self._actors = tuple(actors)
        self._isolated = isolated_event_loop
        self._grace_seconds = grace_seconds
        self._lock = threading.Lock()
        self._entering = threading.Lock()
        self._opening = asyncio.Lock()
        self._entered = 0
        self._paused = False
        self._engine: Engine | None = None
        self._tasks: dict[tuple[str, str], ScheduledTask] = {}  # by store and id: what was added here
        self._configuration = Configuration()
        self.setup(
            global_config, stores=stores, executors=executors, task_defaults=task_defaults, timezone=timezone,
            startup_delay=startup_delay, lock_path=lock_path,
        )  # fmt: skip

    def setup(
        self,
        global_config: Mapping[str, Any] | None = None,
        *,
        stores: Mapping[str, Any] | None = None,
        executors: Mapping[str, Any] | None = None,
        task_defaults: Mapping[str, Any] | None = None,
        timezone: Zone | None = None,
        startup_delay: float | None = None,
        lock_path: str | None = None,
    ) -> None:
        """Configure anew; tasks that were added stay. Raises ConfigurationError, also while the scheduler runs."""
        if self.running:
            raise ConfigurationError("the scheduler is running; shut it down before setup()")
        self._configuration = configure(
            global_config=global_config, stores=stores, executors=executors, task_defaults=task_defaults,
            timezone=timezone, startup_delay=startup_delay, lock_path=lock_path,
        )  # fmt: skip
        if self.app is not None and DEFAULT_ALIAS in self._configuration.stores:
            raise ConfigurationError("the default store is that of the app; configure the app, or leave it out")
        if self._configuration.lock_path is not None:
            self.logger.info("lock_path is not needed: each occurrence makes one job, whoever else schedules")

    @property
    def running(self) -> bool:
        return self._engine is not None

    @property
    def paused(self) -> bool:
        """Started, and told to fire nothing."""
        return self.running and self._paused

    @property
    def timezone(self) -> str:
        return self._configuration.zone

    # --- the whole scheduler ---

    def pause(self) -> None:
        """Let this scheduler fire nothing until `resume`; tasks that run, run on, and others' schedulers too."""
        self._require_running("pause")
        self._paused = True
        self._started.pause()
        self.logger.info("paused")
        self.listeners.tell(SchedulerEvent(code=SCHEDULER_PAUSED))

    def resume(self) -> None:
        """Fire again; what became due meanwhile is treated as its policy says."""
        self._require_running("resume")
        self._paused = False
        self._started.resume()
        self.logger.info("resumed")
        self.listeners.tell(SchedulerEvent(code=SCHEDULER_RESUMED))

    def add_listener(self, callback: Callback, mask: int = ALL_EVENTS) -> None:
        """Call `callback(event)` for what `events` lists and `mask` has, in the thread where it happens, or the loop's:
        it must not wait for long. What it raises is logged. Raises BrokerUnavailable where the broker is away.
        """
        self.listeners.add(callback, mask)
        if self._engine is not None:
            self._engine.listen(EventCode(mask))

    def remove_listener(self, callback: Callback) -> None:
        self.listeners.remove(callback)

    def asgi(self, app: AsgiApp | None = None, handle_lifespan: bool = False, wait: bool = False) -> Any:
        """An ASGI app around `app` that starts the scheduler in its lifespan and stops it in the end. Without `app`: a
        decorator. `handle_lifespan`: `app` is not told of the lifespan, as where it does not know it."""
        if app is None:
            return lambda one: Asgi(one, self, handle_lifespan=handle_lifespan, wait=wait)
        return Asgi(app, self, handle_lifespan=handle_lifespan, wait=wait)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """For frameworks that take one: `Starlette(lifespan=scheduler.lifespan)`, `FastAPI(lifespan=...)`."""
        _ = app
        async with self:
            yield

    async def __aenter__(self) -> Self:
        await self.enter(paused=False)
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.leave(wait=True)

    # --- starting and stopping ---

    def _enter(self, *, paused: bool) -> bool:
        self._require_own_process()
        with self._entering:
            if self._entered == 0:
                engine = self._begin(paused=paused)
                try:
                    engine.start(isolated=self._isolated)
                except BaseException:
                    self._engine = None
                    raise
                self.listeners.tell(SchedulerEvent(code=SCHEDULER_START))
            self._entered += 1
            return self._entered == 1

    async def enter(self, *, paused: bool) -> bool:
        """Whether this call started it. It returns when all is connected."""
        self._require_own_process()
        if self._isolated:
            return await asyncio.to_thread(self._enter, paused=paused)
        async with self._opening:
            if self._entered == 0:
                engine = self._begin(paused=paused)
                try:
                    await engine.start_async()
                except BaseException:
                    self._engine = None
                    raise
                self.listeners.tell(SchedulerEvent(code=SCHEDULER_START))
            self._entered += 1
            return self._entered == 1

    def _leave(self) -> Engine | None:
        """The engine, if it is to be stopped now."""
        self._require_own_process()
        with self._entering:
            self._require_running("shutdown")
            if not self._entered:
                raise SchedulerNotRunning("shutdown, while its start is awaited")
            self._entered -= 1
            if self._entered:
                return None
            engine, self._engine = self._engine, None
            return engine

    async def leave(self, *, wait: bool) -> bool:
        """Whether this call ended it."""
        engine = self._leave()
        if engine is None:
            return False
        await engine.stop_async(wait=wait)
        self._told_of_shutdown()
        return True

    def _told_of_shutdown(self) -> None:
        self.logger.info("shut down")
        self.listeners.tell(SchedulerEvent(code=SCHEDULER_SHUTDOWN))

    def _begin(self, *, paused: bool) -> Engine:
        def make(app: Callboard, alias: str) -> House:
            return House(
                app,
                alias=alias,
                configuration=self._configuration,
                actors=self._actors,
                loggers=self.loggers,
                scheduler_logger=self.logger_name,
                grace_seconds=self._grace_seconds,
                listeners=self.listeners,
            )

        self._paused = paused
        with self._lock:
            tasks = dict(self._tasks)
        houses = make_houses(self.app, tasks, configuration=self._configuration, settings=self._settings, make=make)
        engine = Engine(
            houses,
            self._tasks_of,
            last_tasks=self._last_tasks,
            paused=paused,
            loggers=self.loggers,
            name=self.logger_name,
        )
        self._engine = engine  # before it starts, for tasks that run at once may ask for it
        self.logger.info("starting%s", ", paused" if paused else "")
        return engine

    # --- what the methods stand on ---

    def _tasks_of(self, alias: str) -> list[ScheduledTask]:
        """To be kept in that store."""
        with self._lock:
            return [task for (store, _), task in self._tasks.items() if store == alias and not task.at_shutdown]

    def _last_tasks(self, alias: str | None = None) -> list[ScheduledTask]:
        """To be run when this scheduler shuts down."""
        with self._lock:
            return [task for (store, _), task in self._tasks.items() if alias in (None, store) and task.at_shutdown]

    def _require_own_process(self) -> None:
        engine = self._engine
        if engine is not None:
            engine.require_own_process()

    def _require_running(self, wanted: str) -> None:
        if not self.running:
            raise SchedulerNotRunning(wanted)

    @property
    def _started(self) -> Engine:
        engine = self._engine
        if engine is None:
            raise SchedulerNotRunning("this")
        return engine
