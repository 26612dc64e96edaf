"""One job queue: producing, controlling, inspecting and cleaning it.

The methods and their names are those that users of AsyncMQ and BullMQ know. Durations are seconds, ranges inclusive,
newest first unless `asc`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

import msgspec

from ..metadata.contract import Cancel, Deduplicating, Delay, Delays, Jobs, QueueControl, Ready, Removal
from ..metadata.job import Job, State
from ..metadata.schedules import Schedules
from .duration import Duration, seconds_to_ms
from .errors import ConfigurationError, InvalidJob
from .handle import JobHandle, result_of
from .inspected_queue import PAGE, InspectedQueue
from .job_id import check_queue
from .job_view import DelayedInfo, JobInfo, delayed_view, view
from .options import CallOptions
from .repeatables import RepeatableQueue
from .wire import Command, Event
from .working_queue import CONCURRENCY, WorkingQueue

if TYPE_CHECKING:
    from types import TracebackType

    from .app import Callboard

_ITEM_MEMBERS = frozenset(
    {
        "task_id",
        "args",
        "kwargs",
        "retries",
        "ttl",
        "timeout",
        "backoff",
        "priority",
        "delay",
        "run_at",
        "job_id",
        "jobId",
        "deduplication",
        "debounce",
        "depends_on",
        "meta",
    }
)
_END = 2**53  # later than any moment


class Queue(InspectedQueue, RepeatableQueue, WorkingQueue):
    """`app.queue("emails")`, or `Queue("emails")` with an app of its own from the settings in the environment.

    `concurrency`: how many jobs `run` runs at a time. `scan_interval`: the setting of that name, of its own app.
    """

    def __init__(
        self,
        name: str,
        app: Callboard | None = None,
        *,
        concurrency: int = CONCURRENCY,
        scan_interval: float | None = None,
    ) -> None:
        if app is None:
            from .app import Callboard  # app.py makes queues, this makes an app: one of the two has to wait

            app = Callboard(scan_interval=scan_interval)
        elif scan_interval is not None:
            raise ConfigurationError(f"scan_interval={scan_interval!r} is a setting of the app: give it to Callboard()")
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise ConfigurationError(f"concurrency={concurrency!r:.100}: must be a whole number from 1 on")
        self.name = check_queue(name)
        self.app = app
        self.concurrency = concurrency

    async def __aenter__(self) -> Self:
        await self.app.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.app.close()

    # --- adding ---

    async def add(
        self,
        task_id: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        retries: int | None = None,
        ttl: Duration | None = None,
        timeout: Duration | None = None,
        backoff: object = None,
        priority: int | None = None,
        delay: Duration | None = None,
        run_at: datetime | float | None = None,
        job_id: str | None = None,
        deduplication: Mapping[str, Any] | None = None,
        debounce: Mapping[str, Any] | None = None,
        depends_on: object = None,
        meta: Mapping[str, Any] | None = None,
        confirm: bool = False,
    ) -> str:
        """Add a job; the id of the job that stands for it, which for a duplicate is the older one's.

        The task need not be registered here. `debounce` is the old name of `deduplication`. Raises as `task.enqueue`.
        """
        options = CallOptions.parse(
            retries=retries,
            ttl=ttl,
            timeout=timeout,
            backoff=backoff,
            priority=priority,
            delay=delay,
            run_at=run_at,
            job_id=job_id,
            deduplication=debounce if deduplication is None else deduplication,
            depends_on=depends_on,
            meta=meta,
            confirm=confirm,
        )
        job = self.app.new_job(task_id, args, {} if kwargs is None else kwargs, options, queue=self.name)
        (answer,) = await self.app.connections.producer.enqueue([job], confirm=confirm, fresh=job_id is None)
        return answer.id

    async def add_bulk(self, jobs: Sequence[Mapping[str, Any]], *, confirm: bool = False) -> list[str]:
        """Add many: mappings with `task_id` and the parameters of `add` (`jobId` is `job_id` too); the ids, in order.

        All are checked before any is written: a bad one raises, with its position, and nothing was added.
        """
        new = []
        for position, item in enumerate(jobs):
            try:
                new.append(self._item(item))
            except (ValueError, TypeError) as error:
                error.args = (f"jobs[{position}]: {error}",)  # not a new one: its class and members tell more
                raise
        return [answer.id for answer in await self.app.connections.producer.enqueue(new, confirm=confirm)]

    async def enqueue(self, payload: Mapping[str, Any]) -> str:
        """`add` with a mapping as in `add_bulk`."""
        (job_id,) = await self.add_bulk([payload])
        return job_id

    send = enqueue

    async def enqueue_delayed(self, payload: Mapping[str, Any], run_at: datetime | float) -> str:
        """`enqueue` at a moment: an aware datetime or Unix seconds."""
        return await self.enqueue({**payload, "run_at": run_at})

    async def delay(self, payload: Mapping[str, Any], run_at: datetime | float | None = None) -> str:
        return await (self.enqueue(payload) if run_at is None else self.enqueue_delayed(payload, run_at))

    def _item(self, item: Mapping[str, Any]) -> Any:
        if not isinstance(item, Mapping):
            raise TypeError(f"must be a mapping with task_id, not {item!r:.100}")
        unknown = set(item) - _ITEM_MEMBERS
        if unknown:
            first, known = sorted(map(str, unknown))[0], ", ".join(sorted(_ITEM_MEMBERS))
            raise InvalidJob(f"unknown member {first!r}; known: {known}")
        if "task_id" not in item:
            raise InvalidJob(f"task_id is missing in {dict(item)!r:.100}")
        given = {name: value for name, value in item.items() if name not in ("task_id", "args", "kwargs")}
        for other_name, name in (("jobId", "job_id"), ("debounce", "deduplication")):
            other = given.pop(other_name, None)
            if other is not None and given.setdefault(name, other) != other:
                both = f"{given[name]!r:.100}, {other!r:.100}"
                raise InvalidJob(f"{name} and {other_name} are two names of one thing: {both}")
        args, kwargs = item.get("args"), item.get("kwargs")
        return self.app.new_job(
            item["task_id"],
            () if args is None else args,
            {} if kwargs is None else kwargs,
            CallOptions.parse(**given),
            queue=self.name,
        )

    # --- control ---

    async def pause(self) -> None:
        """No job of this queue starts from now on; running ones run on."""
        await self._control.pause(self.name)
        await self._tell("worker", "pause")

    async def resume(self) -> None:
        await self._control.resume(self.name)
        await self._tell("worker", "resume")
        await self._tell("stalled-recovery", "resume")

    async def is_paused(self) -> bool:
        return bool(await self._control.paused([self.name]))

    async def drain(self, include_delayed: bool = False) -> list[str]:
        """Remove jobs that wait for a worker, and the delayed ones if asked; their ids. Running jobs are untouched."""
        removed = await self._clear(State.WAITING)
        return removed + (await self._clear(State.DELAYED) if include_delayed else [])

    async def clean_jobs(self, grace: Duration = 0, limit: int = 0, state: str = "completed") -> list[str]:
        """Remove up to `limit` (0: all) jobs that entered `state` more than `grace` seconds ago; their ids.

        Delayed jobs go by the time they are due: with a `grace`, those that should have started that long ago."""
        milliseconds = seconds_to_ms(grace, "grace")
        before = self.app.clock.now() - milliseconds + 1 if milliseconds else None
        return await self._clear(self._state(state), before=before, limit=limit)

    async def clean(self, state: str, older_than: float | None = None) -> list[str]:
        """Remove all jobs that entered `state` (delayed ones: that are due) before `older_than`, in Unix seconds; None:
        all of them."""
        before = None if older_than is None else round(older_than * 1000)
        return await self._clear(self._state(state), before=before)

    async def obliterate(self, force: bool = False) -> int:
        """Remove everything about the queue, its schedules and its broker queue included; how many jobs that were.

        Raises RuntimeError while jobs run, unless `force`: those are then cancelled, and their records stay if their
        workers take longer than this call. While workers serve the queue it stays, empty, with their broker queue."""
        counts = await self.queue_counts()
        if counts.active and not force:
            raise RuntimeError(f"queue {self.name!r} has {counts.active} running jobs; force=True cancels them")
        was_paused = await self.is_paused()
        await self.pause()  # nothing starts while the jobs are being removed
        for job in await self.get_jobs(["active"]):
            await self.cancel_job(job.id)
        if Schedules in self.app.connections.store.capabilities:
            await self.remove_all_repeatables()
        removed = 0
        for state in State:
            if state is not State.ACTIVE:
                removed += len(await self._clear(state, before=_END))
        if await self._control.forget(self.name):
            await self.app.connections.broker.delete(self.app.connections.names.job_queue(self.name))
        elif not was_paused:
            await self.resume()
        return removed

    # --- one job ---

    def handle(self, job_id: str) -> JobHandle:
        return JobHandle(self.app, queue=self.name, id=job_id)

    async def record(self, job_id: str) -> Job | None:
        (job,) = await self._inspection.get(self.name, [job_id])
        return job

    async def get_job(self, job_id: str) -> JobInfo | None:
        job = await self.record(job_id)
        return None if job is None else view(job)

    async def get_job_state(self, job_id: str) -> State | None:
        job = await self.record(job_id)
        return None if job is None else job.state

    async def get_job_result(self, job_id: str) -> Any:
        """What a completed job returned. Raises JobFailed, JobCancelled, JobExpired as it ended; None while it is not
        final or where it is unknown."""
        job = await self.record(job_id)
        return result_of(job) if job is not None and job.state.final else None

    async def get_job_progress(self, job_id: str) -> Any:
        value = await self._inspection.progress(self.name, job_id)
        return None if value is None else msgspec.json.decode(value)

    async def cancel_job(self, job_id: str) -> Cancel:
        """`cancelled` at once if it waits, `requested` if it runs: then its run is interrupted; `final`, `unknown`."""
        keep = self.app.retention(self.name)[1].keep()
        now = self.app.clock.now()
        (answer,) = await self._jobs.cancel(self.name, [job_id], now=now, keep=keep)
        dispatcher = self.app.connections.dispatcher
        if answer.owner is not None:
            command = Command(command="cancel", queue=self.name, jobs=(job_id,))
            await dispatcher.command(f"instance.{answer.owner}", command)
        elif answer.cancel is Cancel.CANCELLED:  # of a running one its worker tells
            dispatcher.emit(Event(event="cancelled", job=job_id, queue=self.name, task="", at=now))
        return answer.cancel

    async def retry_job(self, job_id: str) -> bool:
        """Run a final job again, with all its retries; False if it is not final or unknown."""
        now = self.app.clock.now()
        (answer,) = await self._jobs.retry(self.name, [job_id], now=now, grace=self.app.settings.grace)
        if not isinstance(answer, Ready):
            return False
        await self.app.connections.dispatcher.send([answer])
        return True

    async def remove_job(self, job_id: str) -> bool:
        """Forget a job that is not running; False if there is none. Raises RuntimeError if it runs: cancel it first."""
        (answer,) = await self._jobs.remove(self.name, [job_id], now=self.app.clock.now())
        if answer is Removal.ACTIVE:
            raise RuntimeError(f"job {job_id} is running; cancel it first")
        return answer is Removal.REMOVED

    async def list_delayed(self) -> list[DelayedInfo]:
        """All delayed jobs, the next due first. Reads only."""
        return [delayed_view(job) for job in await self._all(State.DELAYED)]

    async def remove_delayed(self, job_id: str) -> bool:
        """Forget a job that is delayed. False: it is not, or its time has come."""
        (removed,) = await self._delays.remove(self.name, [job_id], now=self.app.clock.now())
        return removed

    async def reschedule_delayed(
        self, job_id: str, *, delay: Duration | None = None, run_at: datetime | float | None = None
    ) -> bool:
        """Make a delayed job due `delay` seconds from now, or at the moment `run_at`. False: it is not delayed, or its
        time has come. Raises InvalidJob unless one of the two is given."""
        wanted = CallOptions.parse(delay=delay, run_at=run_at)
        if wanted.delay_ms is not None:
            return await self._due_at(job_id, self.app.clock.now() + wanted.delay_ms)
        if wanted.run_at is None:
            raise InvalidJob(f"give delay or run_at, the new time of job {job_id!r:.100}")
        return await self._due_at(job_id, wanted.run_at)

    async def promote_job(self, job_id: str) -> bool:
        """Send a delayed job to the workers now. False: it is not delayed, or its time has come."""
        return await self._due_at(job_id, None)

    # --- deduplication ---

    async def get_deduplication_job_id(self, deduplication_id: str) -> str | None:
        """The id of the job that holds the deduplication id now."""
        holders = self.app.connections.store.get(Deduplicating)
        return await holders.holder(self.name, deduplication_id, now=self.app.clock.now())

    get_debounce_job_id = get_deduplication_job_id

    async def remove_deduplication_key(self, deduplication_id: str) -> bool:
        """Free the deduplication id without touching the job; False if it was free."""
        return await self.app.connections.store.get(Deduplicating).release(self.name, deduplication_id)

    # --- what they stand on ---

    @property
    def _jobs(self) -> Jobs:
        return self.app.connections.store.get(Jobs)

    @property
    def _control(self) -> QueueControl:
        return self.app.connections.store.get(QueueControl)

    @property
    def _delays(self) -> Delays:
        return self.app.connections.store.get(Delays)

    async def _due_at(self, job_id: str, run_at: int | None) -> bool:
        now, grace = self.app.clock.now(), self.app.settings.grace
        (answer,) = await self._delays.reschedule(self.name, [Delay(job_id, run_at)], now=now, grace=grace)
        if isinstance(answer, Ready):
            await self.app.connections.dispatcher.send([answer])
        elif answer is State.DELAYED and run_at is not None:
            self.app.connections.dispatcher.delayed_soon(self.name, run_at)
        return isinstance(answer, Ready) or answer is State.DELAYED

    async def _tell(self, kind: str, command: str) -> None:
        await self.app.connections.dispatcher.command(f"{kind}.{self.name}", Command(command=command, queue=self.name))

    async def _clear(self, state: State, *, before: int | None = None, limit: int = 0) -> list[str]:
        """`before` None: what is in that state now. What is added meanwhile stays, or this might never end."""
        if state is State.ACTIVE:
            raise InvalidJob("running jobs can't be removed; cancel them, or wait until they end")
        removed: list[str] = []
        now = self.app.clock.now()
        if before is None:
            before = _END if state is State.DELAYED else now + 1
        while not limit or len(removed) < limit:
            size = PAGE if not limit else min(PAGE, limit - len(removed))
            ids = await self._control.clear(self.name, state, before=before, limit=size, now=now)
            removed += ids
            if not ids:
                break
        return removed
