"""When the scanner looks, and when the tickets go that it holds: by the later of the store's clock and its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from callboard.actors.delayed_scanner import AHEAD_MS, LOOK_MS, DelayedScanner
from callboard.brokers.topology import Names
from callboard.metadata.contract import Due, Ready
from callboard.runtime.actor import Options
from callboard.runtime.settings import Settings
from callboard.runtime.wire import Command

NOON = 1_700_000_000_000


class PassingClock:
    """Time passes, in small steps, while somebody sleeps."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.jump = 0

    def now(self) -> int:
        return NOON + self.jump + int(self.passed + 1e-6)

    def elapsed(self) -> float:
        return self.passed / 1000

    async def sleep(self, seconds: float) -> None:
        until = self.passed + seconds * 1000
        while self.passed <= until:
            await asyncio.sleep(0)
            self.passed += 0.05


class FakeStage:
    """A stage, its store with one queue, and its dispatcher."""

    def __init__(self) -> None:
        self.clock, self.random, self.log = PassingClock(), Random(1), logging.getLogger("test")
        self.settings = Settings(broker="memory://", store="memory://", scan_interval=5)
        self.names, self.instance, self.mailbox, self.options = Names("ns"), "i", "i", Options(queues=("q",))
        self.connections: Any = None
        self.metrics: Any = None
        self.dispatcher = self
        self.asked: list[tuple[int, int]] = []  # now, ahead
        self.due = Due([], None)
        self.takes_ms = 0.0
        self.jumps_ms = 0  # the clock, while the store answers
        self.sent: list[tuple[list[str], float]] = []  # ids, ms that have passed

    def capability(self, capability: type) -> FakeStage:
        return self

    async def take_due(self, queues: Sequence[str], *, now: int, grace: int, limit: int, ahead: int) -> Due:
        self.asked.append((now - NOON, ahead))
        self.clock.passed += self.takes_ms
        self.clock.jump = self.jumps_ms
        return self.due

    async def send(self, ready: Sequence[Ready]) -> None:
        self.sent.append(([one.id for one in ready], round(self.clock.passed, 1)))

    async def sends(self, sends: int) -> list[tuple[list[str], float]]:
        async with asyncio.timeout(60):
            while len(self.sent) < sends:
                await asyncio.sleep(0)
        return self.sent


def ready(id: str, left: int) -> Ready:
    return Ready("q", id, 1, 5, b"", NOON + left if left else 0)


@pytest.fixture
async def stage() -> FakeStage:
    return FakeStage()


def scanner(stage: Any) -> DelayedScanner:
    return DelayedScanner(stage)


async def test_it_looks_a_little_before_the_next_job_is_due_and_takes_what_comes_soon_after(stage: FakeStage) -> None:
    stage.due = Due([], NOON + 1000)
    scans = scanner(stage)
    assert await scans.round() == pytest.approx((1000 - LOOK_MS) / 1000)
    assert stage.asked == [(0, AHEAD_MS)]
    scans.receive(Command(command="wake", queue="q", run_at=NOON + 400))
    assert await scans.round() == pytest.approx((400 - LOOK_MS) / 1000)
    assert len(stage.asked) == 1, "a command that tells of a job asks the store for nothing"


async def test_it_looks_again_after_its_interval_whatever_is_known(stage: FakeStage) -> None:
    stage.due = Due([], NOON + 60_000)
    assert await scanner(stage).round() == pytest.approx(5)


async def test_what_is_due_goes_at_once_and_the_rest_at_its_moment_each_moment_in_one_bundle(stage: FakeStage) -> None:
    stage.due = Due([ready("a", 0), ready("c", 40), ready("b", 20), ready("d", 40), ready("e", 0)], None)
    scans = scanner(stage)
    await scans.round()
    sent = await stage.sends(3)
    assert [ids for ids, _ in sent] == [["a", "e"], ["b"], ["c", "d"]]
    assert [int(after) for _, after in sent] == [0, 20, 40]


@pytest.mark.parametrize(("gap", "earliest"), [(0, 30), (500, 30), (-7, 37 + 3), (-500, 530 + 3)])
async def test_a_ticket_waits_for_the_later_of_the_two_clocks(stage: FakeStage, gap: int, earliest: int) -> None:
    """The store takes 3 ms to answer, and looks at its clock at any time in them."""
    stage.takes_ms = 3.0
    stage.due = Due([ready("a", 30)], None, gap)
    scans = scanner(stage)
    await scans.round()
    ((_, after),) = await stage.sends(1)
    assert earliest <= after < earliest + 1


@pytest.mark.parametrize("jump", [3_600_000, -3_600_000])
@pytest.mark.parametrize(("gap", "moment"), [(0, 30), (-7, 37 + 3)])
async def test_a_clock_that_jumps_while_the_store_answers_moves_no_ticket_by_more_than_a_millisecond(
    stage: FakeStage, gap: int, moment: int, jump: int
) -> None:
    stage.takes_ms, stage.jumps_ms = 3.0, jump
    stage.due = Due([ready("a", 30)], None, gap)
    await scanner(stage).round()
    ((_, after),) = await stage.sends(1)
    assert moment - 1 <= after < moment + 1
