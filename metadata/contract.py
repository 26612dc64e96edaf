"""What a metadata store promises, in small protocols called capabilities.

A store is an object that is opened, asked for capabilities, and closed. Rules that hold for every operation below:

- It is one atomic step for each entry, and one round trip for the whole batch (one per job queue, sent together, where
  a batch spans queues; one to look and one to write, where the store runs no code of ours). A batch gives the answers
  that its entries would give one at a time, in order; an empty batch makes no trip; a bad entry affects only itself.
- It may be repeated. A driver or a caller that lost the reply calls again with the same arguments: the state is that of
  one execution, and the answer is the same, or one that says that it was done before (MINE, STALE, FINAL, RECORDED; of
  `retry` and `reschedule` the state, of `release` and `Delays.remove` False; of a REPLACED enqueue CREATED). The
  `take_...` operations answer a repeat with rows not yet taken.
- `now` is the caller's clock in ms since the Unix epoch. Where an operation makes something due, the earlier of `now`
  and the store's own clock counts, so that neither clock's jump runs a job early. Deduplication windows and ages go
  by `now` or by that same earlier clock.
- `StoreUnavailable`: it may or may not have happened, repeat it. `StoreError`: a fault. No driver's error comes out.
- Bytes come back as they were sent. The cost does not grow with the number of jobs kept: nothing here scans but
  `Inspection.audit`. Every operation can be done with guards on single documents; none needs a transaction.

The record and its states are in `job.py`. Words: a *ticket* is the message that carries (job, dispatch) to a worker;
the *fence* of a run is (dispatch, owner), owner being the boot id of the worker process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import ClassVar, Protocol, Self, TypeVar, runtime_checkable

from msgspec import Struct

from .ends import Ends
from .job import Job, Keep, NewJob, State
from .leases import Leases
from .schedules import Schedules
from .standing import StandingClaims

MAX_BATCH = 128  # entries in one call; callers split larger batches. 256 transitions held Redis for 2.5 ms.
MAX_HISTORY = 20  # newest entries of a job's attempt history that are kept


# --- Jobs ---------------------------------------------------------------------------------------------------------


class Admission(StrEnum):
    CREATED = "created"  # also for a repeat of the same enqueue (equal payload)
    EXISTING = "existing"  # the id was taken by another job; nothing was written
    # Another job holds the deduplication id; nothing was written but `extend`. Where its window outlived the holder's
    # record, the answer's state is a final one and its dispatch 0.
    DEDUPLICATED = "deduplicated"
    REPLACED = "replaced"  # created, in the place of a delayed job, which is gone


class Enqueued(Struct, frozen=True):
    """`id` is the job that now stands for the request: the new one, or the holder. `replaced`: the id that is gone."""

    id: str
    admission: Admission
    state: State
    dispatch: int
    replaced: str | None = None


class Ready(Struct, frozen=True):
    """A waiting job whose ticket is to be sent now, by the caller; its outbox entry stays until `published`.

    `not_before`: not now but then, ms; 0 where the job is due."""

    queue: str
    id: str
    dispatch: int
    priority: int
    payload: bytes
    not_before: int = 0


class Sent(Struct, frozen=True):
    queue: str
    id: str
    dispatch: int


class Ticket(Struct, frozen=True):
    """A claim's entry. `adopt`: the job to record if the store has never heard of the id (the caller decided so).
    `created_at` tells jobs of one id apart, of which the earlier was removed; None: not known."""

    id: str
    dispatch: int
    adopt: NewJob | None = None
    created_at: int | None = None


class Verdict(StrEnum):
    """A claim's answer. Only CLAIMED starts a run; MINE starts one unless this boot already started that dispatch.

    Every answer but UNKNOWN and ALONE means that the ticket may be acked: another waker holds the job, or it needs
    none.
    """

    CLAIMED = "claimed"
    MINE = "mine"  # active at this dispatch, owner = the claimer
    TAKEN = "taken"  # active at this or a newer dispatch, another owner (or this one at a newer dispatch)
    STALE = "stale"  # waiting, delayed or waiting-children at a newer dispatch; or the ticket of an earlier job
    FINAL = "final"
    AHEAD = "ahead"  # final, and the ticket's dispatch is higher than the record's: not run
    GONE = "gone"  # only the tombstone is left
    UNKNOWN = "unknown"  # no record and no tombstone: claim again with `adopt`, or put it aside
    EXPIRED = "expired"  # its `expires_at` has passed: this claim made it final
    PAUSED = "paused"  # the queue is paused: now held, dispatch + 1
    NOT_DUE = "not-due"  # delayed, and its time has not come: the scanner will send it
    ALONE = "alone"  # to be run alone, so left as it was: claim it without `alone_from` when nothing else runs
    DEAD = "dead"  # the claimer's boot was declared dead or has no row in this queue: take a new boot id


class Claimed(Struct, frozen=True):
    """`fence` only grows per job; `attempt` is 1 for the first run. Numbers other than `verdict` are 0 unless CLAIMED
    or MINE. `parked_at`: when the job was first parked by a worker that could not run it (`Ending.PARK`)."""

    id: str
    verdict: Verdict
    fence: int = 0
    attempt: int = 0
    failures: int = 0
    stalled: int = 0
    parked_at: int | None = None


class Ending(StrEnum):
    """How a run ended. RETRY uses up a retry (`failures` + 1); RELEASE and PARK do not.

    RETRY, RELEASE and PARK with `run_at` later than now make the job delayed, else waiting with the next dispatch,
    which the caller publishes. PARK also notes the time of the first parking. Where cancellation was asked for, these
    three end as CANCELLED instead.
    """

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RETRY = "retry"
    RELEASE = "release"
    PARK = "park"


class Outcome(Struct, frozen=True, kw_only=True):
    """A finish's entry. `history`: an entry for the attempt history (None: add none). FAILED also counts a failure."""

    id: str
    dispatch: int
    owner: str
    ending: Ending
    result: bytes | None = None
    error: bytes | None = None
    history: bytes | None = None
    run_at: int | None = None
    keep: Keep = Keep()


