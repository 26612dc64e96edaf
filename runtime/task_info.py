"""Schedules as snapshots for dashboards, commands and checks: found by filters, put in an order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from .errors import InvalidJob
from .schedule_record import ReadSchedule
from .triggers.aliases import alias_of, description_of
from .triggers.grid import from_ms


class TaskScheduleState(StrEnum):
    PENDING = "pending"  # added to a scheduler that was not started yet
    PAUSED = "paused"
    SCHEDULED = "scheduled"
    FINISHED = "finished"  # no occurrence is left


class TaskInfo(Struct, frozen=True, kw_only=True):
    """A schedule at one moment. `executor` is its queue: whoever works that queue runs it. `totals`: how many
    occurrences met each fate; `last_occurrence`: the newest that is told of."""

    id: str
    name: str
    callable_name: str
    callable_reference: str
    trigger_alias: str
    trigger_name: str
    trigger_description: str
    executor: str
    store_alias: str
    schedule_state: TaskScheduleState
    next_run_time: datetime | None
    coalesce: bool
    max_instances: int | None
    mistrigger_grace_time: float | None
    args: list[Any]
    kwargs: dict[str, Any]
    totals: dict[str, int] = {}
    last_occurrence: datetime | None = None

    @property
    def pending(self) -> bool:
        return self.schedule_state is TaskScheduleState.PENDING

    @property
    def paused(self) -> bool:
        return self.schedule_state is TaskScheduleState.PAUSED

    @property
    def submitted(self) -> bool:
        return not self.pending

    def to_json(self) -> dict[str, Any]:
        return dict(msgspec.to_builtins(self))


class TaskPreview(Struct, frozen=True, kw_only=True):
    """`exhausted`: no occurrence comes after these."""

    run_times: tuple[datetime, ...]
    timezone: str
    exhausted: bool


def task_info(read: ReadSchedule, *, store: str, zone: tzinfo = UTC) -> TaskInfo:
    record, definition, policy = read.record, read.definition, read.policy
    if record.paused:
        state = TaskScheduleState.PAUSED
    else:
        state = TaskScheduleState.FINISHED if record.next_run is None else TaskScheduleState.SCHEDULED
    last = max((happening.occurrence for happening in read.state.history), default=None)
    comes = record.next_run is not None and not record.paused
    return TaskInfo(
        id=record.id,
        name=definition.name or definition.task,
        callable_name=definition.task.rpartition(".")[2],
        callable_reference=definition.task,
        trigger_alias=alias_of(read.given),
        trigger_name=type(read.given).__name__,
        trigger_description=description_of(read.given),
        executor=record.queue,
        store_alias=store,
        schedule_state=state,
        next_run_time=from_ms(record.next_run).astimezone(zone) if comes and record.next_run is not None else None,
        coalesce=policy.coalesce,
        max_instances=policy.max_instances,
        mistrigger_grace_time=None if policy.misfire_grace_ms is None else policy.misfire_grace_ms / 1000,
        args=msgspec.json.decode(definition.args),
        kwargs=msgspec.json.decode(definition.kwargs),
        totals=dict(read.state.totals),
        last_occurrence=None if last is None else from_ms(last).astimezone(zone),
    )


_FAR = datetime.max.replace(tzinfo=UTC)

SORT_KEYS: dict[str, Callable[[TaskInfo], Any]] = {
    "id": lambda info: info.id,
    "name": lambda info: (info.name.casefold(), info.id),
    "next_run_time": lambda info: (info.next_run_time or _FAR, info.id),
    "schedule_state": lambda info: (info.schedule_state.value, info.id),
    "executor": lambda info: (info.executor, info.id),
    "store": lambda info: (info.store_alias, info.id),
    "trigger": lambda info: (info.trigger_alias, info.trigger_description, info.id),
}


def selected(
    infos: Iterable[TaskInfo],
    *,
    schedule_state: str | None = None,
    executor: str | None = None,
    trigger: str | None = None,
    store: str | None = None,
    q: str | None = None,
    sort_by: str = "next_run_time",
    descending: bool = False,
) -> list[TaskInfo]:
    """Those that fit all that is given, in order. `trigger`: an alias, such as interval, or a class's name. `q`: text
    that is looked for, in any case, in ids, names, tasks, triggers, executors, stores and states.

    Raises InvalidJob, a ValueError, for a state or a sort key that there is not."""
    if schedule_state is not None and schedule_state not in set(TaskScheduleState):
        raise InvalidJob(f"schedule_state={schedule_state!r:.100}: is not one of {', '.join(TaskScheduleState)}")
    if sort_by not in SORT_KEYS:
        raise InvalidJob(f"sort_by={sort_by!r:.100}: is not one of {', '.join(SORT_KEYS)}")
    kind = None if trigger is None else trigger.casefold()
    found = [
        info
        for info in infos
        if (schedule_state is None or info.schedule_state == schedule_state)
        and (executor is None or info.executor == executor)
        and (store is None or info.store_alias == store)
        and (kind is None or kind in (info.trigger_alias, info.trigger_name.casefold()))
        and (q is None or q.strip().casefold() in _text(info))
    ]
    return sorted(found, key=SORT_KEYS[sort_by], reverse=descending)


def _text(info: TaskInfo) -> str:
    parts = (
        *(info.id, info.name, info.callable_reference, info.executor, info.store_alias, info.schedule_state.value),
        *(info.trigger_alias, info.trigger_name, info.trigger_description),
    )
    return "\n".join(parts).casefold()
