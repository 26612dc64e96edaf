"""The scheduler of Asyncz and APScheduler, on Callboard's actors and store; `scheduler` is where to begin.

The names of Asyncz are here too: triggers, stores and executors as calls that make our values.
"""

from ..task_info import TaskInfo, TaskPreview, TaskScheduleState
from ..triggers.aliases import AndTrigger, CronTrigger, DateTrigger, IntervalTrigger, OrTrigger
from .choices import (
    AsyncIOExecutor,
    DebugExecutor,
    ExecutorChoice,
    MemoryStore,
    MongoDBStore,
    ProcessExecutor,
    RedisStore,
    StoreChoice,
    ThreadPoolExecutor,
)
from .errors import ScheduleExists, SchedulerForked, SchedulerNotRunning, TaskSubmitted
from .events import (
    ALL_EVENTS,
    ALL_TASKS_REMOVED,
    EXECUTOR_ADDED,
    EXECUTOR_REMOVED,
    SCHEDULER_PAUSED,
    SCHEDULER_RESUMED,
    SCHEDULER_SHUTDOWN,
    SCHEDULER_START,
    STORE_ADDED,
    STORE_REMOVED,
    TASK_ADDED,
    TASK_ERROR,
    TASK_EXECUTED,
    TASK_MAX_INSTANCES,
    TASK_MISSED,
    TASK_MODIFIED,
    TASK_REMOVED,
    TASK_SUBMITTED,
    EventCode,
    SchedulerEvent,
    TaskEvent,
    TaskExecutionEvent,
    TaskSubmissionEvent,
)
from .farewell import ShutdownTrigger
from .loggers import ClassicLogging, Loggers
from .scheduler import AsyncScheduler, Scheduler
from .task import ScheduledTask

AsyncIOScheduler = Scheduler
NativeAsyncIOScheduler = AsyncScheduler
Task = ScheduledTask

__all__ = [
    "ALL_EVENTS",
    "ALL_TASKS_REMOVED",
    "EXECUTOR_ADDED",
    "EXECUTOR_REMOVED",
    "SCHEDULER_PAUSED",
    "SCHEDULER_RESUMED",
    "SCHEDULER_SHUTDOWN",
    "SCHEDULER_START",
    "STORE_ADDED",
    "STORE_REMOVED",
    "TASK_ADDED",
    "TASK_ERROR",
    "TASK_EXECUTED",
    "TASK_MAX_INSTANCES",
    "TASK_MISSED",
    "TASK_MODIFIED",
    "TASK_REMOVED",
    "TASK_SUBMITTED",
    "AndTrigger",
    "AsyncIOExecutor",
    "AsyncIOScheduler",
    "AsyncScheduler",
    "ClassicLogging",
    "CronTrigger",
    "DateTrigger",
    "DebugExecutor",
    "EventCode",
    "ExecutorChoice",
    "IntervalTrigger",
    "Loggers",
    "MemoryStore",
    "MongoDBStore",
    "NativeAsyncIOScheduler",
    "OrTrigger",
    "ProcessExecutor",
    "RedisStore",
    "ScheduleExists",
    "ScheduledTask",
    "Scheduler",
    "SchedulerEvent",
    "SchedulerForked",
    "SchedulerNotRunning",
    "ShutdownTrigger",
    "StoreChoice",
    "Task",
    "TaskEvent",
    "TaskExecutionEvent",
    "TaskInfo",
    "TaskPreview",
    "TaskScheduleState",
    "TaskSubmissionEvent",
    "TaskSubmitted",
    "ThreadPoolExecutor",
]
