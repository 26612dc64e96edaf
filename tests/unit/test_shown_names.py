"""Each name of an API that the schedulers' pages of AsyncMQ, Asyncz and aioq show is here, and takes what it is given
there. What these do is in the tests of paths; what is deliberately otherwise, in DESIGN.md, "What the face does".
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from callboard import Callboard, Context, Queue
from callboard.runtime import scheduler as asyncz
from callboard.runtime.scheduler import Scheduler, Task
from callboard.runtime.task_info import TaskInfo, TaskPreview

WHOLE = ["start", "stop", "shutdown", "pause", "resume", "setup", "asgi", "__aenter__", "__aexit__"]
CALLS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    # AsyncMQ
    (Queue, ("maintenance",), {"concurrency": 4, "scan_interval": 2.0}),
    (Queue.run, (0,), {}),
    (Queue.add_repeatable, (0, "maintenance.cleanup_tmp"), {"every": 300}),
    (Queue.add_repeatable, (0, "t"), {"cron": "* * * * *", "args": [], "kwargs": {}, "retries": 1, "priority": 1}),
    (Queue.upsert_repeatable, (0, "t"), {"cron": "0 7 * * 1", "kwargs": {"region": "eu"}, "retries": 3}),
    (Queue.upsert_repeatable, (0, "t"), {"every": 900, "args": [], "ttl": 5, "priority": 5, "backoff": 1.5}),
    (Queue.list_repeatables, (0,), {}),
    *[
        (method, (0, {"task_id": "reporting.rebuild", "every": 900, "kwargs": {"tenant": "acme"}}), {})
        for method in (Queue.pause_repeatable, Queue.resume_repeatable, Queue.remove_repeatable)
    ],
    (Queue.get_delayed, (0,), {}),
    (Queue.list_delayed, (0,), {}),
    (Queue.remove_delayed, (0, "id"), {}),
    (Queue.get_job_counts, (0, "waiting", "delayed", "completed", "failed"), {}),
    (Queue.enqueue_delayed, (0, {"task_id": "t"}, 1_900_000_000.0), {}),
    # Asyncz
    (Scheduler, (), {"stores": {}, "executors": {}, "task_defaults": {}, "timezone": "UTC"}),
    (Scheduler, (), {"global_config": {}, "logger_name": "worker-a", "loggers_class": asyncz.ClassicLogging}),
    (Scheduler.setup, (0,), {"stores": {}, "executors": {}, "task_defaults": {}, "timezone": "UTC"}),
    (Scheduler.start, (0,), {"paused": True}),
    (Scheduler.shutdown, (0,), {"wait": False}),
    (Scheduler.asgi, (0, object()), {"handle_lifespan": False, "wait": False}),
    (Scheduler.add_task, (0, print, "cron"), {"hour": "0-23", "minute": "1"}),
    (Scheduler.add_task, (0,), {"fn_or_task": print, "args": [1], "trigger": "interval", "replace_existing": True}),
    (Scheduler.add_task, (0,), {"id": "x", "fn": print, "trigger": None, "max_instances": 1, "coalesce": False}),
    (Scheduler.add_task, (0, print), {"next_run_time": None}),
    (Scheduler.add_task, (0, print), {"mistrigger_grace_time": 1, "executor": "pool", "store": "mongo", "name": "n"}),
    (Scheduler.run_task, (0, "cleanup"), {"remove_finished": False, "force": True}),
    (Scheduler.pause_task, (0, "cleanup"), {}),
    (Scheduler.resume_task, (0, "cleanup"), {}),
    (Scheduler.update_task, (0, "cleanup"), {"coalesce": False, "max_instances": 4, "executor": "pool"}),
    (Scheduler.reschedule_task, (0, "cleanup"), {"trigger": "cron", "day_of_week": "mon", "hour": "1"}),
    (Scheduler.delete_task, (0, "cleanup"), {}),
    (Scheduler.remove_all_tasks, (0, "default"), {}),
    (Scheduler.get_task, (0, "cleanup"), {}),
    (Scheduler.get_tasks, (0,), {"store": "default"}),
    (Scheduler.get_task_info, (0, "cleanup"), {}),
    (Scheduler.get_task_infos, (0,), {"schedule_state": "paused", "executor": "default", "trigger": "cron", "q": "x"}),
    (Scheduler.get_task_infos, (0,), {"sort_by": "id", "descending": True}),
    (Scheduler.preview_task_runs, (0, "cleanup"), {"count": 50}),
    (Scheduler.add_listener, (0, print, asyncz.TASK_EXECUTED | asyncz.TASK_ERROR), {}),
    (Scheduler.remove_listener, (0, print), {}),
    *[(method, (0,), {}) for method in (Task.pause, Task.resume, Task.delete)],
    (Task.update, (0,), {"coalesce": True}),
    (Task.reschedule, (0,), {"trigger": "interval", "minutes": 20}),
    (Task, (), {"fn": print, "args": [1], "trigger": None, "max_instances": 1, "coalesce": False}),
    (asyncz.IntervalTrigger, (), {"weeks": 1, "days": 1, "hours": 1, "minutes": 2, "seconds": 3, "jitter": 1}),
    (asyncz.IntervalTrigger, (), {"start_at": "2030-01-01", "end_at": "2031-01-01", "timezone": "UTC"}),
    (asyncz.CronTrigger, (), {"day_of_week": "mon,wed,fri", "hour": "8", "minute": "1", "second": "5"}),
    (asyncz.CronTrigger, (), {"year": 2030, "month": "jan", "day": "2nd fri", "week": 2, "timezone": "UTC"}),
    (asyncz.CronTrigger.from_crontab, ("0 0 * * 0",), {"timezone": "UTC"}),
    (asyncz.DateTrigger, (), {"run_at": "2030-01-01", "timezone": "UTC"}),
    (asyncz.AndTrigger, ([],), {"jitter": 1}),
    (asyncz.OrTrigger, ([],), {}),
    (asyncz.ShutdownTrigger, (), {}),
    (asyncz.RedisStore, (), {"database": 0}),
    (asyncz.MongoDBStore, (), {}),
    (asyncz.MemoryStore, (), {}),
    (asyncz.AsyncIOExecutor, (), {}),
    (asyncz.ThreadPoolExecutor, (), {"max_workers": 20}),
    (asyncz.ProcessExecutor, (), {"max_workers": 2}),
    (asyncz.DebugExecutor, (), {}),
    # aioq
    (Callboard.cron, (0, "*/5 * * * *"), {}),
    (Callboard.cron, (0, "0 9 * * 1-5"), {"queue": "reports", "name": "daily"}),
    (Context.__getitem__, (0, "worker_id"), {}),
]


@pytest.mark.parametrize(("called", "args", "kwargs"), CALLS, ids=lambda value: getattr(value, "__qualname__", ""))
def test_what_the_pages_call_takes_what_they_give(
    called: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    inspect.signature(called).bind(*args, **kwargs)


@pytest.mark.parametrize(
    ("name", "more"), [("AsyncIOScheduler", ["__enter__", "__exit__"]), ("NativeAsyncIOScheduler", [])]
)
def test_a_scheduler_has_all_that_one_does_with_it_as_a_whole(name: str, more: list[str]) -> None:
    assert [one for one in (*WHOLE, *more) if not hasattr(getattr(asyncz, name), one)] == []


def test_snapshots_have_the_members_that_are_shown() -> None:
    shown = {
        *("id", "name", "callable_name", "callable_reference", "trigger_alias", "trigger_name", "trigger_description"),
        *("executor", "store_alias", "schedule_state", "next_run_time", "coalesce", "max_instances", "args", "kwargs"),
        *("mistrigger_grace_time", "pending", "paused", "submitted"),
    }
    assert {name for name in shown if not hasattr(TaskInfo, name)} == set()
    assert {name for name in ("run_times", "timezone", "exhausted") if not hasattr(TaskPreview, name)} == set()


def test_events_have_the_codes_that_asyncz_has() -> None:
    names = (
        *("SCHEDULER_START", "SCHEDULER_SHUTDOWN", "SCHEDULER_PAUSED", "SCHEDULER_RESUMED", "EXECUTOR_ADDED"),
        *("EXECUTOR_REMOVED", "STORE_ADDED", "STORE_REMOVED", "ALL_TASKS_REMOVED", "TASK_ADDED", "TASK_REMOVED"),
        *("TASK_MODIFIED", "TASK_EXECUTED", "TASK_ERROR", "TASK_MISSED", "TASK_SUBMITTED", "TASK_MAX_INSTANCES"),
    )
    assert [int(getattr(asyncz, name)) for name in names] == [2**place for place in range(17)]
    assert int(asyncz.ALL_EVENTS) == 2**17 - 1


@pytest.mark.parametrize("alias", ["interval", "cron", "date", "and", "or", "shutdown"])
def test_a_trigger_is_known_by_each_alias(alias: str) -> None:
    arguments: dict[str, Any] = {
        "cron": {"hour": "*"},
        "date": {"run_at": "2030-01-01"},
        "and": {"triggers": [asyncz.IntervalTrigger(minutes=2), asyncz.IntervalTrigger(minutes=3)]},
        "or": {"triggers": [asyncz.IntervalTrigger(minutes=2), asyncz.IntervalTrigger(minutes=3)]},
    }.get(alias, {})
    task = Scheduler().add_task(print, alias, id="task", **arguments)
    info = task.info
    assert info is not None
    assert (info.trigger_alias, info.pending) == (alias, True)
