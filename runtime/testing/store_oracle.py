"""The contract of a store's queue once more, as plainly as it can be said: dictionaries, and a look at everything.

Written apart from the stores, to be compared with them by `store_machine`. It knows one queue and no clock but `now`,
and answers with plain values. Where the contract leaves a choice, it answers with the set of what is right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec import structs

from ...metadata.contract import (
    MAX_HISTORY,
    Admission,
    Cancel,
    Delay,
    Ending,
    Finish,
    Outcome,
    Removal,
    Ticket,
    Verdict,
)
from ...metadata.job import Keep, NewJob, Outbox, State
from .store_schedule_oracle import ScheduleOracle


@dataclass
class Entry:
    job: NewJob
    state: State
    dispatch: int
    attempts: int = 0
    failures: int = 0
    stalled: int = 0
    fence: int = 0
    owner: str | None = None
    outbox: Outbox = Outbox.NONE
    due: int = 0
    sent_at: int | None = None
    run_at: int = 0
    claimed_at: int | None = None
    finished_at: int | None = None
    parked_at: int | None = None
    cancel: bool = False
    result: bytes | None = None
    error: bytes | None = None
    progress: bytes | None = None
    history: list[bytes] = field(default_factory=list)
    last: tuple[int, str, Ending] | None = None
    keep: Keep = field(default_factory=Keep)

    def wait(self, dispatch: int, outbox: Outbox, due: int = 0) -> None:
        self.state, self.dispatch, self.owner = State.WAITING, dispatch, None
        self.outbox, self.due, self.sent_at = outbox, due, None

    def end(self, state: State, now: int, keep: Keep) -> None:
        self.state, self.owner, self.outbox, self.sent_at = state, None, Outbox.NONE, None
        self.finished_at, self.keep = now, keep

    def remember(self, history: bytes | None) -> None:
        if history is not None:
            self.history = [*self.history, history][-MAX_HISTORY:]


class Oracle:
    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.tombstones: dict[str, int] = {}
        self.windows: dict[str, tuple[str, int | None]] = {}
        self.rows: dict[str, bytes] = {}
        self.dead: set[str] = set()
        self.marks: dict[int, int] = {}
        self.paused = False
        self.schedules = ScheduleOracle()

    # -- jobs -----------------------------------------------------------------------------------------------------

    def enqueue(self, job: NewJob, now: int, grace: int) -> tuple[str, set[Admission], State | None, int, str | None]:
        if job.id in self.entries:
            entry = self.entries[job.id]
            same = entry.job.payload == job.payload
            return job.id, {Admission.CREATED if same else Admission.EXISTING}, entry.state, entry.dispatch, None
        wanted, replaced = job.deduplication, None
        if wanted is not None:
            holder = self.holder(wanted.id, now)
            fresh = None if wanted.ttl is None else now + wanted.ttl
            if holder is None:
                self.windows[wanted.id] = (job.id, fresh)
            else:
                until = self.windows[wanted.id][1]
                if wanted.extend and until is not None and fresh is not None:
                    until = fresh
                self.windows[wanted.id] = (holder, until)
                entry = self.entries.get(holder)  # type: ignore[assignment]
                if not wanted.replace or entry is None or entry.state is not State.DELAYED:
                    state, dispatch = (entry.state, entry.dispatch) if entry else (None, 0)
                    return holder, {Admission.DEDUPLICATED}, state, dispatch, None
                del self.entries[holder]
                if entry.dispatch:
                    self.tombstones[holder] = now
                self.windows[wanted.id] = (job.id, until)
                replaced = holder
        self.tombstones.pop(job.id, None)
        entry = self.entries[job.id] = Entry(job, State.DELAYED, 0)
        if job.run_at is not None and job.run_at > now:
            entry.run_at = job.run_at
        else:
            entry.wait(1, Outbox.DUE, now + grace)
        admission = Admission.REPLACED if replaced else Admission.CREATED
        return job.id, {admission}, entry.state, entry.dispatch, replaced

    def published(self, id: str, dispatch: int, now: int) -> None:
        entry = self.entries.get(id)
        if entry and entry.state is State.WAITING and entry.outbox is Outbox.DUE and entry.dispatch == dispatch:
            entry.outbox, entry.sent_at = Outbox.SENT, now

    def claim(
        self, owner: str, ticket: Ticket, now: int, keep_expired: Keep, alone_from: int | None = None
    ) -> set[Verdict]:
        """The verdict; after CLAIMED and MINE the entry holds the numbers."""
        if owner in self.dead or owner not in self.rows:
            return {Verdict.DEAD}
        if ticket.id not in self.entries:
            if ticket.id in self.tombstones:
                return {Verdict.GONE}
            if ticket.adopt is None:
                return {Verdict.UNKNOWN}
            self._adopt(ticket.adopt, ticket.dispatch, now)
        entry = self.entries[ticket.id]
        newer = ticket.dispatch > entry.dispatch
        if entry.state.final:
            return {Verdict.AHEAD if newer else Verdict.FINAL}
        if entry.state is State.ACTIVE and not newer:
            mine = entry.dispatch == ticket.dispatch and entry.owner == owner
            return {Verdict.MINE if mine else Verdict.TAKEN}
        if entry.dispatch > ticket.dispatch:
            return {Verdict.STALE}
        if entry.state is State.DELAYED and (not newer or entry.run_at > now):
            return {Verdict.NOT_DUE}
        if entry.job.expires_at is not None and entry.job.expires_at <= now and entry.attempts == 0:
            entry.dispatch = ticket.dispatch
            self._end(entry, State.EXPIRED, now, keep_expired)
            return {Verdict.EXPIRED}
        if self.paused:
            entry.wait(ticket.dispatch + 1, Outbox.HELD)
            return {Verdict.PAUSED}
        if alone_from is not None and entry.stalled >= alone_from:
            return {Verdict.ALONE}
        if entry.sent_at is not None:
            priority = entry.job.priority
            self.marks[priority] = max(self.marks.get(priority, 0), entry.sent_at)
        entry.state, entry.dispatch, entry.owner = State.ACTIVE, ticket.dispatch, owner
        entry.outbox, entry.sent_at, entry.claimed_at = Outbox.NONE, None, now
        entry.attempts += 1
        return {Verdict.CLAIMED}

    def _adopt(self, job: NewJob, dispatch: int, now: int) -> None:
        entry = self.entries[job.id] = Entry(job, State.WAITING, dispatch)
        entry.wait(dispatch, Outbox.DUE, now)
        if job.deduplication is not None and self.holder(job.deduplication.id, now) is None:
            ttl = job.deduplication.ttl
            self.windows[job.deduplication.id] = (job.id, None if ttl is None else now + ttl)

    def held(self, id: str, dispatch: int, owner: str) -> Entry | None:
        """The entry, if that fence holds it."""
        entry = self.entries.get(id)
        if entry is None or entry.state is not State.ACTIVE or owner in self.dead:
            return None
        return entry if (entry.dispatch, entry.owner) == (dispatch, owner) else None

    def finish(self, outcome: Outcome, now: int, grace: int) -> tuple[set[Finish], State | None, int]:
        entry = self.held(outcome.id, outcome.dispatch, outcome.owner)
        if entry is None:
            return self._not_held(outcome)
        ending = outcome.ending
        entry.last = (outcome.dispatch, outcome.owner, ending)
        entry.remember(outcome.history)
        entry.failures += ending in (Ending.FAILED, Ending.RETRY)
        if entry.cancel and ending in (Ending.RETRY, Ending.RELEASE, Ending.PARK):
            ending = Ending.CANCELLED
        if ending in (Ending.COMPLETED, Ending.FAILED, Ending.CANCELLED):
            entry.result, entry.error = outcome.result, outcome.error
            self._end(entry, State(ending.value), now, outcome.keep)
        else:
            if ending is Ending.PARK and entry.parked_at is None:
                entry.parked_at = now
            if outcome.run_at is not None and outcome.run_at > now:
                entry.state, entry.owner, entry.run_at = State.DELAYED, None, outcome.run_at
            else:
                entry.wait(entry.dispatch + 1, Outbox.DUE, now + grace)
        return {Finish.DONE}, entry.state, entry.dispatch

    def _not_held(self, outcome: Outcome) -> tuple[set[Finish], State | None, int]:
        entry = self.entries.get(outcome.id)
        if entry is None:
            return {Finish.REFUSED, Finish.RECORDED} if outcome.id in self.tombstones else {Finish.REFUSED}, None, 0
        if entry.last == (outcome.dispatch, outcome.owner, outcome.ending):
            return {Finish.RECORDED}, entry.state, entry.dispatch
        if entry.last is not None and entry.last[:2] == (outcome.dispatch, outcome.owner):
            return {Finish.RECORDED, Finish.REFUSED}, entry.state, entry.dispatch
        return {Finish.REFUSED}, entry.state, entry.dispatch

    def cancel(self, id: str, now: int, keep: Keep) -> tuple[Cancel, State | None, str | None]:
        entry = self.entries.get(id)
        if entry is None:
            return Cancel.UNKNOWN, None, None
        if entry.state is State.ACTIVE:
            entry.cancel = True
            return Cancel.REQUESTED, State.ACTIVE, entry.owner
        if not entry.state.final:
            self._end(entry, State.CANCELLED, now, keep)
        answer = Cancel.CANCELLED if entry.state is State.CANCELLED else Cancel.FINAL
        return answer, entry.state, None

    def retry(self, id: str, now: int, grace: int) -> int | State | None:
        """The new dispatch; or the state of what was left alone."""
        entry = self.entries.get(id)
        if entry is None:
            return None
        if not entry.state.final:
            return entry.state
        entry.failures, entry.stalled, entry.cancel, entry.parked_at = 0, 0, False, None
        entry.result, entry.error, entry.finished_at = None, None, None
        entry.job = structs.replace(entry.job, expires_at=None)
        entry.wait(entry.dispatch + 1, Outbox.DUE, now + grace)
        return entry.dispatch

    def remove(self, id: str, now: int) -> Removal:
        entry = self.entries.get(id)
        if entry is None:
            return Removal.REMOVED if id in self.tombstones else Removal.UNKNOWN
        if entry.state is State.ACTIVE:
            return Removal.ACTIVE
        self._free(id, whatever_ttl=True)
        self._bury(id, now)
        return Removal.REMOVED

    # -- wakers: which jobs are due, and what becomes of those that were taken -------------------------------------

    def unpublished(self, now: int) -> set[str]:
        return {
            id
            for id, entry in self.entries.items()
            if (entry.outbox is Outbox.DUE and entry.due <= now) or (entry.outbox is Outbox.HELD and not self.paused)
        }

    def overtaken(self, lag: int, sent_before: int | None) -> set[str]:
        return {
            id
            for id, entry in self.entries.items()
            if entry.sent_at is not None
            and (
                entry.sent_at < self.marks.get(entry.job.priority, 0) - lag
                or (sent_before is not None and entry.sent_at < sent_before)
            )
        }

    def send_again(self, ids: Iterable[str], due: int) -> None:
        for id in ids:
            self.entries[id].wait(self.entries[id].dispatch, Outbox.DUE, due)

    def due(self, now: int) -> set[str]:
        return {id for id, entry in self.entries.items() if entry.state is State.DELAYED and entry.run_at <= now}

    def become_due(self, ids: Iterable[str], due: int) -> None:
        for id in ids:
            self.entries[id].wait(self.entries[id].dispatch + 1, Outbox.DUE, due)

    def reschedule(self, delay: Delay, now: int, grace: int) -> int | State | None:
        """The new dispatch of a job that waits now; or the state that it is in after the call."""
        entry = self.entries.get(delay.id)
        if entry is None or entry.state is not State.DELAYED:
            return None if entry is None else entry.state
        if delay.run_at is not None and delay.run_at > now:
            entry.run_at = delay.run_at
            return State.DELAYED
        entry.wait(entry.dispatch + 1, Outbox.DUE, now + grace)
        return entry.dispatch

    def next_due(self) -> int | None:
        return min((entry.run_at for entry in self.entries.values() if entry.state is State.DELAYED), default=None)

    # -- workers --------------------------------------------------------------------------------------------------

    def of(self, boot: str) -> set[str]:
        return {id for id, entry in self.entries.items() if entry.owner == boot}

    def heartbeat(self, boot: str, info: bytes) -> tuple[bool, set[str]]:
        if boot in self.dead:
            return False, set()
        self.rows[boot] = info
        return True, {id for id in self.of(boot) if self.entries[id].cancel}

    def leave(self, boot: str) -> None:
        if not self.of(boot):
            self.rows.pop(boot, None)

    def stall(self, ids: Iterable[str], now: int, due: int, max_stalled: int, error: bytes, history: bytes) -> None:
        for id in ids:
            entry = self.entries[id]
            entry.remember(history)
            if entry.cancel:
                self._end(entry, State.CANCELLED, now, Keep())
            elif entry.stalled >= max_stalled:
                entry.error = error
                self._end(entry, State.FAILED, now, Keep())
            else:
                entry.stalled += 1
                entry.wait(entry.dispatch + 1, Outbox.DUE, due)

    # -- deduplication, retention ----------------------------------------------------------------------------------

    def holder(self, key: str, now: int) -> str | None:
        id, until = self.windows.get(key, (None, None))
        return None if until is not None and until <= now else id

    def release(self, key: str) -> None:
        self.windows.pop(key, None)

    def prune(self, now: int, adoption_window: int) -> None:
        for id, entry in list(self.entries.items()):
            age, finished_at = entry.keep.age, entry.finished_at
            if entry.state.final and age is not None and finished_at is not None and finished_at + age < now:
                self._bury(id, now)
        for id, buried_at in list(self.tombstones.items()):
            if buried_at < now - adoption_window:
                del self.tombstones[id]

    def keep_newest(self, state: State, group: str, count: int, now: int) -> None:
        members = [id for id, e in self.entries.items() if e.state is state and e.keep.group == group]
        members.sort(key=lambda id: self.entries[id].finished_at or 0)
        for id in members[: max(0, len(members) - count)]:
            self._bury(id, now)

    def clear(self, state: State, now: int) -> set[str]:
        ids = {id for id, entry in self.entries.items() if entry.state is state}
        for id in ids:
            self.remove(id, now)
        return ids

    def forget(self) -> bool:
        if self.entries or self.rows or self.schedules.known:
            return False
        self.__init__()  # type: ignore[misc]
        return True

    def _end(self, entry: Entry, state: State, now: int, keep: Keep) -> None:
        entry.end(state, now, keep)
        self._free(entry.job.id, whatever_ttl=False)

    def _free(self, id: str, *, whatever_ttl: bool) -> None:
        for key, (holder, until) in list(self.windows.items()):
            if holder == id and (whatever_ttl or until is None):
                del self.windows[key]

    def _bury(self, id: str, now: int) -> None:
        del self.entries[id]
        self.tombstones[id] = now
