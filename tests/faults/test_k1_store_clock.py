"""K1: the store's clock jumps, and strobes.

Injects: the wall clock of the store, and of nothing else, a minute ahead, then two minutes behind, then ten seconds
ahead and behind in turn, five times a second; three jobs in ten are delayed, eight schedules occur every second.
Bites: the server, asked for its time, tells the wrong one; both scanners and both schedulers have noticed; handlers
start meanwhile.
Passes: every accepted job and each occurrence had its run, none before its time by the true clock and none twice; no
worker was declared dead; the audit is clean.

While the store is behind, nothing that is due by the true clock is due: it comes when the store's clock is right again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from pymongo import MongoClient
from redis import Redis

from faults.clocks import FULL, NOTICED, ClockScene, Wrong
from faults.skew import Skew
from servers import MongoServer, RedisServer

SHORT_SECONDS = 2
FULL_SECONDS = 30
LOOK_SECONDS = 0.05
TOLERANCE = 5000  # ms from a question to its answer
OTHERS = ("delayed-scanner", "repeatable-scheduler", "stalled-recovery")


def time_of(store: RedisServer | MongoServer) -> int:
    """ms since the Unix epoch, by the store's own clock."""
    if isinstance(store, RedisServer):
        with Redis.from_url(store.url, protocol=2) as server:
            seconds, microseconds = server.time()
            return int(seconds * 1000 + microseconds // 1000)
    with MongoClient[dict[str, object]](store.url, tz_aware=True) as client:
        return round(client.admin.command("hello")["localTime"].timestamp() * 1000)


class Observer:
    """Asks the store for its time, again and again."""

    def __init__(self, scene: ClockScene, store: RedisServer | MongoServer) -> None:
        self._scene = scene
        self._store = store

    async def see(self, wrong: Wrong, skew: Skew, *, seconds: float) -> None:
        """`wrong` befalls the store until it shows, and handlers start meanwhile."""
        gaps: list[int] = []
        before = len(self._scene.started())

        def shows() -> bool:
            seen = [any(abs(gap - offset) < TOLERANCE for gap in gaps) for offset in wrong.offsets]
            return all(seen) and len(self._scene.started()) > before

        looking = asyncio.create_task(self._look(gaps))
        try:
            await wrong.befall(skew, seconds=seconds, shows=shows)
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
        began = len(self._scene.started()) - before
        print(f"{wrong.name}: the store was {min(gaps)} to {max(gaps)} ms ahead, {began} handlers started")

    async def _look(self, gaps: list[int]) -> None:
        while True:
            asked = self._scene.time.now()
            gaps.append(await asyncio.to_thread(time_of, self._store) - asked)
            await asyncio.sleep(LOOK_SECONDS)


async def lives_with_it(scene: ClockScene, store: RedisServer | MongoServer, skew: Skew, *, seconds: int) -> None:
    for number in (1, 2):
        scene.start(f"worker-{number}", "worker")
        scene.start(f"others-{number}", *OTHERS)
    scene.start_load()
    await scene.up()
    await scene.schedule(seconds=seconds * len(FULL))
    observer = Observer(scene, store)
    for wrong in FULL:
        await scene.note_finals()
        await observer.see(wrong, skew, seconds=seconds)
    skew.set(0)
    await scene.verdict()
    for number in (1, 2):
        told = scene.fleet.lines(f"others-{number}", NOTICED)
        assert [line for line in told if "delayed jobs" in line]
        assert [line for line in told if "schedules" in line]


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(SHORT_SECONDS, marks=pytest.mark.slow, id="short"),
        pytest.param(FULL_SECONDS, marks=pytest.mark.soak, id="half a minute each"),
    ],
)
async def test_no_clock_of_a_store_starts_anything_early_or_twice_or_declares_anybody_dead(
    tmp_path: Path,
    seed: int,
    skewed_store: RedisServer | MongoServer,
    store_skew: Skew,
    skew_library: Path,
    amqp_url: str,
    seconds: int,
) -> None:
    async with ClockScene(
        tmp_path, seed=seed, store=skewed_store.url, broker=amqp_url, library=skew_library, shares_broker=True
    ) as scene:
        await lives_with_it(scene, skewed_store, store_skew, seconds=seconds)
