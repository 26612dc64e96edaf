"""Every operation is cut and repeated: the request lost, or the reply after the work was done, at each of its exchanges
with the server. What is left must be what one execution leaves, and the answer one that the contract allows.

What one execution leaves and answers is found out on a queue of its own, without a cut. A store without a server (None
from `make_cut`) is called, its answer forgotten, and called again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import count
from typing import Any, Protocol

import pytest
from msgspec import Struct

from ...metadata.contract import CAPABILITIES, Deduplicating, Due, Pruned, Stalled, Store, Ticket
from ...metadata.errors import StoreUnavailable
from ...metadata.schedules import Schedules
from ..clock import SystemClock
from .line import Side
from .store_fault_cases import CASES, Case, operations
from .store_fault_ground import EVERY_ID, IDS, Ground
from .store_scene import DAY, StoreSuite

LANES = 12  # cut stores at work side by side, since a cut is mostly a time limit that runs out
MOST_EXCHANGES = 20  # of one operation
OF_A_SCAN = 2
SHORTEST_LIMIT, LONGEST_LIMIT = 0.15, 10.0  # seconds
REPEATS = 6  # of a call that nothing hinders any more
# Of a store's own clock, of the worker's counter that each repeat raises: not the same in two executions.
_OWN = re.compile(r"\b(fence|gap|beat)=-?\d+")


class Cutter(Protocol):
    """What stands between a store and its server; `Line` is one."""

    @property
    def struck(self) -> bool: ...

    def lose(self, number: int, side: Side) -> None: ...

    async def settled(self) -> None: ...

    def mend(self) -> None: ...


class Cut(Struct, frozen=True):
    """A store, closed, behind a cutter."""

    store: Store
    cutter: Cutter


class TooSlow(Exception):
    """A store gave up although nothing was lost; because its time limit is short, as long as that can grow."""


class Expected(Struct, frozen=True):
    """Of a case without a cut: the pictures after one call and after two, and the answers of both."""

    queue: str
    pictures: tuple[str, str]
    answers: tuple[object, object]


class Lane(Struct, frozen=True):
    cut: Cut
    limit: float


class Play(Struct, frozen=True):
    operation: str
    case: Case
    side: Side
    expected: Expected

    def __str__(self) -> str:
        return f"{self.operation}{f' ({self.case.name})' if self.case.name else ''}, {self.side.value} lost"


class FaultConformance(StoreSuite):
    """`time_limit`: seconds for which a store that is cut off should wait for an answer. Short, since each loss takes
    that long; it grows during a test, where the machine turns out to be slower."""

    time_limit = SHORTEST_LIMIT

    async def make_cut(self, store: Store, stack: AsyncExitStack) -> Cut | None:
        """Another store on the data of `store`, which is open, behind a cutter that `stack` closes, with
        `self.time_limit`; None: there is nothing between this store and its data."""
        return None

    async def test_every_operation_of_the_contract_has_a_case_in_which_it_is_cut(self) -> None:
        assert set(CASES) == set(operations())
        assert all(CASES.values())

    @pytest.mark.parametrize("capability", [capability.__name__ for capability in CAPABILITIES])
    async def test_what_is_cut_and_repeated_leaves_the_state_of_one_execution(
        self, store: Store, capability: str
    ) -> None:
        wanted = {name: cases for name, cases in CASES.items() if name.partition(".")[0] == capability}
        if not {operations()[name] for name in wanted} <= store.capabilities:
            pytest.skip(f"the store {store.scheme} does not offer {capability}")
        queues, now = (f"faults-{n}" for n in count()), SystemClock().now() - 2 * DAY
        faults: list[str] = []
        async with AsyncExitStack() as stack:
            left = iter([(operation, case) for operation, cases in wanted.items() for case in cases])

            async def run() -> None:
                lane = await self._lane(store, stack)
                for operation, case in left:
                    expected = await _expect(operation, case, Ground(store, next(queues), now), faults)
                    exchanges = 0  # not known yet
                    for side in Side:
                        play = Play(operation, case, side, expected)
                        if lane is None:
                            faults.extend(await _called_twice(play, Ground(store, next(queues), now)))
                            continue
                        found, exchanges, lane = await self._all_exchanges(
                            play, exchanges, store, lane, stack, queues, now
                        )
                        faults.extend(found)

            async with asyncio.TaskGroup() as lanes:
                for _ in range(min(LANES, sum(map(len, wanted.values())))):
                    lanes.create_task(run())
        assert not faults, "\n".join(faults)

    async def _all_exchanges(
        self,
        play: Play,
        exchanges: int,
        store: Store,
        lane: Lane,
        stack: AsyncExitStack,
        queues: Iterator[str],
        now: int,
    ) -> tuple[list[str], int, Lane]:
        """Cut the first exchange, then the second ... up to `exchanges`; if that is 0, as many as the operation has.
        What went wrong, and how many there were: the same, whichever side is lost."""
        faults: list[str] = []
        number = 1
        while number <= (exchanges or (OF_A_SCAN if play.case.scans else MOST_EXCHANGES)):
            try:
                found, struck = await _cut_and_repeated(play, number, Ground(store, next(queues), now), lane.cut)
            except TooSlow as slow:
                lane = await self._slower(slow, lane, store, stack)
                continue  # ends by the longest limit
            faults += found
            if not struck:
                if number == 1 or exchanges:
                    faults.append(f"{play}: there was no exchange {number} to cut")
                return faults, number - 1, lane
            number += 1
        if not play.case.scans and not exchanges:
            faults.append(f"{play}: it has more than {MOST_EXCHANGES} exchanges with the server")
        return faults, number - 1, lane

    async def _lane(self, store: Store, stack: AsyncExitStack) -> Lane | None:
        limit = self.time_limit
        cut = await self.make_cut(store, stack)
        if cut is None:
            return None
        stack.push_async_callback(cut.store.close)
        lane = Lane(cut, limit)
        try:
            await _repeated(cut.store.open)
        except TooSlow as slow:
            return await self._slower(slow, lane, store, stack)
        return lane

    async def _slower(self, slow: TooSlow, lane: Lane, store: Store, stack: AsyncExitStack) -> Lane:
        """Another, with the limit that there is by now, or one twice as long."""
        if lane.limit >= LONGEST_LIMIT:
            raise slow
        self.time_limit = max(self.time_limit, min(2 * lane.limit, LONGEST_LIMIT))
        slower = await self._lane(store, stack)
        assert slower is not None
        return slower


async def _expect(operation: str, case: Case, ground: Ground, faults: list[str]) -> Expected:
    await _prepare(case, ground)
    first = await case.call(ground)
    once = await _picture(ground)
    second = await case.call(ground)
    twice = await _picture(ground)
    if once != twice and not case.takes:
        faults.append(f"{operation} ({case.name}), called twice, left\n  {twice}\nin place of\n  {once}")
    return Expected(ground.queue, (once, twice), (first, second))


async def _called_twice(play: Play, ground: Ground) -> list[str]:
    """Where nothing can get lost: its answer is forgotten (a reply that was lost), or it was not called before."""
    await _prepare(play.case, ground)
    if play.side is Side.REPLY:
        await play.case.call(ground)
    return await _judge(play, 1, ground, await play.case.call(ground))


async def _cut_and_repeated(play: Play, number: int, ground: Ground, cut: Cut) -> tuple[list[str], bool]:
    """What went wrong, and whether there was such an exchange. TooSlow."""
    await _prepare(play.case, ground)
    behind = ground.at(cut.store)
    cut.cutter.lose(number, play.side)
    failed: StoreUnavailable | None = None
    try:
        answer = await play.case.call(behind)
    except StoreUnavailable as error:
        failed = error
    struck = cut.cutter.struck
    await cut.cutter.settled()
    cut.cutter.mend()
    if failed is not None:
        if not struck:
            raise TooSlow(f"{play}, at exchange {number}, before anything was lost: {failed}") from failed
        answer = await _repeated(lambda: play.case.call(behind))
    return await _judge(play, number, ground, answer), struck


async def _prepare(case: Case, ground: Ground) -> None:
    for step in case.before:
        await step(ground)


async def _repeated(call: Callable[[], Awaitable[Any]]) -> Any:
    for turn in range(REPEATS):
        try:
            return await call()
        except StoreUnavailable as error:
            failed = error
            await asyncio.sleep(0.01 * 2**turn)
    raise TooSlow(f"{REPEATS} times, with nothing lost: {failed}") from failed


async def _judge(play: Play, number: int, ground: Ground, answer: object) -> list[str]:
    faults = []
    picture = await _picture(ground)
    wanted = play.expected.pictures if play.case.takes else play.expected.pictures[:1]
    if picture not in wanted:
        faults.append(f"{play} at exchange {number}, left\n  {picture}\nin place of\n  {wanted[0]}")
    first, again = play.expected.answers
    if play.case.takes:
        fits = _rows(answer) <= _rows(first) | _rows(again)
    else:
        entries = _entries(answer, ground.queue)
        legal = list(zip(_entries(first, play.expected.queue), _entries(again, play.expected.queue), strict=True))
        fits = len(entries) == len(legal) and all(one in pair for one, pair in zip(entries, legal, strict=True))
    if not fits:
        faults.append(f"{play} at exchange {number}, answered\n  {answer!r}\nnot\n  {first!r}\nor\n  {again!r}")
    return faults


async def _picture(ground: Ground) -> str:
    """All that can be read about the queue, and whether its lists agree with its records."""
    store, queue, inspection = ground.store, ground.queue, ground.inspection
    jobs = list(await inspection.get(queue, EVERY_ID))
    late = [Ticket(id, 1) for id, job in zip(EVERY_ID, jobs, strict=True) if job is None]
    seen: dict[str, object] = {
        "jobs": jobs,
        # Gone or unknown: no such claim writes anything.
        "late tickets": {one.id: str(one.verdict) for one in (await ground.claim(*late) if late else ())},
        "progress": await inspection.progress(queue, IDS[0]),
        "counts": (await inspection.counts([queue]))[queue],
        "workers": sorted(await ground.workers.workers([queue]), key=lambda row: row.boot),
        "known": queue in await ground.control.queues(),
        "holders": [await store.get(Deduplicating).holder(queue, key, now=ground.now) for key in ("key", "other")],
        "faults": list(await inspection.audit(queue)),
    }
    if Schedules in store.capabilities:
        seen["schedules"] = list(await store.get(Schedules).page(queue, offset=0, limit=99))
    return "\n  ".join(f"{name}: {_plain(value, queue)}" for name, value in seen.items())


def _plain(value: object, queue: str) -> str:
    return _OWN.sub(r"\1=*", repr(value).replace(queue, "*"))


def _entries(answer: object, queue: str) -> list[str]:
    parts = answer if isinstance(answer, Sequence) and not isinstance(answer, str) else [answer]
    return [_plain(part, queue) for part in parts]


def _rows(answer: object) -> set[str]:
    """What a taking operation has taken."""
    match answer:
        case Due():
            return {row.id for row in answer.ready}
        case Stalled():
            return {*(row.id for row in answer.ready), *answer.failed}
        case Pruned():
            return set()
    assert isinstance(answer, Sequence)
    return {row if isinstance(row, str) else row.id for row in answer}
