"""`simulate`: an app in a world of its own, and `crash_at_every_step` of its handlers."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import Random

from msgspec import Struct

from ....metadata.contract import Inspection, QueueControl
from ....metadata.job import Job
from ....metadata.memory import MemoryStore
from ...actor import Actor, Options
from ...app import Callboard
from ...registry import find_actor
from ...triggers.grid import to_ms
from .faults import NONE, Faults
from .handlers import Steps, simulated
from .loop import Overrun, awaited
from .store import step
from .watch import Run
from .world import LOG, Slot, World

ACTORS = ("worker", "delayed-scanner", "repeatable-scheduler", "stalled-recovery", "retention")
START = datetime(2026, 1, 1, tzinfo=UTC)
LOOK_SECONDS = 0.1  # how often an onlooker asks whether all is done
MOST_STEPS = 5_000_000  # of all processes; a month takes some 10,000
CALM_SECONDS = 0.3  # before and after what is of interest, time goes by step by step

Scenario = Callable[["Simulation"], Awaitable[object]]


class Violated(AssertionError):
    """What must never be was seen. `seed` shows it again."""

    def __init__(self, seed: int, wrongs: Sequence[str]) -> None:
        super().__init__("\n  ".join((f"seed {seed}:", *wrongs)))
        self.seed = seed
        self.wrongs = tuple(wrongs)


class Report(Struct, frozen=True, kw_only=True):
    """`runs`: of handlers, as they began. `seconds`: how long it took in the world; `steps`: of all processes.
    `fingerprint`: two simulations that went the same way have the same one."""

    seed: int
    runs: tuple[Run, ...]
    seconds: float
    steps: int
    handler_steps: int
    fingerprint: str
    start: datetime

    def times(self, task: str) -> list[datetime]:
        """When each run of a task began."""
        return [self.start + timedelta(seconds=run.began) for run in self.runs if run.task == task]


class Simulation:
    """What a scenario has in hand. It is a process of the app, in which nothing goes wrong."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.app = world.app
        self.random = world.random

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.world.clock.now() / 1000, UTC)

    async def sleep(self, duration: float | timedelta) -> None:
        """Seconds or a timedelta of the world's time."""
        await asyncio.sleep(duration.total_seconds() if isinstance(duration, timedelta) else duration)

    async def settled(self, *, timeout: float = 3600.0) -> None:
        """Until no job waits, is delayed or runs. TimeoutError after so many of the world's seconds, naming some."""
        until = self.world.loop.time() + timeout
        while left := self.world.left_over():
            if self.world.loop.time() >= until:
                raise TimeoutError(f"not settled after {timeout:g} s: {'; '.join(left[:5])}")
            await asyncio.sleep(LOOK_SECONDS)

    def job(self, queue: str, id: str) -> Job | None:
        """Its record, as the store has it now."""
        found: list[Job | None] = step(self.world.store.get(Inspection).get(queue, [id]))
        return found[0]


def simulate(
    app: Callboard,
    scenario: Scenario,
    *,
    seed: int = 0,
    faults: Faults = NONE,
    start: datetime = START,
    actors: Sequence[str | type[Actor]] = ACTORS,
    replicas: int = 1,
    processes: Sequence[Sequence[str]] = (),
    concurrency: int = 10,
    grace_seconds: float = 5.0,
    crash_at_step: int = 0,
    store: MemoryStore | None = None,
    durable: bool = True,
    prepare: Callable[[World], object] | None = None,
    check: Callable[[], object] | None = None,
    make_world: Callable[..., World] = World,
    trace: Callable[[str], None] | None = None,
    most_seconds: float = 10 * 366 * 86_400.0,
    most_steps: int = MOST_STEPS,
) -> Report:
    """Run `scenario` in a world in which `replicas` of each actor run, in virtual time, from `start` on. `processes`:
    the kinds of actors that share one; else each has its own.

    It ends when the scenario has returned and all jobs have ended. Times at which nothing happens are skipped, so that
    a month takes about as long as the jobs in it. The same seed gives the same run.

    Raises Violated where a job was lost, run twice without a reason, run early, or anything else of `watch.py` was
    seen, and what the scenario raised. `crash_at_step`: the process of the handler that makes this step, of all that
    handlers make, dies after it. `prepare(world)` is called before anything runs, `check()` at the end.
    """
    random = Random(seed)
    kinds = {one.kind: one for one in (find_actor(a) if isinstance(a, str) else a for a in actors)}
    world = make_world(
        app, random, faults=faults, actors=kinds, start=to_ms(start), most_steps=most_steps, store=store,
        durable=durable, options=Options(concurrency=concurrency, grace_seconds=grace_seconds),
    )  # fmt: skip
    steps = Steps(crash_at_step)
    world.watch.trace = None if trace is None else _Tracing(world, trace)
    with _inhabited(app, world, steps, loud=trace is not None):
        ended = _Ending(world, scenario, most_seconds)
        for number in range(1, replicas + 1):
            for together in processes or [[kind] for kind in kinds]:
                world.add_actors(f"{' '.join(together)} {number}", together)
        world.add("scenario", ended.play, safe=True)
        if prepare is not None:
            prepare(world)
        world.begin_faults()
        try:
            world.loop.run_until(ended.look)
        except Overrun as error:
            world.watch.wrong(str(error))
        ended.check()
        if check is not None:
            check()
        raised = ended.error
        world.watch.over = True
        world.watch.trace = None
        world.loop.bury()
    if raised is not None:
        raise raised
    if world.watch.wrongs:
        raise Violated(seed, world.watch.wrongs)
    mark = f"{world.loop.steps} {world.loop.time()!r} {random.random()!r} {len(world.watch.runs)}"
    return Report(
        seed=seed, runs=tuple(world.watch.runs), seconds=world.loop.time(), steps=world.loop.steps,
        handler_steps=steps.made, fingerprint=hashlib.sha256(mark.encode()).hexdigest()[:16], start=start,
    )  # fmt: skip