class Finish(StrEnum):
    DONE = "done"
    RECORDED = "recorded"  # a repeat of a finish that took effect
    REFUSED = "refused"  # (dispatch, owner) does not hold the job: nothing was changed


class Finished(Struct, frozen=True):
    """`state`, `dispatch`: the record's after the call; None and 0 where there is no record. `owner`: where REFUSED,
    the boot id that runs the job now, or that ended it; None where that is nobody or not known any more.

    state WAITING with DONE: the caller publishes that dispatch."""

    id: str
    finish: Finish
    state: State | None
    dispatch: int
    owner: str | None = None


class Cancel(StrEnum):
    CANCELLED = "cancelled"
    REQUESTED = "requested"  # it is running: its worker is told with its next heartbeat
    FINAL = "final"
    UNKNOWN = "unknown"


class Cancelled(Struct, frozen=True):
    """`owner`: the boot id to tell, where REQUESTED. A repeat of a cancel that took effect answers CANCELLED."""

    id: str
    cancel: Cancel
    state: State | None
    owner: str | None = None


class Removal(StrEnum):
    REMOVED = "removed"  # also where only a tombstone is left
    ACTIVE = "active"  # refused: it is running
    UNKNOWN = "unknown"


@runtime_checkable
class Jobs(Protocol):
    """The life of a job, from `enqueue` to its final state."""

    async def enqueue(self, jobs: Sequence[NewJob], *, now: int, grace: int) -> Sequence[Enqueued]:
        """Record jobs, of one queue or several.

        Waiting (dispatch 1) with an outbox entry due at now + grace, so that whoever calls has `grace` ms to publish
        before a relay does; or delayed (dispatch 0) where `run_at` is later than now.

        The id is looked up first: equal payload -> CREATED again; else EXISTING. Then the deduplication id.
        With `replace` and a holder that is delayed, the holder is removed (no tombstone: a delayed job has no ticket
        that could come late, save one of an earlier attempt, which a tombstone then answers) and the newcomer takes
        over the key; the window starts anew with `extend`, else keeps its end.
        """
        ...

    async def published(self, sent: Sequence[Sent], *, now: int) -> None:
        """The broker confirmed these tickets: outbox due -> sent, only where waiting at that very dispatch."""
        ...

    async def claim(
        self,
        queue: str,
        owner: str,
        tickets: Sequence[Ticket],
        *,
        now: int,
        keep_expired: Keep,
        alone_from: int | None = None,
    ) -> Sequence[Claimed]:
        """Take jobs for `owner`, whose row in this queue must be alive (`Workers.heartbeat`).

        In this order: dead or unknown boot -> DEAD; no record -> GONE with a tombstone, else `adopt` is recorded as
        waiting at the ticket's dispatch and goes on through this list, else UNKNOWN; a ticket with another `created_at`
        than the record's -> STALE; final -> FINAL or AHEAD; active at this dispatch by `owner` -> MINE; active at this
        or a newer dispatch -> TAKEN; waiting, delayed or waiting-children at a newer dispatch -> STALE; delayed at this
        dispatch, or with run_at to come -> NOT_DUE; past expires_at and never run -> EXPIRED, final, deduplication
        freed; queue paused -> PAUSED: held, at a dispatch above its own and the ticket's; stalled >= `alone_from`
        (None: no such rule) -> ALONE, and the record is left as it was; else claimed: active at the ticket's dispatch,
        owner, attempts + 1, fence = max(fence + 1, store's clock in ms), every waker index replaced by the owner's. A
        delayed job is claimed only by a ticket of a higher dispatch than its own.

        A job claimed while `sent` moves the watermark of its (queue, priority) to its `sent_at` if that is later.
        """
        ...

    async def finish(self, queue: str, outcomes: Sequence[Outcome], *, now: int, grace: int) -> Sequence[Finished]:
        """End runs, each only if active at (dispatch, owner); see `Ending`.

        A final state frees the deduplication id if it still names this job and has no ttl, and applies `keep`: the
        oldest of the group beyond `count` are pruned, leaving tombstones, here or at the latest by the next `prune`.
        A dead boot is refused for the jobs it has lost, which happens as soon as `declare_dead` returned.
        """
        ...

    async def progress(self, queue: str, id: str, *, dispatch: int, owner: str, value: bytes) -> bool:
        """Note how far a run is (opaque bytes, replaced by the next), fenced like a finish; False: refused."""
        ...

    async def cancel(self, queue: str, ids: Sequence[str], *, now: int, keep: Keep) -> Sequence[Cancelled]: ...

    async def retry(self, queue: str, ids: Sequence[str], *, now: int, grace: int) -> Sequence[Ready | State | None]:
        """Final -> waiting, next dispatch, failures and stalled 0, error, result and `expires_at` cleared; a run_at
        that is to come becomes now.

        The caller publishes it. A state in the answer: what the job is in; it was left alone. None: unknown."""
        ...

    async def remove(self, queue: str, ids: Sequence[str], *, now: int) -> Sequence[Removal]:
        """Forget jobs that are not running, leaving tombstones; their deduplication id is freed, whatever its ttl."""
        ...

    async def take_unpublished(self, queues: Sequence[str], *, now: int, grace: int, limit: int) -> Sequence[Ready]:
        """Up to `limit` jobs per queue whose outbox entry is due, or held while their queue is not paused. Each
        entry's next due time is now + grace, so replicas split the work and a crash repeats it. A job whose run_at the
        store's clock has not reached is none of them: a scanner has taken it ahead, and the caller's clock is ahead."""
        ...

    async def take_overtaken(
        self, queues: Sequence[str], *, now: int, grace: int, lag: int, sent_before: int | None, limit: int
    ) -> Sequence[Ready]:
        """Up to `limit` jobs per queue whose ticket must be lost: sent -> outbox due at now + grace, same dispatch.

        Lost is: sent_at < min(watermark of its (queue, priority), `now`) - lag; or, where the caller knows that the
        broker holds no ticket of the queue any more, sent_at < `sent_before` (None: that rule is off)."""
        ...


