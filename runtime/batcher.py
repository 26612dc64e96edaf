"""Group commit: what becomes ready while a call is in flight goes into the next one.

When nothing is under way, entries leave with the end of the present tick of the loop, so a lone entry waits for nobody.
Under load the calls fill up to `limit` by themselves. Each submission fails or succeeds on its own: an exception of the
call reaches exactly those whose entries were in it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from ..metadata.contract import MAX_BATCH

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class _Submission(Generic[Item, Answer]):
    __slots__ = ("answered", "answers", "future", "items", "taken")

    def __init__(self, items: Sequence[Item], future: asyncio.Future[list[Answer]]) -> None:
        self.items = items
        self.taken = 0
        self.answered = 0
        self.answers: dict[int, Sequence[Answer]] = {}  # by offset: calls may end out of order
        self.future = future

    def answer(self, offset: int, answers: Sequence[Answer]) -> None:
        self.answers[offset] = answers
        self.answered += len(answers)
        if self.answered == len(self.items) and not self.future.done():
            self.future.set_result([answer for part in sorted(self.answers) for answer in self.answers[part]])


_Part = tuple[_Submission[Item, Answer], int, int]  # a submission, where its part begins, how many


class Batcher(Generic[Item, Answer]):
    """`call` takes up to `limit` items and answers each, in order; at most `window` calls are in flight.

    `capacity`: how many items may wait before `submit` makes its callers wait.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        limit: int = MAX_BATCH,
        window: int = 1,
        capacity: int = 64 * MAX_BATCH,
    ) -> None:
        self._call = call
        self._limit = limit
        self._window = window
        self._capacity = capacity
        self._waiting: deque[_Submission[Item, Answer]] = deque()
        self._size = 0
        self._calls: set[asyncio.Task[None]] = set()
        self._beginning = False  # a call is there that has not taken its items yet
        self._room = asyncio.Event()
        self._room.set()

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._calls

    async def submit(self, items: Sequence[Item]) -> list[Answer]:
        """The answers, in order. Raises what `call` raised. A batch larger than `limit` takes several calls."""
        if not items:
            return []
        while self._size >= self._capacity:
            self._room.clear()
            await self._room.wait()
        return await self.put(items)

    def put(self, items: Sequence[Item]) -> asyncio.Future[list[Answer]]:
        """`submit` at least one item without waiting for room. What the future holds is the caller's to look at."""
        submission = _Submission[Item, Answer](items, asyncio.get_running_loop().create_future())
        self._waiting.append(submission)
        self._size += len(items)
        self._schedule()
        return submission.future

    async def drain(self) -> None:
        """Wait until everything submitted so far was answered."""
        while not self.idle:
            if self._calls:
                await asyncio.wait(set(self._calls))
            await asyncio.sleep(0)  # for the next calls to begin

    def _schedule(self) -> None:
        """A call that begins with the next tick of the loop, and takes what is there by then."""
        if self._waiting and not self._beginning and len(self._calls) < self._window:
            self._beginning = True
            self._calls.add(asyncio.get_running_loop().create_task(self._serve()))

    async def _serve(self) -> None:
        self._beginning = False
        try:
            batch, parts = self._take()
            self._schedule()
            if batch:
                await self._run(batch, parts)
        finally:
            # By itself, not by a callback: the next call begins a tick sooner, behind those who were answered just now.
            self._calls.discard(asyncio.current_task())
            self._schedule()

    def _take(self) -> tuple[list[Item], list[_Part[Item, Answer]]]:
        batch: list[Item] = []
        parts: list[_Part[Item, Answer]] = []
        while self._waiting and len(batch) < self._limit:
            submission = self._waiting[0]
            if submission.future.done():  # its caller was cancelled, or an earlier part of it failed
                self._size -= len(submission.items) - submission.taken
                self._waiting.popleft()
                continue
            part = submission.items[submission.taken : submission.taken + self._limit - len(batch)]
            batch.extend(part)
            parts.append((submission, submission.taken, len(part)))
            submission.taken += len(part)
            self._size -= len(part)
            if submission.taken == len(submission.items):
                self._waiting.popleft()
        if self._size <= self._capacity // 2:
            self._room.set()
        return batch, parts

    async def _run(self, batch: list[Item], parts: list[_Part[Item, Answer]]) -> None:
        try:
            answers = await self._call(batch)
            if len(answers) != len(batch):
                raise RuntimeError(f"{len(answers)} answers to {len(batch)} entries from {self._call!r}")
        except Exception as error:
            for submission, _, _ in parts:
                if not submission.future.done():
                    submission.future.set_exception(error)
            return
        except asyncio.CancelledError:
            for submission, _, _ in parts:
                submission.future.cancel()
            raise
        start = 0
        for submission, offset, count in parts:
            submission.answer(offset, answers[start : start + count])
            start += count
