from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from callboard.runtime.batcher import Batcher


class Call:
    """Answers each item with its double, when it may."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.under_way = self.most = 0
        self.may_answer = asyncio.Event()
        if not held:
            self.may_answer.set()

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.may_answer.wait()
            if -1 in items:
                raise ValueError("minus one")
            return [2 * item for item in items]
        finally:
            self.under_way -= 1


async def ticks(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_answers_come_in_the_order_of_the_items() -> None:
    batcher = Batcher(Call(), limit=10)
    assert await batcher.submit([1, 2, 3]) == [2, 4, 6]


async def test_nothing_to_submit_makes_no_call() -> None:
    call = Call()
    assert await Batcher(call).submit([]) == []
    assert call.batches == []


async def test_what_is_submitted_in_one_tick_goes_in_one_call() -> None:
    call = Call()
    batcher = Batcher(call, limit=10)
    assert await asyncio.gather(*(batcher.submit([i]) for i in range(4))) == [[0], [2], [4], [6]]
    assert call.batches == [[0, 1, 2, 3]]


async def test_what_comes_while_a_call_is_under_way_goes_in_the_next_one() -> None:
    call = Call(held=True)
    batcher = Batcher(call, limit=10)
    first = asyncio.create_task(batcher.submit([0]))
    await ticks()
    others = [asyncio.create_task(batcher.submit([i])) for i in range(1, 4)]
    await ticks()
    assert call.batches == [[0]]
    call.may_answer.set()
    assert await asyncio.gather(first, *others) == [[0], [2], [4], [6]]
    assert call.batches == [[0], [1, 2, 3]]


async def test_a_submission_larger_than_the_limit_takes_several_calls() -> None:
    call = Call()
    assert await Batcher(call, limit=4).submit(list(range(10))) == [2 * i for i in range(10)]
    assert call.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_a_window_bounds_the_calls_under_way_and_keeps_answers_in_order() -> None:
    call = Call(held=True)
    batcher = Batcher(call, limit=1, window=3)
    submitted = asyncio.create_task(batcher.submit(list(range(7))))
    await ticks()
    assert call.under_way == 3
    call.may_answer.set()
    assert await submitted == [2 * i for i in range(7)]
    assert call.most == 3


async def test_calls_that_end_out_of_order_still_answer_in_order() -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    calls = iter(gates)

    async def call(items: Sequence[int]) -> Sequence[int]:
        await next(calls).wait()
        return items

    submitted = asyncio.create_task(Batcher(call, limit=1, window=2).submit([1, 2]))
    await ticks()
    gates[1].set()
    await ticks()
    gates[0].set()
    assert await submitted == [1, 2]


async def test_an_error_reaches_exactly_those_whose_items_were_in_the_call() -> None:
    batcher = Batcher(Call(), limit=2)
    answers = await asyncio.gather(
        batcher.submit([1, 2]), batcher.submit([-1]), batcher.submit([3]), batcher.submit([4, 5]),
        return_exceptions=True,
    )  # fmt: skip
    assert answers[0] == [2, 4]
    assert [str(answer) for answer in answers[1:3]] == ["minus one", "minus one"]
    assert answers[3] == [8, 10]


async def test_the_rest_of_a_submission_whose_first_call_failed_is_not_sent() -> None:
    call = Call()
    with pytest.raises(ValueError, match="minus one"):
        await Batcher(call, limit=2).submit([-1, 1, 2, 3])
    assert call.batches == [[-1, 1]]


async def test_a_caller_that_was_cancelled_takes_its_waiting_items_along_and_leaves_the_others_alone() -> None:
    call = Call(held=True)
    batcher = Batcher(call, limit=10)
    first = asyncio.create_task(batcher.submit([0]))
    await ticks()
    gone, stays = asyncio.create_task(batcher.submit([1])), asyncio.create_task(batcher.submit([2]))
    await ticks()
    gone.cancel()
    await ticks()
    call.may_answer.set()
    assert await asyncio.gather(first, stays) == [[0], [4]]
    assert call.batches == [[0], [2]]


@pytest.mark.parametrize("capacity", [1, 4])
async def test_beyond_its_capacity_callers_wait(capacity: int) -> None:
    call = Call(held=True)
    batcher = Batcher(call, limit=2, capacity=capacity)
    submitted = [asyncio.create_task(batcher.submit([i])) for i in range(20)]
    await ticks()
    assert sum(map(len, call.batches)) <= 2
    call.may_answer.set()
    async with asyncio.timeout(30):
        assert await asyncio.gather(*submitted) == [[2 * i] for i in range(20)]


async def test_drain_waits_for_everything_submitted() -> None:
    call = Call(held=True)
    batcher = Batcher(call, limit=1)
    submitted = [asyncio.create_task(batcher.submit([i])) for i in range(3)]
    await ticks()
    drained = asyncio.create_task(batcher.drain())
    await ticks()
    assert not drained.done()
    call.may_answer.set()
    await drained
    assert batcher.idle
    assert [task.result() for task in submitted] == [[0], [2], [4]]


async def test_a_call_that_answers_too_little_is_a_fault() -> None:
    async def short(items: Sequence[int]) -> list[int]:
        return []

    with pytest.raises(RuntimeError, match="0 answers to 1 entries"):
        await Batcher(short).submit([1])
