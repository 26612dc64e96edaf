"""One seeded run: two processes of each actor, two producers that may die as well, a dozen jobs and a schedule.

Whatever the seed makes of it, each job that a producer had a yes for comes to its end, each occurrence has one job, and
nothing of what `watch.py` looks for is seen.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random

from callboard import Callboard, Context
from callboard.metadata.contract import Inspection
from callboard.metadata.errors import StoreUnavailable
from callboard.metadata.job import State
from callboard.metadata.memory import MemoryStore
from callboard.metadata.schedules import Schedules
from callboard.runtime.actor import Actor
from callboard.runtime.errors import EnqueueUncertain, JobFailed
from callboard.runtime.registry import find_actor
from callboard.runtime.testing.simulation import Faults, Report, Simulation, simulate
from callboard.runtime.testing.simulation.loop import die
from callboard.runtime.testing.simulation.simulate import ACTORS
from callboard.runtime.testing.simulation.store import step
from callboard.runtime.testing.simulation.world import Slot, World
from callboard.runtime.triggers import Policy

START = datetime(2026, 3, 29, 0, 59, 58, tzinfo=UTC)
QUEUE = "main"
SCHEDULE = "beat"
FAULT_SECONDS = 1.5
OCCURRENCES = 2
MOST_STEPS = 100_000
PATIENCE_SECONDS = 25.0  # of the world: what has not ended by then, well after the last fault, never will


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a mutant may need: a reconciliation that would make up for it out of the way, records that go at once."""

    reconcile: bool = True
    forget: bool = False
    adoption_window: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Laws:
    """The parts of which a world is made; a clause is taken out by giving another one."""

    settings: Settings = Settings()
    actors: Mapping[str, type[Actor]] = field(default_factory=dict)
    store: Callable[[], MemoryStore] = MemoryStore
    world: type[World] = World
    linger: float = 0.1  # seconds that a world goes on after its last job
    faults: Callable[[Random], Faults] = lambda random: Faults.drawn(random, seconds=FAULT_SECONDS)


WHOLE = Laws()
KINDS = {kind: find_actor(kind) for kind in ACTORS}  # found once: it takes longer than a run


@cache
def make_app(settings: Settings) -> Callboard:
    """Made once: its world is another one in each run."""
    slow = 3000.0
    app = Callboard(
        broker="memory://",
        store="memory://",
        lease_seconds=0.8,
        relay_grace_seconds=0.2,
        scan_interval=0.5,
        confirm_timeout=0.8,
        reconcile_grace_seconds=1.0 if settings.reconcile else slow,
        overtaken_seconds=1.0 if settings.reconcile else slow,
        adoption_window_seconds=settings.adoption_window,
        keep_completed_count=0 if settings.forget else 1000,
        max_stalled=2,
    )

    @app.task(name="work", queue=QUEUE, retries=2, backoff=0.2)
    async def work(name: str, seconds: float, failing: int, ctx: Context) -> str:
        await asyncio.sleep(seconds)
        if ctx.attempt <= failing:
            raise RuntimeError(name)
        return name

    @app.task(name="parent", queue=QUEUE, retries=1)
    async def parent(name: str, ctx: Context) -> str:
        job_id = None if settings.forget else f"{name}-child"
        await work.options(job_id=job_id).enqueue(f"{name}-child", 0.01, 0)
        return name

    @app.task(name="poison", queue=QUEUE)
    async def poison() -> None:
        await die()

    @app.every(
        1.0, name="beat", queue=QUEUE, id=SCHEDULE, start=START, end=START + timedelta(seconds=OCCURRENCES),
        policy=Policy.create(coalesce=False, catch_up=100),
    )  # fmt: skip
    async def beat() -> None:
        await asyncio.sleep(0.05)

    return app


class Producer:
    """Enqueues what it was told to, again and again until it has a yes, whether it dies in between or not."""

    def __init__(self, world: World, name: str, random: Random, settings: Settings) -> None:
        self._settings = settings
        self._world = world
        self._name = name
        self._seed = random.getrandbits(64)
        self.accepted: list[str] = []
        self.wanted: dict[str, str] = {}  # results, by id
        self._next = 0
        self._waits = random.random() < 0.5
        self._jobs: list[Callable[[Callboard], Awaitable[str]]] = [
            self._plan(number, random) for number in range(random.randint(2, 5))
        ]

    async def main(self, slot: Slot) -> None:
        random = Random(self._seed + slot.starts)
        async with self._world.app as app:
            while self._next < len(self._jobs):
                await asyncio.sleep(random.random() ** 3)
                try:
                    handle = await self._jobs[self._next](app)
                except EnqueueUncertain:
                    continue
                self.accepted.append(handle)
                self._next += 1
            if self._waits and self.wanted:
                await self._wait(app, random)

    async def _wait(self, app: Callboard, random: Random) -> None:
        id = random.choice(sorted(self.wanted))
        try:
            result = await app.queue(QUEUE).handle(id).result(timeout=PATIENCE_SECONDS)
        except JobFailed:
            return  # it was lost too often
        if result != self.wanted[id]:
            self._world.watch.wrong(f"{id} returned {result!r}, not {self.wanted[id]!r}")

    def _plan(self, number: int, random: Random) -> Callable[[Callboard], Awaitable[str]]:
        name = f"{self._name}-{number}"
        seconds = random.choice((0.0, 0.001, 0.05, 0.2, 1.0))
        failing = random.choice((0, 0, 0, 1, 3))
        delay = random.choice((None, None, 0.2, 0.6))
        kind = random.random()
        # Where ended jobs are forgotten, an id that comes again makes another job.
        fresh = random.random() < 0.3 or self._settings.forget

        async def add(app: Callboard) -> str:
            queue, id = app.queue(QUEUE), None if fresh else name
            if kind < 0.06:
                return await queue.add("poison", job_id=id)
            if kind < 0.2:
                return await queue.add("parent", [name], job_id=id)
            if kind < 0.35:  # of all that come in a second, one
                return await queue.add("work", ["one", 0.1, 0], job_id=id, deduplication={"id": "one", "ttl": 1.0})
            if kind < 0.45:
                return (await queue.add_bulk([self._item(f"{name}-{i}", fresh=fresh) for i in range(3)]))[-1]
            return await queue.add("work", [name, seconds, failing], job_id=id, delay=delay)

        if not fresh and kind >= 0.45 and failing <= 2:
            self.wanted[name] = name
        return add

    def _item(self, name: str, *, fresh: bool) -> dict[str, object]:
        return {"task_id": "work", "args": [name, 0.02, 0], "job_id": None if fresh else name}


