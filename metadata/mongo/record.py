"""A job's document, as values.

One collection holds a namespace. Documents have a unique `name`, a `state` and, but for locks and one, a `queue`:

    a job           state, `at` (when it entered it; delayed: run_at), the fields of `Record`
    a tombstone     what is left of a forgotten job: id, last_finish, windows
    a worker        boot, beat, info, dead (ms, of the store's clock)
    a queue         registered, paused (ms, of the store's clock), marks (priority -> watermark)
    a schedule      its record, and the jobs of a firing until they are recorded: see `schedules.py`
    a lock          holder, fence, beat, ttl
    a group         count and keep of the final jobs of one state and group
    the store       epoch, claim_window

A waiting job's state says where its ticket is, so that one index (queue, state, at) lists and counts everything. A
field that has its default is not written at all: partial indexes hold only the documents in which their field exists.

`windows` are the deduplication ids that a job holds, under a unique index: who holds one is decided by the server when
it writes the holder's own document, and freeing it is part of the write that ends the job. They stay on the tombstone
of a job whose window outlives it. A job that replaces a delayed one takes over its document, under its own name
(see `work.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ..contract import MAX_HISTORY, Ready
from ..job import Job, Keep, NewJob, Outbox, State
from .names import DUE, FINAL_STATES, HELD, JOBS, SENT, TOMBSTONE, WAITING, job_name

_OUTBOXES = {DUE: Outbox.DUE, SENT: Outbox.SENT, HELD: Outbox.HELD}


class Window(Struct, frozen=True):
    """`holder`: a job id. `until` None: until the holder is final."""

    key: str
    holder: str
    until: int | None = None

    def open(self, now: int) -> bool:
        return self.until is None or now < self.until


class Record(Struct, kw_only=True):
    """UNSET stands for a value that was not read: it may be replaced, not looked at."""

    name: str
    queue: str
    state: str
    id: str
    at: int
    revision: int = 0
    task: str = ""
    payload: bytes | UnsetType | None = None
    priority: int = 0
    created_at: int = 0
    dispatch: int = 0
    attempts: int = 0
    failures: int = 0
    stalled: int = 0
    fence: int = 0
    owner: str | None = None
    lost: bool = False  # active, and its owner was declared dead
    due: int | None = None
    sent_at: int | None = None
    run_at: int | None = None
    expires_at: int | None = None
    claimed_at: int | None = None
    finished_at: int | None = None
    parked_at: int | None = None
    cancel: bool = False
    deduplication_id: str | None = None
    windows: tuple[Window, ...] = ()
    closes_at: int | None = None  # the earliest end of the windows
    result: bytes | UnsetType | None = None
    error: bytes | UnsetType | None = None
    progress: bytes | UnsetType | None = None
    history: tuple[bytes, ...] | UnsetType = ()
    last_finish: str | None = None
    group: str | None = None
    forget_at: int | None = None

    # -- what it is -----------------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether there is a job; else what is left of one."""
        return self.state in JOBS

    @property
    def job_state(self) -> State:
        return State.WAITING if self.state in WAITING else State(self.state)

    @property
    def final(self) -> bool:
        return self.state in FINAL_STATES

    def ready(self, *, due_by: int | None = None) -> Ready:
        """`due_by`: where it may be due later than then."""
        early = due_by is not None and self.run_at is not None and self.run_at > due_by
        not_before = (self.run_at or 0) if early else 0
        return Ready(self.queue, self.id, self.dispatch, self.priority, self.payload or b"", not_before)

    def job(self) -> Job:
        return Job(
            id=self.id,
            queue=self.queue,
            task=self.task,
            payload=self.payload or b"",
            priority=self.priority,
            created_at=self.created_at,
            state=self.job_state,
            dispatch=self.dispatch,
            attempts=self.attempts,
            failures=self.failures,
            stalled=self.stalled,
            fence=self.fence,
            owner=self.owner,
            outbox=_OUTBOXES.get(self.state, Outbox.NONE),
            sent_at=self.sent_at,
            run_at=self.run_at,
            expires_at=self.expires_at,
            claimed_at=self.claimed_at,
            finished_at=self.finished_at,
            parked_at=self.parked_at,
            cancel_requested=self.cancel,
            deduplication_id=self.deduplication_id,
            result=self.result or (None if self.result is UNSET else self.result),
            error=self.error or (None if self.error is UNSET else self.error),
            history=self.history or (),
        )

    # -- moves: each leaves where the job was, and says where it is ---------------------------------------------------

    def wait(self, *, dispatch: int, due: int, now: int) -> None:
        self._leave()
        self.state, self.at, self.dispatch, self.due = DUE, now, dispatch, due

    def hold(self, *, dispatch: int, now: int) -> None:
        self._leave()
        self.state, self.at, self.dispatch = HELD, now, dispatch

    def send_again(self, *, due: int) -> None:
        """At the same dispatch: waiting since as long as before."""
        self.state, self.due, self.sent_at = DUE, due, None

    def delay(self, run_at: int) -> None:
        self._leave()
        self.state, self.at, self.run_at = State.DELAYED.value, run_at, run_at

    def activate(self, *, owner: str, dispatch: int, now: int, clock: int) -> None:
        self._leave()
        self.state, self.at, self.dispatch = State.ACTIVE.value, now, dispatch
        self.owner, self.claimed_at = owner, now
        self.attempts += 1
        self.fence = max(self.fence + 1, clock)
        if self.attempts > 1:
            self.progress = None

    def end(self, state: State, *, now: int, keep: Keep) -> None:
        self._leave()
        self.state, self.at, self.finished_at = state.value, now, now
        self.group = f"{state.value}:{keep.group}"
        self.forget_at = None if keep.age is None else now + keep.age
        self.set_windows(window for window in self.windows if window.until is not None or window.holder != self.id)

    def bury(self, now: int, *, whatever_ttl: bool) -> None:
        """Forget the job but for a tombstone. `whatever_ttl`: its deduplication windows end now."""
        windows = tuple(window for window in self.windows if not (whatever_ttl and window.holder == self.id))
        for field, default in _DEFAULTS.items():
            setattr(self, field, default if field not in _OF_TOMBSTONES else getattr(self, field))
        self.state, self.at = TOMBSTONE, now
        self.set_windows(windows)

    def become(self, job: NewJob) -> None:
        """Be another job from now on, at dispatch 0 and in no state yet; the windows stay."""
        for field, default in _DEFAULTS.items():
            if field not in ("windows", "closes_at"):
                setattr(self, field, default)
        self.name, self.id, self.task, self.payload = job_name(job.queue, job.id), job.id, job.task, job.payload
        self.priority, self.created_at = job.priority, job.created_at
        self.run_at, self.expires_at = job.run_at, job.expires_at
        self.deduplication_id = job.deduplication.id if job.deduplication else None

    def remember(self, history: bytes | None) -> None:
        if history is not None:
            self.history = (*(self.history or ()), history)[-MAX_HISTORY:]

    def set_windows(self, windows: Any) -> None:
        self.windows = tuple(windows)
        ends = [window.until for window in self.windows if window.until is not None]
        self.closes_at = min(ends, default=None)

    def _leave(self) -> None:
        self.due = self.sent_at = self.owner = self.group = self.forget_at = None
        self.lost = False


