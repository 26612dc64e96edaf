"""A function, and when and how it is to run: what `Scheduler.add_task` makes of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import UNSET, UnsetType

from ..errors import ConfigurationError, InvalidJob
from ..task import Task, default_name
from ..task_info import TaskInfo, TaskScheduleState
from ..triggers import AnyOf, At, Cron, Every, Policy, Trigger, TriggerInvalid
from ..triggers.aliases import alias_of, description_of, moment_in, trigger_of
from .configuration import Configuration
from .farewell import SHUTDOWN, ShutdownTrigger

if TYPE_CHECKING:
    from .tasks import BaseScheduler

F = TypeVar("F", bound=Callable[..., Any])

Function = Callable[..., Any] | Task[..., Any] | str
POLICY_NAMES = ("coalesce", "max_instances", "overlap", "catch_up", "max_queued")
CHANGEABLE = (
    *("fn", "trigger", "args", "kwargs", "name", "executor", "mistrigger_grace_time", "misfire_grace_time"),
    *POLICY_NAMES,
)
MADE_OF = "callboard_tasks"  # the attribute of a decorated function


class ScheduledTask:
    """Made by itself, it becomes a schedule by `scheduler.add_task(task)`, once; until then its attributes may be
    changed. Without a function it is a decorator.

    fn                      a function, a task of the app, or the registered name of one
    trigger                 a trigger, or an alias (interval, cron, date, and, or) and its arguments; None: once, now;
                            `shutdown`: when the scheduler shuts down
    id                      stable, chosen by you; default: the task's name, numbered where several have it
    mistrigger_grace_time   seconds after which a late occurrence is missed; None: never. Also misfire_grace_time
    coalesce, max_instances, overlap, catch_up, max_queued          as in `Policy`
    next_run_time           a moment: the first run is then; None: the task begins paused
    executor, store         aliases; default: `default`
    replace_existing        what has this id already is changed; else only what is equal is taken for the same
    """

    def __init__(
        self,
        fn: Function | None = None,
        trigger: Trigger | ShutdownTrigger | str | None = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        name: str | None = None,
        mistrigger_grace_time: float | UnsetType | None = UNSET,
        misfire_grace_time: float | UnsetType | None = UNSET,
        coalesce: bool | UnsetType = UNSET,
        max_instances: int | UnsetType | None = UNSET,
        overlap: str | UnsetType = UNSET,
        catch_up: int | UnsetType = UNSET,
        max_queued: int | UnsetType = UNSET,
        next_run_time: datetime | str | UnsetType | None = UNSET,
        executor: str | None = None,
        store: str | None = None,
        replace_existing: bool = False,
        **trigger_args: Any,
    ) -> None:
        self.fn = fn
        self.trigger = trigger
        self.trigger_args = trigger_args
        self.args = list(args or ())
        self.kwargs = dict(kwargs or {})
        self.id = id
        self.name = name
        self.mistrigger_grace_time = misfire_grace_time if mistrigger_grace_time is UNSET else mistrigger_grace_time
        self.coalesce = coalesce
        self.max_instances = max_instances
        self.overlap = overlap
        self.catch_up = catch_up
        self.max_queued = max_queued
        self.first_run_time = next_run_time
        self.executor = executor
        self.store = store
        self.replace_existing = replace_existing
        self.chosen_id = id is not None
        self.scheduler: BaseScheduler | None = None

    def __call__(self, function: F) -> F:
        """Add the function; it is returned, with the task in its attribute `callboard_tasks`."""
        if self.scheduler is None:
            raise ConfigurationError("a ScheduledTask decorates functions once a scheduler made it, by add_task()")
        made = self.copy(function)
        made.replace_existing = self.replace_existing
        self.scheduler.add_task(made)
        keeper: Any = function
        setattr(keeper, MADE_OF, [*getattr(keeper, MADE_OF, ()), made])
        return function

    def copy(self, fn: Function) -> ScheduledTask:
        """The same for another function, not added yet."""
        copied = ScheduledTask(
            fn, self.trigger, self.args, self.kwargs, id=self.id, name=self.name,
            mistrigger_grace_time=self.mistrigger_grace_time, coalesce=self.coalesce, max_instances=self.max_instances,
            overlap=self.overlap, catch_up=self.catch_up, max_queued=self.max_queued,
            next_run_time=self.first_run_time, executor=self.executor, store=self.store, **self.trigger_args,
        )  # fmt: skip
        return copied

    def copy_to(self, executor: str) -> ScheduledTask:
        """The same for another executor."""
        copied = self.copy(self.task_name if self.fn is None else self.fn)
        copied.executor = executor
        return copied

    # --- once it was added ---

    @property
    def info(self) -> TaskInfo | None:
        """As it stands now; None where it was removed."""
        return self._scheduler.get_task_info(self._named, self.store)

    @property
    def next_run_time(self) -> datetime | None:
        info = self.info
        return None if info is None else info.next_run_time

    @property
    def pending(self) -> bool:
        info = self.info
        return info is not None and info.pending

    def pause(self) -> None:
        self._scheduler.pause_task(self._named, self.store)

    def resume(self) -> None:
        self._scheduler.resume_task(self._named, self.store)

    def update(self, **updates: Any) -> dict[str, tuple[Any, Any]]:
        return self._scheduler.update_task(self._named, self.store, **updates)

    def reschedule(self, trigger: Trigger | str | None = None, **trigger_args: Any) -> None:
        self._scheduler.reschedule_task(self._named, self.store, trigger, **trigger_args)

    def run(self) -> str:
        return self._scheduler.run_task(self._named, self.store)

    def delete(self) -> None:
        self._scheduler.delete_task(self._named, self.store)

    def __repr__(self) -> str:
        return f"<ScheduledTask {self.id or 'not added'}: {self.task_name if self.fn is not None else 'a decorator'}>"

    # --- what a scheduler makes of it ---

    @property
    def task_name(self) -> str:
        """Of the function, before its executor is looked at."""
        match self.fn:
            case str():
                return self.fn
            case Task():
                return self.fn.name
            case None:
                raise InvalidJob("a task wants a function")
        return default_name(self.fn)

    def resume_pending(self) -> None:
        if self.begins_paused:
            self.first_run_time = UNSET

    def update_pending(
        self, updates: Mapping[str, Any], configuration: Configuration, *, dry_run: bool
    ) -> dict[str, tuple[Any, Any]]:
        """As `Scheduler.update_task`, of what is in no store yet."""
        unknown = [name for name in updates if name not in CHANGEABLE]
        if unknown:
            raise InvalidJob(f"unknown member {unknown[0]!r:.100}; known: {', '.join(CHANGEABLE)}")
        changed = self.copy(self.fn or "")
        for name, value in updates.items():
            setattr(changed, name.replace("misfire_", "mistrigger_"), value)
        if "trigger" in updates:
            changed.retrigger(changed.trigger)
        changed.settle(configuration, now=datetime.now(UTC))
        before, after = vars(self), vars(changed)
        differing = {
            name: (before[name], after[name])
            for name in (name.replace("misfire_", "mistrigger_") for name in updates)
            if before[name] != after[name]
        }
        if not dry_run:
            self.first_run_time = changed.first_run_time
            for name, (_, value) in differing.items():
                setattr(self, name, value)
        return differing

    @property
    def begins_paused(self) -> bool:
        return self.first_run_time is None

    @property
    def at_shutdown(self) -> bool:
        """In no store, ever. Once it was settled."""
        return isinstance(self.trigger, ShutdownTrigger)

    def settle(self, configuration: Configuration, *, now: datetime) -> None:
        """Check everything that can be checked without a store, and make a trigger of an alias. Raises TriggerInvalid,
        ConfigurationError."""
        if self.fn is not None and not isinstance(self.fn, str | Task) and not callable(self.fn):
            raise InvalidJob(f"fn must be a function, a task or the name of one, not {self.fn!r:.100}")
        if self.at_shutdown or self.trigger == SHUTDOWN.alias:
            if self.trigger_args or isinstance(self.first_run_time, str | datetime):
                reason = "takes no arguments and no next_run_time but None"
                raise TriggerInvalid(member="trigger", value=SHUTDOWN.alias, reason=reason)
            self.trigger = SHUTDOWN
            self.policy(configuration)
            return
        if self.trigger is None or (self.trigger == "date" and not self.trigger_args):
            if self.trigger is None and self.trigger_args:
                raise TriggerInvalid(
                    member="trigger", value=None, reason=f"is missing for {', '.join(self.trigger_args)}"
                )
            self.trigger = At(now)
        assert not isinstance(self.trigger, ShutdownTrigger)  # see above
        self.trigger = trigger_of(self.trigger, self.trigger_args, timezone=configuration.zone)
        self.trigger_args = {}
        if isinstance(self.first_run_time, str | datetime):
            self.first_run_time = moment_in(self.first_run_time, configuration.zone, "next_run_time")
            self.settled_trigger()
        self.policy(configuration)

    def settled_trigger(self) -> Trigger:
        """With its first run. Raises TriggerInvalid."""
        assert isinstance(self.trigger, Trigger)  # after `settle`
        first = self.first_run_time
        return first_run_at(self.trigger, first) if isinstance(first, datetime) else self.trigger

    def retrigger(self, trigger: Trigger | ShutdownTrigger | str | None) -> None:
        """Of what is in no store yet: the first run that was wanted of the old trigger goes with it."""
        self.trigger = trigger
        if not self.begins_paused:
            self.first_run_time = UNSET

    def policy(self, configuration: Configuration) -> Policy:
        given = {name: getattr(self, name) for name in POLICY_NAMES}
        given["misfire_grace"] = self.mistrigger_grace_time
        return configuration.defaults.policy({name: value for name, value in given.items() if value is not UNSET})

    def pending_info(self, configuration: Configuration, *, started: bool = False) -> TaskInfo:
        """Of what is in no store, or not yet."""
        policy = self.policy(configuration)
        if isinstance(self.trigger, ShutdownTrigger):
            kind, alias, description = type(self.trigger).__name__, SHUTDOWN.alias, SHUTDOWN.description
        else:
            trigger = self.settled_trigger()
            kind, alias, description = type(trigger).__name__, alias_of(trigger), description_of(trigger)
        state = TaskScheduleState.SCHEDULED if started else TaskScheduleState.PENDING
        return TaskInfo(
            id=self._named,
            name=self.name or self.task_name,
            callable_name=self.task_name.rpartition(".")[2],
            callable_reference=self.task_name,
            trigger_alias=alias,
            trigger_name=kind,
            trigger_description=description,
            executor=self.executor or "default",
            store_alias=self.store or "default",
            schedule_state=TaskScheduleState.PAUSED if self.begins_paused else state,
            next_run_time=None,
            coalesce=policy.coalesce,
            max_instances=policy.max_instances,
            mistrigger_grace_time=None if policy.misfire_grace_ms is None else policy.misfire_grace_ms / 1000,
            args=self.args,
            kwargs=self.kwargs,
        )

    @property
    def _named(self) -> str:
        if self.id is None:
            raise InvalidJob("this task was not added to a scheduler yet: scheduler.add_task(task)")
        return self.id

    @property
    def _scheduler(self) -> BaseScheduler:
        if self.scheduler is None:
            raise InvalidJob("this task was not added to a scheduler yet: scheduler.add_task(task)")
        return self.scheduler


def first_run_at(trigger: Trigger, first: datetime) -> Trigger:
    """The trigger with its first occurrence at `first`, and none before it: a grid hangs on it, times on clocks come
    after it. Raises TriggerInvalid."""
    match trigger:
        case At():
            return At(first, jitter=trigger.jitter_ms / 1000)
        case Every():
            return Every(trigger.interval_ms / 1000, start=first, end=trigger.end, jitter=trigger.jitter_ms / 1000)
        case Cron():
            plain = Cron(
                trigger.expression, zone=trigger.zone, daylight=trigger.daylight, **dict[str, Any](trigger.fields)
            )
            return AnyOf(At(first), plain, start=first, end=trigger.end, jitter=trigger.jitter_ms / 1000)
    reason = "can't be given to a trigger made of others; give one of them a start"
    raise TriggerInvalid(member="next_run_time", value=first, reason=reason)