@dataclass(slots=True)
class Operator:
    """Pauses the queue for a while."""

    world: World
    random: Random

    async def main(self, slot: Slot) -> None:
        async with self.world.app as app:
            await asyncio.sleep(self.random.random())
            while not await self._done(app.queue(QUEUE).pause):
                await asyncio.sleep(0.1)
            await asyncio.sleep(self.random.random() / 2)
            while not await self._done(app.queue(QUEUE).resume):
                await asyncio.sleep(0.1)

    async def _done(self, call: Callable[[], Awaitable[object]]) -> bool:
        try:
            await call()
        except StoreUnavailable:
            return False
        return True


class Play:
    """One run: who is there, and what has to be true when all is over."""

    def __init__(self, seed: int, laws: Laws) -> None:
        self._random = Random(f"scene {seed}")
        self._seed = seed
        self._laws = laws
        self._producers: list[Producer] = []

    def prepare(self, world: World) -> None:
        self.world = world
        for number in (1, 2):
            producer = Producer(world, f"p{number}", self._random, self._laws.settings)
            self._producers.append(producer)
            world.add(f"producer {number}", producer.main)
        if self._random.random() < 0.3:
            world.add("operator", Operator(world, self._random).main, safe=True)

    async def scenario(self, simulation: Simulation) -> None:
        """Wait for the end of everything."""
        world = self.world
        while not self._over():
            if world.loop.time() > FAULT_SECONDS + PATIENCE_SECONDS:
                return
            await simulation.sleep(0.1)
        await simulation.sleep(self._laws.linger)  # for what still is under way

    def _over(self) -> bool:
        world = self.world
        others = [slot for slot in world.slots.values() if slot.finite and slot.name != "scenario"]
        if not world.weather.well or not all(slot.ended for slot in others) or world.left_over():
            return False
        due = step(world.store.get(Schedules).get(QUEUE, [SCHEDULE]))[0]
        return due is not None and due.next_run is None

    def check(self) -> None:
        world, watch = self.world, self.world.watch
        ids = list(dict.fromkeys(itertools.chain.from_iterable(producer.accepted for producer in self._producers)))
        records = step(world.store.get(Inspection).get(QUEUE, ids))
        for id, record in zip(ids, records, strict=True):
            if (QUEUE, id) not in watch.final and (record is None or not record.state.final):
                watch.wrong(f"job {id} was accepted and is lost")
        self._check_occurrences()

    def _check_occurrences(self) -> None:
        """From the first one after the schedule was made, each, and each with one job."""
        store, watch = self.world.store, self.world.watch
        jobs: dict[str, set[str]] = {}
        for (_, _, moment), id in watch.occurrences.items():
            jobs.setdefault(moment, set()).add(id)
        for state in State:
            for job in step(store.get(Inspection).page(QUEUE, state, offset=0, limit=100, newest_first=False)):
                origin = json.loads(job.payload).get("meta", {}).get("schedule")
                if origin is not None:
                    jobs.setdefault(origin["occurrence"], set()).add(job.id)
        for moment, ids in jobs.items():
            if len(ids) > 1:
                watch.wrong(f"occurrence {moment} has {len(ids)} jobs: {sorted(ids)}")
        made = sorted(datetime.fromisoformat(moment) for moment in jobs)
        wanted = [START + timedelta(seconds=number) for number in range(OCCURRENCES + 1)]
        schedule = step(store.get(Schedules).get(QUEUE, [SCHEDULE]))[0]
        due = [moment for moment in wanted if schedule is None or moment.timestamp() * 1000 > schedule.created_at]
        if not set(due) <= set(made) or made != wanted[len(wanted) - len(made) :]:
            watch.wrong(f"occurrences were made of {[f'{one:%S}' for one in made]}")

    def run(self, trace: Callable[[str], None] | None) -> Report:
        laws = self._laws
        random = Random(f"laws {self._seed}")
        return simulate(
            make_app(laws.settings),
            self.scenario,
            seed=self._seed,
            faults=laws.faults(random),
            start=START,
            actors=[laws.actors.get(kind, actor) for kind, actor in KINDS.items()],
            replicas=2,
            processes=[["worker"], [kind for kind in ACTORS if kind != "worker"]] if random.random() < 0.7 else (),
            concurrency=random.choice((1, 3)),
            grace_seconds=1.0,
            store=laws.store(),
            durable=random.random() < 0.5,
            prepare=self.prepare,
            check=self.check,
            make_world=laws.world,
            most_steps=MOST_STEPS,
            most_seconds=FAULT_SECONDS + PATIENCE_SECONDS + 10,
            trace=trace,
        )


def run(seed: int, laws: Laws = WHOLE, trace: Callable[[str], None] | None = None) -> Report:
    """Raises Violated."""
    return Play(seed, laws).run(trace)
