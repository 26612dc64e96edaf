"""Schedules that code declares, with `@app.cron(...)` and `@app.every(...)`: written to the store when a process that
runs actors of the app starts, or by `app.schedule_all()`. What is no longer declared stays until it is removed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from msgspec import Struct

from .context import Context
from .duration import Duration
from .errors import ConfigurationError
from .options import CallOptions
from .schedule_change import make_trigger
from .schedule_record import check_schedule_id
from .task import Task
from .triggers import Policy, Trigger

if TYPE_CHECKING:
    from .app import Callboard

P = ParamSpec("P")
R = TypeVar("R")

NO_OPTIONS = CallOptions()


class DeclaredSchedule(Struct, frozen=True, kw_only=True):
    id: str
    task: Task[..., Any]
    trigger: Trigger
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    policy: Policy


class ScheduleDecorator:
    """What `app.cron(...)` and `app.every(...)` return. It takes a function, which becomes a task, or a task."""

    def __init__(
        self,
        app: Callboard,
        *,
        name: str | None,
        queue: str | None,
        id: str | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
        policy: Policy | None,
        every: Duration | None = None,
        cron: str | None = None,
        timezone: str = "UTC",
        start: datetime | None,
        end: datetime | None,
        jitter: Duration,
    ) -> None:
        self._app = app
        self._name = name
        self._queue = queue
        self._id = None if id is None else check_schedule_id(id)
        self._args = tuple(args)
        self._kwargs = dict(kwargs or {})
        self._policy = policy or Policy()
        self._trigger = make_trigger(every=every, cron=cron, timezone=timezone, start=start, end=end, jitter=jitter)

    @overload
    def __call__(self, function: Task[P, R]) -> Task[P, R]: ...

    @overload
    def __call__(self, function: Callable[Concatenate[Context, P], R]) -> Task[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R]) -> Task[P, R]: ...

    def __call__(self, function: Any) -> Task[..., Any]:
        if isinstance(function, Task):
            if self._name is not None or self._queue is not None:
                raise ConfigurationError(
                    f"{function.name!r} is a task already: name it, and its queue, in app.task(...)"
                )
            task: Task[..., Any] = function
        else:
            task = self._app.task(name=self._name, queue=self._queue or "default")(function)
        self._app.declare_schedule(
            DeclaredSchedule(
                id=self._id or task.name,
                task=task,
                trigger=self._trigger,
                args=self._args,
                kwargs=self._kwargs,
                policy=self._policy,
            )
        )
        return task
