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

import itertools
import secrets
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

from ..errors import ConfigurationError, InvalidJob, UnknownSchedule
from ..repeatables import ScheduleName
from ..schedule_record import check_schedule_id
from ..task_info import TaskInfo, TaskPreview, selected
from ..triggers import Trigger
from ..triggers.aliases import trigger_of
from .configuration import DEFAULT_ALIAS
from .desk import TaskDesk, plain_changes
from .errors import ScheduleExists, SchedulerNotRunning, TaskSubmitted
from .house import House
from .lifetime import Lifetime
from .task import Function, ScheduledTask

T = TypeVar("T")

ALIASES = ("interval", "cron", "date", "and", "or")

TaskName = ScheduleName | ScheduledTask


class BaseScheduler(Lifetime):
    """All but `start` and `shutdown`, which Scheduler has as functions and AsyncScheduler as coroutines."""

    # --- tasks ---

    def add_task(
        self,
        fn_or_task: Function | ScheduledTask | None = None,
        trigger: Trigger | str | None = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        fn: Function | None = None,
        **options: Any,
    ) -> ScheduledTask:
        """Schedule a function, a task of the app, the name of a task, or a ScheduledTask; what the parameters are is
        told there. Without a function: a decorator. A trigger may also stand first: `add_task("interval", minutes=2)`.

        Before `start` it is kept here; then it is a schedule in the store. Raises ScheduleExists, TriggerInvalid,
        InvalidJob, ConfigurationError.
        """
        given = fn_or_task if fn_or_task is not None else fn
        if isinstance(given, ScheduledTask):
            if given.scheduler is not None:
                raise TaskSubmitted(given.id or "")
            task = given
        else:
            if trigger is None and (isinstance(given, Trigger) or given in ALIASES):
                given, trigger = None, given
            task = ScheduledTask(given, trigger, args, kwargs, **options)
        if task.fn is None:
            task.scheduler = self
            return task
        task.settle(self._configuration, now=datetime.now(UTC))
        self._keep(task)
        task.scheduler = self
        if self.running:
            try:
                house = self._house(task.store)
                self._started.in_loop(lambda: house.register(task))
                self._started.ask(house, lambda app: house.submit(app, [task]))
                self._started.in_loop(lambda: house.serve([task]))
            except BaseException:
                self._forget(task)
                raise
        self.logger.info("added task %s", task.id)
        return task

    def get_tasks(self, store: str | None = None) -> list[ScheduledTask]:
        """Handles of all tasks, by id."""
        return [self._handle(info) for info in self.get_task_infos(store=store, sort_by="id")]

    def get_task(self, task_id: TaskName, store: str | None = None) -> ScheduledTask | None:
        info = self.get_task_info(task_id, store)
        return None if info is None else self._handle(info)

    def get_task_info(self, task_id: TaskName, store: str | None = None) -> TaskInfo | None:
        """A snapshot; None if there is no such task."""
        pending = self._pending(task_id, store)
        if pending is not None:
            return pending.pending_info(self._configuration)
        if not self.running:
            return None
        with suppress(UnknownSchedule):
            return self._for_one(task_id, store, lambda desk, name: desk.info(name))[1]
        return None

    def get_task_infos(
        self,
        *,
        schedule_state: str | None = None,
        executor: str | None = None,
        trigger: str | None = None,
        store: str | None = None,
        q: str | None = None,
        sort_by: str = "next_run_time",
        descending: bool = False,
    ) -> list[TaskInfo]:
        """Snapshots of all schedules in the stores, or of what was added before `start`; filtered and sorted as
        `task_info.selected` says. Raises InvalidJob, a ValueError."""
        if self.running:
            infos = [
                info
                for house in self._among(store)
                for info in self._started.ask(house, lambda app, at=house: at.desk_of(app).infos())  # type: ignore[misc]
            ]
        else:
            infos = [task.pending_info(self._configuration) for task in list(self._tasks.values())]
        return selected(
            infos, schedule_state=schedule_state, executor=executor, trigger=trigger, store=store, q=q, sort_by=sort_by,
            descending=descending,
        )  # fmt: skip

    def preview_task_runs(self, task_id: TaskName, count: int = 10, store: str | None = None) -> TaskPreview:
        """The next runs, at most 1,000, in the scheduler's zone, whether the task is paused or not."""
        return self._for_one(task_id, store, lambda desk, name: desk.preview(name, count))[1]

    def pause_task(self, task_id: TaskName, store: str | None = None) -> None:
        """No occurrence makes a job from now on. Raises UnknownSchedule, as all that name a task do."""
        pending = self._pending(task_id, store)
        if pending is not None:
            pending.first_run_time = None
            return
        self._for_one(task_id, store, lambda desk, name: desk.pause(name))

    def resume_task(self, task_id: TaskName, store: str | None = None) -> datetime | None:
        """Go on from the next occurrence after now; its time. None: no occurrence is left."""
        pending = self._pending(task_id, store)
        if pending is not None:
            pending.resume_pending()
            return None
        return self._for_one(task_id, store, lambda desk, name: desk.resume(name))[1]

    def update_task(
        self, task_id: TaskName, store: str | None = None, *, dry_run: bool = False, **updates: Any
    ) -> dict[str, tuple[Any, Any]]:
        """Change name, args, kwargs, coalesce, max_instances, mistrigger_grace_time, trigger and what else
        `Queue.update_repeatable` knows; what changes, as {member: (before, after)}. With `dry_run` nothing else."""
        pending = self._pending(task_id, store)
        if pending is not None:
            return pending.update_pending(updates, self._configuration, dry_run=dry_run)
        if "executor" in updates or "fn" in updates:
            raise InvalidJob("a schedule keeps its function and its executor: delete the task and add another")
        if isinstance(updates.get("trigger"), str):
            updates["trigger"] = trigger_of(updates["trigger"], {}, timezone=self.timezone)
        changes = plain_changes(updates)
        return self._for_one(task_id, store, lambda desk, name: desk.update(name, changes, dry_run=dry_run))[1]

    def reschedule_task(
        self, task_id: TaskName, store: str | None = None, trigger: Trigger | str | None = None, **trigger_args: Any
    ) -> None:
        """Give it another trigger, or one of an alias and its arguments."""
        if trigger is None:
            raise InvalidJob("reschedule_task wants a trigger, such as trigger='interval', minutes=20")
        made = trigger_of(trigger, trigger_args, timezone=self.timezone)
        pending = self._pending(task_id, store)
        if pending is not None:
            pending.retrigger(made)
            return
        self._for_one(task_id, store, lambda desk, name: desk.reschedule(name, made))

    def run_task(
        self, task_id: TaskName, store: str | None = None, *, force: bool = True, remove_finished: bool = True
    ) -> str:
        """Make a job of it now, by its executor and marked as manual; the job's id. Its next run stays where it is.
        `force` False: not if it is paused. `remove_finished`: a task without any occurrence left is removed then."""
        token = secrets.token_hex(8)
        house, (job, ready, finished) = self._for_one(
            task_id, store, lambda desk, name: desk.record_run(name, token=token, force=force)
        )
        if ready is not None:
            self._started.in_loop(lambda: house.send(ready))
        if finished and remove_finished:
            with suppress(UnknownSchedule):
                self.delete_task(task_id, store)
        return job

    def delete_task(self, task_id: TaskName, store: str | None = None) -> None:
        """Forget it; what runs of it runs on."""
        pending = self._pending(task_id, store)
        if pending is not None:
            self._forget(pending)
            return
        _, id = self._for_one(task_id, store, lambda desk, name: desk.remove(name))
        with self._lock:
            for key in [key for key in self._tasks if key[1] == id and store in (None, key[0])]:
                del self._tasks[key]

    remove_task = delete_task

    def remove_all_tasks(self, store: str | None = None) -> int:
        """Forget all tasks of a store, or of all stores; how many there were."""
        with self._lock:
            gone = [key for key in self._tasks if store in (None, key[0])]
            for key in gone:
                del self._tasks[key]
        if not self.running:
            return len(gone)
        return sum(
            self._started.ask(house, lambda app, at=house: at.desk_of(app).remove_all())  # type: ignore[misc]
            for house in self._among(store)
        )

    # --- what the methods stand on ---

    def _house(self, store: str | None) -> House:
        alias = store or DEFAULT_ALIAS
        houses = self._started.houses
        if alias not in houses:
            raise ConfigurationError(f"there is no store {alias!r:.100}; known are {', '.join(houses)}")
        return houses[alias]

    def _among(self, store: str | None) -> list[House]:
        return list(self._started.houses.values()) if store is None else [self._house(store)]

    def _for_one(
        self, task: TaskName, store: str | None, work: Callable[[TaskDesk, ScheduleName], Coroutine[Any, Any, T]]
    ) -> tuple[House, T]:
        """The house that has it, and what the work answered there. Raises UnknownSchedule."""
        name = _named(task)
        if not self.running:
            raise SchedulerNotRunning(f"task {name!r:.100}")
        unknown: UnknownSchedule | None = None
        for house in self._among(store):
            try:
                return house, self._started.ask(house, lambda app, at=house: work(at.desk_of(app), name))  # type: ignore[misc]
            except UnknownSchedule as error:
                unknown = unknown or error
        assert unknown is not None  # there is a house
        raise unknown

    def _pending(self, task: TaskName, store: str | None) -> ScheduledTask | None:
        """What was added under this name and is not in a store yet."""
        name = _named(task)
        if self.running or not isinstance(name, str):
            return None
        with self._lock:
            known = list(self._tasks.items())
        return next((one for (alias, id), one in known if id == name and store in (None, alias)), None)

    def _handle(self, info: TaskInfo) -> ScheduledTask:
        known = self._tasks.get((info.store_alias, info.id))
        if known is not None:
            return known
        made = ScheduledTask(info.callable_reference, args=info.args, kwargs=info.kwargs, id=info.id, name=info.name)
        made.store, made.scheduler = info.store_alias, self
        return made

    def _keep(self, task: ScheduledTask) -> None:
        """Under its id, or, where it has none, under its task's name, numbered where that is taken."""
        alias = task.store or DEFAULT_ALIAS
        with self._lock:
            if task.id is None:
                task.id = next(id for id in _numbered(task.task_name) if (alias, id) not in self._tasks)
            elif (alias, task.id) in self._tasks and not task.replace_existing:
                raise ScheduleExists(task.id, store=alias)
            check_schedule_id(task.id)
            self._tasks[alias, task.id] = task

    def _forget(self, task: ScheduledTask) -> None:
        with self._lock:
            self._tasks = {key: one for key, one in self._tasks.items() if one is not task}


def _named(task: TaskName) -> ScheduleName:
    if isinstance(task, ScheduledTask):
        if task.id is None:
            raise InvalidJob("this task was not added to a scheduler yet: scheduler.add_task(task)")
        return task.id
    return task


def _numbered(name: str) -> Iterator[str]:
    yield name
    for number in itertools.count(2):
        yield f"{name}-{number}"


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
        self.logger.info("shut down")
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
