"""Scanners are told of what is due before they look again, however long their own sleep is, and not of every job."""

from __future__ import annotations

import asyncio

from callboard.runtime.settings import MAX_SCAN_SECONDS
from callboard.runtime.wakes import NEAR_MS, Wakes
from callboard.runtime.wire import Command

NOON = 1_700_000_000_000


class StillClock:
    def now(self) -> int:
        return NOON

    def elapsed(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None: ...


class Scene:
    def __init__(self) -> None:
        self.told: list[tuple[str, int | None]] = []
        self.wakes = Wakes(self._send, StillClock())

    def _send(self, routing_key: str, command: Command) -> None:
        assert routing_key == f"delayed-scanner.{command.queue}"
        self.told.append((command.queue or "", None if command.run_at is None else command.run_at - NOON))

    async def until(self, messages: int) -> None:
        async with asyncio.timeout(60):
            while len(self.told) < messages:
                await asyncio.sleep(0.005)


async def test_all_is_told_that_no_scanner_need_see_by_itself_and_nothing_else() -> None:
    scene = Scene()
    longest = MAX_SCAN_SECONDS * 1000
    scene.wakes.delayed("a", NOON + longest)
    scene.wakes.delayed("b", NOON + longest + 1)
    assert scene.told == [("a", longest)]
    scene.wakes.flush()


async def test_of_a_stream_the_first_is_told_at_once_and_then_the_earliest_of_each_window() -> None:
    scene = Scene()
    for left in (5_000, 4_000, 3_000, 3_500):
        scene.wakes.delayed("q", NOON + left)
    scene.wakes.delayed("other", NOON + 9_000)
    assert scene.told == [("q", 5_000), ("other", 9_000)]
    await scene.until(3)
    assert scene.told[2:] == [("q", 3_000)]
    scene.wakes.flush()
    assert len(scene.told) == 3


async def test_what_is_due_before_a_window_ends_is_told_at_once() -> None:
    scene = Scene()
    for left in (5_000, NEAR_MS, 1, -10):
        scene.wakes.delayed("q", NOON + left)
    assert scene.told == [("q", 5_000), ("q", NEAR_MS), ("q", 1), ("q", -10)]
    scene.wakes.flush()


async def test_what_is_untold_in_the_end_is_told_then() -> None:
    scene = Scene()
    scene.wakes.delayed("q", NOON + 5_000)
    scene.wakes.delayed("q", NOON + 4_000)
    scene.wakes.flush()
    assert scene.told == [("q", 5_000), ("q", 4_000)]
    scene.wakes.delayed("q", NOON + 6_000)
    assert scene.told[2:] == [("q", 6_000)]
    scene.wakes.flush()