# --- Delays -------------------------------------------------------------------------------------------------------


class Due(Struct, frozen=True):
    """`next_due`: the earliest run_at left in any of the queues, None if there is none. `gap`: store clock - `now`."""

    ready: Sequence[Ready]
    next_due: int | None
    gap: int = 0


class Delay(Struct, frozen=True):
    """A delayed job, and when it is to be due from now on; None: at once."""

    id: str
    run_at: int | None


@runtime_checkable
class Delays(Protocol):
    """Each operation changes a job only while it is delayed: of those that meet, the first one counts."""

    async def take_due(self, queues: Sequence[str], *, now: int, grace: int, limit: int, ahead: int = 0) -> Due:
        """Up to `limit` jobs per queue with run_at <= min(now, store clock) + `ahead`: waiting, dispatch + 1, outbox
        due at now + ahead + grace. A job that is not due by one of the clocks yet has its run_at as `not_before`: the
        caller keeps its ticket until then."""
        ...

    async def reschedule(
        self, queue: str, delays: Sequence[Delay], *, now: int, grace: int
    ) -> Sequence[Ready | State | None]:
        """Change when delayed jobs are due: delayed until `run_at`; or, where that is no later than min(now, store
        clock) or None, waiting, dispatch + 1, outbox due at now + grace, and the caller publishes it.

        A state in the answer: DELAYED, it is due at `run_at` now; another one, it was left alone. None: unknown."""
        ...

    async def remove(self, queue: str, ids: Sequence[str], *, now: int) -> Sequence[bool]:
        """Forget delayed jobs, as by `Jobs.remove`. False: it is not delayed, or not any more."""
        ...


