"""What is held until a moment is sent then: not before by a clock that jumps ahead, nor much later by one set back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from callboard.metadata.contract import Ready
from callboard.runtime.outgoing import MAX_HELD, MAX_SENDS, Outgoing

NOON = 1_700_000_000_000
BEGAN = 500.0  # `elapsed` at noon


class JumpingClock:
    """Time passes by sleeping; `jump` moves the wall clock alone."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.jump = 0

    def now(self) -> int:
        return NOON + self.jump + int(self.passed * 1000 + 1e-6)

    def elapsed(self) -> float:
        return BEGAN + self.passed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.passed += max(seconds, 0.0001)


class FakeStage:
    def __init__(self) -> None:
        self.clock = JumpingClock()
        self.dispatcher = self
        self.sent: list[tuple[str, float]] = []  # id, ms that have passed
        self.confirming = asyncio.Event()
        self.confirming.set()

    async def send(self, ready: Sequence[Ready]) -> None:
        self.sent += [(one.id, round(self.clock.passed * 1000, 2)) for one in ready]
        await self.confirming.wait()

    async def within_grace(self, work: Awaitable[object]) -> None:
        await work


@pytest.fixture
async def stage() -> FakeStage:
    return FakeStage()


def outgoing(stage: Any) -> Outgoing:
    return Outgoing(stage)


def ready(id: str) -> Ready:
    return Ready("q", id, 1, 5, b"")


async def hold(sends: Outgoing, id: str, milliseconds: int) -> None:
    """Until so long after noon."""
    await sends.hold([ready(id)], at=NOON + milliseconds, latest=BEGAN + milliseconds / 1000)


async def test_what_is_held_is_sent_at_its_moment(stage: FakeStage) -> None:
    sends = outgoing(stage)
    await hold(sends, "a", 20)
    await sends.end()
    ((id, after),) = stage.sent
    assert id == "a"
    assert 20 <= after < 21


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize(("jump", "earliest"), [(3_600_000, 19), (-3_600_000, 20), (-1, 20)])
async def test_a_jump_of_the_clock_before_or_after_moves_nothing_by_more_than_a_millisecond(
    stage: FakeStage, jump: int, earliest: float, before: bool
) -> None:
    sends = outgoing(stage)
    stage.clock.jump = jump if before else 0
    await hold(sends, "a", 20)
    stage.clock.jump = jump
    await sends.end()
    ((_, after),) = stage.sent
    assert earliest <= after < 21


async def test_what_is_due_already_is_sent_at_once(stage: FakeStage) -> None:
    sends = outgoing(stage)
    await hold(sends, "a", 0)
    await hold(sends, "b", -5)
    await sends.end()
    assert stage.sent == [("a", 0), ("b", 0)]


async def test_a_broker_that_does_not_confirm_holds_back_who_has_sent_enough(stage: FakeStage) -> None:
    stage.confirming.clear()
    sends = outgoing(stage)
    for number in range(MAX_SENDS):
        await sends.send([ready(f"sent-{number}")])
    for number in range(MAX_HELD):
        await hold(sends, f"held-{number}", 0)
    for one_more in (sends.send([ready("more")]), hold(sends, "more", 0)):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await one_more
    assert len(stage.sent) == MAX_SENDS + MAX_HELD
    stage.confirming.set()
    await sends.send([ready("another")])
    await sends.end()
    assert stage.sent[-1][0] == "another"
