"""A scene in which wall clocks are wrong, judged by the true time.

    async with ClockScene(tmp_path, seed=seed, store=redis.url, broker=rabbitmq.url, library=skew_library) as scene:
        skew = scene.start("worker-1", "worker")    # a process with a clock of its own, right so far
        ...
        scene.start_load()
        await scene.up()
        await scene.schedule(seconds=20)
        for wrong in FULL:
            await wrong.befall(skew, seconds=3)
        verdict = await scene.verdict()

Due times are moments of the true time, as a user gives them. A delay in seconds is counted by the clock of who counts
it: a producer's, and a worker's for the wait before a retry.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

from callboard import Callboard
from callboard.runtime.schedule_record import moment_of
from callboard.runtime.wire import Command
from faults import ledger
from faults.checker import Verdict
from faults.fleet import actor
from faults.occurrences import every_second
from faults.scene import LOOK_SECONDS, SETTINGS, Scene
from faults.skew import CYCLES, Skew, TrueTime
from faults.workload import APP, QUEUES

RATE = 60.0
DELAYED = 0.3  # of the jobs: they are what a clock decides about
FAILING = 0.05
SCHEDULES = 2  # of each queue, each of which occurs every second
WAKE_SECONDS = 0.25
KEEP_ALL = {"CALLBOARD_KEEP_COMPLETED_COUNT": "1000000"}
SETTLE_SECONDS = 120.0
PATIENCE_SECONDS = 60.0
NOTICED = "s apart"  # of a scanner or a scheduler whose clock and the store's differ


class Wrong(Struct, frozen=True, kw_only=True):
    """What is done to a clock. `strobes`: ahead and behind in turn, not ahead (or behind) for good."""

    name: str
    milliseconds: int
    strobes: bool = False

    @property
    def offsets(self) -> list[int]:
        return [self.milliseconds, -self.milliseconds] if self.strobes else [self.milliseconds]

    async def befall(self, skew: Skew, *, seconds: float, shows: Callable[[], bool] = lambda: True) -> None:
        """The clock is wrong for so long, and until somebody has read it and it `shows`. It is left as it is: what
        comes next sets it."""
        before = skew.readings()
        await self._last(skew, seconds)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (skew.readings() > before and shows()):
            assert time.monotonic() < deadline, f"{self.name}: read {skew.readings() - before} times, and does not show"
            await self._last(skew, 1 / CYCLES)

    async def _last(self, skew: Skew, seconds: float) -> None:
        if self.strobes:
            await skew.strobe(self.milliseconds, seconds=seconds)
        else:
            skew.set(self.milliseconds)
            await asyncio.sleep(seconds)


FULL = (
    Wrong(name="60 s ahead", milliseconds=60_000),
    Wrong(name="120 s behind", milliseconds=-120_000),
    Wrong(name="10 s ahead and behind in turn", milliseconds=10_000, strobes=True),
)
# As the lease: a fifth.
SCALED = tuple(Wrong(name=f"a fifth of {w.name}", milliseconds=w.milliseconds // 5, strobes=w.strobes) for w in FULL)


class ClockScene(Scene):
    """`library`: see faults.skew."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        store: str,
        broker: str,
        library: Path,
        shares_store: bool = False,
        shares_broker: bool = False,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        super().__init__(
            folder,
            seed=seed,
            store=store,
            broker=broker,
            shares_store=shares_store,
            shares_broker=shares_broker,
            settings={**SETTINGS, **KEEP_ALL},
            settle_seconds=settle_seconds,
        )
        self.time = TrueTime.of_this_process()
        self.app = Callboard(broker=broker, store=store, namespace=self.namespace)
        self._library = library
        self._schedules: dict[str, int] = {}  # how often each occurs
        self._waking: asyncio.Task[None] | None = None

    # --- the fleet ---

    def start(self, name: str, *kinds: str, milliseconds: int = 0) -> Skew:
        """A process of these actors, and its clock: ahead by so much, from the start."""
        skew = self.skew(name, milliseconds)
        queues = QUEUES if "worker" in kinds else ()
        self.fleet.start(name, actor(*kinds, app=APP, queues=queues), **skew.environment)
        return skew

    def start_load(self, *, failing: float = FAILING) -> list[Skew]:
        """Two producers, and their clocks. They go on until the end."""
        skews = []
        for name in ("producer-1", "producer-2"):
            skews.append(self.skew(name))
            arguments = ["-m", "faults.producer", "--name", name, "--seed", str(self.seed), "--rate", str(RATE / 2)]
            arguments += ["--journal", str(self._journal(name))]
            arguments += ["--delayed", str(DELAYED), "--failing", str(failing), "--booted", str(self.time.booted)]
            self.fleet.start(name, arguments, **skews[-1].environment)
        return skews

    def skew(self, name: str, milliseconds: int = 0) -> Skew:
        skew = Skew(self._library, self._folder / f"{name}.skew")
        skew.set(milliseconds)
        return skew

    async def schedule(self, *, seconds: int) -> None:
        """Schedules that occur every second from now on, so many times."""
        start = datetime.fromtimestamp(self.time.now() // 1000 + 1, UTC)
        for queue in map(self.app.queue, QUEUES):
            for number in range(SCHEDULES):
                name = f"every-second-{queue.name}-{number}"
                self._schedules[name] = seconds
                self.occurrences |= await every_second(queue, name, start=start, times=seconds)
        self.not_before = {id: _moment(id) for id in self.occurrences}
        self._waking = asyncio.create_task(self._wake_schedulers())

    async def _wake_schedulers(self) -> None:
        """As each change of a schedule does. Of a clock that was wrong they would hear after 12 s by themselves."""
        while True:
            for queue in QUEUES:
                command = Command(command="wake", queue=queue)
                self.app.connections.dispatcher.command_soon(f"repeatable-scheduler.{queue}", command)
            await asyncio.sleep(WAKE_SECONDS)

    # --- what became of it ---

    def entries(self) -> list[ledger.Entry]:
        """With the true moments."""
        return [replace(entry, moment=self.time.at(entry.elapsed)) for entry in super().entries()]

    def gaps(self, process: int) -> Iterator[int]:
        """By how many ms the clock of that process was ahead of the true time, at each start of a handler."""
        for entry in ledger.read(self.ledger):
            if entry.run.process == process and entry.event is ledger.Event.START:
                yield entry.moment - self.time.at(entry.elapsed)

    async def verdict(self) -> Verdict:
        """Let everything end, and assert what no wrong clock may change: each accepted job and each occurrence had its
        run, none before its time, none twice, and no worker was declared dead."""
        await self._all_fired()
        await self.settle()
        await self._stop_waking()
        verdict = await self.judge()
        finals = await self.finals()
        made = sum(id in finals for id in self.occurrences)
        print(f"{len(self.occurrences)} occurrences of {len(self._schedules)} schedules, {made} of them final")
        assert verdict.repeated == ()
        assert [job.id for job in finals.values() if job.stalled] == []
        assert self.fleet.lines("", "declared dead|is gone") == []
        assert await self._totals() == {name: {"ran": times} for name, times in self._schedules.items()}
        return verdict

    async def _all_fired(self) -> None:
        async with asyncio.timeout(self.settle_seconds):
            for queue in map(self.app.queue, QUEUES):
                while any(schedule.next_run for schedule in await queue.list_repeatables()):
                    await asyncio.sleep(LOOK_SECONDS)

    async def _totals(self) -> dict[str, dict[str, int]]:
        infos = [info for queue in map(self.app.queue, QUEUES) for info in await queue.list_repeatables()]
        return {info.id: dict(info.totals) for info in infos}

    # --- the end ---

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self.app.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop_waking()
        await self.app.close()
        await super().__aexit__(kind, error, traceback)

    async def _stop_waking(self) -> None:
        if self._waking is not None:
            self._waking.cancel()
            with suppress(asyncio.CancelledError):
                await self._waking
            self._waking = None


def _moment(occurrence: str) -> int:
    """The ms before which a job of that id must not start."""
    moment = moment_of(occurrence.rpartition("@")[2])
    assert moment is not None, occurrence
    return round(moment.timestamp() * 1000)
