"""The tasks of a scheduler: added, looked at, changed, run by hand, removed."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from ..errors import ConfigurationError, InvalidJob, UnknownSchedule
from ..repeatables import ScheduleName
from ..schedule_record import check_schedule_id
from ..task_info import TaskInfo, TaskPreview, selected
from ..triggers import Trigger
from ..triggers.aliases import trigger_of
from .configuration import DEFAULT_ALIAS
from .desk import TaskDesk, plain_changes
from .errors import ScheduleExists, SchedulerNotRunning, TaskSubmitted
from .events import (
    ALL_TASKS_REMOVED,
    TASK_ADDED,
    TASK_MODIFIED,
    TASK_REMOVED,
    EventCode,
    SchedulerEvent,
    TaskEvent,
    submitted_by_hand,
)
from .farewell import ShutdownTrigger, refuse_retrigger
from .house import House
from .lifetime import Lifetime
from .task import Function, ScheduledTask

T = TypeVar("T")

ALIASES = ("interval", "cron", "date", "and", "or", "shutdown")

TaskName = ScheduleName | ScheduledTask


class BaseScheduler(Lifetime):
    """All but `start` and `shutdown`, which Scheduler has as functions and AsyncScheduler as coroutines."""

    # --- tasks ---

    def add_task(
        self,
        fn_or_task: Function | ScheduledTask | None = None,
        trigger: Trigger | ShutdownTrigger | str | None = None,
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
            if trigger is None and (isinstance(given, Trigger | ShutdownTrigger) or given in ALIASES):
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
                if not task.at_shutdown:
                    self._started.ask(house, lambda app: house.submit(app, [task]))
                self._started.in_loop(lambda: house.serve([task]))
            except BaseException:
                self._forget(task)
                raise
        self.logger.info("added task %s", task.id)
        self._tell(TASK_ADDED, task, task.store)
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
            return pending.pending_info(self._configuration, started=self.running)
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
            infos += [task.pending_info(self._configuration, started=True) for task in self._last_tasks()]
        else:
            infos = [task.pending_info(self._configuration) for task in list(self._tasks.values())]
        return selected(
            infos, schedule_state=schedule_state, executor=executor, trigger=trigger, store=store, q=q, sort_by=sort_by,
            descending=descending,
        )  # fmt: skip

    def preview_task_runs(self, task_id: TaskName, count: int = 10, store: str | None = None) -> TaskPreview:
        """The next runs, at most 1,000, in the scheduler's zone, whether the task is paused or not."""
        pending = self._pending(task_id, store)
        if pending is not None and pending.at_shutdown:
            return TaskPreview(run_times=(), timezone=self.timezone, exhausted=True)
        return self._for_one(task_id, store, lambda desk, name: desk.preview(name, count))[1]

    def pause_task(self, task_id: TaskName, store: str | None = None) -> None:
        """No occurrence makes a job from now on. Raises UnknownSchedule, as all that name a task do."""
        pending = self._pending(task_id, store)
        if pending is not None:
            pending.first_run_time = None
        else:
            self._for_one(task_id, store, lambda desk, name: desk.pause(name))
        self._tell(TASK_MODIFIED, task_id, store)

    def resume_task(self, task_id: TaskName, store: str | None = None) -> datetime | None:
        """Go on from the next occurrence after now; its time. None: no occurrence is left."""
        pending = self._pending(task_id, store)
        if pending is not None:
            pending.resume_pending()
            next_run = None
        else:
            next_run = self._for_one(task_id, store, lambda desk, name: desk.resume(name))[1]
        self._tell(TASK_MODIFIED, task_id, store)
        return next_run

    def update_task(
        self, task_id: TaskName, store: str | None = None, *, dry_run: bool = False, **updates: Any
    ) -> dict[str, tuple[Any, Any]]:
        """Change name, args, kwargs, executor, coalesce, max_instances, mistrigger_grace_time, trigger and what else
        `Queue.update_repeatable` knows; what changes, as {member: (before, after)}. With `dry_run` nothing else.

        Another executor is another queue: the schedule is made there, paused, before it is removed here, and then goes
        on from its next occurrence. Code that adds the task again must name the new one."""
        pending = self._pending(task_id, store)
        if pending is not None:
            if self.running and "trigger" in updates:
                raise refuse_retrigger(pending.id)
            differing = pending.update_pending(updates, self._configuration, dry_run=dry_run)
        else:
            differing = self._update_stored(task_id, store, dict(updates), dry_run=dry_run)
        if differing and not dry_run:
            self._tell(TASK_MODIFIED, task_id, store)
        return differing

    def _update_stored(
        self, task_id: TaskName, store: str | None, updates: dict[str, Any], *, dry_run: bool
    ) -> dict[str, tuple[Any, Any]]:
        if "fn" in updates:
            raise InvalidJob("a schedule keeps its function: delete the task and add another")
        executor = updates.pop("executor", None)
        if executor is not None:
            self._configuration.executor(executor)
        if isinstance(updates.get("trigger"), str):
            updates["trigger"] = trigger_of(updates["trigger"], {}, timezone=self.timezone)
        changes = plain_changes(updates)
        differing = self._for_one(task_id, store, lambda desk, name: desk.update(name, changes, dry_run=dry_run))[1]
        info = self.get_task_info(task_id, store)
        if executor is None or info is None or info.executor == executor:
            return differing
        moved = self._handle(info).copy_to(executor)
        house = self._house(info.store_alias)
        self._started.in_loop(lambda: house.register(moved))
        if not dry_run:
            function = house.task_name_of(moved)
            self._started.in_loop(lambda: house.serve([moved]))
            self._for_one(task_id, store, lambda desk, name: desk.move(name, to=executor, task=function))
            if (known := self._tasks.get((info.store_alias, info.id))) is not None:
                known.executor = executor
        return {**differing, "executor": (info.executor, executor)}

    def reschedule_task(
        self, task_id: TaskName, store: str | None = None, trigger: Trigger | str | None = None, **trigger_args: Any
    ) -> None:
        """Give it another trigger, or one of an alias and its arguments."""
        if trigger is None:
            raise InvalidJob("reschedule_task wants a trigger, such as trigger='interval', minutes=20")
        made = trigger_of(trigger, trigger_args, timezone=self.timezone)
        pending = self._pending(task_id, store)
        if pending is None:
            self._for_one(task_id, store, lambda desk, name: desk.reschedule(name, made))
        elif self.running:
            raise refuse_retrigger(pending.id)
        else:
            pending.retrigger(made)
        self._tell(TASK_MODIFIED, task_id, store)

    def run_task(
        self, task_id: TaskName, store: str | None = None, *, force: bool = True, remove_finished: bool = True
    ) -> str:
        """Make a job of it now, by its executor and marked as manual; the job's id. Its next run stays where it is.
        `force` False: not if it is paused. `remove_finished`: a task without any occurrence left is removed then."""
        last = self._pending(task_id, store)
        if last is not None and self.running:
            house = self._house(last.store)
            recorded = self._started.ask(house, lambda app: house.record_last(app, last))
            self._started.in_loop(lambda: house.send(recorded))
            self.listeners.tell(submitted_by_hand(recorded.id.rpartition("@")[0], store=house.alias))
            return recorded.id
        token = secrets.token_hex(8)
        house, (job, ready, finished) = self._for_one(
            task_id, store, lambda desk, name: desk.record_run(name, token=token, force=force)
        )
        if ready is not None:
            self._started.in_loop(lambda: house.send(ready))
        self.listeners.tell(submitted_by_hand(job.rpartition("@")[0], store=house.alias))
        if finished and remove_finished:
            with suppress(UnknownSchedule):
                self.delete_task(task_id, store)
        return job

    def delete_task(self, task_id: TaskName, store: str | None = None) -> None:
        """Forget it; what runs of it runs on."""
        pending = self._pending(task_id, store)
        if pending is not None:
            self._forget(pending)
            self._tell(TASK_REMOVED, task_id, store)
            return
        _, id = self._for_one(task_id, store, lambda desk, name: desk.remove(name))
        with self._lock:
            for key in [key for key in self._tasks if key[1] == id and store in (None, key[0])]:
                del self._tasks[key]
        self._tell(TASK_REMOVED, id, store)

    remove_task = delete_task

    def remove_all_tasks(self, store: str | None = None) -> int:
        """Forget all tasks of a store, or of all stores; how many there were."""
        with self._lock:
            gone = [key for key in self._tasks if store in (None, key[0])]
            removed = sum(not self.running or self._tasks[key].at_shutdown for key in gone)
            for key in gone:
                del self._tasks[key]
        if self.running:
            removed += sum(
                self._started.ask(house, lambda app, at=house: at.desk_of(app).remove_all())  # type: ignore[misc]
                for house in self._among(store)
            )
        self.listeners.tell(SchedulerEvent(code=ALL_TASKS_REMOVED, alias=store))
        return removed

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
        """What was added under this name and is not in a store yet, or never will be."""
        name = _named(task)
        if not isinstance(name, str):
            return None
        with self._lock:
            known = list(self._tasks.items())
        found = next((one for (alias, id), one in known if id == name and store in (None, alias)), None)
        return found if found is None or not self.running or found.at_shutdown else None

    def _tell(self, code: EventCode, task: TaskName, store: str | None) -> None:
        name = _named(task)
        id = name if isinstance(name, str) else str(name.get("id") or name.get("task_id"))
        self.listeners.tell(TaskEvent(code=code, task_id=id, store=store or DEFAULT_ALIAS))

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
