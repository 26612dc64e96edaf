"""A schedule as people and programs see it: detached from the store, in the words of `Queue.upsert_repeatable`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from ..metadata.contract import MAX_BATCH
from ..metadata.schedules import Schedules
from .schedule_record import ReadSchedule, read_schedule
from .triggers import Cron, Every
from .triggers.codec import trigger_to_json


class RepeatableInfo(Struct, frozen=True, kw_only=True):
    """A schedule, detached from the store. `next_run` in Unix seconds, None: no occurrence is left. `job_def` takes its
    place wherever a schedule is named. `history`: {"at", "fate", "occurrence", "count", "exact"}, the newest last.
    `engine`: the stamp of what has computed the next run."""

    id: str
    queue: str
    task_id: str
    job_def: dict[str, Any]
    next_run: float | None
    paused: bool
    policy: dict[str, Any]
    totals: dict[str, int]
    history: list[dict[str, Any]]
    revision: int
    engine: str
    created_at: float
    updated_at: float

    def to_json(self) -> dict[str, Any]:
        return dict(msgspec.to_builtins(self))


async def read_all(schedules: Schedules, queue: str) -> list[ReadSchedule]:
    """All schedules of a queue, by id. Raises ScheduleUnreadable."""
    reads: list[ReadSchedule] = []
    while page := await schedules.page(queue, offset=len(reads), limit=MAX_BATCH):
        reads += [read_schedule(record) for record in page]
    return reads


def info_of(read: ReadSchedule) -> RepeatableInfo:
    record, state = read.record, read.state
    return RepeatableInfo(
        id=record.id,
        queue=record.queue,
        task_id=read.definition.task,
        job_def=job_def(read),
        next_run=None if record.next_run is None else record.next_run / 1000,
        paused=record.paused,
        policy={
            name: value for name, value in msgspec.json.decode(read.definition.policy).items() if name != "version"
        },
        totals=dict(state.totals),
        history=[
            {
                "at": happening.at / 1000,
                "fate": happening.fate.value,
                "occurrence": happening.occurrence / 1000,
                "count": happening.count,
                "exact": happening.exact,
            }
            for happening in state.history
        ],
        revision=record.revision,
        engine=state.engine,
        created_at=record.created_at / 1000,
        updated_at=record.updated_at / 1000,
    )


def job_def(read: ReadSchedule) -> dict[str, Any]:
    """The schedule as a mapping with the members of `upsert_repeatable`; `trigger` as JSON where it is neither `every`
    nor `cron` alone."""
    definition = read.definition
    timing: dict[str, Any]
    match read.given:
        case Every():
            timing = {"every": read.given.interval_ms / 1000}
        case Cron() if read.given.expression is not None:
            timing = {"cron": read.given.expression, "timezone": read.given.zone}
        case _:
            timing = {"trigger": trigger_to_json(read.given)}
    named = {
        "retries": definition.retries,
        "ttl": None if definition.ttl is None else definition.ttl / 1000,
        "timeout": None if definition.timeout is None else definition.timeout / 1000,
        "backoff": msgspec.json.decode(definition.backoff) if definition.backoff else None,
        "meta": msgspec.json.decode(definition.meta) if definition.meta else None,
    }
    return {
        "id": read.record.id,
        "task_id": definition.task,
        **timing,
        "args": msgspec.json.decode(definition.args),
        "kwargs": msgspec.json.decode(definition.kwargs),
        "priority": definition.priority,
        **{name: value for name, value in named.items() if value is not None},
    }


def fits(given: Mapping[str, Any], wanted: Mapping[str, object]) -> bool:
    return all(name in given and given[name] == value for name, value in wanted.items())