def crash_at_every_step(
    app: Callboard, scenario: Scenario, *, check: Callable[[Report], object] | None = None, seed: int = 0,
    most: int = 10_000,
) -> int:  # fmt: skip
    """Simulate once, then once for each step that the app's handlers made, with their process dying there: before they
    begin, at each of their awaits, and after their end, before it is recorded. How many steps there were.

    `check(report)` is called after each; it and `scenario` raise for what should not be. At most `most` steps."""
    report = simulate(app, scenario, seed=seed)
    if check is not None:
        check(report)
    if report.handler_steps > most:
        raise ValueError(f"the handlers make {report.handler_steps} steps; make the scenario smaller, or give most=")
    for number in range(1, report.handler_steps + 1):
        crashed = simulate(app, scenario, seed=seed, crash_at_step=number)
        if check is not None:
            check(crashed)
    return report.handler_steps


class _Ending:
    """Plays the scenario, and tells when all is over."""

    def __init__(self, world: World, scenario: Scenario, most_seconds: float) -> None:
        self.error: BaseException | None = None
        self._world = world
        self._scenario = scenario
        self._played = False
        self._next_look = 0.0
        self._most_seconds = most_seconds

    async def play(self, slot: Slot) -> None:
        awaited.set(True)
        try:
            async with self._world.app:
                await self._scenario(Simulation(self._world))
        except Exception as error:
            self.error = error
        self._played = True

    def look(self) -> bool:
        world = self._world
        now = world.loop.time()
        if now < self._next_look:
            return False
        self._next_look = now + LOOK_SECONDS
        if self.error is not None or now > self._most_seconds:
            return True
        if not self._played:
            self._leap(now)
            return False
        return world.weather.well and not world.unfinished() and not world.left_over()

    def check(self) -> None:
        """What can only be said at the end."""
        world = self._world
        if self.error is not None:
            return
        for left in world.left_over():
            world.watch.wrong(f"after {world.loop.time():.1f} s {left}")
        for name in world.unfinished():
            world.watch.wrong(f"{name} has not ended")
        for queue in step(world.store.get(QueueControl).queues()):
            for fault in step(world.store.get(Inspection).audit(queue)):
                world.watch.wrong(f"audit of {queue}: {fault}")

    def _leap(self, now: float) -> None:
        """Where nobody has anything to do but to ask whether there is, on to the next thing that happens."""
        world = self._world
        if not world.weather.well:
            return
        until = world.next_happening()
        if until is not None and until - CALM_SECONDS - now > 1.0:
            world.loop.leap(until - CALM_SECONDS)


class _Tracing:
    def __init__(self, world: World, tell: Callable[[str], None]) -> None:
        self._world = world
        self._tell = tell

    def __call__(self, line: str) -> None:
        self._tell(f"{self._world.loop.time():10.4f} {line}")


class _Errors(logging.Handler):
    """What is logged with an exception is one that nobody could handle: an actor failed, or a send."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.name != LOG:
            self._world.watch.wrong(f"{record.getMessage()}: {record.exc_info[1]!r}")


@contextmanager
def _inhabited(app: Callboard, world: World, steps: Steps, *, loud: bool) -> Iterator[None]:
    """The app is that of the world for a while; it must not be open."""
    before = app.opened, app.clock, app.tasks
    logger = logging.getLogger("callboard")
    level, propagates = logger.level, logger.propagate
    errors = _Errors(world)
    logger.addHandler(errors)
    if not loud:
        logger.setLevel(logging.ERROR)
        logger.propagate = False
    app.opened, app.clock = world.opened, world.clock
    app.tasks = {name: simulated(task, world, steps) for name, task in app.tasks.items()}
    try:
        yield
    finally:
        app.opened, app.clock, app.tasks = before
        logger.removeHandler(errors)
        logger.setLevel(level)
        logger.propagate = propagates
