"""Every move that a store makes is a row of the table in `metadata/job.py`, and every row is a move of a store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from callboard.metadata.contract import Delay, Ending, Outcome, Ticket
from callboard.metadata.job import TRANSITIONS, Deduplication, Job, Keep, State, Transition
from callboard.metadata.memory import MemoryStore
from callboard.runtime.testing.store_scene import BOOT, GRACE, MANY, QUEUE, Scene

IDS = ("a", "b", "c", "d")
ROUNDS = 20_000
CHILDREN = State.WAITING_CHILDREN  # no operation makes a job wait for others yet


class Recorder:
    """Random operations on single jobs, and what each made of the records."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.scene = Scene(MemoryStore(random=self.random), now=1_000_000)
        self.boots = [BOOT]
        self.seen: set[Transition] = set()

    async def records(self) -> dict[str, Job | None]:
        return dict(zip(IDS, await self.scene.inspection.get(QUEUE, IDS), strict=True))

    async def step(self) -> None:
        operation = self.random.choice(OPERATIONS)
        before = await self.records()
        await self.scene.beat(self.boots[-1])
        touched = await getattr(self, operation)(self.random.choice(IDS))
        after = await self.records()
        for id in IDS:
            self.note(operation, before[id], after[id], touched=touched is None or id in touched)
        self.scene.step(self.random.choice([0, 10, 500, GRACE]))

    def note(self, operation: str, before: Job | None, after: Job | None, *, touched: bool) -> None:
        if before == after and not (touched and before and operation in REPEATING):
            return
        if after is None and before is not None and before.state.final and operation in ("finish", "cancel", "claim"):
            operation = "prune"  # one too many for `keep`
        gained = (after.dispatch if after else 0) - (before.dispatch if before else 0)
        self.seen.add(
            Transition(
                operation=operation,
                before=before.state if before else None,
                after=after.state if after else None,
                dispatch=gained if after and after.state is State.WAITING else 0,
            )
        )

    async def dispatch(self, id: str) -> int:
        job = await self.scene.find(id)
        return (job.dispatch if job else 1) + self.random.choice([0, 0, 0, 1])

    async def enqueue(self, id: str) -> None:
        run_at = self.scene.now + self.random.choice([0, 700])
        expires_at = self.scene.now + 300 if self.random.random() < 0.3 else None
        mode = Deduplication(id="key", replace=True) if self.random.random() < 0.5 else None
        await self.scene.add(id, run_at=run_at, expires_at=expires_at, deduplication=mode)

    async def published(self, id: str) -> None:
        await self.scene.confirm(id, await self.dispatch(id))

    async def claim(self, id: str) -> None:
        expires_at = self.scene.now - 1 if self.random.random() < 0.3 else None
        adopt = self.scene.new(id, expires_at=expires_at) if self.random.random() < 0.5 else None
        if self.random.random() < 0.3:
            await self.scene.control.pause(QUEUE)
        await self.scene.claims(Ticket(id, await self.dispatch(id), adopt), owner=self.boots[-1], keep=KEEP)
        await self.scene.control.resume(QUEUE)

    async def finish(self, id: str) -> None:
        job = await self.scene.find(id)
        if job is None or job.owner is None:
            return
        run_at = self.scene.now + self.random.choice([0, 700])
        outcome = Outcome(
            id=id,
            dispatch=job.dispatch,
            owner=job.owner,
            ending=self.random.choice(list(Ending)),
            run_at=run_at,
            keep=KEEP,
        )
        await self.scene.jobs.finish(QUEUE, [outcome], now=self.scene.now, grace=GRACE)

    async def cancel(self, id: str) -> None:
        await self.scene.jobs.cancel(QUEUE, [id], now=self.scene.now, keep=KEEP)

    async def retry(self, id: str) -> None:
        await self.scene.jobs.retry(QUEUE, [id], now=self.scene.now, grace=GRACE)

    async def remove(self, id: str) -> None:
        await self.scene.jobs.remove(QUEUE, [id], now=self.scene.now)

    async def clear(self, id: str) -> None:
        state = self.random.choice([state for state in State if state is not State.ACTIVE])
        await self.scene.control.clear(QUEUE, state, before=self.scene.now + 701, limit=MANY, now=self.scene.now)

    async def prune(self, id: str) -> None:
        await self.scene.prune()

    async def take_due(self, id: str) -> None:
        await self.scene.due()

    async def reschedule(self, id: str) -> None:
        await self.scene.reschedule(Delay(id, self.random.choice([None, self.scene.now + 700])))

    async def remove_delayed(self, id: str) -> None:
        await self.scene.delays.remove(QUEUE, [id], now=self.scene.now)

    async def take_unpublished(self, id: str) -> Sequence[str]:
        return [taken for taken, _ in await self.scene.unpublished()]

    async def take_overtaken(self, id: str) -> Sequence[str]:
        return [taken for taken, _ in await self.scene.overtaken(sent_before=self.scene.now)]

    async def take_stalled(self, id: str) -> None:
        await self.scene.lose(self.boots[-1])
        await self.scene.stalled(self.boots[-1], max_stalled=self.random.choice([0, 5]))
        self.boots.append(f"boot-{len(self.boots)}")


KEEP = Keep(age=2_000, count=3)
OPERATIONS = (
    "enqueue",
    "enqueue",
    "enqueue",
    "published",
    "claim",
    "claim",
    "claim",
    "finish",
    "finish",
    "cancel",
    "retry",
    "remove",
    "clear",
    "prune",
    "take_due",
    "take_due",
    "reschedule",
    "remove_delayed",
    "take_unpublished",
    "take_overtaken",
    "take_stalled",
)
REPEATING = ("take_unpublished",)  # moves the outbox entry only, which a record does not show


@pytest.fixture(scope="module")
def moves() -> set[Transition]:
    """What thousands of random operations did to four jobs."""

    async def record() -> set[Transition]:
        recorder = Recorder(seed=1)
        for _ in range(ROUNDS):
            await recorder.step()
        assert await recorder.scene.faults() == []
        return {_but_claims(move) for move in recorder.seen}

    return asyncio.run(record())


def test_every_move_of_the_memory_store_is_in_the_table(moves: set[Transition]) -> None:
    assert moves - TABLE == set()


def test_every_row_of_the_table_is_a_move_of_the_memory_store(moves: set[Transition]) -> None:
    assert TABLE - moves == set()


def _but_claims(move: Transition) -> Transition:
    """A claim takes over the ticket's dispatch, whatever that is: what it adds is no part of the comparison."""
    if move.operation != "claim":
        return move
    return Transition(operation="claim", before=move.before, after=move.after)


TABLE = {_but_claims(row) for row in TRANSITIONS if CHILDREN not in (row.before, row.after)}