_REQUIRED = {"name", "queue", "state", "id", "at", "revision"}
_DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in msgspec.structs.fields(Record) if field.name not in _REQUIRED
}
_OF_TOMBSTONES = {"last_finish", "windows", "closes_at"}

FIELDS = Record.__struct_fields__
_EMPTY = tuple(_DEFAULTS.get(field, UNSET) for field in FIELDS)
_LARGE = ("payload", "result", "error", "progress", "history")
ALL: frozenset[str] = frozenset()
TICKETS = frozenset({"result", "error", "progress", "history"})
LEAN = frozenset(_LARGE)


def projection(without: frozenset[str], *, clocked: bool = True) -> dict[str, Any]:
    """What `read` needs. `without`: ALL, TICKETS or LEAN. `clocked`: with the store's clock in each document."""
    fields: dict[str, Any] = {field: 1 for field in FIELDS if field not in without}
    return {"_id": 0, **fields, "clock": {"$toLong": "$$NOW"}} if clocked else {"_id": 0, **fields}


def read(document: Mapping[str, Any], without: frozenset[str]) -> Record:
    values = {**document, **dict.fromkeys(without, UNSET)}
    values.pop("clock", None)
    if windows := values.get("windows"):
        values["windows"] = tuple(Window(**window) for window in windows)
    if history := values.get("history"):
        values["history"] = tuple(history)
    return Record(**values)


def write(record: Record) -> dict[str, Any]:
    """The document of a new record."""
    return {
        field: _plain(value)
        for field, value, empty in zip(FIELDS, msgspec.structs.astuple(record), _EMPTY, strict=True)
        if value != empty
    }


Changes = tuple[tuple[str, Any], ...]


def changes(before: tuple[Any, ...], record: Record) -> Changes:
    """What became of a record since `before`, its `astuple`; a default stands for a field that goes."""
    return tuple(
        (field, new)
        for field, old, new in zip(FIELDS, before, msgspec.structs.astuple(record), strict=True)
        if new is not old and new != old
    )


def update_of(changed: Changes, revision: int) -> dict[str, Any]:
    sets: dict[str, Any] = {"revision": revision}
    unsets: dict[str, Any] = {}
    for field, value in changed:
        if field in _DEFAULTS and value == _DEFAULTS[field]:
            unsets[field] = ""
        else:
            sets[field] = _plain(value)
    return {"$set": sets, "$unset": unsets} if unsets else {"$set": sets}


def _plain(value: Any) -> Any:
    if type(value) is tuple:
        return [msgspec.structs.asdict(one) if isinstance(one, Window) else one for one in value]
    return value
