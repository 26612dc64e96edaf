"""Looking at one job queue: counts, pages and single jobs. Nothing here changes anything.

Ranges are inclusive, newest first unless `asc`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..metadata.contract import Counts, Inspection
from ..metadata.job import Job, State
from .errors import InvalidJob
from .job_view import JobInfo, view

if TYPE_CHECKING:
    from .app import Callboard

PAGE = 1000  # jobs read or removed in one round trip by the methods that go on until nothing is left

_QUEUED = (State.WAITING, State.DELAYED, State.WAITING_CHILDREN)
# Buckets without jobs: a pause belongs to the queue, a priority to the order of its waiting jobs.
_EMPTY_BUCKETS = frozenset({"paused", "prioritized"})


class InspectedQueue:
    """The reading half of `Queue`."""

    name: str
    app: Callboard

    async def queue_counts(self) -> Counts:
        return (await self._inspection.counts([self.name]))[self.name]

    async def queue_stats(self) -> dict[str, int]:
        counts = await self.queue_counts()
        return {"waiting": counts.waiting, "delayed": counts.delayed, "failed": counts.failed}

    async def get_job_counts(self, *types: str) -> dict[str, int]:
        """Jobs by state; all states where none is named."""
        counts = await self.queue_counts()
        wanted = types or tuple(State)
        return {
            str(name): 0 if name in _EMPTY_BUCKETS else getattr(counts, self._state(name).replace("-", "_"))
            for name in wanted
        }

    async def get_job_count_by_types(self, *types: str) -> int:
        return sum((await self.get_job_counts(*types)).values())

    async def count(self) -> int:
        """Jobs that have not started: waiting, delayed and waiting for children."""
        return await self.get_job_count_by_types(*_QUEUED)

    async def get_jobs(
        self, types: Sequence[str] | str = tuple(State), start: int = 0, end: int = -1, asc: bool = False
    ) -> list[JobInfo]:
        """Jobs of these states, state by state, positions `start` to `end` inclusive (-1: to the last)."""
        if start < 0 or end < -1:
            raise ValueError(f"start must be 0 or more and end -1 or more, not start={start}, end={end}")
        names = [types] if isinstance(types, str) else list(types)
        states = [self._state(name) for name in names if name not in _EMPTY_BUCKETS]
        found: list[JobInfo] = []
        skip, left = start, None if end == -1 else max(0, end - start + 1)
        counts = await self.queue_counts()
        for state in states:
            size: int = getattr(counts, state.replace("-", "_"))
            if skip >= size:
                skip -= size
                continue
            jobs = await self._all(state, asc=asc, offset=skip, limit=left)
            found += [view(job) for job in jobs]
            skip = 0
            left = None if left is None else left - len(jobs)
            if left == 0:
                break
        return found

    async def list_jobs(self, state: str) -> list[JobInfo]:
        return await self.get_jobs(state)

    async def get_waiting(self, start: int = 0, end: int = -1) -> list[JobInfo]:
        return await self.get_jobs("waiting", start, end)

    async def get_active(self, start: int = 0, end: int = -1) -> list[JobInfo]:
        return await self.get_jobs("active", start, end)

    async def get_completed(self, start: int = 0, end: int = -1) -> list[JobInfo]:
        return await self.get_jobs("completed", start, end)

    async def get_failed(self, start: int = 0, end: int = -1) -> list[JobInfo]:
        return await self.get_jobs("failed", start, end)

    async def get_delayed(self, start: int = 0, end: int = -1) -> list[JobInfo]:
        return await self.get_jobs("delayed", start, end)

    async def get_waiting_children(self, start: int = 0, end: int = -1) -> list[JobInfo]:
        return await self.get_jobs("waiting-children", start, end)

    async def _all(self, state: State, *, asc: bool = True, offset: int = 0, limit: int | None = None) -> list[Job]:
        jobs: list[Job] = []
        while limit is None or len(jobs) < limit:
            size = PAGE if limit is None else min(PAGE, limit - len(jobs))
            page = await self._inspection.page(
                self.name, state, offset=offset + len(jobs), limit=size, newest_first=not asc
            )
            jobs += page
            if len(page) < size:
                break
        return jobs

    def _state(self, name: str) -> State:
        try:
            return State(name)
        except ValueError:
            raise InvalidJob(f"{name!r:.100} is no state of a job; states are: {', '.join(State)}") from None

    @property
    def _inspection(self) -> Inspection:
        return self.app.connections.store.get(Inspection)
