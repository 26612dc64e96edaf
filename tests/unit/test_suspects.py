"""Jobs that killed their workers, beside others: what they may cost those, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from callboard import Callboard
from callboard.metadata.job import Job, State
from callboard.runtime.job_view import view
from callboard.runtime.testing import Simulation, simulate
from callboard.runtime.testing.simulation.loop import die

SLOTS = 10
LONG = 120.0  # seconds; it begins before those are over that a scene takes


class Scene:
    """An app with a job that its workers lose twice, and which then ends. `beside`: handlers that were under way in
    its worker when it ran then."""

    def __init__(self) -> None:
        self.app = Callboard(broker="memory://", store="memory://")
        self.beside: list[str] | None = None
        runs = 0

        @self.app.task(name="suspect")
        async def suspect() -> None:
            nonlocal runs
            runs += 1
            await asyncio.sleep(0.02)
            if runs < 3:
                await die()
            all_runs = self.world.world.watch.runs
            here = all_runs[-1].process
            self.beside = [run.task for run in all_runs[:-1] if run.process == here and run.ended is None]

        @self.app.task(name="long")
        async def long() -> None:
            await asyncio.sleep(LONG)

        @self.app.task(name="short")
        async def short() -> None:
            await asyncio.sleep(0.01)

        self.suspect, self.long, self.short = suspect, long, short

    async def stuck(self, world: Simulation) -> None:
        """The suspect has been lost twice; a job that outlasts a lease by far runs, and others come."""
        self.world = world
        await self.suspect.options(job_id="suspect").enqueue()
        while len(world.world.watch.runs) < 2:
            await world.sleep(0.05)
        await self.long.options(job_id="long").enqueue()
        while self.stalled < 2:
            await world.sleep(0.05)
        for number in range(20):
            await self.short.options(job_id=f"short-{number}").enqueue()
        await world.sleep(60)

    @property
    def stalled(self) -> int:
        job = self.world.job("default", "suspect")
        return 0 if job is None else job.stalled

    def state(self, id: str) -> str:
        job = self.world.job("default", id)
        assert job is not None
        return job.state


def test_a_suspect_waits_where_a_handler_does_not_end_and_the_worker_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()

    async def scenario(world: Simulation) -> None:
        await scene.stuck(world)
        assert {scene.state(f"short-{number}") for number in range(20)} == {"completed"}
        assert (scene.state("long"), scene.state("suspect")) == ("active", "waiting")
        await world.sleep(LONG)
        assert (scene.state("long"), scene.state("suspect")) == ("completed", "completed")

    simulate(scene.app, scenario, trace=lambda _: None)
    assert scene.beside == []
    told = [line for line in caplog.messages if "has to run alone" in line]
    assert len(told) == 1
    assert "job suspect of queue default" in told[0]
    assert "job long of task long did not end" in told[0]


def test_a_suspect_goes_to_a_worker_that_is_idle() -> None:
    scene = Scene()

    async def scenario(world: Simulation) -> None:
        await scene.stuck(world)
        assert (scene.state("long"), scene.state("suspect")) == ("active", "completed")

    simulate(scene.app, scenario, replicas=2)
    assert scene.beside == []


def test_a_worker_that_always_has_jobs_of_a_minute_waits_longer_for_a_suspect_each_time() -> None:
    scene = Scene()

    @scene.app.task(name="a-minute")
    async def a_minute() -> None:
        await asyncio.sleep(60)

    async def scenario(world: Simulation) -> None:
        scene.world = world
        await scene.suspect.options(job_id="suspect").enqueue()
        while len(world.world.watch.runs) < 2:
            await world.sleep(0.05)
        for _ in range(90):
            await a_minute.enqueue()
            await world.sleep(6)
        await world.settled()
        assert scene.state("suspect") == "completed"
        ran = next(run.began for run in reversed(world.world.watch.runs) if run.job == "suspect")
        assert ran < 480

    simulate(scene.app, scenario)
    assert scene.beside == []


@pytest.mark.parametrize("max_stalled", [0, 2])
def test_of_jobs_that_are_claimed_ahead_few_are_lost_with_one_that_was_lost_before(max_stalled: int) -> None:
    app = Callboard(broker="memory://", store="memory://", max_stalled=max_stalled)

    @app.task(name="kills")
    async def kills() -> None:
        await asyncio.sleep(0.3)
        await die()

    @app.task(name="short")
    async def short() -> None:
        await asyncio.sleep(0.002)

    made = 0
    beside: list[int | None] = []

    async def make(jobs: int, *more: dict[str, str]) -> None:
        nonlocal made
        shorts = [{"task_id": "short", "job_id": f"short-{n}"} for n in range(made, made + jobs)]
        half = jobs // 2
        await app.queue("default").add_bulk([*shorts[:half], *more, *shorts[half:]])
        made += jobs

    async def scenario(world: Simulation) -> None:
        def killer() -> Job:
            job = world.job("default", "killer")
            assert job is not None
            return job

        await make(600)
        await make(600, {"task_id": "kills", "job_id": "killer"})
        while killer().state is not State.FAILED:
            seconds = world.world.loop.time()
            if seconds < 1.5 or 10 < seconds < 12.5:  # it runs, and runs again
                await make(100)
            await world.sleep(0.05)
        await world.settled()
        beside.extend(loss.beside for loss in view(killer()).history)
        states = [world.job("default", f"short-{n}") for n in range(made)]
        failed = [job.id for job in states if job is None or job.state is not State.COMPLETED]
        lost_twice = [job.id for job in states if job is not None and job.stalled == 2]
        assert len(failed) <= (0 if max_stalled else SLOTS - 1)
        assert len(lost_twice) <= SLOTS - 1

    simulate(app, scenario, concurrency=SLOTS, durable=False)
    if max_stalled:
        first, second, last = beside
        assert first is not None
        assert first >= SLOTS  # they were claimed ahead
        assert second is not None
        assert second < SLOTS
        assert last == 0
    else:
        assert beside[0] is not None
        assert beside[0] < SLOTS
