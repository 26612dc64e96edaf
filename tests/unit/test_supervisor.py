from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import ClassVar

import pytest

from callboard import Callboard, ConfigurationError
from callboard.metadata.contract import QueueControl
from callboard.runtime.actor import Actor, Options, Stage
from callboard.runtime.errors import GaveUp
from callboard.runtime.rounds import RoundsActor
from callboard.runtime.supervisor import MAX_RESTARTS, WITHIN_SECONDS, Supervisor


class StillClock:
    """Time passes only in sleeps, and `per_run` seconds with each run of an actor."""

    def __init__(self) -> None:
        self.time = 0.0
        self.slept: list[float] = []

    def now(self) -> int:
        return round(self.time * 1000)

    def elapsed(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


class Scripted(Actor):
    """Each run does the next thing of the script; after the last it waits for the end."""

    kind = "scripted"
    script: ClassVar[list[Callable[[], None]]]
    stages: ClassVar[list[Stage]]
    ended: ClassVar[list[str]]

    async def run(self) -> None:
        type(self).stages.append(self.stage)
        if type(self).script:
            type(self).script.pop(0)()
        await self.stage.stopping.wait()
        type(self).ended.append("hurried" if self.stage.hurry.is_set() else "in order")


def actor_with(*script: Callable[[], None], kind_name: str = "scripted") -> type[Scripted]:
    return type("One", (Scripted,), {"kind": kind_name, "script": list(script), "stages": [], "ended": []})


def fail() -> None:
    raise ValueError("broken")


class House:
    def __init__(self, *actors: type[Scripted]) -> None:
        self.clock = StillClock()
        self.app = Callboard(broker="memory://", store="memory://", clock=self.clock)
        self.supervisor = Supervisor(self.app, self._make_stage, list(actors), Random(1))

    def _make_stage(self, actor: type[Actor]) -> Stage:
        return Stage(actor, self.app, Options(), random=Random(1))

    async def run(self, until: Callable[[], bool]) -> None:
        async with self.app:
            running = asyncio.create_task(self.supervisor.run())
            async with asyncio.timeout(5):
                while not until() and not running.done():
                    await asyncio.sleep(0)
            self.supervisor.stop()
            await running


class Failing(RoundsActor):
    """Each start does one round, which fails."""

    kind = "failing"
    requires = (QueueControl,)
    made: ClassVar[list[weakref.ref[Failing]]] = []
    mailboxes: ClassVar[set[str]] = set()

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.made.append(weakref.ref(self))
        self.mailboxes.add(stage.mailbox)

    async def round(self) -> float:
        raise ValueError("broken")


async def test_an_actor_that_is_started_again_leaves_neither_a_queue_nor_itself_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "callboard.supervisor")  # what is recorded keeps the frames of its traceback
    clock = StillClock()
    app = Callboard(broker="memory://", store="memory://", clock=clock)

    def make_stage(actor: type[Actor]) -> Stage:
        clock.time += 2 * WITHIN_SECONDS
        return Stage(actor, app, Options(), random=Random(1))

    supervisor = Supervisor(app, make_stage, [Failing], Random(1))
    async with app, asyncio.timeout(60):
        running = asyncio.create_task(supervisor.run())
        while len(Failing.made) < 20:
            await asyncio.sleep(0)
        supervisor.stop()
        with suppress(ValueError):  # where a round was under way
            await running
        gc.collect()
        assert len(Failing.mailboxes) == 1
        assert sum(1 for made in Failing.made if made() is not None) <= 2


def be_cancelled_by_nobody() -> None:
    raise asyncio.CancelledError


async def test_an_actor_that_ends_with_a_cancellation_of_what_it_waited_for_is_started_again() -> None:
    actor = actor_with(be_cancelled_by_nobody)
    await House(actor).run(lambda: len(actor.stages) == 2)
    assert actor.ended == ["in order"]


async def test_a_supervisor_that_is_cancelled_starts_nothing_again() -> None:
    actor = actor_with()
    house = House(actor)
    async with house.app, asyncio.timeout(60):
        running = asyncio.create_task(house.supervisor.run())
        while not actor.stages:
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        for _ in range(10):
            await asyncio.sleep(0)
    assert len(actor.stages) == 1


