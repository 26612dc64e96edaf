"""What a worker asks of an executor: run one call, and say when its slot is free again.

loop.py       async functions, on the worker's event loop
thread.py     sync functions, each in a thread
process.py    either, in a child process that a timeout can kill

TaskTimeout            the call took longer than its timeout
TaskExited             the function raised SystemExit or the like: that ends the run, not the worker
WorkerProcessDied      the child process of this call ended under it
ExecutorClosed         asked to run after `close`
TaskUnreachable        a function that a child process could not find again
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct

from ..arguments import Signature
from ..context import Context
from ..errors import CallboardError, ConfigurationError


class TaskTimeout(CallboardError, TimeoutError):
    def __init__(self, seconds: float) -> None:
        super().__init__(f"the task took longer than its timeout of {seconds:g} s")
        self.seconds = seconds


class TaskExited(CallboardError):
    """Raised from what the function raised."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"the task raised {type(error).__name__}")


class WorkerProcessDied(CallboardError):
    """`exit_code` if it exited, `signal_number` if it was killed; both None if that cannot be known."""

    def __init__(self, *, exit_code: int | None = None, signal_number: int | None = None, when: str) -> None:
        how = "ended"
        if signal_number is not None:
            try:
                how = f"was ended by {signal.Signals(signal_number).name}"
            except ValueError:
                how = f"was ended by signal {signal_number}"
        elif exit_code is not None:
            how = f"exited with code {exit_code}"
        super().__init__(f"the child process {how} {when}")
        self.exit_code = exit_code
        self.signal_number = signal_number


class ExecutorClosed(CallboardError):
    pass


class TaskUnreachable(ConfigurationError):
    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} cannot run in a child process: {reason}")
        self.name = name
        self.reason = reason


def _nothing() -> None:
    pass


class Call(Struct, frozen=True, kw_only=True, eq=False):
    """One run of one job. `args` and `kwargs` are JSON as they travelled; `timeout_ms` None: as long as it takes.

    `released` is called once for each `run`, whatever becomes of it, in the event loop's thread: when the function is
    really over and its slot free. That is mostly just before `run` ends, but later where a thread cannot be stopped.
    """

    function: Callable[..., Any]
    signature: Signature
    context: Context
    args: bytes = b"[]"
    kwargs: bytes = b"{}"
    timeout_ms: int | None = None
    result_limit: int
    released: Callable[[], None] = _nothing

    @property
    def timeout_seconds(self) -> float | None:
        return None if self.timeout_ms is None else self.timeout_ms / 1000


class Executor(Protocol):
    @property
    def busy(self) -> int:
        """Calls whose `released` has not been called yet."""
        ...

    @property
    def abandoned(self) -> int:
        """Those among them whose `run` is over: they timed out or were cancelled, and have not stopped."""
        ...

    async def run(self, call: Call) -> bytes:
        """Check the arguments, call the function, and return the JSON of its result.

        Raises what the function raised (RemoteFailure where that was another process), or ArgumentsInvalid,
        ResultInvalid, ResultTooLarge, TaskTimeout, TaskExited, WorkerProcessDied. Cancelling it ends the call as far
        as that is possible, sets the context's `cancelled`, and raises CancelledError without waiting for the end.
        """
        ...

    async def close(self, grace_seconds: float) -> None:
        """Take no more calls, wait so long for those that run, then stop what can be stopped."""
        ...
