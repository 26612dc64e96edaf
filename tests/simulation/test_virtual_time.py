"""What users have of the simulator: their schedules in no time, their handlers crashed wherever they wait."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from callboard import Callboard
from callboard.metadata.contract import Jobs
from callboard.metadata.errors import StoreUnavailable
from callboard.metadata.memory import MemoryStore
from callboard.metadata.memory.jobs import MemoryJobs
from callboard.runtime.testing import Faults, Report, Simulation, Violated, crash_at_every_step, simulate
from callboard.runtime.testing.simulation.loop import die


def make_app() -> Callboard:
    return Callboard(broker="memory://", store="memory://")


async def a_month(world: Simulation) -> None:
    await world.sleep(timedelta(days=31))


def test_a_month_of_nightly_jobs_takes_moments_and_none_is_late() -> None:
    app = make_app()

    @app.cron("30 2 * * *", name="report", timezone="Europe/Berlin")
    async def report() -> None:
        await asyncio.sleep(600)

    began = time.process_time()
    times = simulate(app, a_month, start=datetime(2026, 3, 1, tzinfo=UTC)).times("report")
    assert time.process_time() - began < 20  # about a third of a second on an idle machine
    expected = [datetime(2026, 3, day, 1, 30, tzinfo=UTC) for day in range(1, 29)]
    # On the 29th the clocks skip the hour: it runs when they are moved.
    expected += [datetime(2026, 3, 29, 1, 0, tzinfo=UTC)]
    expected += [datetime(2026, 3, day, 0, 30, tzinfo=UTC) for day in (30, 31)]
    assert len(times) == len(expected)
    assert all(timedelta(0) <= at - due < timedelta(seconds=0.5) for at, due in zip(times, expected, strict=True))


def test_a_run_that_is_more_than_an_idle_round_away_is_not_late() -> None:
    app = make_app()

    @app.every(61, name="tick")
    async def tick() -> None:
        pass

    async def ten_minutes(world: Simulation) -> None:
        for _ in range(600):
            await world.sleep(1)  # so that nothing is skipped

    times = simulate(app, ten_minutes).times("tick")
    assert len(times) == 9
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert all(abs(gap - timedelta(seconds=61)) < timedelta(seconds=0.5) for gap in gaps)


def test_a_handler_is_crashed_at_each_of_its_awaits_and_its_job_completes_every_time() -> None:
    app = make_app()
    sent: list[int] = []
    charged: set[int] = set()

    @app.task(name="charge")
    async def charge(order: int) -> None:
        await asyncio.sleep(0.1)
        charged.add(order)
        await asyncio.sleep(0.1)
        sent.append(order)

    async def an_order(world: Simulation) -> None:
        sent.clear()
        charged.clear()
        await charge.enqueue(1)
        await world.settled()

    mails: list[int] = []

    def check(report: Report) -> None:
        assert charged == {1}
        mails.append(len(sent))

    steps = crash_at_every_step(app, an_order, check=check)
    assert steps == 4  # before it begins, at two awaits, after its end
    assert mails == [1, 1, 1, 1, 2]  # it mailed twice where it died after its end: it has to ask whether it has


def test_a_job_that_kills_each_of_its_workers_fails_and_others_complete() -> None:
    app = make_app()

    @app.task(name="poison")
    async def poison() -> None:
        await die()

    @app.task(name="work")
    async def work() -> str:
        await asyncio.sleep(1)
        return "done"

    async def both(world: Simulation) -> None:
        bad, good = await poison.enqueue(), await work.enqueue()
        await world.settled()
        killer = world.job("default", bad.id)
        assert killer is not None
        assert (killer.state, killer.stalled) == ("failed", 2)
        assert await good.result() == "done"

    simulate(app, both)


class FailsToRelay(MemoryJobs):
    failures = 1

    async def take_unpublished(self, *given: Any, **named: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("memory://", "for once")
        return await super().take_unpublished(*given, **named)


class FailsOnce(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        jobs = self._offers[Jobs]
        assert isinstance(jobs, MemoryJobs)
        self._offers[Jobs] = FailsToRelay(jobs._queues)


def test_recovery_goes_on_when_its_relay_has_failed_once() -> None:
    app = make_app()

    @app.task(name="work")
    async def work() -> None:
        await asyncio.sleep(0.1)

    async def one(world: Simulation) -> None:
        await world.sleep(1)
        await work.enqueue()
        await world.settled(timeout=60)

    assert len(simulate(app, one, crash_at_step=2, store=FailsOnce()).runs) == 2


def test_faults_come_by_the_seed_and_what_a_scenario_finds_wrong_is_raised() -> None:
    app = make_app()

    @app.task(name="work", retries=1)
    def work(number: int) -> int:
        return number

    async def ten(world: Simulation) -> None:
        for number in range(10):
            await work.options(job_id=f"n-{number}").enqueue(number)
        await world.settled()
        assert world.job("default", "n-10") is not None, "there are only ten"

    with pytest.raises(AssertionError, match="only ten") as raised:
        simulate(app, ten, seed=3, faults=Faults(seconds=5, crashes=0.5, cuts=0.5, lost_replies=0.1))
    assert not isinstance(raised.value, Violated)


def test_an_app_is_its_own_again_after_a_simulation() -> None:
    app = make_app()

    @app.task(name="work")
    async def work() -> None: ...

    before = app.clock, app.opened, app.tasks
    simulate(app, lambda world: world.sleep(1))
    assert (app.clock, app.opened, app.tasks) == before
