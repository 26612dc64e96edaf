"""The user's app: its tasks, its queues, its connections.

app = Callboard(broker="amqp://...", store="redis://...")

@app.task(queue="emails", retries=3, timeout=30)
async def send_email(to: str, *, subject: str) -> str: ...

async with app:
    job = await send_email.enqueue("a@b.c", subject="hi")
    await job.result(timeout=10)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, overload

from msgspec import Raw

from ..metadata.job import NewJob
from .arguments import encode_arguments
from .clock import Clock, SystemClock
from .connections import Connections
from .context import Context
from .declared_schedules import NO_OPTIONS, DeclaredSchedule, ScheduleDecorator
from .duration import Duration, seconds_to_ms
from .errors import ConfigurationError, InvalidJob, PayloadTooLarge, UnknownTask
from .executors.importable import check_importable
from .handle import JobHandle
from .job_id import check_queue, check_task, new_id
from .local_schedules import LocalSchedules
from .locks import Lock
from .metrics import make_metrics
from .opened import Opened
from .options import DEFAULT_PRIORITY, CallOptions, ExecutorName, TaskOptions, parse_priority
from .queue import Queue
from .retry import RetryPolicy
from .settings import Retain, Settings, load_settings
from .task import Task, default_name
from .tracing import make_tracing
from .triggers import Policy
from .wire import ABSENT, Body, encode, encode_body

if TYPE_CHECKING:
    from types import TracebackType

P = ParamSpec("P")
R = TypeVar("R")


class TaskDecorator:
    """What `app.task(...)` returns; a parameter annotated `Context` is not the caller's to give."""

    def __init__(self, register: Callable[[Callable[..., Any]], Task[..., Any]]) -> None:
        self._register = register

    @overload
    def __call__(self, function: Callable[Concatenate[Context, P], R]) -> Task[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R]) -> Task[P, R]: ...

    def __call__(self, function: Callable[..., Any]) -> Task[..., Any]:
        return self._register(function)


