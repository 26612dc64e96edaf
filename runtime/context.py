"""What a running task may know and do: the parameter annotated `Context` is filled with one of these."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError

if TYPE_CHECKING:
    from .app import Callboard


# Of which run is the code that asks: set around each call of a task, for the lines that it logs.
RUNNING: ContextVar[Context | None] = ContextVar("callboard_running", default=None)

_ITEMS = ("app", "attempt", "fence", "id", "job_id", "logger", "meta", "queue", "task", "worker_id")


class Context:
    """One run of one job.

    `attempt` is 1 for the first run. `fence` grows with each run of the job, over restarts of the store too: a resource
    that remembers the highest it saw can refuse a run that has lost its lease. `idempotency_key` is the same for all
    runs of the job: hand it to services that recognise repeats.
    """

    __slots__ = (
        "_app",
        "_cancelled",
        "_lease_is_certain",
        "_report",
        "attempt",
        "dispatch",
        "fence",
        "job_id",
        "meta",
        "queue",
        "task",
        "traceparent",
        "worker",
    )

    def __init__(
        self,
        *,
        job_id: str,
        queue: str,
        task: str,
        attempt: int,
        dispatch: int,
        fence: int,
        worker: str,
        meta: dict[str, Any],
        report: Callable[[Any], None],
        lease_is_certain: Callable[[], bool],
        app: Callboard | None = None,
        traceparent: str | None = None,
    ) -> None:
        self.job_id = job_id
        self.queue = queue
        self.task = task
        self.attempt = attempt
        self.dispatch = dispatch
        self.fence = fence
        self.worker = worker
        self.meta = meta
        self.traceparent = traceparent
        self._app = app
        self._report = report
        self._lease_is_certain = lease_is_certain
        self._cancelled = False  # one reference: set and read from any thread

    def __getitem__(self, name: str) -> Any:
        """For tasks written for aioq, whose context is a dict: `ctx["worker_id"]`, `ctx["app"]`. What stands for its
        `ctx["broker"]`, by which jobs are enqueued and looked up, is the app. Raises KeyError."""
        if name == "broker":
            return self.app
        if name not in _ITEMS:
            raise KeyError(f"ctx[{name!r:.100}]: known are {', '.join(_ITEMS)}; to add or look up jobs use ctx.app")
        return getattr(self, name)

    @property
    def id(self) -> str:
        return self.job_id

    @property
    def app(self) -> Callboard:
        """The app whose worker runs this: `await ctx.app.queue("emails").add(...)`. It is open, in the worker's event
        loop. Raises ConfigurationError in a process of a task with `executor="process"`, which has no connections."""
        if self._app is None:
            raise ConfigurationError(
                f"ctx.app of task {self.task!r}: a task that runs in a process of its own has no connections; return "
                "what is to be done next, or make an app of your own there"
            )
        return self._app

    @property
    def worker_id(self) -> str:
        """The boot id of the worker, as `callboard workers` lists it; the same as `worker`."""
        return self.worker

    @property
    def idempotency_key(self) -> str:
        return self.job_id

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """Writes to `callboard.task.<task>`, with the job, queue and attempt as extra fields, and the trace's id where
        the job came with one."""
        extra: dict[str, object] = {"job": self.job_id, "queue": self.queue, "attempt": self.attempt}
        if self.traceparent is not None:
            extra["trace"] = self.traceparent[3:35]
        return logging.LoggerAdapter(logging.getLogger(f"callboard.task.{self.task}"), extra)

    @property
    def cancelled(self) -> bool:
        """This run should end: its job was cancelled, it took too long, or the worker is stopping. Async tasks are
        interrupted anyway; a sync task in a thread has to look."""
        return self._cancelled

    @property
    def lease_uncertain(self) -> bool:
        """The worker could not renew its lease in time: the job may be running elsewhere, and what this run returns may
        be refused."""
        return not self._lease_is_certain()

    def progress(self, value: Any) -> None:
        """Note how far the run is: any JSON value, shown by `callboard jobs show`. Returns at once; the newest of
        several values that come quickly is kept."""
        self._report(value)

    def cancel(self) -> None:
        """Set `cancelled`. For the worker."""
        self._cancelled = True
