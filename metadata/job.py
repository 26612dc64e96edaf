"""The job record, its states, and the one table of transitions that stores, tests and documents read.

A store never looks into `payload`, `result`, `error` or `history`: they are bytes that come back as they were sent.
Moments are milliseconds since the Unix epoch, durations milliseconds, unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct


class State(StrEnum):
    WAITING = "waiting"
    DELAYED = "delayed"
    WAITING_CHILDREN = "waiting-children"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        return self in FINAL


FINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED, State.EXPIRED})


class Outbox(StrEnum):
    """Where a waiting job's ticket is: this names its only waker index."""

    NONE = ""
    DUE = "due"  # not known to be sent; the relay sends it when its time comes
    SENT = "sent"  # confirmed by the broker
    HELD = "held"  # parked by a pause; `resume` makes it due


class Transition(Struct, frozen=True, kw_only=True):
    """One row of the table: `operation` may move a record from `before` to `after`; `dispatch` says what it adds."""

    operation: str
    before: State | None
    after: State | None
    dispatch: int = 0


def _rows(
    operation: str, before: Sequence[State | None], after: Sequence[State | None], dispatch: int = 0
) -> list[Transition]:
    return [Transition(operation=operation, before=b, after=a, dispatch=dispatch) for b in before for a in after]


_W, _D, _C, _A = State.WAITING, State.DELAYED, State.WAITING_CHILDREN, State.ACTIVE
_FINAL = (State.COMPLETED, State.FAILED, State.CANCELLED, State.EXPIRED)

TRANSITIONS: tuple[Transition, ...] = (
    *_rows("enqueue", [None], [_W], 1),
    *_rows("enqueue", [None], [_D, _C]),
    *_rows("enqueue", [_D], [None]),  # a delayed job is replaced by its successor of the same deduplication id
    *_rows("published", [_W], [_W]),
    *_rows("claim", [_W, _D, _A, None], [_A]),  # delayed, active: the ticket proves that the store lost a write
    *_rows("claim", [_W], [_W], 1),  # held by a pause
    *_rows("claim", [None, _D, _A], [_W]),  # adopted or due or lost a write, and held by a pause
    *_rows("claim", [None, _W, _D], [State.EXPIRED]),
    *_rows("finish", [_A], [State.COMPLETED, State.FAILED, State.CANCELLED, _D]),
    *_rows("finish", [_A], [_W], 1),
    *_rows("take_due", [_D], [_W], 1),
    *_rows("reschedule", [_D], [_D]),
    *_rows("reschedule", [_D], [_W], 1),
    *_rows("remove_delayed", [_D], [None]),
    *_rows("take_stalled", [_A], [_W], 1),
    *_rows("take_stalled", [_A], [State.FAILED, State.CANCELLED]),
    *_rows("cancel", [_W, _D, _C], [State.CANCELLED]),
    *_rows("cancel", [_A], [_A]),
    *_rows("retry", _FINAL, [_W], 1),
    *_rows("take_unpublished", [_W], [_W]),
    *_rows("take_overtaken", [_W], [_W]),
    *_rows("remove", [_W, _D, _C, *_FINAL], [None]),
    *_rows("clear", [_W, _D, _C, *_FINAL], [None]),
    *_rows("prune", _FINAL, [None]),  # also within the operation whose final record is one too many for `keep`
)


class Deduplication(Struct, frozen=True, kw_only=True):
    """One job at a time under `id` in its queue.

    `ttl` None: until the holder is final. `ttl` in ms: for that long after the holder's enqueue, whatever comes of it.
    `extend`: a refused or replacing newcomer starts the window anew. `replace`: a newcomer takes the place of a holder
    that is still delayed.
    """

    id: str
    ttl: int | None = None
    extend: bool = False
    replace: bool = False


class Keep(Struct, frozen=True, kw_only=True):
    """How long a final record stays: `age` in ms (None: for ever) and `count` newest per `group` (None: no limit).

    Groups are counted per queue, state and group name, so that a task may have a count of its own.
    """

    age: int | None = None
    count: int | None = None
    group: str = ""


class NewJob(Struct, frozen=True, kw_only=True):
    """A job to be recorded. `payload` is all that a worker needs to run it, the id included."""

    id: str
    queue: str
    task: str
    payload: bytes
    priority: int = 5
    created_at: int
    run_at: int | None = None
    expires_at: int | None = None
    deduplication: Deduplication | None = None


class Job(Struct, frozen=True, kw_only=True):
    """A record as it is read: never changed in place, never written back."""

    id: str
    queue: str
    task: str
    payload: bytes
    priority: int
    created_at: int
    state: State
    dispatch: int
    attempts: int = 0  # runs started, whatever became of them
    failures: int = 0  # runs that ended in an error and used up a retry
    stalled: int = 0  # times a worker lost it
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
