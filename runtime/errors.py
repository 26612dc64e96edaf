"""What the user's API raises. Stores and brokers have trees of their own (metadata/errors.py, brokers/errors.py).

CallboardError
├── ConfigurationError      settings, URLs, app references, declarations that contradict one another
├── InvalidJob              a job that can't be accepted as it was given: names the member and its value
│   ├── PayloadTooLarge     its encoded form exceeds the limit
│   └── UnknownTask         no task of that name is registered here
├── UnknownSchedule         there is no such schedule; also a LookupError
├── EnqueueUncertain        recorded or on its way, but not confirmed in time: repeat with the same id
├── JobUnfinished           `result` ended without one
│   ├── JobFailed           the job failed; holds the error as text
│   ├── JobCancelled
│   ├── JobExpired          its ttl passed before it started
│   ├── JobUnknown          never recorded, or pruned
│   └── ResultTimeout       not final within the time given; also a TimeoutError
├── LockTimeout             a lock was not free within the time given; also a TimeoutError
├── LockLost                a lock was, or may have been, somebody else's before the block that held it ended
├── HeartStopped            the process that keeps a worker's lease ended; the worker is started again
├── ActorEnded              an actor ended though nobody had asked it to; it is started again
└── GaveUp                  an actor failed more often than its restart intensity allows
"""

from __future__ import annotations


class CallboardError(Exception):
    """Root of what Callboard's own API raises."""


class ConfigurationError(CallboardError):
    pass


class InvalidJob(CallboardError, ValueError):
    pass


class PayloadTooLarge(InvalidJob):
    def __init__(self, *, size: int, limit: int, task: str) -> None:
        super().__init__(
            f"the arguments of task {task!r} take {size} bytes, the limit is {limit}; pass a reference to the data "
            "instead, or raise payload_limit"
        )
        self.size = size
        self.limit = limit


class UnknownTask(InvalidJob):
    def __init__(self, name: str) -> None:
        super().__init__(f"no task named {name!r} is registered in this app")
        self.name = name


class UnknownSchedule(CallboardError, LookupError):
    def __init__(self, *, queue: str, wanted: str) -> None:
        super().__init__(f"queue {queue!r} has no schedule {wanted}")
        self.queue = queue
        self.wanted = wanted


class EnqueueUncertain(CallboardError):
    """The job may be recorded; if it is, it will run. Calling again with the same id never makes a second job."""

    def __init__(self, job_ids: tuple[str, ...], reason: str) -> None:
        super().__init__(f"not confirmed: {reason}; enqueue again with the same id is safe: {', '.join(job_ids[:5])}")
        self.job_ids = job_ids


class JobUnfinished(CallboardError):
    def __init__(self, job_id: str, message: str) -> None:
        super().__init__(f"job {job_id}: {message}")
        self.job_id = job_id


class JobFailed(JobUnfinished):
    """`error_type` and `traceback` are texts that the worker recorded."""

    def __init__(self, job_id: str, *, error_type: str, message: str, traceback: str = "") -> None:
        super().__init__(job_id, f"{error_type}: {message}")
        self.error_type = error_type
        self.message = message
        self.traceback = traceback


class JobCancelled(JobUnfinished):
    def __init__(self, job_id: str) -> None:
        super().__init__(job_id, "was cancelled")


class JobExpired(JobUnfinished):
    def __init__(self, job_id: str) -> None:
        super().__init__(job_id, "expired before it started")


class JobUnknown(JobUnfinished):
    def __init__(self, job_id: str) -> None:
        super().__init__(job_id, "is not recorded: it never was, or its time to be kept is over")


class ResultTimeout(JobUnfinished, TimeoutError):
    def __init__(self, job_id: str, *, seconds: float, state: str) -> None:
        hint = "no worker has taken it: does one serve its queue?" if state == "waiting" else "ask again later"
        super().__init__(job_id, f"it is {state} after {seconds:g} s and goes on; {hint}")
        self.state = state


class GaveUp(CallboardError):
    def __init__(self, actor: str, *, restarts: int, seconds: float) -> None:
        super().__init__(f"actor {actor} failed {restarts} times within {seconds:g} s: giving up")
        self.actor = actor


class HeartStopped(CallboardError):
    def __init__(self, code: int | None) -> None:
        super().__init__(f"the heartbeat process ended with {code}; what it printed to stderr says why")


class LockTimeout(CallboardError, TimeoutError):
    def __init__(self, name: str, *, seconds: float) -> None:
        super().__init__(f"lock {name!r} is held by somebody else, and was for {seconds:g} s")
        self.name = name


class LockLost(CallboardError):
    """What was done in the block may have been done beside the next holder, who has a higher fence."""

    def __init__(self, name: str, *, fence: int) -> None:
        super().__init__(
            f"lock {name!r} was lost while it was held under fence {fence}: it was not renewed for its ttl, since the "
            "event loop or the store stood still for longer"
        )
        self.name = name
        self.fence = fence


class ActorEnded(CallboardError):
    def __init__(self, actor: str) -> None:
        super().__init__(f"actor {actor} ended though it was not being stopped")
        self.actor = actor
