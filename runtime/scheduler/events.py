"""What a scheduler tells its listeners, under the names and numbers of Asyncz and APScheduler.

    scheduler.add_listener(tell, TASK_EXECUTED | TASK_ERROR)

SCHEDULER_* and TASK_ADDED, TASK_REMOVED, TASK_MODIFIED, ALL_TASKS_REMOVED are what was done through this scheduler.
TASK_SUBMITTED, TASK_MAX_INSTANCES, TASK_MISSED, TASK_EXECUTED and TASK_ERROR are what became of tasks in its stores,
whoever scheduled and ran them: they come from `callboard.events`, at most once. Executors and stores are named before
the start and stay, so nothing is told of them; their codes are here for masks that name them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import IntFlag
from typing import Any

import msgspec
from msgspec import Struct

from ..errors import JobFailed
from ..schedule_record import MANUAL, moment_of
from ..wire import Event


class EventCode(IntFlag):
    SCHEDULER_START = 2**0
    SCHEDULER_SHUTDOWN = 2**1
    SCHEDULER_PAUSED = 2**2
    SCHEDULER_RESUMED = 2**3
    EXECUTOR_ADDED = 2**4
    EXECUTOR_REMOVED = 2**5
    STORE_ADDED = 2**6
    STORE_REMOVED = 2**7
    ALL_TASKS_REMOVED = 2**8
    TASK_ADDED = 2**9
    TASK_REMOVED = 2**10
    TASK_MODIFIED = 2**11
    TASK_EXECUTED = 2**12
    TASK_ERROR = 2**13
    TASK_MISSED = 2**14
    TASK_SUBMITTED = 2**15
    TASK_MAX_INSTANCES = 2**16


SCHEDULER_START = EventCode.SCHEDULER_START
SCHEDULER_SHUTDOWN = EventCode.SCHEDULER_SHUTDOWN
SCHEDULER_PAUSED = EventCode.SCHEDULER_PAUSED
SCHEDULER_RESUMED = EventCode.SCHEDULER_RESUMED
EXECUTOR_ADDED = EventCode.EXECUTOR_ADDED
EXECUTOR_REMOVED = EventCode.EXECUTOR_REMOVED
STORE_ADDED = EventCode.STORE_ADDED
STORE_REMOVED = EventCode.STORE_REMOVED
ALL_TASKS_REMOVED = EventCode.ALL_TASKS_REMOVED
TASK_ADDED = EventCode.TASK_ADDED
TASK_REMOVED = EventCode.TASK_REMOVED
TASK_MODIFIED = EventCode.TASK_MODIFIED
TASK_EXECUTED = EventCode.TASK_EXECUTED
TASK_ERROR = EventCode.TASK_ERROR
TASK_MISSED = EventCode.TASK_MISSED
TASK_SUBMITTED = EventCode.TASK_SUBMITTED
TASK_MAX_INSTANCES = EventCode.TASK_MAX_INSTANCES
ALL_EVENTS = EventCode(2**17 - 1)

# An event of callboard.events -> what it is called here.
HEARD = {
    "occurred": TASK_SUBMITTED,
    "skipped": TASK_MAX_INSTANCES,
    "missed": TASK_MISSED,
    "completed": TASK_EXECUTED,
    "failed": TASK_ERROR,
}


class SchedulerEvent(Struct, frozen=True, kw_only=True):
    """`alias`: the store that ALL_TASKS_REMOVED is about; None: all of them."""

    code: EventCode
    alias: str | None = None


class TaskEvent(SchedulerEvent, frozen=True, kw_only=True):
    task_id: str
    store: str


class TaskSubmissionEvent(TaskEvent, frozen=True, kw_only=True):
    """TASK_SUBMITTED, TASK_MAX_INSTANCES. `source`: scheduled, or manual, by `run_task`."""

    scheduled_run_times: tuple[datetime, ...]
    source: str = "scheduled"


class TaskExecutionEvent(TaskEvent, frozen=True, kw_only=True):
    """TASK_EXECUTED, TASK_ERROR, TASK_MISSED. `return_value`: of up to 1 KiB as JSON, else None; `job_id` tells where
    to read it. `exception`: JobFailed, with the error's text."""

    job_id: str
    scheduled_run_time: datetime | None
    return_value: Any = None
    exception: JobFailed | None = None


def told_of(event: Event, *, store: str) -> TaskEvent | None:
    """None: of no schedule's job, or of nothing that has a code."""
    code = HEARD.get(event.event)
    task_id, at, token = event.job.rpartition("@")
    manual = token.startswith(MANUAL)
    moment = None if manual else moment_of(token)
    if code is None or not at or (moment is None and not manual):
        return None
    if code in TASK_SUBMITTED | TASK_MAX_INSTANCES:
        times = () if moment is None else (moment,)
        return TaskSubmissionEvent(code=code, task_id=task_id, store=store, scheduled_run_times=times)
    return TaskExecutionEvent(
        code=code,
        task_id=task_id,
        store=store,
        job_id=event.job,
        scheduled_run_time=moment,
        return_value=msgspec.json.decode(event.result) if event.result else None,
        exception=_failure(event) if code is TASK_ERROR else None,
    )


def _failure(event: Event) -> JobFailed:
    kind, _, message = (event.error or "").partition(": ")
    return JobFailed(event.job, error_type=kind, message=message)


def submitted_by_hand(task_id: str, *, store: str, at: datetime | None = None) -> TaskSubmissionEvent:
    moment = at or datetime.now(UTC)
    return TaskSubmissionEvent(
        code=TASK_SUBMITTED, task_id=task_id, store=store, scheduled_run_times=(moment,), source="manual"
    )
