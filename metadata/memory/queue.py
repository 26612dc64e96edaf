"""One job queue of the memory store: its records and indexes, and the moves that keep them in step.

A record is in the index of its state and, while it is not final, in exactly one waker index: `outbox`, `held` or `sent`
when waiting, the index of its state (by run_at) when delayed, `active` of its owner when active. Every move detaches a
record from where it was and attaches it to where it goes, without an await in between: that is what makes it atomic.
"""

from __future__ import annotations

from msgspec import Struct

from ..job import FINAL, Deduplication, Keep, NewJob, Outbox, State
from ..schedule import Schedule
from .index import Index
from .record import Fence, Record

TRIM = 8  # records a single finish may prune from its group; the rest is left to `prune`
DEAD_FOR = 2 * 24 * 3600 * 1000  # ms for which a declared death is remembered


class Window(Struct):
    """Who holds a deduplication id, and until when (None: until it is final)."""

    job: str
    until: int | None

    def open(self, now: int) -> bool:
        return self.until is None or now < self.until


class Row(Struct):
    beat: int
    info: bytes


class Group(Struct):
    """Final records of one state and group name, oldest first, and how many of them the latest `Keep` allows."""

    members: Index
    count: int | None = None


class QueueData:
    def __init__(self, name: str) -> None:
        self.name = name
        self.known = False
        self.paused = False
        self.records: dict[str, Record] = {}
        self.states: dict[State, Index] = {state: Index() for state in State}
        self.outbox = Index()
        self.held = Index()
        self.sent: dict[int, Index] = {}  # by priority
        self.watermarks: dict[int, int] = {}  # by priority
        self.active: dict[str, dict[str, None]] = {}  # by owner
        self.asked: dict[str, dict[str, None]] = {}  # by owner: cancellation asked for
        self.rows: dict[str, Row] = {}
        self.standing: dict[str, int] = {}  # by owner: how many jobs it may be handed
        self.dead = Index()  # boots by the time of their declared death
        self.windows: dict[str, Window] = {}
        self.closing = Index()  # deduplication ids with a ttl, by its end
        self.aging = Index()  # final records with an age, by the time they reach it
        self.groups: dict[tuple[State, str], Group] = {}
        self.overfull: dict[tuple[State, str], None] = {}
        self.tombstones = Index()
        self.buried: dict[str, Fence | None] = {}  # of the tombstones: the last finish
        self.schedules: dict[str, Schedule] = {}
        self.fired: dict[str, tuple[int, int, str]] = {}  # by schedule: due, revision and author of the last firing
        self.runs = Index()  # schedules that are not paused, by next_run

    # -- moves ------------------------------------------------------------------------------------------------------

    def add(self, job: NewJob, *, state: State, dispatch: int) -> Record:
        """A new record, not attached yet: one of the moves below must follow."""
        if self.tombstones.discard(job.id):
            del self.buried[job.id]
        record = self.records[job.id] = Record.of(job, state, dispatch)
        return record

    def wait(self, record: Record, *, dispatch: int, due: int, now: int) -> None:
        self._detach(record)
        record.state, record.dispatch, record.outbox = State.WAITING, dispatch, Outbox.DUE
        self.states[State.WAITING].add(record.id, now)
        self.outbox.add(record.id, due)

    def hold(self, record: Record, *, dispatch: int, now: int) -> None:
        self._detach(record)
        record.state, record.dispatch, record.outbox = State.WAITING, dispatch, Outbox.HELD
        self.states[State.WAITING].add(record.id, now)
        self.held.add(record.id, now)

    def send(self, record: Record, *, due: int) -> None:
        """Held or sent -> outbox due, or due later, at the same dispatch."""
        self._unpost(record)
        record.outbox = Outbox.DUE
        self.outbox.add(record.id, due)

    def sent_now(self, record: Record, now: int) -> None:
        self._unpost(record)
        record.outbox, record.sent_at = Outbox.SENT, now
        index = self.sent.get(record.priority)
        if index is None:
            index = self.sent[record.priority] = Index()
        index.add(record.id, now)

    def delay(self, record: Record, run_at: int) -> None:
        self._detach(record)
        record.state, record.run_at = State.DELAYED, run_at
        self.states[State.DELAYED].add(record.id, run_at)

    def activate(self, record: Record, *, owner: str, dispatch: int, now: int) -> None:
        self._detach(record)
        record.state, record.dispatch, record.owner, record.claimed_at = State.ACTIVE, dispatch, owner, now
        self.states[State.ACTIVE].add(record.id, now)
        self.active.setdefault(owner, {})[record.id] = None
        if record.cancel_requested:
            self.asked.setdefault(owner, {})[record.id] = None

    def start(self, record: Record, *, owner: str, dispatch: int, now: int) -> None:
        """Claimed: another run begins."""
        self.activate(record, owner=owner, dispatch=dispatch, now=now)
        record.attempts += 1
        record.fence = max(record.fence + 1, now)
        record.progress = None

    def ask(self, record: Record) -> None:
        """Note that an active job's cancellation is asked for."""
        assert record.owner is not None
        record.cancel_requested = True
        self.asked.setdefault(record.owner, {})[record.id] = None

    def end(self, record: Record, state: State, *, now: int, keep: Keep) -> None:
        """Make a record final: free its deduplication id, count it in its group, prune what the group has too many."""
        self._detach(record)
        record.state, record.finished_at = state, now
        self.states[state].add(record.id, now)
        self.free(record, whatever_ttl=False)
        if keep.age is not None:
            self.aging.add(record.id, now + keep.age)
        record.group = (state, keep.group)
        group = self.groups.get(record.group)
        if group is None:
            group = self.groups[record.group] = Group(Index())
        group.members.add(record.id, now)
        group.count = keep.count
        self.trim((state, keep.group), limit=TRIM, now=now)

    def erase(self, record: Record, *, now: int, tombstone: bool) -> None:
        self._detach(record)
        del self.records[record.id]
        if tombstone:
            self.tombstones.add(record.id, now)
            self.buried[record.id] = record.last_fence

    # -- deduplication ----------------------------------------------------------------------------------------------

    def window(self, deduplication_id: str, now: int) -> Window | None:
        """The window that is open now, if any."""
        window = self.windows.get(deduplication_id)
        return window if window is not None and window.open(now) else None

    def take(self, deduplication: Deduplication, job: str, now: int) -> None:
        until = None if deduplication.ttl is None else now + deduplication.ttl
        self.windows[deduplication.id] = Window(job, until)
        self.set_end(deduplication.id, until)

    def set_end(self, deduplication_id: str, until: int | None) -> None:
        self.windows[deduplication_id].until = until
        if until is None:
            self.closing.discard(deduplication_id)
        else:
            self.closing.add(deduplication_id, until)

    def free(self, record: Record, *, whatever_ttl: bool) -> None:
        """Free a record's deduplication id, only if it still names this record."""
        if record.deduplication_id is None:
            return
        window = self.windows.get(record.deduplication_id)
        if window is not None and window.job == record.id and (whatever_ttl or window.until is None):
            self.drop_window(record.deduplication_id)

    def drop_window(self, deduplication_id: str) -> None:
        del self.windows[deduplication_id]
        self.closing.discard(deduplication_id)

    # -- retention --------------------------------------------------------------------------------------------------

    def trim(self, key: tuple[State, str], *, limit: int, now: int) -> int:
        """Prune up to `limit` of the oldest records that a group has too many; the number pruned."""
        group = self.groups[key]
        surplus = 0 if group.count is None else len(group.members) - group.count
        pruned = min(surplus, limit)
        for _ in range(pruned):
            oldest = group.members.oldest()
            assert oldest is not None
            self.erase(self.records[oldest], now=now, tombstone=True)
        if surplus > limit:
            self.overfull[key] = None
        else:
            self.overfull.pop(key, None)
        return max(pruned, 0)

    def drop_tombstone(self, id: str) -> None:
        self.tombstones.discard(id)
        del self.buried[id]

    # -- workers ----------------------------------------------------------------------------------------------------

    def alive(self, boot: str) -> bool:
        return boot in self.rows and boot not in self.dead

    def holds(self, boot: str) -> int:
        return len(self.active.get(boot, ()))

    # -- where a record is ------------------------------------------------------------------------------------------

    def _detach(self, record: Record) -> None:
        state = record.state
        self.states[state].discard(record.id)
        if state is State.WAITING:
            self._unpost(record)
        elif state is State.ACTIVE:
            assert record.owner is not None
            _drop(self.active, record.owner, record.id)
            if record.cancel_requested:
                _drop(self.asked, record.owner, record.id)
            record.owner = None
        elif state in FINAL and record.group is not None:
            self.aging.discard(record.id)
            group = self.groups[record.group]
            group.members.discard(record.id)
            if not group.members:
                del self.groups[record.group]
                self.overfull.pop(record.group, None)
            record.group = None

    def _unpost(self, record: Record) -> None:
        outbox = record.outbox
        if outbox is Outbox.DUE:
            self.outbox.discard(record.id)
        elif outbox is Outbox.HELD:
            self.held.discard(record.id)
        elif outbox is Outbox.SENT:
            index = self.sent[record.priority]
            index.discard(record.id)
            if not index:
                del self.sent[record.priority]
        record.outbox, record.sent_at = Outbox.NONE, None


def _drop(by_owner: dict[str, dict[str, None]], owner: str, id: str) -> None:
    ids = by_owner[owner]
    del ids[id]
    if not ids:
        del by_owner[owner]
