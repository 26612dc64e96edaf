"""Schedules of this process alone: nothing of them is stored, each process that has them makes jobs of its own.

For housekeeping that every worker does for itself. They run while a worker of the app runs in this process; their jobs
are ordinary ones. What is late is made up for once. What many processes must do once belongs into `upsert_repeatable`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from ..metadata.errors import MetadataError
from ..metadata.job import NewJob
from .duration import Duration
from .errors import EnqueueUncertain, InvalidJob
from .options import CallOptions
from .schedule_change import make_trigger
from .schedule_record import check_schedule_id
from .triggers import Trigger, fires_at, latest_until
from .triggers.contract import MILLISECOND
from .triggers.grid import from_ms

if TYPE_CHECKING:
    from .app import Callboard

MAX_LOCAL = 10_000
MAX_SLEEP_SECONDS = 60.0  # so that a clock that was set is noticed
RETRY_SECONDS = 1.0

log = logging.getLogger("callboard.local-schedules")


class LocalSchedule:
    """`expected`: the occurrence that is next, None before it is served and after the last one."""

    __slots__ = ("args", "expected", "id", "kwargs", "options", "queue", "task_id", "trigger")

    def __init__(
        self,
        *,
        id: str,
        queue: str,
        task_id: str,
        trigger: Trigger,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: CallOptions,
    ) -> None:
        self.id = id
        self.queue = queue
        self.task_id = task_id
        self.trigger = trigger
        self.args = args
        self.kwargs = kwargs
        self.options = options
        self.expected: datetime | None = None

    def begin(self, now: datetime) -> None:
        self.expected = self.trigger.next_after(now)

    @property
    def runs_at(self) -> datetime | None:
        return None if self.expected is None else fires_at(self.trigger, self.expected, self.id)

    def step(self, now: datetime) -> datetime | None:
        """The occurrence that is to run now, of several the latest; and on to the one after it."""
        if self.expected is None or self.runs_at is None or self.runs_at > now:
            return None
        occurrence = latest_until(self.trigger, now, self.expected) or self.expected
        if occurrence > self.expected and fires_at(self.trigger, occurrence, self.id) > now:  # as its jitter has it
            occurrence = latest_until(self.trigger, occurrence - MILLISECOND, self.expected) or self.expected
        self.expected = self.trigger.next_after(occurrence)
        return occurrence


class LocalSchedules:
    """Those of one app, by queue and id. `add` and `remove` may be called in any thread: tasks call them too."""

    def __init__(self, app: Callboard) -> None:
        self._app = app
        self._schedules: dict[tuple[str, str], LocalSchedule] = {}
        self._unsent: dict[tuple[str, str], NewJob] = {}  # of each schedule the newest
        self._servants = 0
        self._serving: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # while they are served
        self._changed = asyncio.Event()

    def add(
        self,
        queue: str,
        task_id: str,
        trigger: Trigger,
        *,
        id: str | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: CallOptions,
    ) -> str:
        """Raises InvalidJob also where the queue has another local schedule of this id, or there are 10,000."""
        self._app.new_job(task_id, args, kwargs, options, queue=queue)  # what could not be enqueued is refused now
        wanted = check_schedule_id(task_id if id is None else id)
        if (queue, wanted) in self._schedules:
            raise InvalidJob(f"queue {queue!r} has a local schedule {wanted!r} already; give this one another id=")
        if len(self._schedules) >= MAX_LOCAL:
            raise InvalidJob(f"there are {MAX_LOCAL} local schedules already; store them, with upsert_repeatable")
        now = from_ms(self._app.clock.now())
        made = LocalSchedule(
            id=wanted, queue=queue, task_id=task_id, trigger=trigger.anchored(now), args=args, kwargs=kwargs,
            options=options,
        )  # fmt: skip
        made.begin(now)
        self._schedules[queue, wanted] = made
        if (loop := self._loop) is not None:
            loop.call_soon_threadsafe(self._changed.set)
        return wanted

    def remove(self, queue: str, id: str) -> bool:
        self._unsent.pop((queue, id), None)
        return self._schedules.pop((queue, id), None) is not None

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """Make their jobs while the block runs; in nested blocks, once."""
        self._servants += 1
        if self._servants == 1:
            now = from_ms(self._app.clock.now())
            for one in self._schedules.copy().values():
                one.begin(now)
            self._changed, self._loop = asyncio.Event(), asyncio.get_running_loop()
            self._serving = asyncio.create_task(self._serve(), name="callboard:local-schedules")
        try:
            yield
        finally:
            self._servants -= 1
            if self._servants == 0 and self._serving is not None:
                serving, self._serving, self._loop = self._serving, None, None
                serving.cancel()
                with suppress(asyncio.CancelledError):
                    await serving

    async def _serve(self) -> None:
        while True:
            self._changed.clear()
            now = from_ms(self._app.clock.now())
            for key, one in self._schedules.copy().items():
                if (job := self._job(one, now)) is not None:
                    self._unsent[key] = job
            if self._unsent:
                await self._enqueue(dict(self._unsent))
            times = [at for one in self._schedules.copy().values() if (at := one.runs_at) is not None]
            now = from_ms(self._app.clock.now())
            left = min(((at - now).total_seconds() for at in times), default=MAX_SLEEP_SECONDS)
            most = RETRY_SECONDS if self._unsent else MAX_SLEEP_SECONDS
            pause = asyncio.ensure_future(self._app.clock.sleep(min(most, max(0.001, left))))
            changed = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait([pause, changed], return_when=asyncio.FIRST_COMPLETED)
            finally:
                pause.cancel()
                changed.cancel()

    def _job(self, one: LocalSchedule, now: datetime) -> NewJob | None:
        occurrence = one.step(now)
        if occurrence is None:
            return None
        origin = {"id": one.id, "occurrence": occurrence.isoformat(), "local": True}
        options = msgspec.structs.replace(one.options, meta={**(one.options.meta or {}), "schedule": origin})
        try:
            return self._app.new_job(one.task_id, one.args, one.kwargs, options, queue=one.queue)
        except InvalidJob as error:  # the task was registered after the schedule, and takes other arguments
            log.error("local schedule %s makes no job: %s", one.id, error)
            return None

    async def _enqueue(self, jobs: Mapping[tuple[str, str], NewJob]) -> None:
        """What fails is tried again, under the same ids, with the next turn."""
        try:
            await self._app.connections.producer.enqueue(list(jobs.values()))
        except (EnqueueUncertain, MetadataError) as error:
            log.warning("local schedules: %d jobs are tried again: %s", len(jobs), error)
            return
        for key, job in jobs.items():
            if self._unsent.get(key) is job:
                self._unsent.pop(key, None)


class LocalQueue:
    """The part of `Queue` about schedules of this process."""

    name: str
    app: Callboard

    def add_repeatable(
        self,
        task_id: str,
        *,
        every: Duration | None = None,
        cron: str | None = None,
        trigger: Trigger | None = None,
        id: str | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        retries: int | None = None,
        ttl: Duration | None = None,
        timeout: Duration | None = None,
        priority: int | None = None,
        backoff: object = None,
        meta: Mapping[str, Any] | None = None,
        timezone: str = "UTC",
        start: datetime | None = None,
        end: datetime | None = None,
        jitter: Duration = 0,
    ) -> str:
        """Make a schedule of this process alone, named `id` (default: the task's name); its id.

        It makes jobs while a worker of the app runs in this process, and is stored nowhere: other processes that add it
        make jobs too. `every` may be shorter than a second. Raises InvalidJob, TriggerInvalid.
        """
        options = CallOptions.parse(
            retries=retries, ttl=ttl, timeout=timeout, priority=priority, backoff=backoff, meta=meta
        )
        made = make_trigger(
            every=every, cron=cron, trigger=trigger, timezone=timezone, start=start, end=end, jitter=jitter, local=True
        )
        return self.app.local_schedules.add(
            self.name, task_id, made, id=id, args=args, kwargs=kwargs or {}, options=options
        )

    def remove_local_repeatable(self, id: str) -> bool:
        """Forget a schedule of `add_repeatable`. False: there is none."""
        return self.app.local_schedules.remove(self.name, id)
