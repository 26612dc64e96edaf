"""What the scheduler raises beside what Callboard's other parts do.

CallboardError
├── ScheduleExists          an id is taken, and the task was not to replace what has it
├── SchedulerForked         asked in a child process of the one that started it
├── SchedulerNotRunning     asked for what is in the store before `start`
└── TaskSubmitted           a ScheduledTask was added twice
"""

from __future__ import annotations

from ..errors import CallboardError


class ScheduleExists(CallboardError):
    def __init__(self, id: str, *, store: str) -> None:
        super().__init__(
            f"there is another task {id!r} in store {store!r}; give this one another id=, or replace_existing=True"
        )
        self.id = id
        self.store = store


class SchedulerForked(CallboardError):
    def __init__(self, process: int) -> None:
        super().__init__(
            f"the scheduler was started in process {process}, of which this one is a fork: its threads and connections "
            "did not come along; make a Scheduler and start it after the fork"
        )
        self.process = process


class SchedulerNotRunning(CallboardError):
    def __init__(self, wanted: str) -> None:
        super().__init__(
            f"{wanted}: the scheduler is not running, and nothing was added under this id; start it first (with "
            "actors=() it manages schedules and runs nothing)"
        )


class TaskSubmitted(CallboardError):
    def __init__(self, id: str) -> None:
        super().__init__(f"task {id!r} was added already; make another ScheduledTask")
        self.id = id