async def test_an_actor_that_fails_is_started_again_as_a_new_instance() -> None:
    actor = actor_with(fail, fail)
    await House(actor).run(lambda: len(actor.stages) == 3)
    assert len({stage.instance for stage in actor.stages}) == 3
    assert actor.ended == ["in order"]


async def test_the_pauses_before_restarts_grow_and_are_jittered() -> None:
    actor = actor_with(*[fail] * MAX_RESTARTS)
    house = House(actor)
    await house.run(lambda: len(actor.stages) == MAX_RESTARTS + 1)
    pauses = house.clock.slept
    assert all(0.1 * 2**n <= pause <= 0.2 * 2**n for n, pause in enumerate(pauses, start=1)), pauses
    assert len(pauses) == MAX_RESTARTS


async def test_past_the_restart_intensity_it_gives_up_and_stops_the_others_in_order() -> None:
    broken, sound = actor_with(*[fail] * 99, kind_name="broken"), actor_with(kind_name="sound")
    with pytest.raises(GaveUp, match="actor broken failed 6 times within 60 s: giving up") as gave_up:
        await House(broken, sound).run(lambda: False)
    assert isinstance(gave_up.value.__cause__, ValueError)
    assert len(broken.stages) == MAX_RESTARTS + 1
    assert sound.ended == ["in order"]


async def test_failures_that_are_long_ago_do_not_count() -> None:
    house: House

    def fail_later() -> None:
        house.clock.time += WITHIN_SECONDS
        raise ValueError

    actor = actor_with(*[fail_later] * (3 * MAX_RESTARTS))
    house = House(actor)
    await house.run(lambda: len(actor.stages) == 3 * MAX_RESTARTS + 1)
    assert max(house.clock.slept) <= 0.4


async def test_an_actor_that_ends_unasked_is_started_again_and_counts_as_failed() -> None:
    class Hasty(Scripted):
        script: ClassVar[list[Callable[[], None]]] = []
        stages: ClassVar[list[Stage]] = []
        ended: ClassVar[list[str]] = []

        async def run(self) -> None:
            type(self).stages.append(self.stage)

    with pytest.raises(GaveUp, match="actor scripted failed 6 times") as gave_up:
        await House(Hasty).run(lambda: False)
    assert str(gave_up.value.__cause__) == "actor scripted ended though it was not being stopped"
    assert len(Hasty.stages) == MAX_RESTARTS + 1


async def test_a_wrong_configuration_is_not_tried_again() -> None:
    def refuse() -> None:
        raise ConfigurationError("no queue to serve")

    broken, sound = actor_with(refuse), actor_with(kind_name="sound")
    with pytest.raises(ConfigurationError, match="no queue to serve"):
        await House(broken, sound).run(lambda: False)
    assert len(broken.stages) == 1
    assert sound.ended == ["in order"]


async def test_stopping_ends_every_actor_in_order_and_hurry_reaches_them() -> None:
    actors = [actor_with(), actor_with(kind_name="second")]
    house = House(*actors)
    async with house.app:
        running = asyncio.create_task(house.supervisor.run())
        while not all(actor.stages for actor in actors):
            await asyncio.sleep(0)
        house.supervisor.stop(hurry=True)
        await running
    assert [actor.ended for actor in actors] == [["hurried"]] * 2


async def test_a_supervisor_that_is_stopped_before_it_runs_starts_nothing() -> None:
    actor = actor_with()
    house = House(actor)
    house.supervisor.stop()
    async with house.app:
        await house.supervisor.run()
    assert actor.stages == []


async def test_what_an_actor_raises_while_it_is_stopped_comes_out() -> None:
    class Clumsy(Scripted):
        script: ClassVar[list[Callable[[], None]]] = []
        stages: ClassVar[list[Stage]] = []
        ended: ClassVar[list[str]] = []

        async def run(self) -> None:
            await super().run()
            raise OSError("at the very end")

    with pytest.raises(OSError, match="at the very end"):
        await House(Clumsy).run(lambda: bool(Clumsy.stages))
