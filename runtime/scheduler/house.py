"""One app of a scheduler, on one store: its functions become tasks, its actors run in the scheduler's loop.

worker, one a queue      an executor's alias is its queue's name; a task of the app has its own
repeatable-scheduler     alone, so that scheduling can be paused while everything else goes on
the other actors         together
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from ...metadata.contract import Jobs, Ready
from ...metadata.schedule import NewSchedule
from ...metadata.schedules import Schedules
from ..actor import Actor, Options
from ..app import Callboard
from ..connections import Connections
from ..deployment import Deployment
from ..errors import ConfigurationError, ResultTimeout
from ..options import CallOptions, ExecutorName
from ..registry import find_actor, store_class
from ..schedule_record import MANUAL
from ..task import Task, default_name
from ..triggers.daylight import zone_of
from ..wire import Command
from .bridge import LoopThread
from .choices import ExecutorChoice, ExecutorKind
from .configuration import DEFAULT_ALIAS, Configuration
from .desk import TaskDesk
from .errors import ScheduleExists
from .events import EventCode
from .listeners import Hearing, Listeners
from .loggers import Loggers
from .task import ScheduledTask

ACTORS = ("worker", "delayed-scanner", "repeatable-scheduler", "stalled-recovery", "retention")
SCHEDULER = "repeatable-scheduler"
MAX_NAMESAKES = 1000


class House:
    """`shared`: whether the store can be reached by a second app too. Methods that are not async are for the loop's own
    thread."""

    def __init__(
        self,
        app: Callboard,
        *,
        alias: str,
        configuration: Configuration,
        actors: Sequence[str | type[Actor]],
        loggers: Loggers,
        scheduler_logger: str,
        grace_seconds: float,
        listeners: Listeners,
    ) -> None:
        self.app = app
        self.alias = alias
        self.shared = store_class(app.settings.store.get_secret_value()).shared
        self.desk = TaskDesk(app, alias=alias, zone=zone_of(configuration.zone))
        self._configuration = configuration
        self._actors = [find_actor(actor) if isinstance(actor, str) else actor for actor in actors]
        self._loggers = loggers
        self._scheduler_logger = scheduler_logger
        self._grace_seconds = grace_seconds
        self._listeners = listeners
        self._hearing: Hearing | None = None
        self._deployments: dict[asyncio.Task[None], Deployment] = {}
        self._served: dict[str, ExecutorChoice] = {}
        self._scheduling: Deployment | None = None
        self._open = False
        self._running = False
        self._side: LoopThread | None = None
        self._twin: Callboard | None = None

    # --- life ---

    async def open(self) -> None:
        await self.app.open()
        self._open = True
        self._loggers[f"callboard.stores.{self.alias}"].info("open")
        await self.listen(self._listeners.wanted)

    async def listen(self, codes: EventCode) -> None:
        if not self._open:
            return  # `open` sees to it
        if self._hearing is None:
            self._hearing = Hearing(self.app.connections, store=self.alias, tell=self._listeners.tell)
        await self._hearing.listen(codes)

    def start(self, *, paused: bool) -> None:
        """Run the actors. It must be open."""
        self._running = True
        others = [actor for actor in self._actors if actor.kind not in ("worker", SCHEDULER)]
        if others:
            self._run(others, Options(grace_seconds=self._grace_seconds))
        for queue, choice in self._served.items():
            self._work(queue, choice)
        if not paused:
            self.resume()

    def pause(self) -> None:
        """No occurrence fires here from now on, but for what is under way."""
        if self._scheduling is not None:
            self._scheduling.stop()
            self._scheduling = None

    def resume(self) -> None:
        wanted = [actor for actor in self._actors if actor.kind == SCHEDULER]
        if self._scheduling is None and wanted:
            options = Options(grace_seconds=self._grace_seconds, logger=self._scheduler_logger)
            self._scheduling = self._run(wanted, options, after_seconds=self._configuration.startup_delay)

    async def started(self) -> None:
        """Wait until the actors run, or one has ended."""
        waits = [asyncio.ensure_future(deployment.started.wait()) for deployment in self._deployments.values()]
        for task, wait in zip(list(self._deployments), waits, strict=True):
            if self._configuration.startup_delay == 0:
                await asyncio.wait([wait, task], return_when=asyncio.FIRST_COMPLETED)
            wait.cancel()

    async def close(self, *, wait: bool) -> None:
        """Stop in order: with `wait` running jobs end first. Raises what ended an actor, if something did."""
        running, self._deployments = self._deployments, {}
        self._scheduling, self._running = None, False
        self._served = {}
        for deployment in running.values():
            deployment.stop()
            if not wait:
                deployment.stop()
        try:
            ended = await asyncio.gather(*running, return_exceptions=True)
        finally:
            if self._open:
                self._open = False
                if self._hearing is not None:
                    await self._hearing.close()
                await self.app.close()
                self._loggers[f"callboard.stores.{self.alias}"].info("closed")
        for failure in ended:
            if isinstance(failure, Exception):
                raise failure

    def close_side(self) -> None:
        """From any thread but that of the side itself."""
        side, twin, self._side, self._twin = self._side, self._twin, None, None
        if side is not None and twin is not None:
            side.call(twin.close())
            side.stop()

    # --- for callers in the loop's own thread, which must not wait for it ---

    def side(self) -> tuple[LoopThread, Callboard]:
        """A loop in another thread, and an app that is open there, on the same store."""
        if self._side is None or self._twin is None:
            side, twin = LoopThread(f"callboard-{self.alias}"), self.app.twin()
            try:
                side.call(twin.open())
            except BaseException:
                side.stop()
                raise
            self._side, self._twin = side, twin
        return self._side, self._twin

    def desk_of(self, app: Callboard) -> TaskDesk:
        return TaskDesk(app, alias=self.alias, zone=zone_of(self._configuration.zone))

    def wake(self) -> None:
        """Tell the schedulers that something has changed. Those of this process may have a broker of their own."""
        if self._open:
            self.app.connections.dispatcher.command_soon(SCHEDULER, Command(command="wake"))

    def send(self, ready: Ready) -> None:
        if self._open:  # else the relay sends it
            self.app.connections.dispatcher.send_soon([ready])

    @property
    def connections(self) -> Connections:
        return self.app.connections

    # --- tasks ---

    async def submit(self, app: Callboard, tasks: Sequence[ScheduledTask]) -> None:
        """Make or change schedules, with `app` or its twin. Raises ScheduleExists before any is written."""
        by_queue: dict[str, list[tuple[ScheduledTask, NewSchedule]]] = {}
        for task in tasks:
            new = self._new(app, task)
            by_queue.setdefault(new.queue, []).append((task, new))
        for queue, made in by_queue.items():
            known = await app.connections.store.get(Schedules).get(queue, [new.id for _, new in made])
            for (task, new), record in zip(made, known, strict=True):
                if record is None or task.replace_existing or not task.chosen_id:
                    continue
                if (record.trigger, record.definition) != (new.trigger, new.definition):
                    raise ScheduleExists(new.id, store=self.alias)
        for queue, made in by_queue.items():
            answers = await app.queue(queue).upsert_schedules([new for _, new in made])
            for (task, _), answer in zip(made, answers, strict=True):
                # Made without a next run, so that nothing fires before it is paused, whatever happens in between.
                if task.begins_paused and answer.next_run is None:
                    await app.queue(queue).pause_repeatable(answer.id)

    def serve(self, tasks: Sequence[ScheduledTask]) -> None:
        """See to it that each task's queue has a worker, if this scheduler runs workers."""
        for task in tasks:
            queue, choice = self._place(task)
            if queue not in self._served:
                self._served[queue] = choice
                if self._running:
                    self._work(queue, choice)

    def register(self, task: ScheduledTask) -> None:
        """Make a task of its function. Raises ConfigurationError, SignatureInvalid."""
        self._place(task)
        self._name(task)

    async def record_last(self, app: Callboard, task: ScheduledTask) -> Ready:
        """A job of a task that runs at the end."""
        queue, _ = self._place(task)
        options = CallOptions.parse(job_id=f"{task.id}@{MANUAL}{secrets.token_hex(8)}")
        job = app.new_job(self._name(task), task.args, task.kwargs, options, queue=queue)
        (answer,) = await app.connections.store.get(Jobs).enqueue([job], now=job.created_at, grace=app.settings.grace)
        return Ready(queue, answer.id, answer.dispatch, job.priority, job.payload)

    async def run_last(self, tasks: Sequence[ScheduledTask]) -> None:
        """Run these, and wait for their ends where a worker is here, within the grace. Raises what kept one from
        becoming a job, once the others have ended."""
        if not self._running:
            return
        recording = (self.record_last(self.app, task) for task in tasks if not task.begins_paused)
        recorded = await asyncio.gather(*recording, return_exceptions=True)
        ready = [job for job in recorded if isinstance(job, Ready)]
        if ready:
            await self.app.connections.dispatcher.send(ready)
            await self._wait_for(ready)
        for failure in recorded:
            if isinstance(failure, BaseException):
                raise failure

    async def _wait_for(self, jobs: Sequence[Ready]) -> None:
        if any(actor.kind == "worker" for actor in self._actors):
            ends = (self.app.queue(job.queue).handle(job.id).result(self._grace_seconds) for job in jobs)
            for end in await asyncio.gather(*ends, return_exceptions=True):
                if isinstance(end, ResultTimeout):  # that one failed its worker has told
                    self._loggers[self._scheduler_logger].warning("not waited for any longer: %s", end)

    def task_name_of(self, task: ScheduledTask) -> str:
        """Under which it was registered."""
        return self._name(task)

    def _new(self, app: Callboard, task: ScheduledTask) -> NewSchedule:
        queue, _ = self._place(task)
        new = app.queue(queue).new_schedule(
            self._name(task),
            task.settled_trigger(),
            id=task.id,
            args=task.args,
            kwargs=task.kwargs,
            options=CallOptions(),
            policy=task.policy(self._configuration),
            name=task.name,
            since=task.first_run_time if isinstance(task.first_run_time, datetime) else None,
        )
        return msgspec.structs.replace(new, next_run=None) if task.begins_paused else new

    def _place(self, task: ScheduledTask) -> tuple[str, ExecutorChoice]:
        """Its queue, and what works there."""
        if isinstance(task.fn, Task):
            if task.executor is not None:
                raise ConfigurationError(
                    f"{task.fn.name!r} is a task of the app, where its executor is said; leave out executor="
                )
            return task.fn.declared.queue, self._configuration.executor(DEFAULT_ALIAS)
        alias = task.executor or DEFAULT_ALIAS
        return alias, self._configuration.executor(alias)

    def _name(self, task: ScheduledTask) -> str:
        if isinstance(task.fn, str | Task):
            return task.task_name
        assert task.fn is not None  # who adds a task has seen to it
        alias = task.executor or DEFAULT_ALIAS
        kind = self._configuration.executor(alias).kind
        suffix = f":{kind.value}" if kind in (ExecutorKind.PROCESSPOOL, ExecutorKind.DEBUG) else ""
        bare = default_name(task.fn)
        for name in _names(bare, suffix):  # one function may run in several ways, and each is a task of its own
            known = self.app.tasks.get(name)
            if known is None:
                function, executor = _as_run_by(task.fn, kind, name)
                self.app.task(name=name, queue=alias, executor=executor)(function)
                return name
            if inspect.unwrap(known.function) == inspect.unwrap(task.fn):
                return name
        raise ConfigurationError(f"two functions are named {bare!r}; tell them apart by their names")

    # --- actors ---

    def _work(self, queue: str, choice: ExecutorChoice) -> None:
        workers = [actor for actor in self._actors if actor.kind == "worker"]
        if workers:
            logger = f"callboard.executors.{queue}"
            self._loggers[logger].info("%s, %d at a time", choice.kind.value, choice.max_workers)
            options = Options(
                queues=(queue,),
                concurrency=choice.max_workers,
                executor_processes=choice.max_workers if choice.kind is ExecutorKind.PROCESSPOOL else 1,
                grace_seconds=self._grace_seconds,
                logger=logger,
            )
            self._run(workers, options)

    def _run(self, actors: Sequence[type[Actor]], options: Options, *, after_seconds: float = 0.0) -> Deployment:
        deployment = Deployment(self.app, actors, options)

        async def run() -> None:
            if after_seconds:
                await self.app.clock.sleep(after_seconds)
            if not deployment.stopping:
                await deployment.run()

        task = asyncio.get_running_loop().create_task(run(), name=f"callboard:{actors[0].kind}")
        self._deployments[task] = deployment
        task.add_done_callback(self._ended)
        return deployment

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._loggers[self._scheduler_logger].error("actors of this scheduler ended", exc_info=error)
        elif task in self._deployments:  # by `pause`
            del self._deployments[task]


def _names(bare: str, suffix: str) -> Iterator[str]:
    """A name, and for functions within functions, of which one line makes many, more of it."""
    yield bare + suffix
    if "<l" in bare:
        yield from (f"{bare}-{number}{suffix}" for number in range(2, MAX_NAMESAKES))


def _as_run_by(function: Callable[..., Any], kind: ExecutorKind, name: str) -> tuple[Callable[..., Any], ExecutorName]:
    is_async = asyncio.iscoroutinefunction(function)
    match kind:
        case ExecutorKind.PROCESSPOOL:
            return function, "process"
        case ExecutorKind.THREADPOOL if is_async:
            raise ConfigurationError(f"{name} is async and runs on a loop; give it executor='asyncio' or 'processpool'")
        case ExecutorKind.DEBUG if not is_async:

            @functools.wraps(function)
            async def inline(*args: Any, **kwargs: Any) -> Any:
                return function(*args, **kwargs)

            return inline, "auto"
    return function, "auto"
