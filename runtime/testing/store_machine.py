"""A store against a plain model of it: random operations, repeats, batches and steps of the clock, by hypothesis.

    check_store(make_store, start=clock.now() - 2 * 24 * 3600 * 1000)

After every step the store's answers and all its records must be the oracle's; at the end of every example an audit must
find nothing. `CALLBOARD_MACHINE_EXAMPLES` sets how many examples are tried. A failure prints its steps as they were
found; with `CALLBOARD_MACHINE_SHRINK=1` the shortest series of steps that shows it, after minutes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ...metadata.contract import (
    Admission,
    Deduplicating,
    Delays,
    Ending,
    Inspection,
    Jobs,
    Outcome,
    QueueControl,
    Ready,
    Retention,
    Sent,
    Store,
    Ticket,
    Verdict,
    Workers,
)
from ...metadata.job import Deduplication, Job, Keep, NewJob, Outbox, State
from ...metadata.schedules import Schedules
from .store_oracle import Oracle
from .store_time_rules import TimeRules

QUEUE = "emails"
IDS = ("a", "b", "c", "d", "e")
KEYS = ("k1", "k2")
GRACE = 1_000
LAG = 60_000
ALL = 100
# The clock moves in steps of 10, these are no multiples of 10: no moment ever falls on the edge of a window.
TTL = 3_007
AGE = 1_003
EXPIRY = 2_009
ADOPTION_WINDOW = 5_003
COUNTED = Keep(count=2, group="counted")

T = TypeVar("T")
Maker = Callable[[], Awaitable[Store]]

ids = st.sampled_from(IDS)
offsets = st.sampled_from([0, 0, 0, 0, -1, 1])  # of a ticket's dispatch from the record's
keeps = st.sampled_from([Keep(), Keep(age=AGE)])
boots = st.integers(0, 2)
delays = st.sampled_from([None, None, -10, 0, 10, 2_000])
modes = st.one_of(
    st.none(),
    st.builds(
        Deduplication,
        id=st.sampled_from(KEYS),
        ttl=st.sampled_from([None, TTL]),
        extend=st.booleans(),
        replace=st.booleans(),
    ),
)


class StoreMachine(TimeRules, RuleBasedStateMachine):
    """`make` and `start` (ms, a multiple of 10, in the past of the store's clock) come from `check_store`."""

    make: ClassVar[Maker]
    discard: ClassVar[Callable[[Store], Awaitable[None]]]
    start: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store: Store = self.run(type(self).make())
        self.run(self.store.open())
        self.jobs = self.store.get(Jobs)
        self.delays = self.store.get(Delays)
        self.workers = self.store.get(Workers)
        self.deduplicating = self.store.get(Deduplicating)
        self.control = self.store.get(QueueControl)
        self.inspection = self.store.get(Inspection)
        self.retention = self.store.get(Retention)
        self.schedules = self.store.get(Schedules)
        self.now = self.start
        self.oracle = Oracle()
        self.boots = ["boot-0", "boot-1", "boot-2"]
        self.born = 3

    def run(self, awaitable: Awaitable[T]) -> T:
        async def wait() -> T:
            return await awaitable

        return self.runner.run(wait())

    def once_or_twice(
        self,
        again: bool,
        ids: Sequence[str],
        operation: Callable[[], Coroutine[Any, Any, T]],
        check: Callable[[T], None],
    ) -> None:
        """Perform and check an operation; a repeat of it is checked too, and must leave every record as it was.

        But not where one job is in the batch twice: the first entry of the repeat then follows the second of the
        original, such as a ticket that the store could not know before the next one had it adopt the job.
        """
        check(self.run(operation()))
        if again:
            before = self.records()
            check(self.run(operation()))
            assert self.records() == before or len(set(ids)) < len(ids)

    def records(self) -> Sequence[Job | None]:
        return self.run(self.inspection.get(QUEUE, IDS))

    def dispatch(self, id: str, offset: int) -> int:
        entry = self.oracle.entries.get(id)
        return max(0, (entry.dispatch if entry else 1) + offset)

    def owner(self, id: str, boot: int | None) -> str:
        """The boot that holds a job (None), or one of the boots."""
        entry = self.oracle.entries.get(id)
        return self.boots[boot or 0] if boot is not None or entry is None or entry.owner is None else entry.owner

    def new(self, id: str, variant: int, delay: int | None, expires: bool, mode: Deduplication | None) -> NewJob:
        return NewJob(
            id=id,
            queue=QUEUE,
            task="task",
            payload=f"{id} {variant}".encode(),
            priority=1 + variant,
            created_at=self.now,
            run_at=None if delay is None else self.now + delay,
            expires_at=self.now + EXPIRY if expires else None,
            deduplication=mode,
        )

    # -- the clock and the workers ---------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.run(self.control.register([QUEUE]))
        for boot in self.boots[:2]:
            self.beat(boot, b"")

    @rule(ms=st.sampled_from([10, 990, GRACE, 2_000, 4_000, LAG + 10]))
    def pass_time(self, ms: int) -> None:
        self.now += ms

    @rule(boot=boots, info=st.binary(max_size=3))
    def heartbeat(self, boot: int, info: bytes) -> None:
        self.beat(self.boots[boot], info)

    def beat(self, boot: str, info: bytes) -> None:
        answer = self.run(self.workers.heartbeat(boot, [QUEUE], info=info, now=self.now))
        alive, cancels = self.oracle.heartbeat(boot, info)
        assert answer.alive == alive
        assert sorted(answer.cancels) == sorted((QUEUE, id) for id in cancels)
        assert list(answer.paused) == [QUEUE] * self.oracle.paused

    @rule(boot=boots)
    def leave(self, boot: int) -> None:
        self.run(self.workers.leave(self.boots[boot], [QUEUE]))
        self.oracle.leave(self.boots[boot])

    @rule(boot=boots, late=st.booleans())
    def declare_dead(self, boot: int, late: bool) -> None:
        name = self.boots[boot]
        beats = {row.boot: row.beat for row in self.run(self.workers.workers([QUEUE]))}
        seen = beats.get(name, 0)
        if late:
            self.beat(name, b"")
        dead = self.run(self.workers.declare_dead(QUEUE, name, beat=seen, now=self.now))
        assert dead == (name in self.oracle.dead or (name in beats and not late))
        if dead:
            self.oracle.dead.add(name)

    @rule(boot=boots, limit=st.sampled_from([1, 2, ALL]), max_stalled=st.integers(0, 2))
    def take_stalled(self, boot: int, limit: int, max_stalled: int) -> None:
        name = self.boots[boot]
        lost = self.oracle.of(name) if name in self.oracle.dead else set()
        answer = self.run(
            self.workers.take_stalled(
                QUEUE,
                name,
                now=self.now,
                grace=GRACE,
                max_stalled=max_stalled,
                error=b"lost",
                history=b"stalled",
                keep=Keep(),
                limit=limit,
            )
        )
        taken = {id for id, job in zip(IDS, self.records(), strict=True) if id in lost and job and job.owner != name}
        assert len(taken) == min(limit, len(lost))
        self.oracle.stall(taken, self.now, self.now + GRACE, max_stalled, b"lost", b"stalled")
        states = {id: self.oracle.entries[id].state for id in taken}
        self.check_ready(answer.ready, {id for id, state in states.items() if state is State.WAITING})
        assert sorted(answer.failed) == sorted(id for id, state in states.items() if state is State.FAILED)
        assert answer.more == (taken != lost)
        if name in self.oracle.dead and not answer.more:
            self.oracle.rows.pop(name, None)
            self.boots[boot] = f"boot-{self.born}"
            self.born += 1

    # -- the life of jobs ------------------------------------------------------------------------------------------

    @rule(
        batch=st.lists(st.tuples(ids, st.integers(0, 1), delays, st.booleans(), modes), min_size=1, max_size=3),
        again=st.booleans(),
    )
    def enqueue(self, batch: list[tuple[str, int, int | None, bool, Deduplication | None]], again: bool) -> None:
        jobs = [self.new(*entry) for entry in batch]
        replaced = {}

        def check(answers: Sequence[Any]) -> None:
            for job, answer in zip(jobs, answers, strict=True):
                id, admissions, state, dispatch, gone = self.oracle.enqueue(job, self.now, GRACE)
                if gone:
                    replaced[job.id] = gone
                elif job.id in replaced and Admission.CREATED in admissions:
                    admissions, gone = {*admissions, Admission.REPLACED}, answer.replaced
                    assert gone in (None, replaced[job.id])
                assert (answer.id, answer.dispatch, answer.replaced) == (id, dispatch, gone)
                assert answer.admission in admissions
                assert answer.state is state or (state is None and answer.state.final)

        self.once_or_twice(
            again, [job.id for job in jobs], lambda: self.jobs.enqueue(jobs, now=self.now, grace=GRACE), check
        )

    @rule(batch=st.lists(st.tuples(ids, offsets), min_size=1, max_size=4), again=st.booleans())
    def published(self, batch: list[tuple[str, int]], again: bool) -> None:
        sent = [Sent(QUEUE, id, self.dispatch(id, offset)) for id, offset in batch]

        def check(_: None) -> None:
            for entry in sent:
                self.oracle.published(entry.id, entry.dispatch, self.now)

        self.once_or_twice(again, [entry.id for entry in sent], lambda: self.jobs.published(sent, now=self.now), check)

    @rule(
        batch=st.lists(st.tuples(ids, offsets, st.booleans()), min_size=1, max_size=4),
        boot=boots,
        keep=keeps,
        expires=st.booleans(),
        mode=modes,
        alone_from=st.sampled_from([None, 1, 2]),
        again=st.booleans(),
    )
    def claim(
        self,
        batch: list[tuple[str, int, bool]],
        boot: int,
        keep: Keep,
        expires: bool,
        mode: Deduplication | None,
        alone_from: int | None,
        again: bool,
    ) -> None:
        owner = self.boots[boot]
        tickets = [
            Ticket(id, self.dispatch(id, offset), self.new(id, 0, None, expires, mode) if adopt else None)
            for id, offset, adopt in batch
        ]

        def check(answers: Sequence[Any]) -> None:
            for ticket, answer in zip(tickets, answers, strict=True):
                assert answer.id == ticket.id
                verdicts = self.oracle.claim(owner, ticket, self.now, keep, alone_from)
                assert answer.verdict in verdicts, (answer, verdicts)
                numbers = (answer.attempt, answer.failures, answer.stalled, answer.parked_at)
                if answer.verdict in (Verdict.CLAIMED, Verdict.MINE):
                    entry = self.oracle.entries[ticket.id]
                    if answer.verdict is Verdict.CLAIMED:
                        assert answer.fence > entry.fence
                        assert answer.fence >= self.now
                        entry.fence = answer.fence
                    assert answer.fence == entry.fence
                    assert numbers == (entry.attempts, entry.failures, entry.stalled, entry.parked_at)
                else:
                    assert (answer.fence, *numbers) == (0, 0, 0, 0, None)

        self.once_or_twice(
            again,
            [ticket.id for ticket in tickets],
            lambda: self.jobs.claim(QUEUE, owner, tickets, now=self.now, keep_expired=keep, alone_from=alone_from),
            check,
        )

    @rule(
        batch=st.lists(st.tuples(ids, offsets, st.one_of(st.none(), boots)), min_size=1, max_size=3),
        ending=st.sampled_from(Ending),
        delay=delays,
        keep=keeps,
        again=st.booleans(),
    )
    def finish(
        self, batch: list[tuple[str, int, int | None]], ending: Ending, delay: int | None, keep: Keep, again: bool
    ) -> None:
        outcomes = [
            Outcome(
                id=id,
                dispatch=self.dispatch(id, offset),
                owner=self.owner(id, boot),
                ending=ending,
                result=b"result",
                error=b"error",
                history=ending.value.encode(),
                run_at=None if delay is None else self.now + delay,
                keep=keep,
            )
            for id, offset, boot in batch
        ]
        self.finish_all(outcomes, again)

    def finish_all(self, outcomes: list[Outcome], again: bool) -> None:
        def check(answers: Sequence[Any]) -> None:
            for outcome, answer in zip(outcomes, answers, strict=True):
                finishes, state, dispatch = self.oracle.finish(outcome, self.now, GRACE)
                assert answer.finish in finishes, (answer, finishes)
                assert (answer.id, answer.state, answer.dispatch) == (outcome.id, state, dispatch)

        self.once_or_twice(
            again,
            [outcome.id for outcome in outcomes],
            lambda: self.jobs.finish(QUEUE, outcomes, now=self.now, grace=GRACE),
            check,
        )

    @rule(id=ids)
    def complete_counted(self, id: str) -> None:
        """Completed ones in a group that keeps two; what is too many goes at the latest with the prune that follows."""
        self.now += 10
        outcome = Outcome(
            id=id, dispatch=self.dispatch(id, 0), owner=self.owner(id, None), ending=Ending.COMPLETED, keep=COUNTED
        )
        self.run(self.jobs.finish(QUEUE, [outcome], now=self.now, grace=GRACE))
        self.oracle.finish(outcome, self.now, GRACE)
        self.oracle.keep_newest(State.COMPLETED, "counted", 2, self.now)
        self.prune(limit=ALL)

    @rule(id=ids, offset=offsets, boot=st.one_of(st.none(), boots), value=st.binary(max_size=3), again=st.booleans())
    def progress(self, id: str, offset: int, boot: int | None, value: bytes, again: bool) -> None:
        dispatch, owner = self.dispatch(id, offset), self.owner(id, boot)

        def check(accepted: bool) -> None:
            entry = self.oracle.held(id, dispatch, owner)
            assert accepted == (entry is not None)
            if entry:
                entry.progress = value

        self.once_or_twice(
            again, [id], lambda: self.jobs.progress(QUEUE, id, dispatch=dispatch, owner=owner, value=value), check
        )
        if self.oracle.held(id, dispatch, owner):
            assert self.run(self.inspection.progress(QUEUE, id)) == value

    @rule(batch=st.lists(ids, min_size=1, max_size=3), keep=keeps, again=st.booleans())
    def cancel(self, batch: list[str], keep: Keep, again: bool) -> None:
        def check(answers: Sequence[Any]) -> None:
            found = [(answer.id, answer.cancel, answer.state, answer.owner) for answer in answers]
            assert found == [(id, *self.oracle.cancel(id, self.now, keep)) for id in batch]

        self.once_or_twice(again, batch, lambda: self.jobs.cancel(QUEUE, batch, now=self.now, keep=keep), check)

    @rule(batch=st.lists(ids, min_size=1, max_size=3), again=st.booleans())
    def retry(self, batch: list[str], again: bool) -> None:
        def check(answers: Sequence[Ready | State | None]) -> None:
            for id, answer in zip(batch, answers, strict=True):
                expected = self.oracle.retry(id, self.now, GRACE)
                if isinstance(answer, Ready):
                    self.check_ready([answer], {id})
                    assert answer.dispatch == expected
                else:
                    assert answer is expected

        self.once_or_twice(again, batch, lambda: self.jobs.retry(QUEUE, batch, now=self.now, grace=GRACE), check)

    @rule(batch=st.lists(ids, min_size=1, max_size=2), again=st.booleans())
    def remove(self, batch: list[str], again: bool) -> None:
        def check(answers: Sequence[Any]) -> None:
            assert list(answers) == [self.oracle.remove(id, self.now) for id in batch]

        self.once_or_twice(again, batch, lambda: self.jobs.remove(QUEUE, batch, now=self.now), check)

    # -- wakers ----------------------------------------------------------------------------------------------------

    def check_ready(self, rows: Sequence[Ready], expected: set[str]) -> None:
        """Rows for these jobs, each once, with what their tickets need."""
        assert sorted(row.id for row in rows) == sorted(expected)
        for row in rows:
            entry = self.oracle.entries[row.id]
            assert (row.queue, row.dispatch, row.priority, row.payload) == (
                QUEUE,
                entry.dispatch,
                entry.job.priority,
                entry.job.payload,
            )

    def chosen(self, rows: Sequence[Ready], due: set[str], limit: int) -> set[str]:
        """The store chooses which of the due jobs come within the limit, but neither others nor fewer."""
        taken = {row.id for row in rows}
        assert taken <= due
        assert len(rows) == min(limit, len(due)), (rows, due)
        return taken

    @rule(limit=st.sampled_from([1, 2, ALL]))
    def take_unpublished(self, limit: int) -> None:
        rows = self.run(self.jobs.take_unpublished([QUEUE], now=self.now, grace=GRACE, limit=limit))
        taken = self.chosen(rows, self.oracle.unpublished(self.now), limit)
        self.oracle.send_again(taken, self.now + GRACE)
        self.check_ready(rows, taken)

    @rule(limit=st.sampled_from([1, 2, ALL]), empty_since=st.sampled_from([None, None, 0, GRACE]))
    def take_overtaken(self, limit: int, empty_since: int | None) -> None:
        before = None if empty_since is None else self.now - empty_since
        rows = self.run(
            self.jobs.take_overtaken([QUEUE], now=self.now, grace=GRACE, lag=LAG, sent_before=before, limit=limit)
        )
        taken = self.chosen(rows, self.oracle.overtaken(LAG, before), limit)
        self.oracle.send_again(taken, self.now + GRACE)
        self.check_ready(rows, taken)

    @rule(limit=st.sampled_from([1, 2, ALL]), ahead=st.sampled_from([0, 0, 20, LAG]))
    def take_due(self, limit: int, ahead: int) -> None:
        answer = self.run(self.delays.take_due([QUEUE], now=self.now, grace=GRACE, limit=limit, ahead=ahead))
        taken = self.chosen(answer.ready, self.oracle.due(self.now + ahead), limit)
        self.oracle.become_due(taken, self.now + ahead + GRACE)
        self.check_ready(answer.ready, taken)
        run_at = {row.id: self.oracle.entries[row.id].run_at for row in answer.ready}
        assert all(row.not_before == (run_at[row.id] if run_at[row.id] > self.now else 0) for row in answer.ready)
        assert answer.next_due == self.oracle.next_due()

    # -- the queue -------------------------------------------------------------------------------------------------

    @rule(paused=st.booleans())
    def pause_or_resume(self, paused: bool) -> None:
        self.run(self.control.pause(QUEUE) if paused else self.control.resume(QUEUE))
        self.oracle.paused = paused

    @rule(key=st.sampled_from(KEYS))
    def release(self, key: str) -> None:
        held = self.oracle.holder(key, self.now) is not None
        released = self.run(self.deduplicating.release(QUEUE, key))
        assert released or not held
        self.oracle.release(key)

    @rule(limit=st.sampled_from([1, ALL]))
    def prune(self, limit: int) -> None:
        for _ in range(ALL):
            pruned = self.run(self.retention.prune([QUEUE], now=self.now, adoption_window=ADOPTION_WINDOW, limit=limit))
            if not pruned.more:
                break
        assert not pruned.more
        self.oracle.prune(self.now, ADOPTION_WINDOW)

    @rule(state=st.sampled_from([state for state in State if state is not State.ACTIVE]))
    def clear(self, state: State) -> None:
        ids = self.run(self.control.clear(QUEUE, state, before=self.now + 10 * LAG, limit=ALL, now=self.now))
        assert sorted(ids) == sorted(self.oracle.clear(state, self.now))

    @rule()
    def forget(self) -> None:
        forgotten = self.run(self.control.forget(QUEUE))
        assert forgotten == self.oracle.forget()
        if forgotten:
            assert QUEUE not in self.run(self.control.queues())
            self.run(self.control.register([QUEUE]))
            self.boots = [f"boot-{self.born + n}" for n in range(3)]
            self.born += 3

    # -- after every step ------------------------------------------------------------------------------------------

    @invariant()
    def every_record_is_the_oracles(self) -> None:
        for id, job in zip(IDS, self.records(), strict=True):
            entry = self.oracle.entries.get(id)
            assert (job is None) == (entry is None), (id, job, entry)
            if job is None or entry is None:
                continue
            assert (job.state, job.dispatch, job.owner, job.outbox) == (
                entry.state,
                entry.dispatch,
                entry.owner,
                entry.outbox,
            ), (job, entry)
            assert (job.attempts, job.failures, job.stalled, job.fence, job.parked_at, job.finished_at) == (
                entry.attempts,
                entry.failures,
                entry.stalled,
                entry.fence,
                entry.parked_at,
                entry.finished_at,
            ), (job, entry)
            assert (job.payload, job.priority, list(job.history)) == (
                entry.job.payload,
                entry.job.priority,
                entry.history,
            ), (job, entry)
            if job.outbox is Outbox.SENT:
                assert job.sent_at == entry.sent_at
            if job.state is State.DELAYED:
                assert job.run_at == entry.run_at
            if job.state is State.ACTIVE:
                assert (job.claimed_at, job.cancel_requested) == (entry.claimed_at, entry.cancel)
            if job.state in (State.COMPLETED, State.FAILED):
                assert (job.result, job.error) == (entry.result, entry.error)

    @invariant()
    def every_count_is_the_oracles(self) -> None:
        counts = self.run(self.inspection.counts([QUEUE]))[QUEUE]
        entries = self.oracle.entries.values()
        assert {state: getattr(counts, state.replace("-", "_")) for state in State} == {
            state: sum(entry.state is state for entry in entries) for state in State
        }
        assert counts.held == sum(entry.outbox is Outbox.HELD for entry in entries)
        assert counts.unpublished == sum(entry.outbox in (Outbox.DUE, Outbox.HELD) for entry in entries)
        assert counts.paused == self.oracle.paused

    @invariant()
    def every_holder_and_worker_is_the_oracles(self) -> None:
        for key in KEYS:
            holder = self.run(self.deduplicating.holder(QUEUE, key, now=self.now))
            assert holder == self.oracle.holder(key, self.now)
        rows = self.run(self.workers.workers([QUEUE]))
        assert {row.boot: (row.info, row.active) for row in rows} == {
            boot: (info, len(self.oracle.of(boot))) for boot, info in self.oracle.rows.items()
        }

    def teardown(self) -> None:
        try:
            assert list(self.run(self.inspection.audit(QUEUE))) == []
        finally:
            self.run(type(self).discard(self.store))
            self.run(self.store.close())
            self.runner.close()


async def _nothing(_: Store) -> None: ...


def check_store(
    make: Maker,
    *,
    start: int,
    discard: Callable[[Store], Awaitable[None]] = _nothing,
    examples: int = 200,
    steps: int = 50,
    machine: type[StoreMachine] = StoreMachine,
) -> None:
    """Run the machine on stores that `make` makes, closed and empty; `discard` deletes what an example has written."""
    given = {"make": staticmethod(make), "discard": staticmethod(discard), "start": start // 10 * 10}
    kind = type(machine.__name__, (machine,), given)
    run_state_machine_as_test(
        kind,
        settings=settings(
            max_examples=int(os.environ.get("CALLBOARD_MACHINE_EXAMPLES", examples)),
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink] if os.environ.get("CALLBOARD_MACHINE_SHRINK") else [Phase.generate],
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
