"""How many calls of ends a worker has under way at a time, and how large they are."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from callboard.metadata.contract import MAX_BATCH, Claimed, Ending, Finish, Finished, Outcome, Verdict
from callboard.metadata.job import State
from callboard.runtime.finisher import SLOW_SECONDS, Finisher
from callboard.runtime.pace import ALONE, SHARED, Pace, pace_of
from callboard.runtime.run import Run
from callboard.runtime.settings import Settings
from callboard.runtime.wire import Event, Ticket, encode


class Scene:
    """A finisher whose store answers a call when `answer` is called. `calls` under way: the ids in each; `ended`."""

    def __init__(self, pace: Pace) -> None:
        self.calls: list[tuple[list[str], asyncio.Future[None]]] = []
        self.ended: list[str] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.time = 0.0
        stage: Any = SimpleNamespace(
            settings=Settings(broker="memory://", store="memory://"),
            options=SimpleNamespace(concurrency=10),
            clock=self,
            metrics=None,
            capability=lambda _: self,
            patiently=lambda call: call(),
            dispatcher=self,
        )
        self.finisher = Finisher(stage, pace=pace, ended=lambda run: self.ended.append(run.ticket.id), spawn=self.spawn)

    def now(self) -> int:
        return 0

    def elapsed(self) -> float:
        return self.time

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def emit(self, event: Event) -> None: ...

    async def finish(self, queue: str, outcomes: Sequence[Outcome], *, now: int, grace: int) -> list[Finished]:
        call = [outcome.id for outcome in outcomes], asyncio.get_running_loop().create_future()
        self.calls.append(call)
        await call[1]
        self.calls.remove(call)
        return [Finished(outcome.id, Finish.DONE, State.COMPLETED, outcome.dispatch) for outcome in outcomes]

    async def end(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            id = str(number)
            ticket = Ticket(id=id, queue="q", task="t", created_at=0, dispatch=1, args=encode([]))  # type: ignore[arg-type]
            claimed = Claimed(id, Verdict.CLAIMED, fence=1, attempt=1)
            run = Run(queue="q", ticket=ticket, claimed=claimed, boot="boot", started_at=0)
            self.finisher.finish(run, Outcome(id=id, dispatch=1, owner="boot", ending=Ending.COMPLETED))
        await self.settle()

    async def answer(self, place: int) -> None:
        self.calls[place][1].set_result(None)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    @property
    def sizes(self) -> list[int]:
        return [len(ids) for ids, _ in self.calls]


async def test_a_second_call_of_ends_is_sent_when_it_is_full_and_what_is_left_goes_with_the_last_to_be_answered() -> (
    None
):
    scene, full = Scene(ALONE), ALONE.batch
    await scene.end(0, 1)
    await scene.end(1, full - 1)
    assert scene.sizes == [1]
    await scene.end(full, 1)
    assert scene.sizes == [1, full]
    await scene.end(full + 1, full + 5)  # as many calls as may be are under way
    assert scene.sizes == [1, full]

    await scene.answer(0)
    assert scene.sizes == [full, full]
    await scene.answer(1)
    assert scene.sizes == [full]
    await scene.answer(0)
    assert scene.sizes == [5]
    await scene.answer(0)
    assert sorted(map(int, scene.ended)) == list(range(2 * full + 6))
    assert not scene.tasks

    await scene.end(0, 1)  # after which it begins anew
    assert scene.sizes == [1]
    await scene.answer(0)
    assert not scene.tasks


async def test_a_worker_of_several_queues_has_one_call_of_ends_under_way_for_each() -> None:
    scene = Scene(SHARED)
    await scene.end(0, 3 * SHARED.batch)
    assert scene.sizes == [SHARED.batch]
    for _ in range(3):
        await scene.answer(0)
    assert len(scene.ended) == 3 * SHARED.batch
    assert not scene.tasks


@pytest.mark.parametrize(("queues", "pace"), [(["a"], ALONE), (["a", "b"], SHARED)])
def test_calls_to_a_store_that_waits_for_a_disk_are_larger(queues: list[str], pace: Pace) -> None:
    assert pace_of(queues, durable=False) == pace
    assert pace_of(queues, durable=True).batch == 2 * pace.batch


async def test_fewer_ends_may_be_unanswered_where_the_store_has_been_silent_for_a_while() -> None:
    pace = pace_of(["q"], durable=True)
    scene = Scene(pace)
    scene.time = 100.0
    await scene.end(0, 10 + MAX_BATCH)
    assert scene.finisher.has_room
    scene.time += 2 * SLOW_SECONDS
    assert not scene.finisher.has_room
    await scene.answer(0)
    assert scene.finisher.has_room
    await scene.end(1000, 10 + pace.unanswered)
    assert not scene.finisher.has_room
    while scene.calls:
        await scene.answer(0)
