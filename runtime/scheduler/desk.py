"""Schedules of one app, in all of its queues, as a scheduler's users name them: by id, or by a definition."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any

from ...metadata.contract import Jobs, QueueControl, Ready
from ...metadata.job import State
from ...metadata.schedules import Schedules
from ..errors import InvalidJob, UnknownSchedule
from ..repeatable_info import read_all
from ..repeatables import ScheduleName
from ..schedule_record import ReadSchedule, manual_job, moved_to
from ..task_info import TaskInfo, TaskPreview, task_info
from ..triggers import Trigger, preview
from ..triggers.grid import from_ms

if TYPE_CHECKING:
    from ..app import Callboard
    from ..queue import Queue

ANY_QUEUE = "of this app"


class TaskDesk:
    """`app` is open in the loop of whoever awaits. No method waits for the broker, and on the store in memory none
    waits for anything, so that their answers can be had at once (see bridge.py)."""

    def __init__(self, app: Callboard, *, alias: str, zone: tzinfo) -> None:
        self._app = app
        self._alias = alias
        self._zone = zone

    async def infos(self) -> list[TaskInfo]:
        schedules = self._app.connections.store.get(Schedules)
        return [self._info(read) for name in await self._names() for read in await read_all(schedules, name)]

    async def info(self, schedule: ScheduleName) -> TaskInfo:
        """Raises UnknownSchedule, as all that name a schedule do."""
        _, read = await self._find(schedule)
        return self._info(read)

    async def pause(self, schedule: ScheduleName) -> None:
        queue, read = await self._find(schedule)
        await queue.pause_repeatable(read.record.id)

    async def resume(self, schedule: ScheduleName) -> datetime | None:
        queue, read = await self._find(schedule)
        next_run = await queue.resume_repeatable(read.record.id)
        return None if next_run is None else datetime.fromtimestamp(next_run, UTC).astimezone(self._zone)

    async def update(
        self, schedule: ScheduleName, changes: Mapping[str, Any], *, dry_run: bool
    ) -> dict[str, tuple[Any, Any]]:
        queue, read = await self._find(schedule)
        return await queue.update_repeatable(read.record.id, changes, dry_run=dry_run)

    async def reschedule(self, schedule: ScheduleName, trigger: Trigger) -> None:
        queue, read = await self._find(schedule)
        await queue.reschedule_repeatable(read.record.id, trigger=trigger)

    async def move(self, schedule: ScheduleName, *, to: str, task: str) -> None:
        """To another queue, whose jobs are of `task`. Raises InvalidJob if that has a schedule of this id which is not
        what a move left that was cut off: such a one is paused."""
        queue, read = await self._find(schedule)
        target, id = self._app.queue(to), read.record.id
        (there,) = await self._app.connections.store.get(Schedules).get(to, [id])
        if there is not None and not there.paused:
            raise InvalidJob(f"queue {to!r} has another schedule {id!r:.100}; remove one of the two")
        # Without a next run nothing fires before it is paused; paused, it may be there beside the one that it replaces.
        await target.upsert_schedules([moved_to(read, queue=to, task=task)])
        await target.pause_repeatable(id)
        await queue.remove_repeatable(id)
        if not read.record.paused:
            await target.resume_repeatable(id)

    async def remove(self, schedule: ScheduleName) -> str:
        """Its id."""
        queue, read = await self._find(schedule)
        await queue.remove_repeatable(read.record.id)
        return read.record.id

    async def remove_all(self) -> int:
        return sum([await self._app.queue(name).remove_all_repeatables() for name in await self._names()])

    async def record_run(self, schedule: ScheduleName, *, token: str, force: bool) -> tuple[str, Ready | None, bool]:
        """Record a job of it now, marked as manual. Its id; what is to be sent of it; whether no occurrence is left."""
        queue, read = await self._find(schedule)
        if read.record.paused and not force:
            raise InvalidJob(f"task {read.record.id!r} is paused; resume it, or run it with force=True")
        job = manual_job(read, token=token, now=self._app.clock.now())
        jobs = self._app.connections.store.get(Jobs)
        (answer,) = await jobs.enqueue([job], now=job.created_at, grace=self._app.settings.grace)
        ready = None
        if answer.state is State.WAITING:
            ready = Ready(queue.name, answer.id, answer.dispatch, job.priority, job.payload)
        return answer.id, ready, read.record.next_run is None and not read.record.paused

    async def preview(self, schedule: ScheduleName, count: int) -> TaskPreview:
        _, read = await self._find(schedule)
        moments = preview(read.trigger, from_ms(self._app.clock.now()), count)
        return TaskPreview(
            run_times=tuple(moment.astimezone(self._zone) for moment in moments),
            timezone=str(getattr(self._zone, "key", "UTC")),
            exhausted=len(moments) < count,
        )

    def _info(self, read: ReadSchedule) -> TaskInfo:
        return task_info(read, store=self._alias, zone=self._zone)

    async def _names(self) -> list[str]:
        return list(await self._app.connections.store.get(QueueControl).queues())

    async def _find(self, schedule: ScheduleName) -> tuple[Queue, ReadSchedule]:
        named = schedule if isinstance(schedule, str) else {k: v for k, v in schedule.items() if k != "queue"}
        within = None if isinstance(schedule, str) else schedule.get("queue")
        found = []
        for name in await self._names() if within is None else [within]:
            queue = self._app.queue(name)
            try:
                found.append((queue, await queue.find_repeatable(named)))
            except UnknownSchedule:
                continue
        if not found:
            raise UnknownSchedule(queue=within or ANY_QUEUE, wanted=f"{schedule!r:.200}")
        if len(found) > 1:
            queues = ", ".join(queue.name for queue, _ in found)
            raise InvalidJob(f"several queues have a schedule {schedule!r:.200}: {queues}; name one: {{'queue': ...}}")
        return found[0]


def plain_changes(updates: Mapping[str, Any]) -> dict[str, Any]:
    """Members of `update_task` as those of `Queue.update_repeatable`."""
    names = {"mistrigger_grace_time": "misfire_grace", "misfire_grace_time": "misfire_grace"}
    return {names.get(name, name): value for name, value in updates.items()}