# --- Workers: leases by observation -------------------------------------------------------------------------------


class Heartbeat(Struct, frozen=True):
    """`alive` False: some queue declared this boot dead. `cancels`: (queue, job id) whose cancellation is asked for."""

    alive: bool
    cancels: Sequence[tuple[str, str]] = ()
    paused: Sequence[str] = ()


class WorkerRow(Struct, frozen=True):
    """One worker process in one queue. `info`: opaque bytes from its latest heartbeat. `active`: jobs it holds."""

    queue: str
    boot: str
    beat: int
    info: bytes
    active: int


class Stalled(Struct, frozen=True):
    """`failed`: ids that passed `max_stalled`. `more`: call again. When nothing is left, the boot's row is removed."""

    ready: Sequence[Ready]
    failed: Sequence[str]
    more: bool


@runtime_checkable
class Workers(Protocol):
    """Who runs what. Nobody's clock decides that a worker is dead: a recovery actor that watched a row's counter stand
    still for the lease does, by `declare_dead` on the very value it saw."""

    async def heartbeat(self, boot: str, queues: Sequence[str], *, info: bytes, now: int) -> Heartbeat:
        """Raise the boot's counter in each queue's row (made on the first beat), unless it was declared dead."""
        ...

    async def leave(self, boot: str, queues: Sequence[str]) -> None:
        """Drop the rows of a boot that ends in order, and whose every claim was answered: another may yet take effect,
        and nobody recovers a job whose owner has no row. A row that still holds active jobs stays, to be recovered."""
        ...

    async def workers(self, queues: Sequence[str]) -> Sequence[WorkerRow]:
        """Every boot that has a row in one of the queues. StoreUnavailable also where the store can be read but refuses
        heartbeats: counters that nobody can raise tell nothing."""
        ...

    async def declare_dead(self, queue: str, boot: str, *, beat: int, now: int) -> bool:
        """Only if the counter still is `beat` (or the boot is dead already). From then on its claims, heartbeats and
        finishes in this queue are refused, for a day at least."""
        ...

    async def take_stalled(
        self,
        queue: str,
        boot: str,
        *,
        now: int,
        grace: int,
        max_stalled: int,
        error: bytes,
        history: bytes,
        keep: Keep,
        limit: int,
    ) -> Stalled:
        """Up to `limit` active jobs of a dead boot: waiting, dispatch + 1, stalled + 1, outbox due at now + grace; or
        failed with `error` where stalled was `max_stalled` already; or cancelled where that was asked for. `history` is
        added to each."""
        ...


# --- Deduplication, queue control, inspection, retention ----------------------------------------------------------


@runtime_checkable
class Deduplicating(Protocol):
    async def holder(self, queue: str, deduplication_id: str, *, now: int) -> str | None:
        """The id of the job that holds the deduplication id now."""
        ...

    async def release(self, queue: str, deduplication_id: str) -> bool:
        """Free the deduplication id without touching the job; False: it was free."""
        ...


