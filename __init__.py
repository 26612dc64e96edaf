"""Callboard: background jobs and schedules for Python services, as actors on RabbitMQ."""

from .runtime.app import Callboard
from .runtime.context import Context
from .runtime.errors import (
    CallboardError,
    ConfigurationError,
    EnqueueUncertain,
    InvalidJob,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobUnfinished,
    JobUnknown,
    LockLost,
    LockTimeout,
    PayloadTooLarge,
    ResultTimeout,
    UnknownSchedule,
    UnknownTask,
)
from .runtime.handle import JobHandle
from .runtime.job_view import JobInfo
from .runtime.queue import Queue
from .runtime.repeatable_info import RepeatableInfo
from .runtime.retry import Backoff, Retry
from .runtime.scheduler import AsyncScheduler, ScheduledTask, Scheduler
from .runtime.settings import Retain, Settings
from .runtime.task import Task
from .runtime.triggers import AllOf, AnyOf, At, Cron, Every, Policy

__all__ = [
    "AllOf",
    "AnyOf",
    "AsyncScheduler",
    "At",
    "Backoff",
    "Callboard",
    "CallboardError",
    "ConfigurationError",
    "Context",
    "Cron",
    "EnqueueUncertain",
    "Every",
    "InvalidJob",
    "JobCancelled",
    "JobExpired",
    "JobFailed",
    "JobHandle",
    "JobInfo",
    "JobUnfinished",
    "JobUnknown",
    "LockLost",
    "LockTimeout",
    "PayloadTooLarge",
    "Policy",
    "Queue",
    "RepeatableInfo",
    "ResultTimeout",
    "Retain",
    "Retry",
    "ScheduledTask",
    "Scheduler",
    "Settings",
    "Task",
    "UnknownSchedule",
    "UnknownTask",
]
