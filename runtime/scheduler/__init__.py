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
from .errors import ScheduleExists, SchedulerNotRunning, TaskSubmitted
from .loggers import ClassicLogging, Loggers
from .scheduler import AsyncScheduler, Scheduler
from .task import ScheduledTask

AsyncIOScheduler = Scheduler
NativeAsyncIOScheduler = AsyncScheduler
Task = ScheduledTask

__all__ = [
    "AndTrigger",
    "AsyncIOExecutor",
    "AsyncIOScheduler",
    "AsyncScheduler",
    "ClassicLogging",
    "CronTrigger",
    "DateTrigger",
    "DebugExecutor",
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
    "SchedulerNotRunning",
    "StoreChoice",
    "Task",
    "TaskInfo",
    "TaskPreview",
    "TaskScheduleState",
    "TaskSubmitted",
    "ThreadPoolExecutor",
]