class Callboard:
    """`broker` and `store` are URLs; what is not given comes from CALLBOARD_* or callboard.toml, see settings.py.

    An app is opened by `async with app:` or `open`/`close`, which may nest; it belongs to one event loop at a time.
    """

    def __init__(
        self, *, broker: str | None = None, store: str | None = None, clock: Clock | None = None, **settings: Any
    ) -> None:
        self._given = {"broker": broker, "store": store, **settings}
        self.settings: Settings = load_settings(**self._given)
        self.clock: Clock = clock or SystemClock()
        self.tracing = make_tracing(self.settings.tracing)
        self.metrics = make_metrics(self.settings.metrics, self.clock, knows=lambda name: name in self.tasks)
        self.tasks: dict[str, Task[..., Any]] = {}
        self.declared_schedules: dict[tuple[str, str], DeclaredSchedule] = {}  # by queue and id
        self.local_schedules = LocalSchedules(self)
        self._queues: dict[str, Queue] = {}
        self._retain: dict[str, tuple[Retain | None, Retain | None]] = {}
        opened = Opened()
        self.opened: Callable[[], Opened] = lambda: opened

    def configure(self, **settings: Any) -> None:
        """Put settings over those the app was made with, as the command line does. Raises ConfigurationError, also
        while the app is open."""
        if self.opened().connections is not None:
            raise ConfigurationError("the app is open; configure it before")
        given = {**self._given, **settings}
        self.settings = load_settings(**given)
        self.tracing = make_tracing(self.settings.tracing)
        self.metrics = make_metrics(self.settings.metrics, self.clock, knows=lambda name: name in self.tasks)
        self._given = given

    def twin(self) -> Callboard:
        """A closed app of these settings and tasks, for another event loop. In memory it is a world of its own."""
        other = Callboard(clock=self.clock, **self._given)
        other.tasks, other._retain = self.tasks, self._retain
        return other

    # --- tasks ---

    def task(
        self,
        *,
        name: str | None = None,
        queue: str = "default",
        retries: int = 0,
        backoff: object = None,
        retry_on: object = None,
        give_up_on: object = (),
        timeout: Duration | None = None,
        ttl: Duration | None = None,
        priority: int = DEFAULT_PRIORITY,
        executor: ExecutorName = "auto",
        keep_completed: Retain | None = None,
        keep_failed: Retain | None = None,
        result_limit: int | None = None,
    ) -> TaskDecorator:
        """Register a function, async or not, as a task named `name` (default: module.qualname).

        `timeout`: seconds a run may take; an async task is interrupted, a process killed, a thread told by
        `ctx.cancelled`. `ttl`: seconds after which a job that has not started expires. `executor="process"`: run it in
        a process of its own. `backoff`: seconds, or a `Backoff`.
        """
        call = CallOptions.parse(timeout=timeout, ttl=ttl)
        try:
            retry = RetryPolicy.create(retries=retries, backoff=backoff, retry_on=retry_on, give_up_on=give_up_on)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        if executor not in ("auto", "process"):
            raise ConfigurationError(f"executor must be 'auto' or 'process', not {executor!r}")
        options = TaskOptions(
            queue=check_queue(queue),
            retry=retry,
            timeout_ms=call.timeout_ms,
            ttl_ms=call.ttl_ms,
            priority=parse_priority(priority),
            executor=executor,
            keep_completed=keep_completed,
            keep_failed=keep_failed,
            result_limit=result_limit,
        )

        def register(function: Callable[..., Any]) -> Task[..., Any]:
            if isinstance(function, Task):  # of another app, or under another name
                function = function.function
            task_name = check_task(name or default_name(function))
            task: Task[..., Any] = Task(self, task_name, function, options)
            if executor == "process":
                check_importable(function)
            if task.name in self.tasks:
                raise ConfigurationError(f"two tasks are named {task.name!r}; give one of them another name=")
            self.tasks[task.name] = task
            return task

        return TaskDecorator(register)

    def find_task(self, name: str) -> Task[..., Any]:
        """Raises UnknownTask."""
        if name not in self.tasks:
            raise UnknownTask(name)
        return self.tasks[name]

    # --- schedules ---

    def cron(
        self,
        expression: str,
        *,
        queue: str | None = None,
        name: str | None = None,
        id: str | None = None,
        timezone: str = "UTC",
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        policy: Policy | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        jitter: Duration = 0,
    ) -> ScheduleDecorator:
        """Schedule a task: a function, which becomes one in `queue` named `name`, or what `@app.task(...)` made of it.

        The schedule is kept in the store under `id` (default: the task's name), in the task's queue; any number of
        processes that declare it make one schedule, and each occurrence one job. See `Queue.upsert_repeatable`.
        """
        return ScheduleDecorator(
            self, name=name, queue=queue, id=id, args=args, kwargs=kwargs, policy=policy, cron=expression,
            timezone=timezone, start=start, end=end, jitter=jitter,
        )  # fmt: skip

    def every(
        self,
        interval: Duration,
        *,
        queue: str | None = None,
        name: str | None = None,
        id: str | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        policy: Policy | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        jitter: Duration = 0,
    ) -> ScheduleDecorator:
        """As `cron`, each `interval` (seconds or a timedelta, at least 1 s), first one interval after it is made."""
        return ScheduleDecorator(
            self, name=name, queue=queue, id=id, args=args, kwargs=kwargs, policy=policy, every=interval,
            start=start, end=end, jitter=jitter,
        )  # fmt: skip

    def declare_schedule(self, schedule: DeclaredSchedule) -> None:
        """What the decorators do. Raises ConfigurationError where two have one id."""
        queue = schedule.task.declared.queue
        if (queue, schedule.id) in self.declared_schedules:
            raise ConfigurationError(
                f"two schedules of queue {queue!r} are named {schedule.id!r}; give one another id="
            )
        self.declared_schedules[queue, schedule.id] = schedule

    async def schedule_all(self) -> None:
        """Write the declared schedules to the store. Those that are there already keep their next run unless their
        trigger has changed. Processes that run actors of this app do so when they start."""
        for name in dict.fromkeys(queue for queue, _ in self.declared_schedules):
            queue = self.queue(name)
            new = [
                queue.new_schedule(
                    one.task.name, one.trigger, id=one.id, args=one.args, kwargs=one.kwargs, options=NO_OPTIONS,
                    policy=one.policy,
                )
                for (place, _), one in self.declared_schedules.items()
                if place == name
            ]  # fmt: skip
            await queue.upsert_schedules(new)

    # --- queues ---

    def queue(self, name: str) -> Queue:
        """The producer, admin and inspection API of one queue; always the same object for a name."""
        if name not in self._queues:
            self._queues[name] = Queue(check_queue(name), app=self)
        return self._queues[name]

    def retain(self, queue: str, *, keep_completed: Retain | None = None, keep_failed: Retain | None = None) -> None:
        """How long final jobs of a queue stay, where their tasks don't say. None: as the app's settings say."""
        self._retain[check_queue(queue)] = (keep_completed, keep_failed)

    def retention(self, queue: str) -> tuple[Retain, Retain]:
        """What holds for completed jobs of a queue, and for failed ones (cancelled and expired ones too)."""
        completed, failed = self._retain.get(queue, (None, None))
        return completed or self.settings.keep_completed, failed or self.settings.keep_failed

    def lock(self, name: str, *, ttl: Duration = 30.0, timeout: Duration | None = None) -> Lock:
        """A lock for `async with`, one holder at a time in this namespace; see `locks.py`.

        `ttl`: seconds that its holder may stand still before somebody else gets it; it is renewed every quarter of that
        while it is held. `timeout`: seconds to wait for it, then LockTimeout; None: as long as it takes."""
        seconds = None if timeout is None else seconds_to_ms(timeout, "timeout") / 1000
        return Lock(self, name, ttl=seconds_to_ms(ttl, "ttl") / 1000, timeout=seconds)

    # --- enqueueing ---

    async def enqueue_call(
        self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: CallOptions
    ) -> JobHandle:
        """What `task.enqueue` does."""
        job = self.new_job(task.name, args, kwargs, options)
        fresh = options.job_id is None
        (answer,) = await self.connections.producer.enqueue([job], confirm=options.confirm, fresh=fresh)
        return JobHandle(self, queue=job.queue, id=answer.id, admission=answer.admission, fresh=fresh)

    def new_job(
        self,
        task_name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: CallOptions,
        *,
        queue: str | None = None,
    ) -> NewJob:
        """Encode a job. Options come from the call, else from the task if it is registered here, else the defaults.

        Raises InvalidJob: a name, an option or an argument that can't be accepted; PayloadTooLarge."""
        task = self.tasks.get(task_name)
        declared = task.declared if task else TaskOptions()
        now = self.clock.now()
        queue = check_queue(options.queue or queue or declared.queue)
        if not isinstance(args, list | tuple):  # a string is a sequence too, of one argument a letter
            raise InvalidJob(f"args must be a list, not {args!r:.100}")
        if not isinstance(kwargs, Mapping):
            raise InvalidJob(f"kwargs must be a mapping, not {kwargs!r:.100}")
        encoded_args, encoded_kwargs = encode_arguments(args, kwargs)
        if task is not None:  # what the worker would refuse is refused here already
            task.signature.bind_json(encoded_args, encoded_kwargs)
        # Whether a moment that was given is past is not for our clock to say: the store has one, too.
        run_at = now + options.delay_ms if options.delay_ms else options.run_at
        ttl = options.ttl_ms or declared.ttl_ms
        body = Body(
            id=options.job_id or new_id(now),
            queue=queue,
            task=check_task(task_name),
            created_at=now,
            args=Raw(encoded_args),
            kwargs=Raw(encoded_kwargs),
            priority=options.priority or declared.priority,
            expires_at=None if ttl is None else now + ttl,
            retries=options.retries,
            backoff=ABSENT if options.backoff is None else Raw(encode(options.backoff.to_json())),
            timeout=options.timeout_ms,
            meta=Raw(_encode_meta(options.meta)) if options.meta else ABSENT,
            traceparent=None if self.tracing is None else self.tracing.current(),
        )
        payload = encode_body(body)
        if len(payload) > self.settings.payload_limit:
            raise PayloadTooLarge(size=len(payload), limit=self.settings.payload_limit, task=task_name)
        return NewJob(
            id=body.id,
            queue=queue,
            task=task_name,
            payload=payload,
            priority=body.priority,
            created_at=now,
            run_at=run_at,
            expires_at=body.expires_at,
            deduplication=options.deduplication,
        )

    # --- connections ---

    @property
    def connections(self) -> Connections:
        connections = self.opened().connections
        if connections is None:
            raise ConfigurationError("the app is not open: use `async with app:`, or await app.open() first")
        return connections

    async def open(self) -> None:
        """Connect; each `open` needs a `close`. Raises StoreUnavailable, StoreRefused, BrokerUnavailable, and
        ConfigurationError where it is open in another event loop."""
        await self.opened().open(self.settings, self.clock)

    async def close(self) -> None:
        """Send what is under way and disconnect, once it was called as often as `open`."""
        await self.opened().close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def _encode_meta(meta: Mapping[str, Any]) -> bytes:
    try:
        return encode_arguments((), meta)[1]
    except ValueError as error:
        raise InvalidJob(f"meta: {error}") from None
