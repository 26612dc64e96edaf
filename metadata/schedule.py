"""The record of a schedule. A store never looks into `trigger`, `definition` and `state`: they come back as they were
sent. Moments are milliseconds since the Unix epoch."""

from __future__ import annotations

from msgspec import Struct

from .job import NewJob


class Schedule(Struct, frozen=True, kw_only=True):
    """A record as it is read.

    trigger     when it occurs; equal bytes are an equal trigger
    definition  what to enqueue, and the policy for occurrences that are late or overlap
    state       what the scheduler keeps: the occurrence that is next, and what became of those before
    next_run    when the scheduler is to look at it; None: no occurrence is left
    revision    grows with every change but firing; (revision, next_run) never comes back
    """

    id: str
    queue: str
    trigger: bytes
    definition: bytes
    state: bytes
    next_run: int | None
    paused: bool = False
    revision: int = 1
    created_at: int
    updated_at: int


class NewSchedule(Struct, frozen=True, kw_only=True):
    """A schedule to be made or changed. `next_run` and `state` count only where it is new or its trigger is.

    `revision` None: make it, or change it whatever its revision is; else change it only at that revision.
    """

    id: str
    queue: str
    trigger: bytes
    definition: bytes
    state: bytes
    next_run: int | None
    revision: int | None = None


class Firing(Struct, frozen=True, kw_only=True):
    """A schedule's step from one run to the next, and the jobs of its occurrences, all in the schedule's queue.

    `due` and `revision`: the next_run and the revision that were read. `next_run` is later than `due`, or None.
    `by`: who fires, by which a repeat of the same firing is known; at most 64 bytes.
    """

    id: str
    due: int
    revision: int
    next_run: int | None
    state: bytes
    by: str
    jobs: tuple[NewJob, ...] = ()


class Resumption(Struct, frozen=True, kw_only=True):
    """A paused schedule goes on: `next_run` and `state` as computed anew from what was read at `revision`."""

    id: str
    revision: int
    next_run: int | None
    state: bytes
