"""Schedules of one job queue, as users make, see and change them: the part of `Queue` with `repeatable` in its names.

A schedule is named by its id, or by a mapping in the way of AsyncMQ, such as {"task_id": ..., "cron": ...}: the one
schedule of the queue that has all these members.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ..metadata.contract import MAX_BATCH, QueueControl
from ..metadata.schedule import NewSchedule, Resumption, Schedule
from ..metadata.schedules import Resume, Schedules, Upsert, Upserted
from .duration import Duration
from .errors import InvalidJob, UnknownSchedule
from .local_schedules import LocalQueue
from .options import CallOptions
from .repeatable_info import RepeatableInfo, fits, info_of, read_all
from .schedule_change import changed, difference, make_trigger, members, written
from .schedule_record import (
    ReadSchedule,
    ScheduleUnreadable,
    check_schedule_id,
    continued,
    encode_definition,
    first_state,
    manual_job,
    read_new,
    read_schedule,
    resumed_state,
    same_trigger,
    succeeding,
    template,
)
from .task_info import TaskInfo, selected, task_info
from .triggers import Policy, Trigger, encode_policy, encode_trigger, preview
from .triggers.grid import from_ms, to_ms
from .wire import Command

ScheduleName = str | Mapping[str, Any]

SCHEDULER = "repeatable-scheduler"
MAX_TRIES = 10  # of a change that others got ahead of


class RepeatableQueue(LocalQueue):
    """The scheduling part of `Queue`. Changes take effect at once: they wake the schedulers."""

    async def upsert_repeatable(
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
        policy: Policy | None = None,
    ) -> float | None:
        """Make the schedule `id` (default: the task's name) or change it; its next run in Unix seconds, None where no
        occurrence is left.

        The next run moves only if the trigger is another one; a paused schedule stays paused. `ttl` counts from each
        occurrence's enqueue. Raises InvalidJob, TriggerInvalid, CapabilityMissing.
        """
        options = CallOptions.parse(
            retries=retries, ttl=ttl, timeout=timeout, priority=priority, backoff=backoff, meta=meta
        )
        made = make_trigger(
            every=every, cron=cron, trigger=trigger, timezone=timezone, start=start, end=end, jitter=jitter
        )
        new = self.new_schedule(
            task_id, made, id=id, args=args, kwargs=kwargs or {}, options=options, policy=policy or Policy()
        )
        (answer,) = await self.upsert_schedules([new])
        return None if answer.next_run is None else answer.next_run / 1000

    def new_schedule(
        self,
        task_id: str,
        trigger: Trigger,
        *,
        id: str | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: CallOptions,
        policy: Policy,
        name: str | None = None,
        since: datetime | None = None,
    ) -> NewSchedule:
        """Encode a schedule that begins now, or whose first occurrence may be as early as `since`; `name` is for
        people. Raises InvalidJob, TriggerInvalid."""
        job = self.app.new_job(task_id, args, kwargs, options, queue=self.name)
        schedule_id = check_schedule_id(task_id if id is None else id)
        earliest = None if since is None else to_ms(since)
        state, next_run = first_state(trigger, id=schedule_id, now=job.created_at, since=earliest)
        return NewSchedule(
            id=schedule_id,
            queue=self.name,
            trigger=encode_trigger(trigger),
            definition=encode_definition(
                template(job),
                ttl=None if job.expires_at is None else job.expires_at - job.created_at,
                policy=encode_policy(policy),
                name=name,
            ),
            state=state,
            next_run=next_run,
        )

    async def upsert_schedules(self, new: Sequence[NewSchedule]) -> list[Upserted]:
        """Make or change schedules of this queue, and wake the schedulers."""
        await self.app.connections.store.get(QueueControl).register([self.name])
        answers: list[Upserted] = []
        for start in range(0, len(new), MAX_BATCH):
            some = new[start : start + MAX_BATCH]
            known = await self._schedules.get(self.name, [one.id for one in some])
            carried = [self._carried(one, record) for one, record in zip(some, known, strict=True)]
            answers += await self._schedules.upsert(carried, now=self.app.clock.now())
        self._wake()
        return answers

    async def list_repeatables(self) -> list[RepeatableInfo]:
        """All schedules of the queue, by id."""
        return [info_of(read) for read in await read_all(self._schedules, self.name)]

    async def count_repeatables(self) -> int:
        return (await self._schedules.count([self.name]))[self.name]

    async def get_repeatable(self, schedule: ScheduleName) -> RepeatableInfo:
        """Raises UnknownSchedule."""
        return info_of(await self.find_repeatable(schedule))

    async def get_task_info(self, schedule: ScheduleName) -> TaskInfo | None:
        """A snapshot of a schedule, None if there is none."""
        try:
            return task_info(await self.find_repeatable(schedule), store=self.app.connections.store.scheme)
        except UnknownSchedule:
            return None

    async def get_task_infos(
        self,
        *,
        schedule_state: str | None = None,
        executor: str | None = None,
        trigger: str | None = None,
        q: str | None = None,
        sort_by: str = "next_run_time",
        descending: bool = False,
    ) -> list[TaskInfo]:
        """Snapshots of the queue's schedules, filtered and sorted as `task_info.selected` says. Raises InvalidJob."""
        store = self.app.connections.store.scheme
        infos = [task_info(read, store=store) for read in await read_all(self._schedules, self.name)]
        return selected(
            infos, schedule_state=schedule_state, executor=executor, trigger=trigger, q=q, sort_by=sort_by,
            descending=descending,
        )  # fmt: skip

    async def pause_repeatable(self, schedule: ScheduleName) -> None:
        """No occurrence makes a job from now on; what is enqueued already runs. Raises UnknownSchedule."""
        id = await self._id_of(schedule)
        (found,) = await self._schedules.pause(self.name, [id], now=self.app.clock.now())
        if not found:
            raise UnknownSchedule(queue=self.name, wanted=repr(id))
        self._wake()

    async def resume_repeatable(self, schedule: ScheduleName) -> float | None:
        """Go on from the next occurrence after now; its time in Unix seconds. Those of the pause are not made up for,
        but for the only moment of an `At`. Raises UnknownSchedule."""
        for _ in range(MAX_TRIES):
            read = await self.find_repeatable(schedule)
            now = self.app.clock.now()
            state, next_run = resumed_state(read, now=now)
            resumption = Resumption(id=read.record.id, revision=read.record.revision, next_run=next_run, state=state)
            (answer,) = await self._schedules.resume(self.name, [resumption], now=now)
            if answer is Resume.RUNNING:
                next_run = read.record.next_run
            if answer in (Resume.RESUMED, Resume.RUNNING):
                self._wake()
                return None if next_run is None else next_run / 1000
        raise InvalidJob(f"schedule {schedule!r:.200} is being changed all the time; try again")

    async def update_repeatable(
        self, schedule: ScheduleName, changes: Mapping[str, Any], *, dry_run: bool = False
    ) -> dict[str, tuple[Any, Any]]:
        """Change members of `upsert_repeatable`, but for `id`, and leave the others as they are; what changes, as
        {member: (before, after)}. With `dry_run` nothing else is done.

        Made against what was read: a change that somebody else makes meanwhile is neither lost nor overwritten unseen.
        Raises UnknownSchedule, InvalidJob, TriggerInvalid."""
        for _ in range(MAX_TRIES):
            read = await self.find_repeatable(schedule)
            new = changed(self.app, read, changes)
            differing = difference(read, new)
            if dry_run or not differing:
                return differing
            (answer,) = await self.upsert_schedules([new])
            if answer.upsert is Upsert.GONE:
                raise UnknownSchedule(queue=self.name, wanted=repr(new.id))
            if answer.upsert is not Upsert.CONFLICT:
                return differing
        raise InvalidJob(f"schedule {schedule!r:.200} is being changed all the time; try again")

    async def reschedule_repeatable(
        self,
        schedule: ScheduleName,
        *,
        every: Duration | None = None,
        cron: str | None = None,
        trigger: Trigger | None = None,
        timezone: str = "UTC",
        start: datetime | None = None,
        end: datetime | None = None,
        jitter: Duration = 0,
    ) -> float | None:
        """Give a schedule another trigger as a whole, and leave the rest as it is; its next run in Unix seconds. Raises
        UnknownSchedule, InvalidJob, TriggerInvalid."""
        made = make_trigger(
            every=every, cron=cron, trigger=trigger, timezone=timezone, start=start, end=end, jitter=jitter
        )
        id = await self._id_of(schedule)
        await self.update_repeatable(id, {"trigger": made})
        return (await self.get_repeatable(id)).next_run

    async def remove_repeatable(self, schedule: ScheduleName) -> bool:
        """Forget a schedule; its jobs stay, so that one made again under its id makes none of an occurrence that has
        one already. False: there is none."""
        try:
            id = await self._id_of(schedule)
        except UnknownSchedule:
            return False
        (removed,) = await self._schedules.remove(self.name, [id])
        self._wake()
        return removed

    async def remove_all_repeatables(self) -> int:
        """Forget all schedules of the queue; how many there were."""
        removed = 0
        while page := await self._schedules.page(self.name, offset=0, limit=MAX_BATCH):
            removed += sum(await self._schedules.remove(self.name, [record.id for record in page]))
        if removed:
            self._wake()
        return removed

    async def run_repeatable(self, schedule: ScheduleName) -> str:
        """Make a job of it now, marked as manual in its id and in `meta`; the id. The schedule, paused or not, is left
        as it is, and the job does not count for `max_instances`. Raises UnknownSchedule."""
        read = await self.find_repeatable(schedule)
        job = manual_job(read, token=secrets.token_hex(8), now=self.app.clock.now())
        (answer,) = await self.app.connections.producer.enqueue([job])
        return answer.id

    async def preview_repeatable(self, schedule: ScheduleName, count: int = 10) -> list[datetime]:
        """Its next occurrences, at most 1,000, in UTC, without the jitter and whether it is paused or not."""
        read = await self.find_repeatable(schedule)
        return preview(read.trigger, from_ms(self.app.clock.now()), count)

    # --- what they stand on ---

    @property
    def _schedules(self) -> Schedules:
        return self.app.connections.store.get(Schedules)

    def _wake(self) -> None:
        """Not waited for: while the broker is away, a change is found at the schedulers' next look."""
        command = Command(command="wake", queue=self.name)
        self.app.connections.dispatcher.command_soon(f"{SCHEDULER}.{self.name}", command)

    def _carried(self, new: NewSchedule, record: Schedule | None) -> NewSchedule:
        """`new`, with what is to be kept of the schedule whose place it takes; the store decides whether it does."""
        if record is None or record.trigger == new.trigger:
            return new
        try:
            read, ours = read_schedule(record), read_new(new)
        except ScheduleUnreadable:
            return new
        if same_trigger(record, ours.given):
            return continued(new, read, now=self.app.clock.now())
        return succeeding(new, read.state, now=self.app.clock.now())

    async def find_repeatable(self, schedule: ScheduleName) -> ReadSchedule:
        """As it was read from the store, for who works with triggers. Raises UnknownSchedule, InvalidJob."""
        if isinstance(schedule, str):
            (record,) = await self._schedules.get(self.name, [schedule])
            if record is None:
                raise UnknownSchedule(queue=self.name, wanted=repr(schedule))
            return read_schedule(record)
        if not isinstance(schedule, Mapping):
            raise TypeError(f"a schedule is named by its id or by a mapping, not {schedule!r:.100}")
        if schedule.get("id") is not None:
            return await self.find_repeatable(str(schedule["id"]))
        wanted = written(schedule)
        if "task_id" not in wanted:
            raise InvalidJob(f"a schedule is named by its id, or by its task_id and more, not by {wanted!r:.200}")
        found = [read for read in await read_all(self._schedules, self.name) if fits(written(members(read)), wanted)]
        if len(found) > 1:
            ids = ", ".join(read.record.id for read in found[:5])
            raise InvalidJob(
                f"{wanted!r:.200} fits several schedules of queue {self.name!r}: {ids}; name one by its id"
            )
        if not found:
            raise UnknownSchedule(queue=self.name, wanted=f"that fits {wanted!r:.200}")
        return found[0]

    async def _id_of(self, schedule: ScheduleName) -> str:
        return schedule if isinstance(schedule, str) else (await self.find_repeatable(schedule)).record.id
