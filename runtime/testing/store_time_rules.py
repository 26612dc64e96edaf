"""The rules of `StoreMachine` about time: delays that are changed, and schedules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from ...metadata.contract import Admission, Delay, Delays, Enqueued, Ready
from ...metadata.job import NewJob, State
from ...metadata.schedule import Firing, NewSchedule, Resumption
from ...metadata.schedules import Fire, Fired, Schedules
from .store_oracle import Oracle

QUEUE = "emails"
JOBS = ("a", "b", "c", "d", "e")
NAMES = ("nightly", "weekly", "é:{}")
GRACE = 1_000
MANY = 100

T = TypeVar("T")

jobs = st.sampled_from(JOBS)
names = st.sampled_from(NAMES)
offsets = st.sampled_from([None, -10, 0, 10, 2_000])
revisions = st.sampled_from([0, 0, 0, -1, 1])  # from the schedule's
changes = st.tuples(names, st.integers(0, 1), st.integers(0, 1), offsets, st.one_of(st.none(), revisions))
firings = st.tuples(names, revisions, st.sampled_from([0, 0, 0, 10]), offsets, st.lists(jobs, max_size=2))


class TimeRules:
    now: int
    oracle: Oracle
    delays: Delays
    schedules: Schedules
    run: Callable[[Awaitable[Any]], Any]
    check_ready: Callable[[Sequence[Ready], set[str]], None]
    once_or_twice: Callable[[bool, Sequence[str], Callable[[], Coroutine[Any, Any, Any]], Callable[[Any], None]], None]

    # -- delays ----------------------------------------------------------------------------------------------------

    @rule(batch=st.lists(st.tuples(jobs, offsets), min_size=1, max_size=3), again=st.booleans())
    def reschedule(self, batch: list[tuple[str, int | None]], again: bool) -> None:
        delays = [Delay(id, None if offset is None else self.now + offset) for id, offset in batch]

        def check(answers: Sequence[Ready | State | None]) -> None:
            for delay, answer in zip(delays, answers, strict=True):
                expected = self.oracle.reschedule(delay, self.now, GRACE)
                if isinstance(answer, Ready):
                    assert (answer.id, answer.dispatch) == (delay.id, expected)
                else:
                    assert answer is expected

        self.once_or_twice(
            again,
            [delay.id for delay in delays],
            lambda: self._of(self.delays.reschedule(QUEUE, delays, now=self.now, grace=GRACE)),
            check,
        )

    @rule(batch=st.lists(jobs, min_size=1, max_size=3), again=st.booleans())
    def remove_delayed(self, batch: list[str], again: bool) -> None:
        def check(answers: Sequence[bool]) -> None:
            for id, answer in zip(batch, answers, strict=True):
                entry = self.oracle.entries.get(id)
                delayed = entry is not None and entry.state is State.DELAYED
                assert answer == delayed
                if delayed:
                    self.oracle.remove(id, self.now)

        self.once_or_twice(again, batch, lambda: self._of(self.delays.remove(QUEUE, batch, now=self.now)), check)

    # -- schedules -------------------------------------------------------------------------------------------------

    @rule(batch=st.lists(changes, min_size=1, max_size=3))
    def upsert_schedules(self, batch: list[tuple[str, int, int, int | None, int | None]]) -> None:
        new = [
            NewSchedule(
                id=id,
                queue=QUEUE,
                trigger=b"trigger %d" % trigger,
                definition=b"definition %d" % definition,
                state=b"new",
                next_run=None if offset is None else self.now + offset,
                revision=None if revision is None else max(0, self._revision(id) + revision),
            )
            for id, trigger, definition, offset, revision in batch
        ]
        answers = self.run(self.schedules.upsert(new, now=self.now))
        expected = [self.oracle.schedules.upsert(one, self.now) for one in new]
        assert [(one.id, one.upsert, one.next_run, one.revision) for one in answers] == expected

    @rule(limit=st.sampled_from([1, 2, MANY]))
    def look_for_due_schedules(self, limit: int) -> None:
        answer = self.run(self.schedules.due([QUEUE], now=self.now, limit=limit))
        found, due = {one.id for one in answer.schedules}, self.oracle.schedules.due(self.now)
        assert found <= due
        assert len(answer.schedules) == len(found) == min(limit, len(due))
        assert answer.next_due == self.oracle.schedules.next_run(without=found)

    @rule(batch=st.lists(firings, min_size=1, max_size=2, unique_by=lambda one: one[0]), again=st.booleans())
    def fire(self, batch: list[tuple[str, int, int, int | None, list[str]]], again: bool) -> None:
        fired = [self._firing(*one) for one in batch]

        def check(answers: Sequence[Fired]) -> None:
            for firing, answer in zip(fired, answers, strict=True):
                assert (answer.id, answer.fire) == (firing.id, self.oracle.schedules.fire(firing))
                if answer.fire is Fire.FIRED:
                    self._check_enqueued(firing.jobs, answer.enqueued)
                else:
                    assert list(answer.enqueued) == []

        ids = [job.id for firing in fired for job in firing.jobs]
        self.once_or_twice(
            again, ids, lambda: self._of(self.schedules.fire(QUEUE, fired, now=self.now, grace=GRACE)), check
        )

    @rule(batch=st.lists(names, min_size=1, max_size=2))
    def pause_schedules(self, batch: list[str]) -> None:
        answers = self.run(self.schedules.pause(QUEUE, batch, now=self.now))
        assert list(answers) == [self.oracle.schedules.pause(id, self.now) for id in batch]

    @rule(batch=st.lists(st.tuples(names, revisions, offsets), min_size=1, max_size=2))
    def resume_schedules(self, batch: list[tuple[str, int, int | None]]) -> None:
        resumptions = [
            Resumption(
                id=id,
                revision=max(0, self._revision(id) + revision),
                next_run=None if offset is None else self.now + offset,
                state=b"resumed",
            )
            for id, revision, offset in batch
        ]
        answers = self.run(self.schedules.resume(QUEUE, resumptions, now=self.now))
        assert list(answers) == [self.oracle.schedules.resume(one, self.now) for one in resumptions]

    @rule(batch=st.lists(names, min_size=1, max_size=2))
    def remove_schedules(self, batch: list[str]) -> None:
        answers = self.run(self.schedules.remove(QUEUE, batch))
        assert list(answers) == [self.oracle.schedules.remove(id) for id in batch]

    @invariant()
    def every_schedule_is_the_oracles(self) -> None:
        known = self.oracle.schedules.known
        assert list(self.run(self.schedules.get(QUEUE, NAMES))) == [known.get(id) for id in NAMES]
        in_order = sorted(known.values(), key=lambda one: one.id.encode())
        assert list(self.run(self.schedules.page(QUEUE, offset=0, limit=MANY))) == in_order
        assert self.run(self.schedules.count([QUEUE])) == {QUEUE: len(known)}

    # -- what they stand on ----------------------------------------------------------------------------------------

    async def _of(self, awaitable: Awaitable[T]) -> T:
        return await awaitable

    def _revision(self, id: str) -> int:
        known = self.oracle.schedules.known.get(id)
        return known.revision if known else 1

    def _firing(self, id: str, revision: int, late: int, offset: int | None, ids: list[str]) -> Firing:
        known = self.oracle.schedules.known.get(id)
        due = (known.next_run if known else None) or self.now
        return Firing(
            id=id,
            due=due + late,
            revision=max(0, self._revision(id) + revision),
            next_run=None if offset is None else due + late + 1000 + offset,
            state=b"fired %d" % due,
            by="scheduler",
            jobs=tuple(
                NewJob(id=one, queue=QUEUE, task="task", payload=f"{one} of {id}".encode(), created_at=self.now)
                for one in dict.fromkeys(ids)
            ),
        )

    def _check_enqueued(self, jobs: Sequence[NewJob], answers: Sequence[Enqueued]) -> None:
        for job, answer in zip(jobs, answers, strict=True):
            id, admissions, state, dispatch, _ = self.oracle.enqueue(job, self.now, GRACE)
            assert (answer.id, answer.state, answer.dispatch) == (id, state, dispatch)
            assert answer.admission in admissions, (answer, admissions)
            assert answer.admission is not Admission.REPLACED
