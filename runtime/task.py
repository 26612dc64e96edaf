"""A task: a registered function, and the calls of it that become jobs."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from .arguments import Signature
from .context import Context
from .duration import Duration
from .handle import JobHandle
from .options import CallOptions, TaskOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .app import Callboard

P = ParamSpec("P")
R = TypeVar("R")


class Task(Generic[P, R]):
    """Calling it calls the function, here and now; `enqueue` makes a job of the call."""

    def __init__(self, app: Callboard, name: str, function: Callable[..., R], options: TaskOptions) -> None:
        # What a decorator has left on the function, but for names of ours, which would take the place of what we mean.
        kept = {name: value for name, value in getattr(function, "__dict__", {}).items() if not hasattr(Task, name)}
        self.__dict__.update(kept)
        self.app = app
        self.name = name
        self.function = function
        self.declared = options
        self.signature = Signature(function, injected=Context)
        self.is_async = inspect.iscoroutinefunction(function)
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle:
        """Make a job of this call; returns once it is on stable storage.

        The arguments are validated against the function's type hints. Raises InvalidJob for what can't be accepted,
        EnqueueUncertain where the store or the broker did not answer in time.
        """
        return await self.app.enqueue_call(self, args, kwargs, CallOptions())

    def options(
        self,
        *,
        queue: str | None = None,
        job_id: str | None = None,
        delay: Duration | None = None,
        run_at: datetime | float | None = None,
        priority: int | None = None,
        retries: int | None = None,
        backoff: object = None,
        timeout: Duration | None = None,
        ttl: Duration | None = None,
        deduplication: Mapping[str, Any] | None = None,
        depends_on: object = None,
        meta: Mapping[str, Any] | None = None,
        confirm: bool = False,
    ) -> Call[P, R]:
        """The same task with options for one call: `task.options(delay=60, job_id="welcome-42").enqueue(...)`."""
        return Call(
            self,
            CallOptions.parse(
                queue=queue,
                job_id=job_id,
                delay=delay,
                run_at=run_at,
                priority=priority,
                retries=retries,
                backoff=backoff,
                timeout=timeout,
                ttl=ttl,
                deduplication=deduplication,
                depends_on=depends_on,
                meta=meta,
                confirm=confirm,
            ),
        )

    def __repr__(self) -> str:
        return f"<Task {self.name} on {self.declared.queue}>"


def default_name(function: Callable[..., Any]) -> str:
    """`module.qualname`. A module that was started as a program has the name it would be imported by, so that
    `python shop.py` and `callboard run worker --app shop:app` speak of the same task."""
    module = function.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec, path = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name if spec is not None else Path(path).stem if path else module
    return f"{module}.{function.__qualname__}"


class Call(Generic[P, R]):
    """A task with options for one call."""

    def __init__(self, task: Task[P, R], options: CallOptions) -> None:
        self._task = task
        self._options = options

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle:
        return await self._task.app.enqueue_call(self._task, args, kwargs, self._options)
