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
    PayloadTooLarge,
    ResultTimeout,
    UnknownTask,
)
from .runtime.handle import JobHandle
from .runtime.job_view import JobInfo
from .runtime.queue import Queue
from .runtime.retry import Backoff, Retry
from .runtime.settings import Retain, Settings
from .runtime.task import Task

__all__ = [
    "Backoff",
    "Callboard",
    "CallboardError",
    "ConfigurationError",
    "Context",
    "EnqueueUncertain",
    "InvalidJob",
    "JobCancelled",
    "JobExpired",
    "JobFailed",
    "JobHandle",
    "JobInfo",
    "JobUnfinished",
    "JobUnknown",
    "PayloadTooLarge",
    "Queue",
    "ResultTimeout",
    "Retain",
    "Retry",
    "Settings",
    "Task",
    "UnknownTask",
]