@runtime_checkable
class QueueControl(Protocol):
    async def register(self, queues: Sequence[str]) -> None:
        """Make queues known, so that actors and tools find them. Repeated by each process now and then."""
        ...

    async def queues(self) -> Sequence[str]:
        """All known queues, sorted."""
        ...

    async def pause(self, queue: str) -> None:
        """No claim begins after this returned. Running jobs run on."""
        ...

    async def resume(self, queue: str) -> None:
        """Held jobs come out with the next `take_unpublished`."""
        ...

    async def paused(self, queues: Sequence[str]) -> Sequence[str]:
        """Those of `queues` that are paused."""
        ...

    async def clear(self, queue: str, state: State, *, before: int, limit: int, now: int) -> Sequence[str]:
        """Remove up to `limit` jobs in that state (any but active), oldest first, that entered it before `before` (a
        delayed job: whose run_at is before it); their ids. As by `Jobs.remove`. Empty: nothing is left."""
        ...

    async def forget(self, queue: str) -> bool:
        """Drop a queue that holds no job, no worker and no schedule: its pause, watermarks, tombstones and its name.
        False: it still holds some."""
        ...


class Counts(Struct, frozen=True, kw_only=True):
    waiting: int = 0
    delayed: int = 0
    waiting_children: int = 0
    active: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    unpublished: int = 0  # of waiting: not known to be sent
    held: int = 0  # of waiting: parked by a pause
    paused: bool = False


class Passing(str):
    """What `Inspection.audit` says of a thing that is not as it should be, costs no job, and is mended in time."""


@runtime_checkable
class Inspection(Protocol):
    async def get(self, queue: str, ids: Sequence[str]) -> Sequence[Job | None]: ...

    async def counts(self, queues: Sequence[str]) -> Mapping[str, Counts]: ...

    async def page(self, queue: str, state: State, *, offset: int, limit: int, newest_first: bool) -> Sequence[Job]:
        """Jobs in that state by the time they entered it (delayed: by run_at). Cost grows with offset + limit only."""
        ...

    async def progress(self, queue: str, id: str) -> bytes | None: ...

    async def audit(self, queue: str) -> Sequence[str]:
        """Read everything about a queue and name what is wrong: a record that is not final and in no waker index or in
        two, an index entry without its record, a leaked key; as `Passing` what a killed process may leave and what puts
        itself right. For tests and `doctor`; the only scan there is."""
        ...


class Pruned(Struct, frozen=True):
    removed: int
    more: bool


@runtime_checkable
class Retention(Protocol):
    async def prune(self, queues: Sequence[str], *, now: int, adoption_window: int, limit: int) -> Pruned:
        """Per queue, up to `limit` final records past their `keep` become tombstones, and up to `limit` tombstones
        older than `adoption_window` ms are dropped."""
        ...


# --- The store ----------------------------------------------------------------------------------------------------

_OF_JOBS: tuple[type, ...] = (Jobs, Delays, Workers, Deduplicating, QueueControl, Inspection, Retention)
CAPABILITIES: tuple[type, ...] = (*_OF_JOBS, Schedules, Leases, StandingClaims, Ends)

C = TypeVar("C")


class Check(Struct, frozen=True):
    """A finding of `Store.check`: `refuse` findings stop a start, the others are warned about."""

    name: str
    message: str
    refuse: bool = False


class Store(Protocol):
    """A metadata store. `Store.from_url(url, namespace=...)` makes one, closed; `open` connects.

    `durable` and `epoch` are known once it is open. `durable`: an answered write survives a power failure.
    `shared`: other processes see the same data. `server_time`: it has a clock of its own. `epoch`: a random id written
    when the store was first used; another one means that its data were lost.
    """

    scheme: ClassVar[str]
    shared: ClassVar[bool]
    server_time: ClassVar[bool]

    @classmethod
    def from_url(cls, url: str, *, namespace: str) -> Self: ...

    @property
    def durable(self) -> bool: ...

    @property
    def epoch(self) -> str: ...

    @property
    def version(self) -> str:
        """The server's, for people to read; empty where there is none. Known once it is open."""
        ...

    @property
    def capabilities(self) -> frozenset[type]: ...

    def get(self, capability: type[C]) -> C:
        """The object that offers a capability of `CAPABILITIES`; CapabilityMissing where there is none."""
        ...

    async def open(self) -> None:
        """Connect and read `durable` and `epoch`; StoreUnavailable if it cannot be reached, StoreRefused if it must
        not be used as it is set up."""
        ...

    async def read_epoch(self) -> str:
        """Read `epoch` again, which stays the same unless the data were lost since; a new one is written then."""
        ...

    async def close(self) -> None: ...

    async def ping(self) -> None: ...

    async def check(self) -> Sequence[Check]:
        """What an operator should know about how the server is set up."""
        ...
