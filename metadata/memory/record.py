"""A job's record as the memory store keeps it: changed in place, and handed out as a frozen `Job`."""

from __future__ import annotations

from msgspec import Struct

from ..contract import MAX_HISTORY, Ending, Ready
from ..job import Job, NewJob, Outbox, State


class Fence(Struct, frozen=True):
    """The last finish that took effect, by which a repeat of it is known."""

    dispatch: int
    owner: str
    ending: Ending


class Record(Struct, kw_only=True):
    id: str
    queue: str
    task: str
    payload: bytes
    priority: int
    created_at: int
    state: State
    dispatch: int
    attempts: int = 0
    failures: int = 0
    stalled: int = 0
    fence: int = 0
    owner: str | None = None
    outbox: Outbox = Outbox.NONE
    sent_at: int | None = None
    run_at: int | None = None
    expires_at: int | None = None
    claimed_at: int | None = None
    finished_at: int | None = None
    parked_at: int | None = None
    cancel_requested: bool = False
    deduplication_id: str | None = None
    result: bytes | None = None
    error: bytes | None = None
    history: tuple[bytes, ...] = ()
    last_fence: Fence | None = None
    group: tuple[State, str] | None = None  # of a final record: where it is counted
    progress: bytes | None = None

    @classmethod
    def of(cls, job: NewJob, state: State, dispatch: int) -> Record:
        return cls(
            id=job.id,
            queue=job.queue,
            task=job.task,
            payload=job.payload,
            priority=job.priority,
            created_at=job.created_at,
            state=state,
            dispatch=dispatch,
            run_at=job.run_at,
            expires_at=job.expires_at,
            deduplication_id=job.deduplication.id if job.deduplication else None,
        )

    def ready(self, *, now: int | None = None) -> Ready:
        """`now`: where it may not be due yet."""
        early = now is not None and self.run_at is not None and self.run_at > now
        not_before = (self.run_at or 0) if early else 0
        return Ready(self.queue, self.id, self.dispatch, self.priority, self.payload, not_before)

    def remember(self, history: bytes | None) -> None:
        if history is not None:
            self.history = (*self.history, history)[-MAX_HISTORY:]

    def job(self) -> Job:
        return Job(
            id=self.id,
            queue=self.queue,
            task=self.task,
            payload=self.payload,
            priority=self.priority,
            created_at=self.created_at,
            state=self.state,
            dispatch=self.dispatch,
            attempts=self.attempts,
            failures=self.failures,
            stalled=self.stalled,
            fence=self.fence,
            owner=self.owner,
            outbox=self.outbox,
            sent_at=self.sent_at,
            run_at=self.run_at,
            expires_at=self.expires_at,
            claimed_at=self.claimed_at,
            finished_at=self.finished_at,
            parked_at=self.parked_at,
            cancel_requested=self.cancel_requested,
            deduplication_id=self.deduplication_id,
            result=self.result,
            error=self.error,
            history=self.history,
        )
