"""Many tickets at a time, lost or kept back by a broker that is away, with the settings as they are shipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from callboard import Callboard
from callboard.actors.stalled_recovery import MOST_READY
from callboard.metadata.contract import MAX_BATCH, Jobs, Ready
from callboard.metadata.memory import MemoryStore
from callboard.metadata.memory.jobs import MemoryJobs
from callboard.runtime.metrics import RESENT, Value
from callboard.runtime.testing import Simulation, simulate
from callboard.runtime.testing.simulation.broker import SimulatedBroker
from callboard.runtime.testing.simulation.loop import Process
from callboard.runtime.testing.simulation.world import World

QUEUE = "images"
ACTORS = ("worker", "stalled-recovery")


class CountingJobs(MemoryJobs):
    taken = 0  # entries of the outbox, by relays

    async def take_unpublished(self, *given: Any, **named: Any) -> Sequence[Ready]:
        ready = await super().take_unpublished(*given, **named)
        self.taken += len(ready)
        return ready


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        jobs = self._offers[Jobs]
        assert isinstance(jobs, MemoryJobs)
        self.jobs = self._offers[Jobs] = CountingJobs(jobs._queues)


class LinesWorld(World):
    """Knows each process's line to the broker."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.lines: dict[str, SimulatedBroker] = {}

    def connect_broker(self, process: Process) -> SimulatedBroker:
        line = self.lines[process.name] = super().connect_broker(process)
        return line


def make_app() -> Callboard:
    app = Callboard(broker="memory://", store="memory://", metrics="prometheus")

    @app.task(name="work", queue=QUEUE)
    def work(number: int) -> int:
        return number

    return app


def resent(app: Callboard) -> dict[str, float]:
    """Of the metric: why -> how many."""
    assert app.metrics is not None
    (reading,) = (one for one in app.metrics.read() if one.instrument is RESENT)
    return {point.labels[0]: point.value for point in reading.points if isinstance(point, Value)}


async def enqueue(app: Callboard, count: int) -> None:
    await app.queue(QUEUE).add_bulk([{"task_id": "work", "args": [n], "job_id": f"n-{n}"} for n in range(count)])


def test_twenty_thousand_tickets_that_a_purge_has_lost_are_back_within_ninety_seconds() -> None:
    app, count = make_app(), 20_000

    async def a_purge(world: Simulation) -> None:
        assert isinstance(world.world, LinesWorld)
        await world.sleep(1)
        world.world.lines["worker 1.1"].cut(5)
        await world.sleep(1)
        await enqueue(app, count)
        await world.sleep(1)
        await app.connections.broker.purge(app.connections.names.job_queue(QUEUE))
        await world.settled(timeout=90)

    report = simulate(app, a_purge, actors=ACTORS, make_world=LinesWorld)
    assert len(report.runs) == count


def test_what_seems_overtaken_in_a_long_queue_is_sent_again_a_batch_at_a_time() -> None:
    app, count = make_app(), MOST_READY + 300
    copies: list[float] = []

    async def a_false_alarm(world: Simulation) -> None:
        assert isinstance(world.world, LinesWorld)
        await world.sleep(1)
        world.world.lines["worker 1.1"].cut(110)
        for number in range(count):  # one after the other: each has a message of its own
            await app.queue(QUEUE).add("work", [number])
        await world.sleep(65)
        jobs = world.world.store.get(Jobs)
        assert isinstance(jobs, MemoryJobs)
        jobs._queues[QUEUE].watermarks[5] = world.world.clock.now()
        await world.sleep(15)
        copies.append(resent(app)["lost"])
        await world.settled(timeout=90)

    report = simulate(app, a_false_alarm, actors=ACTORS, make_world=LinesWorld)
    assert copies[0] in range(MAX_BATCH, 5 * MAX_BATCH, MAX_BATCH)  # of looks each five seconds
    assert len(report.runs) == count


def test_an_outage_of_the_broker_leaves_a_large_outbox_alone_and_is_over_at_once() -> None:
    app, store, count, back = make_app(), CountingStore(), 2_000, 600

    async def an_outage(world: Simulation) -> None:
        assert isinstance(world.world, LinesWorld)
        await world.sleep(1)
        for line in world.world.lines.values():
            line.cut(back - world.world.loop.time())
        await world.sleep(1)
        await enqueue(app, count)
        await world.sleep(back - 1 - world.world.loop.time())
        assert resent(app) == {"unsent": 0}
        assert MAX_BATCH < store.jobs.taken < count / 2  # that it is tried now and then is seen, too
        await world.settled(timeout=30)

    report = simulate(app, an_outage, actors=ACTORS, store=store, make_world=LinesWorld)
    assert resent(app)["unsent"] == len(report.runs) == count
    assert sum(run.began < back + 2 for run in report.runs) > 0.9 * count
